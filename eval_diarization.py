"""Measures how well turns were found, against a reference of who really spoke when.

    python eval_diarization.py audio/conversation.rttm FOLDER

FOLDER holds the RTTM files of infer_diarization.py --rttm=FOLDER/, one for each recording.
Printed are the diarization error rate (DER) with its parts, the Jaccard error rate (JER), and how
many speakers were found too many or too few; overlaps are scored. Once every moment counts, once
those within 0.25 s of a border of the reference don't.
"""

import argparse
import json
import sys
from pathlib import Path

from utils.arguments import make_parser, non_negative_float
from utils.diarization.error_rates import ErrorRates, measure_errors, total
from utils.diarization.turns import read_rttm
from utils.errors import DataListError, run_script
from utils.messages import translate

COLLARS_S = (0.0, 0.25)
"""0 as in the DIHARD challenges, 0.25 as in NIST's evaluations."""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Reads the options."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("reference", metavar="REFERENCE.rttm", help="who really spoke when")
    add("folder", metavar="FOLDER", help="folder with NAME.rttm for each recording")
    add("--collar", type=non_negative_float, nargs="+", default=list(COLLARS_S), metavar="S",
        help="seconds around borders that are not scored (default: 0 0.25)")  # fmt: skip
    add("--json", action="store_true", help="print one JSON object and nothing else")
    return parser.parse_args(argv)


def describe(name: str, collar_s: float, rates: ErrorRates) -> str:
    """Returns the line of a recording or of all."""
    missed, false_alarm, confusion = (
        f"{100 * rates.share(seconds):.2f}"
        for seconds in (rates.missed_s, rates.false_alarm_s, rates.confusion_s)
    )
    parts = f"missed {missed} %, false alarm {false_alarm} %, confusion {confusion} %"
    der, jer = f"{100 * rates.der:.2f}", f"{100 * rates.jer:.2f}"
    if len(rates.count_errors) == 1:
        error = f"{rates.count_errors[0]:+d}"
        return (
            f"{name}, collar {collar_s:g} s: DER {der} % ({parts}), JER {jer} %, speakers {error}"
        )
    right, count = rates.right_counts, len(rates.count_errors)
    counts = f"number of speakers right in {right} of {count}"
    return f"{name}, collar {collar_s:g} s: DER {der} % ({parts}), JER {jer} %, {counts}"


def main(argv: list[str] | None = None) -> int:
    """Prints the errors of each recording and of all."""
    args = parse_args(argv)
    reference = read_rttm(args.reference)
    if not reference:
        raise DataListError(f"{args.reference}: no SPEAKER line, expected an RTTM file")
    folder = Path(args.folder)
    if not folder.is_dir():
        raise DataListError(f"{folder}: no such folder, expected one with RTTM files")
    found = {}
    for name in reference:
        path = folder / f"{name}.rttm"
        if not path.is_file():
            print(translate(f"{path}: missing, counted as nothing found"), file=sys.stderr)
        recordings = read_rttm(path) if path.is_file() else {}
        found[name] = [turn for turns in recordings.values() for turn in turns]
    report = {}
    for collar_s in args.collar:
        rates = {n: measure_errors(turns, found[n], collar_s) for n, turns in reference.items()}
        lines = list(rates.items()) + ([("all", total(rates.values()))] if len(rates) > 1 else [])
        report[f"{collar_s:g}"] = {
            name: {
                "der": r.der, "jer": r.jer, "speech_s": r.speech_s, "missed_s": r.missed_s,
                "false_alarm_s": r.false_alarm_s, "confusion_s": r.confusion_s,
                "count_errors": r.count_errors,
            }
            for name, r in lines
        }  # fmt: skip
        if not args.json:
            print("\n".join(translate(describe(name, collar_s, r)) for name, r in lines))
    if args.json:
        print(json.dumps(report, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    run_script(main)
