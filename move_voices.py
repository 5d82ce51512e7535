"""Moves enrolled voices between a folder and SQL databases, or from database to database.

python move_voices.py audio_db sqlite:///voices.sqlite3
python move_voices.py sqlite:///voices.sqlite3 audio_db
python move_voices.py sqlite:///voices.sqlite3 env

The word "env" stands for the address in the variable VOICEPRINT_DATABASE: a command line could be
read by others. What arrived is read back and compared. The source stays as it is, unless
--delete_source is given: then every speaker who arrived whole is removed from it. What can't be
moved is named, stays where it is, and makes the exit status 2. A move that was interrupted goes on
when it is repeated. From database to database everything arrives, sound or not; with --new_key its
destination has the key in VOICEPRINT_NEW_KEY, with --decrypt none.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from utils.arguments import make_parser, positive_int
from utils.environment import read_variable
from utils.errors import EXIT_USER_ERROR, DatabaseError, run_script
from utils.messages import translate
from voices.folder import FolderVoiceStore
from voices.store import DATABASE_VARIABLE, open_database, open_with_new_key, public_name


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Reads the options."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("source", help="a folder, or sqlite:///PATH, postgresql://... or env")
    add("destination", help="likewise; at least one of the two is a database")
    add("--delete_source", action="store_true", help="remove what was moved and verified")
    add("--model_path", help="speaker model, for moving in")
    add("--num_threads", type=positive_int, help="processor threads to use (default: all)")
    key = parser.add_mutually_exclusive_group().add_argument
    key("--new_key", action="store_true", help="encrypt with the key in VOICEPRINT_NEW_KEY")
    key("--decrypt", action="store_true", help="leave the voices readable")
    args = parser.parse_args(argv)
    for name in ("source", "destination"):
        if getattr(args, name) == "env":
            setattr(args, name, read_variable(DATABASE_VARIABLE))
    num_databases = ("://" in args.source) + ("://" in args.destination)
    if num_databases == 0:
        parser.error("expected the address of a database, as source or destination")
    if num_databases == 1 and (args.new_key or args.decrypt):
        parser.error("--new_key and --decrypt are for moves from database to database")
    if args.source == args.destination:
        parser.error("source and destination are the same; see manage_voices.py rekey")
    return args


def require_folder(path: str) -> None:
    """Raises DatabaseError unless there is such a folder."""
    if not Path(path).is_dir():
        raise DatabaseError(f"{path}: no such folder; check the path")


def move_voices(args: argparse.Namespace) -> Any:
    """Moves in the direction that the two places mean; returns what was done."""
    if "://" not in args.source:
        # Before a database is made for what isn't there.
        require_folder(args.source)
        from utils.model.encoder import SpeakerEncoder

        encoder = SpeakerEncoder(args.model_path, args.num_threads)
        database: Any = open_database(args.destination, encoder, keep_audio=True)
        from voices.move import move_in

        folder = FolderVoiceStore(args.source)
        return move_in(folder, database, encoder, delete_source=args.delete_source)
    source: Any = open_database(args.source, create=False)
    from voices.move import move_across, move_out

    if "://" in args.destination:
        target: Any = open_with_new_key(args.destination, args.new_key, args.decrypt)
        return move_across(source, target, delete_source=args.delete_source)
    return move_out(source, FolderVoiceStore(args.destination), delete_source=args.delete_source)


def main(argv: list[str] | None = None) -> int:
    """Moves, and tells what was moved and what was not."""
    args = parse_args(argv)
    move = move_voices(args)
    for what, reason in move.refused:
        print(translate(f"not moved: {what}: {reason}"), file=sys.stderr)
    summary = (
        f"{public_name(args.source)} -> {public_name(args.destination)}: "
        f"{len(move.complete)} speakers complete, {move.num_moved} recordings moved and verified, "
        f"{move.num_present} were there already, {len(move.refused)} not moved, "
        f"{move.num_deleted} speakers removed from the source"
    )
    print(translate(summary))
    return EXIT_USER_ERROR if move.refused else 0


if __name__ == "__main__":
    run_script(main)
