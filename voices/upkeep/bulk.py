"""Many speakers at once, from a folder, a zip or a table; each recording has its line of a report.

A recording's id follows from its content and its speaker: what is enrolled already is known again,
so that a run that was stopped goes on when it is repeated.
"""

import csv
import hashlib
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from utils.audio.decode import load_audio
from utils.audio.fidelity import encode_faithfully
from utils.audio.suffixes import AUDIO_SUFFIXES
from utils.corpus.embedding_file import is_embedding_file, read_embedding_file
from utils.errors import AudioError, DatabaseError, DataListError, VoiceprintError
from utils.speaker_names import DEFAULT_GROUP, clean_name, fold_name
from utils.verification.embedding import Encoder
from voices.bulk_enrolment import enrol_each
from voices.folder import FolderVoiceStore
from voices.move import MAX_FILE_BYTES
from voices.sql.records import NewRecording
from voices.sql.store import SqlVoiceStore

ENROLLED, PRESENT, SKIPPED = "enrolled", "enrolled before", "skipped"
"""What may become of a recording."""


class Source(NamedTuple):
    """A recording to enrol: how people call it, whose it is, where it lies; in a zip, or a file."""

    label: str
    speaker: str
    path: Path
    member: str = ""


@dataclass(frozen=True)
class Row:
    """A line of the report."""

    recording: str
    speaker: str
    outcome: str
    reason: str = ""


def enrol_many(source: Path, database: SqlVoiceStore, encoder: Encoder) -> Iterator[Row]:
    """Enrols the recordings of a folder, a zip or a table, and yields what became of each.

    Args:
        source: A folder as infer_recognition.py has it (NAME.wav, NAME/*.wav), a zip of one, a
            CSV file with the columns `path` and `speaker`, or what embed.py wrote.
        database: Where they go; it keeps their sound or not.
        encoder: The speaker model.

    Raises:
        DatabaseError: If the source cannot be read, or the database fails.
        DataListError: If embeddings cannot be read, or are of another model.
    """
    if is_embedding_file(source):
        yield from _enrol_embeddings(source, database, encoder)
        return
    for found in _sources(source):
        if isinstance(found, Row):
            yield found
            continue
        try:
            content = _read(found)
            name = clean_name(found.speaker)
            id_ = id_of(name, content, database.group)
            if database.has_recording(id_):
                yield Row(found.label, name, PRESENT)
                continue
            new = _embed(found.label, content, id_, database, encoder)
            database.enrol(name, [new], if_exists="add")
        except VoiceprintError as error:
            database.ping()  # A database that fails ends the run.
            yield Row(found.label, found.speaker, SKIPPED, " ".join(str(error).split()))
            continue
        yield Row(found.label, name, ENROLLED, looks_like(database.look_alikes(name)))


def _enrol_embeddings(source: Path, database: SqlVoiceStore, encoder: Encoder) -> Iterator[Row]:
    """Enrols the speakers of a file of embeddings; each is enrolled whole, once."""
    content = read_embedding_file(source)
    if content.model_id != encoder.model_id:
        raise DataListError(f"{source}: embeddings of another model; give its --model_path")
    for speaker in enrol_each(database, content.entries.values()):
        outcome = ENROLLED if speaker.is_enrolled else PRESENT if speaker.is_present else SKIPPED
        reason = speaker.reason
        if speaker.is_enrolled:
            reason = looks_like(database.look_alikes(speaker.speaker))
        for path in speaker.recordings:
            yield Row(path, speaker.speaker, outcome, reason)


def looks_like(others: Sequence[str]) -> str:
    """Returns a remark on an enrolled speaker, empty if nobody's name looks the same."""
    return f"the name looks like {', '.join(others)}" if others else ""


