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
from utils.messages import translate

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
    parser.add_argument(
        "--config", help="file of settings in TOML (default: $VOICEPRINT_CONFIG, else none)"
    )
    parser.add_argument(
        "--show_config",
        action="store_true",
        help="print all settings with where each is from, and end",
    )
    return parser.parse_args(argv), parser


def main(argv: list[str] | None = None) -> int:
    """Starts the service and runs it until it is told to stop."""
    args, parser = parse_args(argv)
    from service import configuration, management, start

    file = configuration.read_config(args.config, os.environ)
    origins = configuration.apply_config(args, parser, argv, os.environ, file)
    if args.new_token is not None:
        management.print_new_token(args.new_token, args.token_file)
        return 0
    if args.create_token:
        return start.print_classic_token(args)
    start.resolve_defaults(args, os.environ)
    settings = start.make_settings(args, os.environ, file.groups)
    if args.show_config:
        print(configuration.describe(settings, origins, os.environ))
        return 0
    for name in configuration.unknown_variables(os.environ):
        print(translate(f"warning: {name} is no setting; serve.py --show_config lists them"))
    print_arguments(start.without_passwords(args), KNOWN, parser)
    number = start.serve(settings, os.environ)
    return EXIT_INTERRUPTED if number == signal.SIGINT else 0


if __name__ == "__main__":
    run_script(main)
