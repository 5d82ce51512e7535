"""Compares create_data.py with the baseline on the same mp3 files.

The baseline: one process decodes each mp3 with pydub and exports a wav, then opens each wav again
with librosa.load to find the bad ones. For each clip pydub runs `ffmpeg -i IN -f wav OUT` in a
separate process and reads the result; here the same is done without pydub, with the same command
line and temporary files. Ours: create_data.py as a user runs it, including process start and lists.
The mp3 files are made from synthetic voices.

    python benchmarks/create_data.py --num_clips 400
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import wave
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measuring import ROOT, Row, add_json_option, num_cores, table, write_results

CLIPS_A_SPEAKER = 20
MIN_RATIO = 5.0


def make_zhvoice(folder: Path, num_clips: int) -> list[Path]:
    """Writes mp3 clips of 2 to 6 s and the infodata.json that names them."""
    import soundfile

    from tests.support.synthetic_voices import synthetic_speech

    paths, lines = [], []
    for number in range(num_clips):
        speaker, utterance = divmod(number, CLIPS_A_SPEAKER)
        index = f"zhset/{speaker}/{speaker}_{utterance}.mp3"
        duration_s = 2.0 + 4.0 * (number * 0.618034 % 1.0)
        path = folder / index
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, synthetic_speech(speaker, utterance, duration_s), 16000)
        entry = {"index": index, "speaker": f"s{speaker}", "duration_ms": int(duration_s * 1000)}
        lines.append(json.dumps(entry) + "\n")
        paths.append(path)
    (folder / "text").mkdir()
    (folder / "text" / "infodata.json").write_text("".join(lines), encoding="utf-8")
    return paths


def convert_as_pydub(source: Path, target: Path) -> None:
    """Does what AudioSegment.from_mp3(source).export(target, format="wav") does."""
    with tempfile.NamedTemporaryFile(suffix=".mp3") as copy, tempfile.NamedTemporaryFile() as out:
        copy.write(source.read_bytes())
        copy.flush()
        command = ["ffmpeg", "-y", "-f", "mp3", "-i", copy.name, "-acodec", "pcm_s16le", "-vn"]
        subprocess.run(
            [*command, "-f", "wav", out.name],
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        with wave.open(out.name, "rb") as decoded:
            parameters, samples = decoded.getparams(), decoded.readframes(decoded.getnframes())
    with wave.open(str(target), "wb") as exported:
        exported.setparams(parameters)
        exported.writeframes(samples)


def run_as_the_seed(paths: list[Path]) -> float:
    """Converts, then checks, one clip after the other; returns seconds."""
    import librosa

    librosa.load(paths[0], sr=16000)  # its first call compiles; the baseline pays that once a run
    start = time.perf_counter()
    wavs = [path.with_suffix(".wav") for path in paths]
    for path, wav in zip(paths, wavs, strict=True):
        convert_as_pydub(path, wav)
    for wav in wavs:
        librosa.load(wav, sr=16000)
    return time.perf_counter() - start


def run_ours(folder: Path, num_workers: int) -> float:
    """Starts create_data.py in a fresh process; returns seconds."""
    command = [sys.executable, str(ROOT / "create_data.py"), "--num_workers", str(num_workers)]
    command += ["--dataset", f"zhvoice:{folder}", "--list_dir", str(folder / "lists")]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num_clips", type=int, default=400)
    parser.add_argument("--num_workers", type=int, default=os.cpu_count() or 1)
    add_json_option(parser)
    args = parser.parse_args(argv)
    if shutil.which("ffmpeg") is None:
        print("ffmpeg is not installed, which pydub needs to read mp3", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name:
        paths = make_zhvoice(Path(name) / "baseline", args.num_clips)
        shutil.copytree(Path(name) / "baseline", Path(name) / "ours")
        baseline_s = run_as_the_seed(paths)
        ours_s = run_ours(Path(name) / "ours", args.num_workers)
        again_s = run_ours(Path(name) / "ours", args.num_workers)
    ratio = baseline_s / ours_s
    lines = [
        [title, f"{seconds:.1f}", f"{1000 * seconds / args.num_clips:.1f}"]
        for title, seconds in (
            ("the baseline's way, one by one", baseline_s),
            ("create_data.py", ours_s),
            ("create_data.py again, nothing to do", again_s),
        )
    ]
    details = (
        table(
            [f"{args.num_clips} mp3 clips of 2 to 6 s, {num_cores()} cores", "s", "ms a clip"],
            lines,
        )
        + f"\n\nRatio: {ratio:.1f}."
    )
    print(details)
    row = Row(
        f"create_data, mp3 to checked wav, {num_cores()} cores",
        f"the baseline's way: {1000 * baseline_s / args.num_clips:.1f} ms a clip",
        f"{1000 * ours_s / args.num_clips:.1f} ms a clip",
        f"{ratio:.1f}x",
        f">= {MIN_RATIO:.0f}x",
    )
    write_results(args.json, [row], details, ["soundfile", "librosa"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
