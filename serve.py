"""Runs the voiceprint service: an HTTP interface and a web page to enrol and recognise speakers.

    python serve.py

Then open http://127.0.0.1:8005. Without a token only programs of this machine can reach it. For
others: python serve.py --new_token app --token_file tokens.txt, then --host 0.0.0.0 --token_file
tokens.txt behind a proxy that speaks HTTPS. See docs/service.md.
"""

import argparse
import os
import signal
from pathlib import Path

from utils.arguments import (
    make_parser,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
    print_arguments,
    score,
)
from utils.errors import EXIT_INTERRUPTED, run_script

KNOWN = ["audio_db", "database", "host", "keep_audio", "model_path", "port"]


def parse_args(argv: list[str] | None) -> tuple[argparse.Namespace, argparse.ArgumentParser]:
    """Reads the options."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; others need a token")
    add("--port", type=non_negative_int, default=8005, help="port, 0 for any free one")
    add("--model_path", help="speaker model (default: the shipped one)")
    add("--database", help="sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME "
        "(default: $VOICEPRINT_DATABASE, else sqlite:///audio_db/voiceprints.sqlite3)")  # fmt: skip
    add("--audio_db", help="folder of infer_recognition.py whose speakers are enrolled "
        "(default: audio_db with the default database, else none)")  # fmt: skip
    add("--keep_audio", action="store_true", help="keep recordings, not only their embeddings")
    add("--token_file", type=Path, help="file of NAME:SHA256 lines; or set VOICEPRINT_TOKEN")
    add("--new_token", metavar="NAME", help="make a token, add it to --token_file, and end")
    add("--create_token", action="store_true", help="make a token for a client of voiceprint-api, "
        "print it and the address to paste there, and end")  # fmt: skip
    add("--max_upload_mb", type=positive_float, default=20.0, help="largest request")
    add("--max_duration_s", type=positive_float, default=60.0, help="longest recording")
    add("--max_recordings", type=positive_int, default=20, help="most recordings of a speaker")
    add("--rate_limit", type=non_negative_int, default=600, help="requests a minute and token")
    add("--classic_rate_limit", type=non_negative_int, default=6000,
        help="requests a minute and token on /voiceprint, where devices share one")  # fmt: skip
    add("--classic_threshold", type=score, help="lowest score that names a speaker on "
        "/voiceprint (default: the model's threshold)")  # fmt: skip
    add("--lockout_failures", type=non_negative_int, default=5, help="failures that lock; 0: never")
    add("--lockout_s", type=non_negative_float, default=300.0, help="seconds that a lock lasts")
    add("--queue_size", type=positive_int, default=64, help="recordings that may wait")
    add("--num_threads", type=positive_int, help="recordings at a time (default: one a core)")
    add("--header_timeout_s", type=positive_float, default=10.0, help="for headers to arrive")
    add("--body_timeout_s", type=positive_float, default=30.0, help="for an upload to arrive")
    add("--stop_timeout_s", type=positive_float, default=30.0, help="to finish when stopped")
    add("--json_logs", action="store_true", help="log lines of JSON")
    add("--cors_origin", help="origin whose pages may call the service, such as https://a.example")
    return parser.parse_args(argv), parser


def main(argv: list[str] | None = None) -> int:
    """Starts the service and runs it until it is told to stop."""
    args, parser = parse_args(argv)
    from service import start

    if args.new_token is not None:
        return start.print_new_token(args.new_token, args.token_file)
    if args.create_token:
        return start.print_classic_token(args)
    start.resolve_defaults(args, os.environ)
    print_arguments(start.without_passwords(args), KNOWN, parser)
    settings = start.make_settings(args, os.environ)
    number = start.serve(args, settings, os.environ)
    return EXIT_INTERRUPTED if number == signal.SIGINT else 0


if __name__ == "__main__":
    run_script(main)