def _embed(
    label: str, content: bytes, id_: str, database: SqlVoiceStore, encoder: Encoder
) -> NewRecording:
    """Returns a recording with its embedding, and its sound if the database keeps it."""
    waveform = load_audio(content, name=label)
    embedding = encoder.embed_waveform(waveform, source=label)
    audio = None
    if database.keep_audio:
        audio = encode_faithfully(waveform, embedding, encoder.embed_waveform, "FLAC")
    return NewRecording.of(waveform, embedding, audio, id=id_)


def id_of(name: str, content: bytes, group: str) -> str:
    """Returns the id of a recording of a speaker."""
    whose = fold_name(name) if group == DEFAULT_GROUP else f"{group}\0{fold_name(name)}"
    return hashlib.sha256(f"{whose}\0".encode() + content).hexdigest()[:32]


def _sources(source: Path) -> Iterator[Source | Row]:
    """Yields what there is to enrol, and lines of the report about what cannot be."""
    if source.is_dir():
        folder = FolderVoiceStore(source)
        for name, paths in folder.all_recordings().items():
            for path in paths:
                yield Source(path.relative_to(source).as_posix(), name, path)
        for path, reason in folder.rejected:
            yield Row(path.relative_to(source).as_posix(), "", SKIPPED, str(reason))
    elif not source.is_file():
        raise DatabaseError(f"{source}: no such file or folder; check the path")
    elif zipfile.is_zipfile(source):
        yield from _members(source)
    else:
        yield from _lines(source)


def _members(source: Path) -> Iterator[Source]:
    """Yields the recordings of a zip."""
    with zipfile.ZipFile(source) as file:
        for member in recordings_of(file):
            yield Source(member.filename, speaker_of(member), source, member.filename)


def recordings_of(file: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Returns what looks like a recording in a zip; hidden files do not."""
    return [
        member
        for member in file.infolist()
        if PurePosixPath(member.filename).suffix.lower() in AUDIO_SUFFIXES
        and not any(
            part.startswith((".", "__MACOSX")) for part in PurePosixPath(member.filename).parts
        )
    ]


def speaker_of(member: zipfile.ZipInfo) -> str:
    """Returns whose recording it is: the folder that holds it names the speaker, or the file."""
    path = PurePosixPath(member.filename)
    return path.parent.name or path.stem


def read_member(file: zipfile.ZipFile, member: zipfile.ZipInfo, max_bytes: int) -> bytes:
    """Returns the content of a recording in a zip; nothing is written anywhere.

    Raises:
        AudioError: If it cannot be read, or unpacks to more than it may.
    """
    try:
        with file.open(member) as content:
            # The size that a zip declares may be wrong.
            unpacked = content.read(max_bytes + 1)
    except (OSError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise AudioError(f"cannot be read ({error})") from error
    except NotImplementedError as error:
        raise AudioError(f"cannot be unpacked ({error})") from error
    if len(unpacked) > max_bytes:
        raise AudioError(f"longer than {max_bytes / (1 << 20):.0f} MiB; cut it")
    return unpacked


def _lines(source: Path) -> Iterator[Source]:
    """Yields the recordings of a table; paths are relative to it."""
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            if not {"path", "speaker"} <= set(table.fieldnames or ()):
                raise DatabaseError(
                    f"{source}: expected a folder, a zip, or a CSV file whose first line is "
                    "path,speaker"
                )
            for row in table:
                path = row["path"] or ""
                yield Source(path, row["speaker"] or "", source.parent / path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatabaseError(f"{source}: cannot be read as a table in UTF-8") from error


def _read(found: Source) -> bytes:
    """Returns the content of a recording.

    Raises:
        DatabaseError: If it cannot be read, or is too long.
    """
    try:
        if found.member:
            with zipfile.ZipFile(found.path) as file:
                return read_member(file, file.getinfo(found.member), MAX_FILE_BYTES)
        if found.path.stat().st_size > MAX_FILE_BYTES:
            raise DatabaseError(f"longer than {MAX_FILE_BYTES >> 20} MiB; cut it")
        return found.path.read_bytes()
    except (OSError, zipfile.BadZipFile) as error:
        raise DatabaseError(f"cannot be read ({error})") from error
