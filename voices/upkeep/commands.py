"""The commands of manage_voices.py: each takes the options, prints, and returns the exit status."""

import argparse
import sys
from pathlib import Path
from typing import Any

from utils.errors import EXIT_USER_ERROR, DatabaseError
from utils.messages import translate
from voices.inbox_sound import find_sound
from voices.store import open_database, public_name


def embed(args: argparse.Namespace) -> int:
    """Embeds all recordings with kept sound by a model; names those that have none."""
    from utils.model.encoder import SpeakerEncoder
    from voices.sql.other_models import Reembedding

    encoder = SpeakerEncoder(args.model_path, args.num_threads)
    database: Any = open_database(args.database, encoder, create=False)
    files = find_sound(args.audio_db, database.inbox_files) if args.audio_db else {}
    work = Reembedding(database.other_models, encoder, files)
    work.run()
    for recording, reason in work.rejected:
        print(translate(f"warning: {recording} is left out: {reason}"), file=sys.stderr)
    print(translate(f"{work.num_done} recordings embedded by {encoder.model_path}"))
    return EXIT_USER_ERROR if work.rejected else 0


def rekey(args: argparse.Namespace) -> int:
    """Gives a database the key in VOICEPRINT_NEW_KEY, or none."""
    from voices.sql.cipher import NEW_KEY_VARIABLE, require_key

    key = None if args.decrypt else require_key(NEW_KEY_VARIABLE)
    database: Any = open_database(args.database, create=False)
    num_done, num_damaged = database.rekey(key)
    print(translate(f"{num_done} records sealed anew, {num_damaged} damaged"))
    if key is not None:
        print(translate("From now on VOICEPRINT_KEY must hold the new key; keep a copy elsewhere."))
    return EXIT_USER_ERROR if num_damaged else 0


def backup(args: argparse.Namespace) -> int:
    """Writes a database into one file."""
    from voices.sql.snapshot import back_up

    path = Path(args.file)
    if path.exists() and not args.replace:
        raise DatabaseError(f"{path} exists; choose another name, or give --replace")
    counts = back_up(args.database, path)
    print(translate(f"{path}: {counts['speakers']} speakers, {counts['recordings']} recordings"))
    return 0


def restore(args: argparse.Namespace) -> int:
    """Puts a backup into a database."""
    from voices.sql.cipher import read_key
    from voices.sql.snapshot import restore as put_back

    counts = put_back(Path(args.file), args.database, read_key(), replace=args.replace)
    name = public_name(args.database)
    print(translate(f"{name}: {counts['speakers']} speakers, {counts['recordings']} recordings"))
    return 0
