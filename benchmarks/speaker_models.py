r"""Measures speaker models side by side on one list: EER and minDCF of all pairs, one table.

    python benchmarks/speaker_models.py speech/dev.tsv --root speech --output docs/speaker_models

The list is a table with a header and tab-separated columns path, speaker and, where known, gender
and age. Each pair of different utterances is a trial. Groups: everything, each corpus (the second
folder of the path), pairs within one gender, pairs of children (under 16), pairs of adults.

Conditions:
- full: the recordings as they are.
- 3 s: silence removed, then the middle 3 s (or all of it, if shorter).
- degraded 3 s: the clean 3 s on one side; on the other the 3 s cut to 300-3400 Hz, then mixed with
  the babble of five other speakers, in full band, at 10 dB. Each ordered pair of different
  utterances is a trial.

Writes OUTPUT.md and OUTPUT.json. Models that are not installed are reported and left out. With
--cache, embeddings are kept in a folder: a model measured once, on any machine, stays in the table
without being installed.
"""

import argparse
import csv
import dataclasses
import datetime
import hashlib
import json
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.speaker_systems import SYSTEMS, System
from utils.arguments import make_parser
from utils.arrays import FloatArray
from utils.audio.activity import remove_silence
from utils.audio.decode import load_audio
from utils.audio.waveform import SAMPLE_RATE
from utils.errors import AudioError, DataListError, ModelError, run_script
from utils.files import atomic_path, write_text_atomically
from utils.verification.metrics import ErrorCurve

CROP_SAMPLES = 3 * SAMPLE_RATE
NUM_BABBLERS = 5
BABBLE_SNR_DB = 10.0
BAND_HZ = (300.0, 3400.0)  # the telephone band
CHILD_AGE = 16  # years; from here on a speaker counts as grown up
P_TARGET = 0.01
PROTOCOL = 2  # a change of the conditions changes it, so that no old cache is read

CONDITIONS = ("full", "3 s", "degraded 3 s")


@dataclasses.dataclass(frozen=True)
class Item:
    """An utterance of the list; gender and age are empty if unknown."""

    path: str
    speaker: str
    corpus: str
    gender: str
    age: str


