r"""Measures the speech detector: speech that it refuses, other sounds that it accepts, its cost.

    python benchmarks/speech_detection.py speech/dev.tsv --root speech --noise speech/noise \
        --words speech/train.tsv

The list is a table with a header and tab-separated columns path and speaker. Recordings under
--noise are called by their folder; long ones are cut into pieces of 5 s. Synthetic sounds (noise,
hum, tones of the telephone, music) of 1.5, 3 and 6 s are made by the program. The cost is the
processor time of the detector for one recording of the list, and that of the speaker model.
"""

import argparse
import csv
import datetime
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.speaker_models import read_items
from tests.support.synthetic_sounds import sounds
from utils.arguments import make_parser, positive_int
from utils.arrays import FloatArray
from utils.audio.activity import remove_silence
from utils.audio.decode import load_audio
from utils.audio.recording import Recording
from utils.audio.waveform import SAMPLE_RATE
from utils.errors import run_script
from utils.files import write_text_atomically

PIECE_S = 5.0
LONGEST_WORD_S = 1.3
FEWEST_WORDS, MOST_WORDS = 50, 250
"""Clips of a corpus that are measured; one with fewer has sentences, not words."""

TIMED = 20
"""Recordings whose processor time is measured; the median counts."""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("list_path", help="table of utterances")
    add("--root", default=".", help="folder that the paths are relative to")
    add("--noise", metavar="DIR", help="folder of recordings in which nobody speaks")
    add("--words", metavar="LIST", help="table with a column of seconds: its clips under 1.3 s too")
    add("--seeds", type=positive_int, default=4, help="synthetic sounds of each kind and length")
    add("--model_path", help="speaker model that the cost is compared with")
    add("--output", help="file for the table, else it is only printed")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measures and prints the table."""
    args = parse_args(argv)
    paths = [Path(args.root) / item.path for item in read_items(args.list_path)]
    refused = [path for path in paths if Recording.load(path).missing_speech]
    for path in refused:
        print(f"refused: {path}", file=sys.stderr)
    rows = [("speech", len(paths), len(paths) - len(refused))]
    counts: dict[str, list[bool]] = {}
    sounds_and_words = chain(words(args.words, args.root), other_sounds(args.noise, args.seeds))
    for name, sound in sounds_and_words:
        counts.setdefault(name, []).append(Recording(sound).missing_speech is None)
    rows += [(name, len(accepted), sum(accepted)) for name, accepted in counts.items()]
    text = markdown(args.list_path, rows, cost(paths, args.model_path))
    print(text)
    if args.output:
        write_text_atomically(args.output, text)
    return 0


def words(list_path: str | None, root: str) -> Iterator[tuple[str, FloatArray]]:
    """Yields `(kind, waveform)` of up to 250 clips of single words of each corpus."""
    corpora: dict[str, list[str]] = {}
    if list_path:
        with open(list_path, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                if float(row["seconds"]) < LONGEST_WORD_S:
                    corpora.setdefault(Path(row["path"]).parts[1], []).append(row["path"])
    for corpus, paths in sorted(corpora.items()):
        if len(paths) >= FEWEST_WORDS:
            for path in paths[:: max(len(paths) // MOST_WORDS, 1)][:MOST_WORDS]:
                yield f"words, {corpus}", load_audio(Path(root) / path)


def other_sounds(folder: str | None, num_seeds: int) -> Iterator[tuple[str, FloatArray]]:
    """Yields `(kind, waveform)` of recorded and synthetic sounds in which nobody speaks."""
    piece = round(PIECE_S * SAMPLE_RATE)
    for path in sorted(Path(folder).rglob("*.*")) if folder else []:
        waveform = load_audio(path)
        starts = range(0, max(len(waveform) - piece, 1), piece)
        for start in starts if len(waveform) > 3 * piece else [0]:
            end = start + piece if len(waveform) > 3 * piece else None
            yield f"recorded, {path.parent.name}", waveform[start:end]
    for duration_s in (1.5, 3.0, 6.0):
        for seed in range(num_seeds):
            for name, sound in sounds(duration_s, seed).items():
                yield f"synthetic, {name.split(',')[0].split(' of ')[0]}", sound


def cost(paths: Sequence[Path], model_path: str | None) -> tuple[float, float]:
    """Returns milliseconds of one core for 3 s: of the detector, and of the speaker model."""
    from utils.model.encoder import SpeakerEncoder

    encoder = SpeakerEncoder(model_path, 1)
    embed = encoder._embed_window

    def hear_all(waveform: FloatArray) -> str | None:
        return Recording(waveform).missing_speech

    step = max(len(paths) // TIMED, 1)
    times = []
    for path in paths[::step][:TIMED]:
        waveform = np.resize(load_audio(path), 3 * SAMPLE_RATE)
        speech = remove_silence(waveform)
        row = []
        for function, heard in ((hear_all, waveform), (embed, speech)):
            function(heard)
            start = time.thread_time()
            function(heard)
            row.append(1000 * (time.thread_time() - start))
        times.append(row)
    detector_ms, model_ms = np.median(times, axis=0)
    return float(detector_ms), float(model_ms)


def markdown(
    list_path: str, rows: Sequence[tuple[str, int, int]], times_ms: tuple[float, float]
) -> str:
    """Returns the report: one table, one row per kind of sound."""
    detector_ms, model_ms = times_ms
    lines = [
        f"Speech: {Path(list_path).name}, {datetime.date.today().isoformat()}, "
        "`python benchmarks/speech_detection.py`. One core: the detector takes "
        f"{detector_ms:.1f} ms for 3 s, the speaker model {model_ms:.1f} ms.",
        "",
        "| sound | recordings | accepted as speech | % |",
        "|---|---:|---:|---:|",
        *(f"| {name} | {num} | {good} | {100 * good / num:.2f} |" for name, num, good in rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_script(main)
