"""Runs the voiceprint service: an HTTP interface and a web page to enrol and recognise speakers.

    python serve.py

Then open http://127.0.0.1:8005. Without a token only programs of this machine can reach it. For
others: python serve.py --new_token app --token_file tokens.txt, then --host 0.0.0.0 --token_file
tokens.txt behind a proxy that speaks HTTPS. See docs/service.md.
"""

import argparse
import os
import signal
from dataclasses import fields

from service.settings import Settings
from utils.arguments import add_option, make_parser, print_arguments
from utils.errors import EXIT_INTERRUPTED, run_script

KNOWN = ["audio_db", "database", "host", "keep_audio", "model_path", "port"]


def parse_args(argv: list[str] | None) -> tuple[argparse.Namespace, argparse.ArgumentParser]:
    """Reads the options."""
    parser = make_parser(__doc__)
    for item in fields(Settings):
        if item.metadata:
            add_option(parser, item)
    parser.add_argument(
        "--new_token", metavar="NAME", help="make a token, add it to --token_file, and end"
    )
    parser.add_argument(
        "--create_token", action="store_true", help="make a token for a client of voiceprint-api, "
        "print it and the address to paste there, and end",
    )  # fmt: skip
    return parser.parse_args(argv), parser


def main(argv: list[str] | None = None) -> int:
    """Starts the service and runs it until it is told to stop."""
    args, parser = parse_args(argv)
    from service import management, start

    if args.new_token is not None:
        management.print_new_token(args.new_token, args.token_file)
        return 0
    if args.create_token:
        return start.print_classic_token(args)
    start.resolve_defaults(args, os.environ)
    print_arguments(start.without_passwords(args), KNOWN, parser)
    settings = start.make_settings(args, os.environ)
    number = start.serve(settings, os.environ)
    return EXIT_INTERRUPTED if number == signal.SIGINT else 0


if __name__ == "__main__":
    run_script(main)
