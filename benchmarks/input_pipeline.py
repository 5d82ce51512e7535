"""Measures the input pipeline of training: from audio files to batches for the training device.

    python benchmarks/input_pipeline.py
    python benchmarks/input_pipeline.py --audio_dir speech/train --num_batches 100

The baseline is `tf.data.Dataset.from_generator` around librosa: load, join, crop, STFT, normalise
(benchmarks/baseline.py). Ours is `utils.reader.TrainingReader`: worker processes cut the crop out
of the waveform and pass it on as 16-bit samples; the training device computes the spectrogram batch
by batch, which is measured here too, on this processor. The first batch of each is not counted. The
clips are 4 s of synthetic voices, or of the recordings in --audio_dir, as wav and as flac. The last
lines estimate the throughput of 16 cores beside a GPU.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measuring import (
    ROOT,
    Row,
    add_json_option,
    num_cores,
    run_json,
    table,
    write_results,
)
from utils.arguments import make_parser, positive_int
from utils.errors import AudioError, run_script

FORMATS = ("wav", "flac")
CLIP_S = 4.0
SUFFIXES = {".wav", ".flac", ".ogg", ".mp3", ".opus"}
BASELINE, BARE = "the baseline's way", "ours, the same steps"
FULL = "ours, silence cut and augmented as make_model.sh does"
GPU_CORES = 16
GPU_CROPS_PER_S = 13_000
GPU_VIEWS = 6
AUGMENTATIONS = {
    "reverb": 0.3, "telephone": 0.3, "babble": 0.35, "equalizer": 0.1, "gain": 0.05,
    "clipping": 0.05, "codec": 0.02, "flip": 0.0, "spec_mask": 0.4, "noise": 0.35,
}  # fmt: skip
"""As tools/make_model.sh augments."""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--audio_dir", metavar="DIR", help="folder of recordings, searched with its subfolders")
    add("--num_clips", type=positive_int, default=256)
    add("--batch_size", type=positive_int, default=32)
    add("--num_batches", type=positive_int, default=60, help="batches of ours that are timed")
    add("--baseline_batches", type=positive_int, default=12, help="batches of the baseline's way")
    add_json_option(parser)
    add("--side", choices=["read", "spectrogram"], help=argparse.SUPPRESS)
    add("--folder", help=argparse.SUPPRESS)
    add("--suffix", choices=FORMATS, help=argparse.SUPPRESS)
    add("--num_workers", type=int, default=num_cores(), help=argparse.SUPPRESS)
    add("--augmented", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.side:
        print(
            json.dumps(measure_reader(args) if args.side == "read" else measure_spectrogram(args))
        )
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_clips(folder, args)
        rates: dict[tuple[str, str], float] = {}
        for suffix in FORMATS:
            files = sorted(folder.glob(f"*.{suffix}"))
            baseline: list[str | Path] = [
                sys.executable,
                ROOT / "benchmarks" / "baseline.py",
                "read",
                *files,
            ]
            baseline += [
                f"--batch_size={args.batch_size}",
                f"--num_batches={args.baseline_batches}",
            ]
            rates[suffix, BASELINE] = run_json(baseline)
            rates[suffix, BARE] = ours(args, folder, suffix)
            rates[suffix, FULL] = ours(args, folder, suffix, "--augmented")
        core_rate = ours(args, folder, "wav", "--num_workers", "1")
        augmented_rate = ours(args, folder, "wav", "--num_workers", "1", "--augmented")
        device_rate = run_json(
            [sys.executable, __file__, "--side=spectrogram", f"--batch_size={args.batch_size}"]
        )
    report(args, rates, core_rate, augmented_rate, device_rate)
    return 0


def make_clips(folder: Path, args: argparse.Namespace) -> None:
    """Writes the clips in both formats.

    Raises:
        AudioError: If the folder holds too few recordings.
    """
    import numpy as np
    import soundfile

    from tests.support.synthetic_voices import synthetic_speech
    from utils.audio.decode import load_audio
    from utils.audio.spectrogram import extend
    from utils.audio.waveform import SAMPLE_RATE

    size = round(CLIP_S * SAMPLE_RATE)
    found: list[Path] = []
    if args.audio_dir:
        paths = sorted(Path(args.audio_dir).rglob("*"))
        found = [path for path in paths if path.suffix.lower() in SUFFIXES][: args.num_clips]
        if not found:
            raise AudioError(f"{args.audio_dir}: no recordings found")
    for number in range(args.num_clips):
        if found:
            waveform = extend(load_audio(found[number % len(found)]), size)
        else:
            waveform = synthetic_speech(number % 32, number // 32, CLIP_S)
        for suffix in FORMATS:
            samples = np.round(waveform * 32767).astype(np.int16)
            soundfile.write(folder / f"{number:04d}.{suffix}", samples, SAMPLE_RATE)


def ours(args: argparse.Namespace, folder: Path, suffix: str, *options: str) -> float:
    """Returns clips a second of our reader, measured in a process of its own."""
    command: list[str | Path] = [sys.executable, __file__, "--side=read", "--folder", folder]
    command += ["--suffix", suffix]
    command += [f"--batch_size={args.batch_size}", f"--num_batches={args.num_batches}", *options]
    return float(run_json(command))


def measure_reader(args: argparse.Namespace) -> float:
    """Returns clips a second of `TrainingReader` in this process."""
    from utils.corpus.lists import Utterance
    from utils.crops.augment import AugmentSettings
    from utils.crops.batches import ReaderSettings
    from utils.reader import TrainingReader

    paths = sorted(Path(args.folder).glob(f"*.{args.suffix}"))
    utterances = [Utterance(str(path), number % 32) for number, path in enumerate(paths)]
    # As the baseline: the clip as it is, flipped now and then.
    chances: dict[str, Any] = AUGMENTATIONS if args.augmented else {}
    augment = AugmentSettings(**chances)
    settings = ReaderSettings(
        args.batch_size,
        remove_silence=args.augmented,
        join_clips=args.augmented,
        augment=augment,
    )
    num_batches = args.num_batches
    if args.augmented or args.num_workers == 1:
        num_batches = max(num_batches // 3, 2)
    # Batches made while waiting for the first ones must not count.
    skipped = 2 * args.num_workers + 2
    with TrainingReader(utterances, settings, args.num_workers) as reader:
        batches = reader.epoch(1, num_batches + skipped)
        for _ in range(skipped):
            next(batches)
        start = time.perf_counter()
        num_read = sum(len(batch.waveforms) for batch in batches)
        return num_read / (time.perf_counter() - start)


def measure_spectrogram(args: argparse.Namespace) -> float:
    """Returns crops a second of the spectrogram layer on this processor, from 16-bit samples."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import numpy as np
    import tensorflow as tf

    from utils.audio.spectrogram import CROP_SAMPLES
    from utils.resnet import Spectrogram

    layer = Spectrogram()
    function: Any = tf.function(lambda x: layer(tf.cast(x, tf.float32) / 32767.0))
    rng = np.random.default_rng(0)
    batch = rng.integers(-9000, 9000, (args.batch_size, CROP_SAMPLES)).astype(np.int16)
    function(batch)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < 2.0:
        function(batch).numpy()
        count += args.batch_size
    return count / (time.perf_counter() - start)


