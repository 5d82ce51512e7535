"""Tells who spoke when in recordings of several people, with the names of those enrolled.

    python infer_diarization.py --audio_path=audio/conversation.wav
    python infer_diarization.py --audio_path meeting1.m4a meeting2.mp3 --rttm=out/ --plot=out/
    python infer_diarization.py --audio_path=meeting.wav --enrol "Speaker 2=NAME"

A line a turn: from when to when, who, and how well the turn fits this speaker (cosine); then the
seconds of each. People of --audio_db or --database are named, all others numbered.
"""

import argparse
import sys

from tqdm import tqdm

from utils.arguments import channel, make_parser, positive_int, print_arguments, score
from utils.audio.decode import duration_seconds
from utils.corpus.lists import read_path_list
from utils.diarization.clustering import SpeakerCount
from utils.diarization.diarizer import diarize
from utils.diarization.enrolment import parse_wish, speech_of
from utils.diarization.names import name_speakers
from utils.diarization.report import WRITERS, Report, plan_outputs, write_outputs
from utils.errors import EXIT_USER_ERROR, AudioError, run_script
from utils.messages import translate
from utils.model.encoder import SpeakerEncoder
from utils.model.header import choose_threshold, read_header
from utils.processors import num_processors
from voices.menu import print_rejected
from voices.store import choose_target, open_database

BAR = "{l_bar}{bar}| {n:.0f}/{total} s [{elapsed}<{remaining}]"  # seconds of the recording


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Reads the options."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--audio_path", nargs="+", default=["audio/conversation.wav"], help="recordings")
    add("--list", metavar="FILE", help="a list of recordings instead, a path a line")
    add("--channel", type=channel, default="mix", help="left, right, mix, or a number from 1")
    add("--audio_db", help="folder of enrolled voices: NAME.wav and NAME/*.wav (audio_db)")
    add("--database", help="sqlite:///PATH or postgresql://... (docs/database.md)")
    add("--model_path", help="speaker model")
    add("--threshold", type=score, help="least score of a match (default: strict, of the model)")
    add("--num_speakers", type=positive_int, help="how many people speak, if that is known")
    add("--min_speakers", type=positive_int, default=1, help="at least so many people speak")
    add("--max_speakers", type=positive_int, help="at most so many people speak")
    for name, (_, _, help_text) in WRITERS.items():
        add(f"--{name}", metavar="PATH", help=help_text)
    add("--json", action="store_true", help="print one JSON object a recording and nothing else")
    add("--enrol", action="append", default=[], metavar="WHO=NAME", help="enrol a speaker found")
    add("--num_threads", type=positive_int, help="processor threads to use (default: all)")
    args = parser.parse_args(argv)
    if args.num_speakers:
        args.min_speakers = args.max_speakers = args.num_speakers
    if args.max_speakers and args.min_speakers > args.max_speakers:
        parser.error("--min_speakers is above --max_speakers")
    args.audio_path = read_path_list(args.list) if args.list else args.audio_path
    if args.enrol and len(args.audio_path) > 1:
        parser.error("--enrol takes speakers from one recording")
    return args


def main(argv: list[str] | None = None) -> int:
    """Diarizes the recordings and prints the turns; status 2 if one of them cannot be used."""
    args = parse_args(argv)
    outputs = plan_outputs(args.audio_path, {name: getattr(args, name) for name in WRITERS})
    wishes = [parse_wish(text) for text in args.enrol]
    target, args.audio_db = choose_target(args.database, args.audio_db)
    header = read_header(args.model_path)
    args.model_path = header.path
    args.threshold = choose_threshold(header, args.threshold, is_strict=True)
    if not args.json:
        print_arguments(args, ["audio_path", "audio_db", "model_path", "threshold"])
    encoder = SpeakerEncoder(header, 1)
    if not args.json:
        print(f"==> successfully loading model {args.model_path}.\n", flush=True)
    database = open_database(target, encoder, create=bool(wishes))
    rank = database.rank if database.load() else None
    print_rejected(database)
    count, status = SpeakerCount(args.min_speakers, args.max_speakers), 0
    threads = args.num_threads or num_processors()
    for path in outputs:
        try:
            with tqdm(total=round(duration_seconds(path)), unit="s", bar_format=BAR) as bar:
                found = diarize(path, encoder, count, threads, args.channel, bar.update)
        except AudioError as error:
            print(translate("error: ") + translate(str(error)), file=sys.stderr)
            status = EXIT_USER_ERROR
            continue
        named = name_speakers(found, rank, args.threshold)
        report = Report(path, found.duration_s, found.overlap_share, *named)
        print(report.json() if args.json else "\n".join(report.lines()), flush=True)
        write_outputs(report, outputs[path])
        for wish in wishes:
            places = database.add(wish.name, speech_of(wish, report.turns, path, args.channel))
            print(translate(f"已注册{wish.name}："), *places, file=sys.stderr)
    return status


if __name__ == "__main__":
    run_script(main)
