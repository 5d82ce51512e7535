"""Tells who spoke when in recordings of several people, with the names of those enrolled.

    python infer_diarization.py --audio_path=audio/conversation.wav
    python infer_diarization.py --audio_path meeting1.m4a meeting2.mp3 --rttm=out/ --plot=out/
    python infer_diarization.py --audio_path=meeting.wav --enrol "Speaker 2=NAME"

A line a turn: from when to when, who, and how well the turn fits this speaker (cosine); then the
seconds of each. People of --audio_db or --database are named, all others numbered.
"""

import argparse
import os
import sys

from tqdm import tqdm

from utils.arguments import channel, make_parser, positive_int, print_arguments, score
from utils.audio.decode import duration_seconds
from utils.corpus.lists import read_path_list
from utils.diarization.clustering import SpeakerCount
from utils.diarization.diarizer import Diarization, diarize
from utils.diarization.enrolment import parse_wish, speech_of
from utils.diarization.names import name_speakers
from utils.diarization.report import WRITERS, Report, plan_outputs, write_outputs
from utils.errors import VoiceprintError, run_script
from utils.messages import translate
from utils.model.encoder import SpeakerEncoder
from utils.model.header import read_header
from voices.store import choose_target, open_database


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Reads the options."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--audio_path", nargs="+", metavar="FILE", help="recordings of any length")
    add("--list", metavar="FILE", help="a list of recordings, a path a line")
    add("--channel", type=channel, default="mix", help="left, right, mix, or a number from 1")
    add("--audio_db", help="folder of enrolled voices: NAME.wav and NAME/*.wav (audio_db)")
    add("--database", help="sqlite:///PATH or postgresql://... (docs/database.md)")
    add("--model_path", help="speaker model")
    add("--threshold", type=score, help="least score of a match (default: strict, of the model)")
    add("--num_speakers", type=positive_int, help="how many people speak, if that is known")
    add("--min_speakers", type=positive_int, help="at least so many people speak")
    add("--max_speakers", type=positive_int, help="at most so many people speak")
    for name, (_, _, help_text) in WRITERS.items():
        add(f"--{name}", metavar="PATH", help=help_text)
    add("--json", action="store_true", help="print one JSON object a recording and nothing else")
    add("--enrol", action="append", default=[], metavar="SPEAKER=NAME", help="enrol a speaker found")
    add("--num_threads", type=positive_int, help="processor threads to use (default: all)")
    args = parser.parse_args(argv)
    if args.num_speakers and (args.min_speakers or args.max_speakers):
        parser.error("--num_speakers goes without --min_speakers and --max_speakers")
    if args.max_speakers and (args.min_speakers or 1) > args.max_speakers:
        parser.error("--min_speakers is above --max_speakers")
    listed = read_path_list(args.list) if args.list else []
    args.audio_path = [*(args.audio_path or []), *listed] or ["audio/conversation.wav"]
    if args.enrol and len(args.audio_path) > 1:
        parser.error("--enrol takes speakers from one recording")
    return args


def infer(encoder: SpeakerEncoder, path: str, args: argparse.Namespace) -> Diarization:
    """Returns who spoke when in a recording, with a progress bar on stderr."""
    least, most = args.num_speakers or args.min_speakers or 1, args.num_speakers or args.max_speakers
    with tqdm(total=round(duration_seconds(path)), unit="s", file=sys.stderr) as bar:
        return diarize(
            path, encoder, SpeakerCount(least, most), channel=args.channel,
            num_threads=args.num_threads or os.cpu_count() or 1, on_progress=bar.update,
        )  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Diarizes the recordings and prints the turns; status 2 if one of them cannot be used."""
    args = parse_args(argv)
    outputs = plan_outputs(args.audio_path, {name: getattr(args, name) for name in WRITERS})
    wishes = [parse_wish(text) for text in args.enrol]
    target, args.audio_db = choose_target(args.database, args.audio_db)
    header = read_header(args.model_path)
    args.model_path = header.path
    if args.threshold is None:
        args.threshold = header.calibration.strict_threshold
    if not args.json:
        print_arguments(args, ["audio_path", "audio_db", "model_path", "threshold"])
    encoder = SpeakerEncoder(header, 1)
    database = open_database(target, encoder, create=bool(wishes))
    rank = database.rank if database.load() else None
    if not args.json:
        print(f"==> successfully loading model {args.model_path}.\n", flush=True)
    status = 0
    for path in outputs:
        try:
            found = infer(encoder, path, args)
        except VoiceprintError as error:
            if len(outputs) == 1:
                raise
            print(translate("error: ") + translate(str(error)), file=sys.stderr)
            status = 2
            continue
        report = Report(path, found.duration_s, *name_speakers(found, rank, args.threshold))
        print(report.json() if args.json else "\n".join(report.lines()), flush=True)
        write_outputs(report, outputs[path])
        for wish in wishes:
            places = database.add(wish.name, speech_of(wish, report.turns, path, args.channel))
            if not args.json:
                print(translate(f"已注册{wish.name}："), *places)
    return status


if __name__ == "__main__":
    run_script(main)