def report(
    args: argparse.Namespace,
    rates: dict[tuple[str, str], float],
    core_rate: float,
    augmented_rate: float,
    device_rate: float,
) -> None:
    """Prints and writes the figures."""
    lines = []
    # Both on the same cores, one after the other, as without another device.
    together = {s: 1 / (1 / rates[s, BARE] + 1 / device_rate) for s in FORMATS}
    for suffix in FORMATS:
        for title, rate in (
            (BASELINE, rates[suffix, BASELINE]),
            (BARE, rates[suffix, BARE]),
            ("ours, the spectrogram on the same cores too", together[suffix]),
            (FULL, rates[suffix, FULL]),
        ):
            lines.append([title, suffix, f"{rate:,.0f}", f"{rate / rates[suffix, BASELINE]:.1f}"])
    cores = f"{num_cores()} cores"
    first = table([f"reading, {cores}", "files", "clips/s", "times the baseline's"], lines)
    readers = GPU_CORES - 1
    clips, augmented = readers * core_rate, readers * augmented_rate
    arithmetic = (
        f"One reading process makes {core_rate:,.0f} clips a second of wav files, augmented as "
        f"the recipe does {augmented_rate:,.0f}; the baseline's way makes "
        f"{rates['wav', BASELINE]:,.0f}, however many cores there are. Beside a GPU "
        f"with {GPU_CORES} cores, {readers} that read make {clips:,.0f} clips a second, "
        f"augmented {augmented:,.0f}. An H100 trains on "
        f"{GPU_CROPS_PER_S:,} crops a second (measured, see training speed). Without augmentation "
        f"that is {GPU_CROPS_PER_S / clips:.1f} crops of each clip that is read; augmented it is "
        f"{GPU_CROPS_PER_S / augmented:.1f}, and `--num_views {GPU_VIEWS}` of the recipe cuts "
        f"{GPU_VIEWS} on the GPU: {GPU_VIEWS * augmented:,.0f} a second. The spectrogram is the "
        f"GPU's work too; on these {cores} it takes {1000 / device_rate:.2f} ms a crop."
    )
    details = f"{first}\n\n{arithmetic}"
    print(details)
    rows = [
        Row(f"input pipeline, {suffix}, {cores}",
            f"{BASELINE}: {rates[suffix, BASELINE]:,.0f} clips/s",
            f"{rates[suffix, BARE]:,.0f} clips/s",
            f"{rates[suffix, BARE] / rates[suffix, BASELINE]:.1f}x", ">= 8x")
        for suffix in FORMATS
    ]  # fmt: skip
    write_results(args.json, rows, details, ["tensorflow", "librosa", "soundfile"])


if __name__ == "__main__":
    run_script(main)
