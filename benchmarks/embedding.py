"""Measures embeddings: one of 3 s on one core, and many files on all cores.

    python benchmarks/embedding.py
    python benchmarks/embedding.py --audio_dir speech/dev --num_files 1000

One: median time from a 3 s file to its embedding, each model in a process limited to one core.
Many: files a second through `SpeakerEncoder.embed_files`, and through eval.py's
`utils.verification.evaluation.embed_clips`. The baseline runs `librosa.load` and one
`model.predict` per file (benchmarks/baseline.py); Resemblyzer and CAM++ are measured if installed.
Without --audio_dir the clips are 3 s of the shipped recordings and synthetic voices; with it, the
middle 3 s of each file.
"""

import argparse
import json
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
    median,
    num_cores,
    run_command,
    run_json,
    table,
    use_one_core,
    write_results,
)
from benchmarks.peers import TITLES, Peers, add_peer_options
from utils.arguments import make_parser, positive_int
from utils.errors import AudioError, run_script

CLIP_S = 3.0
BASELINE, DEFAULT, KERAS, INT8 = (
    "the baseline's way",
    "ours",
    "ours, .keras model",
    "ours, in 8 bits",
)
SUFFIXES = {".wav", ".flac", ".ogg", ".mp3", ".opus"}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--audio_dir", metavar="DIR", help="folder of recordings, searched with its subfolders")
    add("--num_files", type=positive_int, default=200, help="files that ours embeds")
    add(
        "--baseline_files",
        type=positive_int,
        default=40,
        help="files that the baseline's loop embeds",
    )
    add("--one_files", type=positive_int, default=40, help="files for the time of one")
    add("--rounds", type=positive_int, default=2, help="turns of the many; the median counts")
    add("--model_path", help="model of ours (default: the encoder's)")
    add("--keras_model", default="models/campplus.keras", help="the same model for Keras")
    add("--int8_model", default="models/campplus.int8.onnx", help="in 8 bits, if there is one")
    add_peer_options(parser)
    add_json_option(parser)
    add("--side", choices=["one", "many", "eval"], help=argparse.SUPPRESS)
    add("--folder", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.side:
        print(json.dumps(measure_ours(args)))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_clips(folder / "clips", args)
        baseline: list[str | Path] = [sys.executable, ROOT / "benchmarks" / "baseline.py"]
        run_command([*baseline, "make", folder / "baseline.keras"])
        peers = Peers(args)
        one = measure_one(folder, args, peers)
        many = measure_many(folder, args)
    report(args, one, many, peers.missing)
    return 0


def make_clips(folder: Path, args: argparse.Namespace) -> None:
    """Writes clips of 3 s as 16-bit wav.

    Raises:
        AudioError: If there are too few recordings of 3 s.
    """
    from tests.support.synthetic_voices import synthetic_speech
    from utils.audio.decode import load_audio
    from utils.audio.waveform import SAMPLE_RATE, write_wav

    size = round(CLIP_S * SAMPLE_RATE)
    folder.mkdir()
    num_clips = 0
    if args.audio_dir:
        for path in sorted(Path(args.audio_dir).rglob("*")):
            if path.suffix.lower() not in SUFFIXES or num_clips == args.num_files:
                continue
            waveform = load_audio(path)
            start = (len(waveform) - size) // 2
            if start >= 0:
                write_wav(folder / f"{num_clips:05d}.wav", waveform[start : start + size])
                num_clips += 1
        if num_clips < args.num_files:
            raise AudioError(
                f"{args.audio_dir}: {num_clips} recordings of {CLIP_S:.0f} s found, expected "
                f"{args.num_files}; give a smaller --num_files"
            )
        return
    for number in range(args.num_files):
        if number < 4:  # the shipped recordings
            name = ("a_1", "a_2", "b_1", "b_2")[number]
            waveform = load_audio(ROOT / "audio" / f"{name}.wav")[-size - 8000 : -8000]
        else:
            waveform = synthetic_speech(number % 40, number // 40, CLIP_S)
        write_wav(folder / f"{number:05d}.wav", waveform)


def clips(folder: Path, num_clips: int) -> list[str]:
    """Returns the first clips, repeating them if there are too few."""
    found = sorted(str(path) for path in (folder / "clips").iterdir())
    return [found[number % len(found)] for number in range(num_clips)]


def has_int8(args: argparse.Namespace) -> bool:
    return Path(ROOT, args.int8_model).is_file()


def ours(args: argparse.Namespace, folder: Path, side: str, model: str | None) -> Any:
    """Measures one of our variants in a separate process."""
    command: list[str | Path] = [sys.executable, Path(__file__), "--side", side, "--folder", folder]
    command += ["--num_files", str(args.num_files), "--one_files", str(args.one_files)]
    return run_json([*command, *(["--model_path", model] if model else [])])


def measure_one(folder: Path, args: argparse.Namespace, peers: Peers) -> dict[str, float]:
    """Returns the median milliseconds of one embedding by model."""
    files = clips(folder, args.one_files)
    few = files[: max(1, args.one_files // 2)]
    baseline: list[str | Path] = [
        sys.executable,
        ROOT / "benchmarks" / "baseline.py",
        "embed",
        folder / "baseline.keras",
    ]
    seconds = {BASELINE: run_json([*baseline, *few, "--one_core"])}
    for system in peers.systems:
        seconds[TITLES[system]] = run_json(peers.command("embed", system, *map(Path, files)))
    seconds[KERAS] = ours(args, folder, "one", args.keras_model)
    if has_int8(args):
        seconds[INT8] = ours(args, folder, "one", args.int8_model)
    seconds[DEFAULT] = ours(args, folder, "one", args.model_path)
    return {title: 1000 * median(values) for title, values in seconds.items()}


def measure_many(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Returns files a second by way."""
    baseline: list[str | Path] = [
        sys.executable,
        ROOT / "benchmarks" / "baseline.py",
        "embed",
        folder / "baseline.keras",
    ]
    ways = [
        ("embed_files, .keras model", "many", args.keras_model),
        ("embed_files", "many", args.model_path),
        ("as eval.py", "eval", args.model_path),
    ]
    if has_int8(args):
        ways.append((f"embed_files, {INT8.split(', ')[1]}", "many", args.int8_model))
    rates: dict[str, list[float]] = {}
    for _ in range(args.rounds):
        seconds = run_json([*baseline, *clips(folder, args.baseline_files)])
        rates.setdefault(BASELINE, []).append(len(seconds) / sum(seconds))
        for title, side, model in ways:
            rates.setdefault(title, []).append(ours(args, folder, side, model))
    return {title: median(values) for title, values in rates.items()}


def measure_ours(args: argparse.Namespace) -> Any:
    """Runs one side in this process: seconds of each embedding, or files a second."""
    if args.side == "one":
        use_one_core()
    from utils.model.encoder import SpeakerEncoder
    from utils.verification.evaluation import embed_clips

    options: dict[str, Any] = {"num_threads": 1} if args.side == "one" else {}
    if args.model_path:
        options["model"] = args.model_path
    encoder = SpeakerEncoder(**options)
    files = clips(Path(args.folder), args.one_files if args.side == "one" else args.num_files)
    for path in files[:4]:
        encoder.embed_file(path)
    if args.side == "one":
        seconds = []
        for path in files:
            start = time.perf_counter()
            encoder.embed_file(path)
            seconds.append(time.perf_counter() - start)
        return seconds
    start = time.perf_counter()
    if args.side == "eval":
        embed_clips(encoder, files)
    else:
        for _ in encoder.embed_files(files):
            pass
    return len(files) / (time.perf_counter() - start)


def report(
    args: argparse.Namespace,
    one: dict[str, float],
    many: dict[str, float],
    missing: Sequence[str],
) -> None:
    """Prints and writes the figures."""
    order = sorted(one, key=one.__getitem__)
    lines = [[t, f"{one[t]:.1f}", f"{one[BASELINE] / one[t]:.1f}"] for t in order]
    first = table(
        ["one embedding of 3 s, one core", "ms", "times as fast as the baseline's"], lines
    )
    lines = [[t, f"{rate:.1f}", f"{rate / many[BASELINE]:.1f}"] for t, rate in many.items()]
    cores = f"{num_cores()} cores"
    second = table([f"files of 3 s, {cores}", "files/s", "times the baseline's"], lines)
    details = "\n\n".join([first, *missing, second])
    print(details)
    rows = [
        Row("one embedding of 3 s, one core", f"{title}: {one[title]:.0f} ms",
            f"{one[DEFAULT]:.1f} ms", f"{one[title] / one[DEFAULT]:.1f}x", target)
        for title, target in (
            (BASELINE, ""), (TITLES["campplus_onnx"], ">= 1x"), (TITLES["resemblyzer"], "(>= 1x)")
        ) if title in one
    ]  # fmt: skip
    best = max(many["embed_files"], many["as eval.py"])
    rows.append(
        Row(f"embeddings of many files, {cores}", f"{BASELINE}: {many[BASELINE]:.1f} files/s",
            f"{best:.1f} files/s", f"{best / many[BASELINE]:.1f}x", ">= 8x")
    )  # fmt: skip
    if INT8 in one:
        title = TITLES["resemblyzer"] if TITLES["resemblyzer"] in one else BASELINE
        rate = many["embed_files, in 8 bits"]
        rows += [
            Row("one embedding of 3 s in 8 bits", f"{title}: {one[title]:.0f} ms",
                f"{one[INT8]:.1f} ms", f"{one[title] / one[INT8]:.1f}x", "(>= 1x)"),
            Row(f"many files in 8 bits, {cores}", f"{BASELINE}: {many[BASELINE]:.1f} files/s",
                f"{rate:.1f} files/s", f"{rate / many[BASELINE]:.1f}x", ">= 8x"),
        ]  # fmt: skip
    write_results(args.json, rows, details, ["onnxruntime", "tensorflow", "librosa"], missing)


if __name__ == "__main__":
    run_script(main)
