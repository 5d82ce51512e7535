"""Moving voices between folders of recordings and SQL databases, verified before anything goes.

What arrived is read back and compared with what was sent, byte for byte. A move that was
interrupted goes on: recordings that are there already are recognised by their content.
"""

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from utils.audio.decode import load_audio
from utils.audio.suffixes import AUDIO_SUFFIXES
from utils.errors import DamagedVoiceError, DatabaseError, SpeakerExistsError, VoiceprintError
from utils.files import atomic_path
from utils.speaker_names import clean_name, fold_name
from utils.verification.embedding import Encoder
from voices.folder import FolderVoiceStore
from voices.sql.audio import suffix_of
from voices.sql.records import NewRecording, StoredRecording
from voices.sql.store import SqlVoiceStore

MAX_FILE_BYTES = 1 << 28
"""Longest recording that is moved, 2 hours of 16 kHz WAV: databases take no larger value well."""

OTHER_RECORDINGS = "enrolled in the destination with other recordings"

DAMAGED = "its key was changed from outside; restore a backup, or delete the speaker"

NO_SOUND = "its sound was not kept, and a folder holds nothing else"


@dataclass
class Move:
    """What a move did.

    Attributes:
        num_moved: Recordings that were carried over now.
        num_present: Recordings that were there already.
        num_deleted: Speakers that were removed from the source.
        num_audit_lines: Lines of the audit log that were copied, between two databases.
        refused: `(recording or speaker, reason)` of what could not be moved.
        complete: Speakers all of whose recordings are verified at the destination.
    """

    num_moved: int = 0
    num_present: int = 0
    num_deleted: int = 0
    num_audit_lines: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    complete: list[str] = field(default_factory=list)


def move_in(
    folder: FolderVoiceStore,
    database: SqlVoiceStore,
    encoder: Encoder,
    *,
    delete_source: bool = False,
) -> Move:
    """Copies the speakers of a folder into an SQL database, each in one transaction.

    Args:
        folder: Where the recordings are.
        database: Where they go; it must keep audio.
        encoder: The speaker model.
        delete_source: Remove the recordings of a speaker who arrived whole.

    Raises:
        ValueError: If the database keeps no audio.
        DatabaseError: If there is no such folder, or the database cannot be written or gives back
            something else.
    """
    if not database.keep_audio:
        raise ValueError("expected a database that keeps audio")
    if not folder.folder.is_dir():
        raise DatabaseError(f"{folder.folder}: no such folder; check the path")
    move = Move()
    speakers = folder.all_recordings()
    move.refused += [(str(path), reason) for path, reason in folder.rejected]
    taken: dict[str, str] = {}
    for name in speakers:
        other = taken.setdefault(fold_name(name), name)
        if other != name:
            move.refused.append((name, f"{other} is the same name in other letters; rename one"))
            continue
        num_refused = len(move.refused)
        sources = {path: path.parent == folder.folder for path in speakers[name]}
        _move_speaker_in(name, sources, database, encoder, move)
        if len(move.refused) == num_refused:
            move.complete.append(name)
            if delete_source:
                folder.discard(speakers[name])
                move.num_deleted += 1
    return move


def _move_speaker_in(
    name: str, sources: dict[Path, bool], database: SqlVoiceStore, encoder: Encoder, move: Move
) -> None:
    """Copies a speaker's recordings, verifies them, and adds to `move` what became of them."""
    read = {path: _read(path) for path in sources}
    sent = {path: content for path, content in read.items() if isinstance(content, bytes)}
    left = _missing(sent, _stored(database, name))
    if left is None:
        move.refused.append((name, OTHER_RECORDINGS))
        return
    move.refused += [(str(path), why) for path, why in read.items() if isinstance(why, str)]
    new = []
    for path in left:
        try:
            new.append(_new_recording(path, sent[path], sources[path], encoder))
        except VoiceprintError as error:
            move.refused.append((str(path), str(error)))
    if new:
        database.enrol(name, new, if_exists="add")
    _verify(name, (recording.audio for recording in new), _stored(database, name))
    move.num_moved += len(new)
    move.num_present += len(sent) - len(left)


def move_out(
    database: SqlVoiceStore, folder: FolderVoiceStore, *, delete_source: bool = False
) -> Move:
    """Copies the speakers of an SQL database into a folder.

    Args:
        database: Where the recordings are. Those whose sound was not kept are refused.
        folder: Where they go.
        delete_source: Remove a speaker who arrived whole.

    Raises:
        DatabaseError: If the folder cannot be read or written, or gives back something else.
    """
    move = Move()
    there = folder.all_recordings()
    spellings = {fold_name(name): name for name in there}
    for name, recordings in database.all_recordings().items():
        # The spelling of a name that is there already stays, as in every enrolment.
        spelling = name if name in there else spellings.get(fold_name(name), name)
        paths = there.get(spelling, [])
        read = {r: database.original_audio(name, r.id) for r in recordings}
        sent = {r: content for r, (content, _) in read.items() if content is not None}
        refused = [(f"{name}/{r.id}", NO_SOUND) for r in recordings if r not in sent]
        left = _missing(sent, map(_content, paths))
        if left is None:
            move.refused.append((name, OTHER_RECORDINGS))
            continue
        for r in left:
            paths.append(_free_path(folder.folder, spelling, read[r][1], r, sent[r]))
            _write_file(paths[-1], sent[r], r.created_at)
        _verify(name, sent.values(), map(_content, paths))
        move.num_moved += len(left)
        move.num_present += len(sent) - len(left)
        move.refused += refused
        if not refused:
            move.complete.append(name)
            if delete_source:
                database.remove(name, only=[r.id for r in recordings])
                move.num_deleted += 1
    return move


