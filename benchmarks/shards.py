"""Measures reading for training where each opening of a file takes time, as on a file server.

    python benchmarks/shards.py
    python benchmarks/shards.py --latency_ms 20 --num_clips 2000

The same clips are read as files and as shards, through the reader of train.py in one process; what
opens a file waits first, 5 ms by default. What is made of the clips, batches of crops, is counted.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measuring import Row, add_json_option, table, write_results
from tests.support.synthetic_voices import synthetic_speech, write_wav
from utils.arguments import make_parser, non_negative_float, positive_int
from utils.audio.decode import duration_seconds, load_audio
from utils.corpus import shards
from utils.corpus.lists import Utterance
from utils.corpus.shards import read_training_shards, write_shards
from utils.crops import batches
from utils.crops.batches import ReaderSettings
from utils.engine.engine import LocalEngine
from utils.errors import run_script
from utils.reader import TrainingReader

CLIP_S = 3.0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--latency_ms", type=non_negative_float, default=5.0, help="of each opening")
    add("--num_clips", type=positive_int, default=960)
    add("--num_shards", type=positive_int, default=8)
    add("--batch_size", type=positive_int, default=32)
    add_json_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = make_clips(folder / "speech", args.num_clips)
        write_shards(folder / "shards", clips, args.num_shards, LocalEngine(1))
        rates = {
            "files, no latency": measure(clips, None, args, 0.0),
            "files": measure(clips, None, args, args.latency_ms),
        }
        clips, _, sharded = read_training_shards(str(folder / "shards"), None)
        rates["shards, no latency"] = measure(clips, sharded, args, 0.0)
        rates["shards"] = measure(clips, sharded, args, args.latency_ms)
    ratio = rates["shards"] / rates["files"]
    lines = [[what, f"{rate:,.0f}"] for what, rate in rates.items()]
    details = table([f"{args.latency_ms:g} ms an opening", "clips/s"], lines)
    print(details)
    print(f"shards against files: {ratio:.1f}x")
    files, ours = (f"{rates[key]:,.0f} clips/s" for key in ("files", "shards"))
    row = Row("reading, 5 ms an opening", f"{files} (files)", ours, f"{ratio:.1f}x", "")
    write_results(args.json, [row], details)
    return 0


def make_clips(folder: Path, num_clips: int) -> list[Utterance]:
    """Writes wav files of a few synthetic speakers."""
    sounds = [synthetic_speech(number, 0, CLIP_S) for number in range(16)]
    return [
        Utterance(str(write_wav(folder / str(n % 16) / f"{n}.wav", sounds[n % 16])), n % 16)
        for n in range(num_clips)
    ]


def measure(
    clips: Sequence[Utterance], sharded: Any, args: argparse.Namespace, latency_ms: float
) -> float:
    """Returns clips a second, through one epoch of the training's reader."""
    settings = ReaderSettings(batch_size=args.batch_size, remove_silence=False, join_clips=False)
    num_batches = len(clips) // args.batch_size
    with slow_openings(latency_ms / 1000), TrainingReader(clips, settings, 0, None, sharded) as r:
        start = time.perf_counter()
        num_read = sum(len(batch.labels) for batch in r.epoch(1, num_batches))
        return num_read / (time.perf_counter() - start)


@contextmanager
def slow_openings(latency_s: float) -> Iterator[None]:
    """Lets each opening of a file or a shard wait first, while the block runs."""

    def late(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(source: Any, **options: Any) -> Any:
            if not isinstance(source, bytes):
                time.sleep(latency_s)
            return function(source, **options)

        return call

    with (
        mock.patch.object(batches, "load_audio", late(load_audio)),
        mock.patch.object(batches, "duration_seconds", late(duration_seconds)),
        mock.patch.object(shards, "open_place", late(shards.open_place)),
    ):
        yield


if __name__ == "__main__":
    run_script(main)
