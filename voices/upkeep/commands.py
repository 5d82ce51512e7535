"""The commands of manage_voices.py: each takes the options, prints, and returns the exit status."""

import argparse
import csv
import os
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


def export(args: argparse.Namespace) -> int:
    """Writes all voiceprints into a Parquet file, or everything about one speaker into a zip."""
    database = _of_group(args)
    path = Path(args.file)
    if args.speaker is not None:
        from voices.upkeep.person import export_person

        num_files = export_person(database, args.speaker, path, args.audio_db)
        print(translate(f"{path}: {num_files} files about {args.speaker}"))
        _note(database, "export", args.speaker, "about the person")
        return 0
    from voices.upkeep.parquet import export_all

    done = export_all(database, path, _export_key(), with_audio=args.with_audio)
    _note(database, "export", "", f"{done.num_speakers} speakers")
    return _tell(path.name, done)


def import_(args: argparse.Namespace) -> int:
    """Puts the voiceprints of a Parquet file into a database."""
    from voices.upkeep.parquet import import_all

    database: Any = open_database(args.database)
    done = import_all(Path(args.file), database, _export_key())
    _note(database, "import", "", f"{done.num_speakers} speakers")
    return _tell(public_name(args.database), done)


def enrol(args: argparse.Namespace) -> int:
    """Enrols many recordings, and writes a line about each."""
    from utils.model.encoder import SpeakerEncoder
    from voices.upkeep.bulk import ENROLLED, PRESENT, SKIPPED, enrol_many

    encoder = SpeakerEncoder(args.model_path, args.num_threads)
    database = _of_group(args, encoder, create=True)
    counts = dict.fromkeys((ENROLLED, PRESENT, SKIPPED), 0)
    report = Path(args.report or os.devnull)
    try:
        with report.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(("recording", "speaker", "outcome", "reason"))
            for row in enrol_many(Path(args.file), database, encoder):
                table.writerow((row.recording, row.speaker, row.outcome, row.reason))
                file.flush()
                counts[row.outcome] += 1
                if row.outcome == SKIPPED:
                    told = f"skipped: {row.recording}: {row.reason}"
                    print(translate(told), file=sys.stderr)
    except OSError as error:
        raise DatabaseError(f"{report}: cannot be written ({error.strerror})") from error
    _note(database, "enrol", "", f"{counts[ENROLLED]} recordings of {Path(args.file).name}")
    print(
        translate(
            f"{counts[ENROLLED]} recordings enrolled, {counts[PRESENT]} were enrolled before, "
            f"{counts[SKIPPED]} skipped"
        )
    )
    return EXIT_USER_ERROR if counts[SKIPPED] else 0


def index(args: argparse.Namespace) -> int:
    """Fills an index outside of a database, or gives it up."""
    database: Any = open_database(args.database, create=False)
    name = public_name(args.database)
    if args.file == "none":
        database.outside_index.remove()
        print(translate(f"{name}: has no index any more; restart what uses the database"))
        return 0
    num_speakers = database.outside_index.set_up(args.file, replace=args.replace)
    told = f"{name}: {num_speakers} speakers are in {args.file}; restart what uses the database"
    print(translate(told))
    return 0


def _of_group(args: argparse.Namespace, encoder: Any = None, *, create: bool = False) -> Any:
    """Opens the store of the group that the options name."""
    database: Any = open_database(args.database, encoder, keep_audio=args.keep_audio, create=create)
    return database if args.group is None else database.in_group(args.group)


def _export_key() -> bytes | None:
    """Returns the key that encrypts an export, None if there is none."""
    from voices.sql.cipher import read_key
    from voices.upkeep.parquet import EXPORT_KEY_VARIABLE

    return read_key(variable=EXPORT_KEY_VARIABLE)


def _tell(where: str, done: Any) -> int:
    """Prints what was exported or imported; returns the exit status."""
    for speaker, reason in done.refused:
        print(translate(f"not moved: {speaker}: {reason}"), file=sys.stderr)
    told = f"{where}: {done.num_speakers} speakers, {done.num_recordings} recordings"
    print(translate(told))
    return EXIT_USER_ERROR if done.refused else 0


def _note(database: Any, action: str, speaker: str, outcome: str) -> None:
    """Writes a line of the audit log."""
    from voices.sql.records import AuditLine

    line = AuditLine("manage_voices", action, speaker, outcome, group=database.group)
    database.audit_log.append(line)
