"""Looks after a database of enrolled voices; a running service may go on meanwhile.

    python manage_voices.py embed sqlite:///voices.sqlite3 --model_path models/new.keras
    python manage_voices.py rekey sqlite:///voices.sqlite3
    python manage_voices.py backup sqlite:///voices.sqlite3 backup.sqlite3
    python manage_voices.py restore sqlite:///restored.sqlite3 backup.sqlite3
    python manage_voices.py export sqlite:///voices.sqlite3 voices.parquet
    python manage_voices.py export sqlite:///voices.sqlite3 person.zip --speaker NAME
    python manage_voices.py import sqlite:///other.sqlite3 voices.parquet
    python manage_voices.py enrol sqlite:///voices.sqlite3 people --report report.csv
    python manage_voices.py index postgresql://HOST/NAME milvus://HOST:19530

embed   computes embeddings by another model, from the sound that was kept; the earlier ones stay
rekey   encrypts with the key in VOICEPRINT_NEW_KEY, or not at all with --decrypt; stop the service
backup  writes everything into one file, as it is at this moment
restore puts a backup into an empty database, or with --replace into any
export  writes all voiceprints (Parquet), or everything about one speaker (zip)
import  puts exported voiceprints into a database
enrol   enrols the recordings of a folder, a zip, a CSV file (path,speaker) or a file of embed.py
index   fills an index in Milvus, for ten million speakers and more; none in its place gives it up

DATABASE is sqlite:///PATH, postgresql://USER:PASSWORD@HOST/NAME, or the word env for the address in
VOICEPRINT_DATABASE: a command line could be read by others. See docs/database.md.
"""

import argparse

from utils.arguments import make_parser, positive_int
from utils.environment import read_variable
from utils.errors import run_script
from voices.store import DATABASE_VARIABLE

COMMANDS = ("embed", "rekey", "backup", "restore", "export", "import", "enrol", "index")

WITHOUT_FILE = {"embed", "rekey"}
"""Commands that need the database only."""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Reads the options."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("command", choices=COMMANDS, help="what to do")
    add("database", metavar="DATABASE", help="sqlite:///PATH, postgresql://... or env")
    add("file", metavar="FILE", nargs="?", help="the file or index that is read or written")
    add("--replace", action="store_true", help="overwrite what is there")
    add("--model_path", help="speaker model")
    add("--audio_db", help="the service's folder, for recordings whose sound is there")
    add("--num_threads", type=positive_int, help="processor threads to use (default: all)")
    add("--decrypt", action="store_true", help="leave the voices readable")
    add("--speaker", metavar="NAME", help="whose data is exported")
    add("--group", help="the group of the speakers (default: those of no group)")
    add("--with_audio", action="store_true", help="export the sound that was kept, too")
    add("--keep_audio", action="store_true", help="store the sound of what is enrolled")
    add("--report", metavar="FILE.csv", help="a line about each recording that was to be enrolled")
    args = parser.parse_args(argv)
    if args.database == "env":
        args.database = read_variable(DATABASE_VARIABLE)
    if "://" not in args.database:
        parser.error("expected the address of a database: sqlite:///PATH, postgresql://... or env")
    if (args.command in WITHOUT_FILE) == (args.file is not None):
        parser.error(f"{args.command}: expected DATABASE" + " FILE" * (args.file is None))
    return args


def main(argv: list[str] | None = None) -> int:
    """Does what was asked."""
    args = parse_args(argv)
    from voices.upkeep import commands

    status: int = getattr(commands, {"import": "import_"}.get(args.command, args.command))(args)
    return status


if __name__ == "__main__":
    run_script(main)
