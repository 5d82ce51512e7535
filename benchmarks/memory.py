"""Measures the memory of long recordings and of many files.

    python benchmarks/memory.py
    python benchmarks/memory.py --num_files 10000

Long: one process embeds a minute of synthetic voices, another an hour; the difference of their
peaks is the cost of the length. Many: one process embeds files one after the other through
`SpeakerEncoder.embed_files`; its memory after the first tenth is compared with that at the end
(Linux only).
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measuring import Row, add_json_option, run_command, run_json, table, write_results
from utils.arguments import make_parser, positive_float, positive_int
from utils.errors import run_script

SHORT_MINUTES = 1.0
NUM_DIFFERENT = 10


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--minutes", type=positive_float, default=60.0, help="length of the long recording")
    add("--num_files", type=positive_int, default=1000, help="files of the many")
    add("--model_path", help="model (default: the encoder's)")
    add_json_option(parser)
    add("--side", choices=["long", "many"], help=argparse.SUPPRESS)
    add("--path", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.side:
        print(json.dumps(embed_long(args) if args.side == "long" else embed_many(args)))
        return 0
    own = [sys.executable, __file__, *([f"--model_path={args.model_path}"] * bool(args.model_path))]
    with tempfile.TemporaryDirectory() as name:
        lines, peaks = [], []
        for minutes in (SHORT_MINUTES, args.minutes):
            path = Path(name) / "long.wav"
            write_long(path, minutes)
            run = run_command([*own, "--side=long", "--path", path])
            seconds = json.loads(run.output)
            speed = 60 * minutes / seconds
            peaks.append(run.peak_mb)
            lines.append(
                [f"{minutes:g} min", f"{seconds:.1f}", f"{speed:.0f}", f"{run.peak_mb:.0f}"]
            )
        first = table(["one recording of", "s", "times real time", "peak MB"], lines)
        write_many(Path(name))
        begin, end = run_json(
            [*own, "--side=many", "--path", name, f"--num_files={args.num_files}"]
        )
    early = max(1, args.num_files // 10)
    growth = end - begin
    second = (
        f"{args.num_files:,} files one after the other: {begin:.1f} MB after {early:,}, "
        f"{end:.1f} MB at the end, {1000 * growth / (args.num_files - early + 1):.1f} KB a file."
    )
    details = f"{first}\n\n{second}"
    print(details)
    rows = [
        Row(f"memory of a recording of {args.minutes:g} min", f"of 1 min: {peaks[0]:.0f} MB",
            f"{peaks[1]:.0f} MB", f"{peaks[1] - peaks[0]:+.0f} MB", "bounded"),
        Row(f"memory after {args.num_files:,} files", f"after {early:,}: {begin:.0f} MB",
            f"{end:.0f} MB", f"{growth:+.1f} MB", "no growth"),
    ]  # fmt: skip
    write_results(args.json, rows, details, ["onnxruntime"])
    return 0


def write_long(path: Path, minutes: float) -> None:
    """Writes a recording of ten alternating voices, as 16-bit wav, without holding it in memory."""
    import soundfile

    from tests.support.synthetic_voices import synthetic_speech

    minute = [synthetic_speech(speaker, 0, 6.0) for speaker in range(10)]
    with soundfile.SoundFile(path, "w", 16000, 1, "PCM_16") as file:
        for number in range(round(10 * minutes)):
            file.write(minute[number % 10])


def write_many(folder: Path) -> None:
    """Writes a few different files of 1 s."""
    from tests.support.synthetic_voices import synthetic_speech, write_wav

    for number in range(NUM_DIFFERENT):
        write_wav(folder / f"many_{number:02d}.wav", synthetic_speech(number, 0, 1.0))


def embed_long(args: argparse.Namespace) -> float:
    """Embeds one file in this process; returns seconds."""
    from utils.model.encoder import SpeakerEncoder

    encoder = SpeakerEncoder(args.model_path)
    start = time.perf_counter()
    encoder.embed_file(args.path)
    return time.perf_counter() - start


def embed_many(args: argparse.Namespace) -> tuple[float, float]:
    """Embeds many files in this process; returns resident MB after a tenth and at the end."""
    from utils.model.encoder import SpeakerEncoder

    encoder = SpeakerEncoder(args.model_path)
    paths = sorted(Path(args.path).glob("many_*.wav"))
    files = list(itertools.islice(itertools.cycle(paths), args.num_files))
    early = max(1, args.num_files // 10)
    begin = 0.0
    for number, _ in encoder.embed_files(files):
        if number + 1 == early:
            begin = resident_mb()
    return begin, resident_mb()


def resident_mb() -> float:
    """Returns this process's current memory, in 10^6 bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    run_script(main)