def move_across(
    source: SqlVoiceStore, target: SqlVoiceStore, *, delete_source: bool = False
) -> Move:
    """Copies the speakers of all groups from one SQL database into another, and the audit log.

    Nothing is decoded or embedded: embeddings, sound, ids and times arrive as they were.

    Args:
        source: Where the speakers are.
        target: Where they go.
        delete_source: Remove a speaker who arrived whole.

    Raises:
        DatabaseError: If a database fails, or the target gives back something else.
    """
    move = Move()
    sizes = source.transfer.sizes()
    for speaker_id, group, name in source.transfer.speakers():
        try:
            sent = source.transfer.read(speaker_id)
            if sent is None:
                continue  # removed meanwhile
            num_moved = target.transfer.write(sent, sizes)
        except DamagedVoiceError:
            move.refused.append((name, DAMAGED))
            continue
        except SpeakerExistsError:
            move.refused.append((name, OTHER_RECORDINGS))
            continue
        arrived = target.transfer.read(speaker_id)
        ids = {record.id for record in sent.recordings}
        extra = {record.id for record in arrived.recordings} - ids if arrived else set()
        if arrived is None or not arrived.without(extra).holds(sent):
            raise DatabaseError(f"{name}: what arrived is not what was sent; nothing was removed")
        move.num_moved += num_moved
        move.num_present += len(ids) - num_moved
        move.complete.append(name)
        if delete_source:
            source.in_group(group).remove(name, only=sorted(ids))
            move.num_deleted += 1
    move.num_audit_lines = target.transfer.copy_audit(source.transfer)
    return move


def _stored(database: SqlVoiceStore, name: str) -> list[bytes | None]:
    """Returns the sound of a speaker's recordings at the destination, as it was sent."""
    return [database.original_audio(name, each.id)[0] for each in database.recordings(name)]


def _read(path: Path) -> bytes | str:
    """Returns the content of a file, or why it cannot be moved."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return f"longer than {MAX_FILE_BYTES >> 20} MiB; cut it"
        return path.read_bytes()
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _content(path: Path) -> bytes:
    """Returns the content of a file at the destination."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatabaseError(f"{path}: cannot be read ({error.strerror})") from error


def _missing(sent: dict[Any, bytes], present: Iterable[bytes | None]) -> list[Any] | None:
    """Returns what is not there yet, None if something else is: it may be somebody else."""
    there = Counter(None if content is None else _digest(content) for content in present)
    left = []
    for key, content in sent.items():
        digest = _digest(content)
        if there[digest] > 0:
            there[digest] -= 1
        else:
            left.append(key)
    return None if there.total() else left


def _verify(name: str, sent: Iterable[bytes | None], there: Iterable[bytes | None]) -> None:
    """Raises DatabaseError unless all that was sent has arrived."""
    arrived = Counter(_digest(content) for content in there if content is not None)
    if Counter(_digest(content) for content in sent if content is not None) - arrived:
        raise DatabaseError(f"{name}: what arrived is not what was sent; nothing was removed")


def _digest(content: bytes) -> bytes:
    """Returns the SHA-256 of a recording."""
    return hashlib.sha256(content).digest()


def _new_recording(path: Path, content: bytes, is_first: bool, encoder: Encoder) -> NewRecording:
    """Returns a file of the folder as it is, with its embedding and date."""
    return NewRecording.of(
        load_audio(path),
        encoder.embed_file(path),
        content,
        created_at=datetime.fromtimestamp(path.stat().st_mtime, timezone.utc),
        # The speaker's name may change: it is no part of the file's name here.
        file_name=path.suffix if is_first else path.name,
    )


def _free_path(
    folder: Path, name: str, file_name: str, recording: StoredRecording, content: bytes
) -> Path:
    """Returns where a recording goes: to its old place if that is free, else to a new one."""
    suffix = Path(f"x{file_name}").suffix
    if suffix.lower() not in AUDIO_SUFFIXES:
        suffix = suffix_of(content)
    top = folder / f"{name}{suffix}"
    if file_name == suffix:
        path = top
    elif _is_file_name(file_name):
        path = folder / name / file_name
    else:
        has_first = any(path.is_file() for path in _beside(folder, name))
        stem = f"{recording.created_at:%Y%m%d-%H%M%S-%f}"
        path = folder / name / f"{stem}{suffix}" if has_first else top
    return folder / name / f"{recording.id}{suffix}" if path.exists() else path


def _beside(folder: Path, name: str) -> list[Path]:
    """Returns the files that a speaker may have outside a folder of his own."""
    return [folder / f"{name}{suffix}" for suffix in AUDIO_SUFFIXES]


def _is_file_name(text: str) -> bool:
    """Tells whether a stored file name can be used again; whoever wrote it may mean harm."""
    suffix = Path(text).suffix
    stem = text[: len(text) - len(suffix)]
    with contextlib.suppress(DatabaseError):
        # A name holds no separator and no outer dot.
        return suffix.lower() in AUDIO_SUFFIXES and clean_name(stem) == stem
    return False


def _write_file(path: Path, content: bytes, made: datetime) -> None:
    """Writes a recording with its date."""
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
            os.utime(temporary, (made.timestamp(), made.timestamp()))
    except OSError as error:
        raise DatabaseError(f"{path}: cannot be written ({error.strerror})") from error
