"""Looks after a database of enrolled voices; a running service may go on meanwhile.

    python manage_voices.py embed sqlite:///voices.sqlite3 --model_path models/new.keras

embed   computes embeddings by another model, from the sound that was kept; the earlier ones stay

DATABASE is sqlite:///PATH, postgresql://USER:PASSWORD@HOST/NAME, or the word env for the address in
VOICEPRINT_DATABASE: a command line could be read by others. See docs/database.md.
"""

import argparse
import os

from utils.arguments import make_parser, positive_int
from utils.errors import run_script
from voices.store import DATABASE_VARIABLE

COMMANDS = ("embed",)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Reads the options."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("command", choices=COMMANDS, help="what to do")
    add("database", metavar="DATABASE", help="sqlite:///PATH, postgresql://... or env")
    add("--model_path", help="speaker model")
    add("--audio_db", help="the service's folder, for recordings whose sound is there")
    add("--num_threads", type=positive_int, help="processor threads to use (default: all)")
    args = parser.parse_args(argv)
    if args.database == "env":
        args.database = os.environ.get(DATABASE_VARIABLE, "")
    if "://" not in args.database:
        parser.error("expected the address of a database: sqlite:///PATH, postgresql://... or env")
    return args


def main(argv: list[str] | None = None) -> int:
    """Does what was asked."""
    args = parse_args(argv)
    from voices.upkeep import commands

    status: int = getattr(commands, args.command)(args)
    return status


if __name__ == "__main__":
    run_script(main)