@dataclasses.dataclass(frozen=True)
class Embedded:
    """Embeddings of one model under one condition; a refused utterance is a row of NaN."""

    embeddings: FloatArray
    latency_ms: float


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("list_path", help="table of utterances")
    add("--root", default=".", help="folder that the paths are relative to")
    add("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS), help="models")
    add("--model_path", default="models/resnet34.keras", help="the model of `ours`")
    add("--keras_model", help="a Keras file without calibration, for `keras`")
    add("--campplus", default="models/campplus_public.onnx", help="file of tools/fetch_campplus.py")
    add("--conditions", nargs="+", choices=CONDITIONS, default=list(CONDITIONS))
    add("--cache", help="folder that keeps embeddings")
    add("--output", help="writes OUTPUT.md and OUTPUT.json, else only prints")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measures every model and writes the table."""
    args = parse_args(argv)
    items = read_items(args.list_path)
    crops = Crops(items, args.root)
    results: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for key in args.systems:
        if key == "keras" and not args.keras_model:
            continue
        try:
            results[key] = measure(SYSTEMS[key], items, crops, args)
        except ModelError as error:
            missing[key] = str(error)
            print(f"{SYSTEMS[key].title} left out: {error}", file=sys.stderr)
    report = {
        "date": datetime.date.today().isoformat(),
        "list": Path(args.list_path).name,
        "num_utterances": len(items),
        "num_speakers": len({item.speaker for item in items}),
        "p_target": P_TARGET,
        "conditions": args.conditions,
        "systems": results,
        "missing": missing,
    }
    text = markdown(report)
    print(text)
    if args.output:
        write_text_atomically(f"{args.output}.md", text)
        write_text_atomically(f"{args.output}.json", json.dumps(report, indent=1) + "\n")
    return 0


def read_items(list_path: str) -> list[Item]:
    """Reads the table.

    Raises:
        DataListError: If it cannot be read, or lacks the columns path and speaker.
    """
    try:
        with Path(list_path).open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError) as error:
        raise DataListError(f"{list_path} cannot be read: {error}") from error
    if not rows or not {"path", "speaker"} <= rows[0].keys():
        raise DataListError(f"{list_path}: expected a header with the columns path and speaker")
    items = []
    for row in rows:
        parts = row["path"].split("/")
        corpus = parts[1] if len(parts) > 2 else ""
        gender = {"m": "male", "f": "female"}.get(row.get("gender") or "", row.get("gender") or "")
        items.append(Item(row["path"], row["speaker"], corpus, gender, row.get("age") or ""))
    return items


def age_group(age: str) -> str:
    """Returns "children", "adults", or "" if the age is ambiguous (teens are both)."""
    if age.isdecimal():
        return "children" if int(age) < CHILD_AGE else "adults"
    return "adults" if age.endswith("ies") else ""


class Crops:
    """The recordings of the list under each condition. The 3 s crops stay in memory."""

    def __init__(self, items: Sequence[Item], root: str) -> None:
        self._items = items
        self._root = Path(root)
        self._crops: list[FloatArray] = []

    def waveform(self, index: int, condition: str) -> FloatArray:
        """Returns one recording, 16 kHz, shape `(num_samples,)`."""
        if condition == "full":
            return load_audio(self._root / self._items[index].path)
        if not self._crops:
            for number in progress(range(len(self._items)), "reading"):
                self._crops.append(middle(remove_silence(self.waveform(number, "full"))))
        clean = self._crops[index]
        return self._degrade(index, clean) if condition == "degraded 3 s" and len(clean) else clean

    def _degrade(self, index: int, clean: FloatArray) -> FloatArray:
        """Cuts the band and adds babble; the utterance's path decides which voices of the list."""
        rng = np.random.default_rng(zlib.crc32(self._items[index].path.encode()))
        speakers = {self._items[index].speaker}
        babble = np.zeros(len(clean), np.float32)
        for other in rng.permutation(len(self._items)):
            if self._items[other].speaker in speakers or not self._crops[other].any():
                continue
            speakers.add(self._items[other].speaker)
            voice = np.resize(self._crops[other], len(clean))
            babble += voice / max(rms(voice), 1e-9)
            if len(speakers) == NUM_BABBLERS + 1:
                break
        voice = band_pass(clean)
        gain = rms(voice) / max(rms(babble), 1e-9) * 10 ** (-BABBLE_SNR_DB / 20)
        return np.asarray(voice + np.float32(gain) * babble)


def middle(waveform: FloatArray) -> FloatArray:
    """Returns the 3 s in the middle."""
    start = max(0, len(waveform) - CROP_SAMPLES) // 2
    return waveform[start : start + CROP_SAMPLES]


def rms(waveform: FloatArray) -> float:
    """Returns the root mean square."""
    return float(np.sqrt(np.mean(np.square(waveform), dtype=np.float64)))


def band_pass(waveform: FloatArray) -> FloatArray:
    """Cuts a waveform to the telephone band with a Butterworth filter of order 4 a side."""
    from scipy.signal import butter, sosfilt

    sections = butter(4, BAND_HZ, "bandpass", fs=SAMPLE_RATE, output="sos")
    return np.asarray(sosfilt(sections, waveform), np.float32)


def measure(
    kind: type[System], items: Sequence[Item], crops: Crops, args: argparse.Namespace
) -> dict[str, Any]:
    """Returns the figures of one model: per condition and group EER, minDCF and trials."""
    loaded: list[System] = []

    def system() -> System:
        if not loaded:
            loaded.append(kind(args))
        return loaded[0]

    embedded = {}
    needed = [c for c in CONDITIONS if c in args.conditions or c == "3 s"]
    for condition in needed:  # degraded trials need the clean 3 s too
        embedded[condition] = cached(kind, system, condition, items, crops, args)
    figures: dict[str, Any] = {}
    for condition in args.conditions:
        enrolled = embedded["full" if condition == "full" else "3 s"].embeddings
        scores = cosine_scores(enrolled, embedded[condition].embeddings, kind.standardize)
        # Clean against clean is symmetric: each pair counts once.
        symmetric = condition != "degraded 3 s"
        figures[condition] = {
            name: figure(scores, mask, items, symmetric) for name, mask in groups(items).items()
        }
    return {
        "title": kind.title,
        "model": kind.describe(args),
        "embedding_size": int(embedded["3 s"].embeddings.shape[1]),
        "latency_ms": round(embedded["3 s"].latency_ms, 1),
        "refused": {c: int(np.isnan(e.embeddings[:, 0]).sum()) for c, e in embedded.items()},
        "figures": figures,
    }


def cached(
    kind: type[System],
    system: Callable[[], System],
    condition: str,
    items: Sequence[Item],
    crops: Crops,
    args: argparse.Namespace,
) -> Embedded:
    """Returns embeddings from the cache, or computes and caches them."""
    paths = "\n".join(item.path for item in items)
    key = hashlib.sha256(f"{PROTOCOL}\n{kind.describe(args)}\n{condition}\n{paths}".encode())
    name = f"{kind.__name__}-{condition.replace(' ', '_')}-{key.hexdigest()[:16]}.npz"
    path = Path(args.cache) / name if args.cache else None
    if path is not None and path.is_file():
        with np.load(path) as saved:
            return Embedded(saved["embeddings"], float(saved["latency_ms"]))
    result = embed_all(system(), condition, items, crops)
    if path is not None:
        with atomic_path(path) as temporary:
            np.savez(temporary, **dataclasses.asdict(result))
    return result


def embed_all(system: System, condition: str, items: Sequence[Item], crops: Crops) -> Embedded:
    """Embeds all recordings under one condition and times single ones."""
    rows: list[FloatArray | None] = []
    seconds = []
    for index in progress(range(len(items)), f"{system.title}, {condition}"):
        waveform = crops.waveform(index, condition)
        start = time.perf_counter()
        try:
            if not len(waveform):
                raise ValueError("no speech")
            rows.append(system.embed(waveform))
        except (AudioError, ValueError):
            rows.append(None)  # refused: named in the report
            continue
        seconds.append(time.perf_counter() - start)
    sizes = {len(row) for row in rows if row is not None}
    if len(sizes) != 1:
        raise ModelError(f"{system.title} embedded nothing of {len(rows)} recordings")
    refused = np.full(sizes.pop(), np.nan, np.float32)
    embeddings = np.stack([refused if row is None else row for row in rows]).astype(np.float32)
    return Embedded(embeddings, 1000 * float(np.median(seconds)))


def cosine_scores(left: FloatArray, right: FloatArray, standardize: bool) -> FloatArray:
    """Returns the cosine of each row of `left` to each row of `right`, shape `(n, n)`."""
    if standardize:
        mean, scale = np.nanmean(left, axis=0), np.nanstd(left, axis=0) + 1e-9
        left, right = (left - mean) / scale, (right - mean) / scale
    left = left / np.linalg.norm(left, axis=1, keepdims=True)
    right = right / np.linalg.norm(right, axis=1, keepdims=True)
    return np.asarray(left @ right.T)


def groups(items: Sequence[Item]) -> dict[str, npt.NDArray[np.bool_]]:
    """Returns the utterances of each group; both sides of a trial must belong to it."""
    result = {"all": np.ones(len(items), bool)}
    for corpus in sorted({item.corpus for item in items} - {""}):
        result[corpus] = np.array([item.corpus == corpus for item in items])
    for gender in ("male", "female"):
        result[gender] = np.array([item.gender == gender for item in items])
    for group in ("children", "adults"):
        result[group] = np.array([age_group(item.age) == group for item in items])
    return result


def figure(
    scores: FloatArray, members: npt.NDArray[np.bool_], items: Sequence[Item], symmetric: bool
) -> dict[str, Any] | None:
    """Returns EER, minDCF and the numbers of trials, or None if a kind of trial is absent."""
    names = {item.speaker: number for number, item in enumerate(items)}
    speakers = np.array([names[item.speaker] for item in items])
    chosen = np.flatnonzero(members)
    is_trial = ~np.eye(len(chosen), dtype=bool)
    if symmetric:
        is_trial = np.triu(is_trial)
    values = scores[np.ix_(chosen, chosen)]
    is_trial &= np.isfinite(values)
    labels = (speakers[chosen][:, np.newaxis] == speakers[chosen])[is_trial]
    if labels.all() or not labels.any():
        return None
    curve = ErrorCurve.from_scores(values[is_trial], labels)
    return {
        "eer": curve.equal_error_rate()[0],
        "min_dcf": curve.min_dcf(p_target=P_TARGET)[0],
        "num_target_trials": int(labels.sum()),
        "num_nontarget_trials": int((~labels).sum()),
    }


def markdown(report: dict[str, Any]) -> str:
    """Returns the report as a page with one table, one row per group and model."""
    conditions = report["conditions"]
    lines = [
        "# Speaker models side by side",
        "",
        f"{report['num_utterances']} utterances of {report['num_speakers']} speakers "
        f"({report['list']}), {report['date']}, `python benchmarks/speaker_models.py`. EER in %, "
        f"minDCF with P(target) = {report['p_target']}, equal costs. Trials: all pairs of "
        "different utterances within the group. The conditions are explained in the script's "
        "help. ms: one embedding of 3 s, median.",
        "",
        "| group | model | ms | " + " | ".join(f"{c}: EER | minDCF" for c in conditions) + " |",
        "|---|---|---:|" + "---:|---:|" * len(conditions),
    ]
    names: dict[str, None] = {}
    for system in report["systems"].values():
        for condition in conditions:
            names.update(dict.fromkeys(system["figures"][condition]))
    for group in names:
        for system in report["systems"].values():
            cells = [group, system["title"], f"{system['latency_ms']:.0f}"]
            for condition in conditions:
                one = system["figures"][condition].get(group)
                cells += [f"{100 * one['eer']:.2f}", f"{one['min_dcf']:.3f}"] if one else ["", ""]
            if any(cells[3:]):
                lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    for system in report["systems"].values():
        refused = [f"{n} under {c}" for c, n in system["refused"].items() if n]
        if refused:
            lines.append(f"{system['title']} refused utterances: {', '.join(refused)}.")
    for key, reason in report["missing"].items():
        lines.append(f"Not measured: {SYSTEMS[key].title} ({reason}).")
    return "\n".join(lines).rstrip() + "\n"


def progress(numbers: range, caption: str) -> Iterator[int]:
    """Passes the numbers on and shows the progress on stderr."""
    for number in numbers:
        if sys.stderr.isatty():
            print(f"\r{caption}: {number + 1}/{len(numbers)}", end="", file=sys.stderr, flush=True)
        yield number
    print(f"\r{caption}: {len(numbers)}/{len(numbers)}", file=sys.stderr)


if __name__ == "__main__":
    run_script(main)
