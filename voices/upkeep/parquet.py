"""All voiceprints of a database as one Parquet file, for another machine or for analysis; and back.

A row is one recording's embedding by one model. With a key the whole file is encrypted by Parquet's
own modular encryption (AES-256-GCM), which other readers of Parquet open with the same key.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import DamagedVoiceError, DatabaseError, SpeakerExistsError
from utils.files import atomic_path
from utils.parquet import import_pyarrow
from utils.speaker_names import clean_group, clean_name, fold_name
from utils.verification.embedding import mean_embedding
from voices.sql.cipher import KEY_BYTES, seal, unseal
from voices.sql.rows import from_bytes, to_bytes
from voices.sql.store import SqlVoiceStore
from voices.sql.transfer import Record, SpeakerRows

EXPORT_KEY_VARIABLE = "VOICEPRINT_EXPORT_KEY"
"""Environment variable of the key that encrypts an export; make a new one for each."""

ROWS_AT_ONCE = 2_000
"""Rows of one group of the file: about 2 MB without sound."""

ID_LENGTH = 32
"""Hexadecimal digits of an id."""


@dataclass
class Exchange:
    """What an export or import did.

    Attributes:
        num_speakers: Speakers who are whole in the file, or in the database.
        num_recordings: Recordings that were written.
        refused: `(speaker, reason)` of the others.
    """

    num_speakers: int = 0
    num_recordings: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)


def export_all(
    database: SqlVoiceStore, path: Path, key: bytes | None, *, with_audio: bool = False
) -> Exchange:
    """Writes the voiceprints of all groups into a file.

    Args:
        database: Where they are.
        path: The file; what is there is replaced in the end.
        key: 32 bytes that encrypt the file, or None.
        with_audio: Write the sound that was kept, too.

    Raises:
        DatabaseError: If the database fails, or the file cannot be written.
    """
    pyarrow = import_pyarrow()
    done = Exchange()
    schema = _schema(pyarrow, with_audio)
    try:
        with atomic_path(path) as temporary:
            temporary.touch(mode=0o600)
            options = {}
            if key is not None:
                make = pyarrow.parquet.encryption.create_encryption_properties
                options["encryption_properties"] = make(key)
            with pyarrow.parquet.ParquetWriter(temporary, schema, **options) as writer:
                rows: list[dict[str, Any]] = []
                for own in _rows(database, done, with_audio):
                    rows += own
                    if len(rows) >= ROWS_AT_ONCE:
                        writer.write_table(pyarrow.Table.from_pylist(rows, schema))
                        rows = []
                writer.write_table(pyarrow.Table.from_pylist(rows, schema))
    except OSError as error:
        raise DatabaseError(f"{path}: cannot be written ({error.strerror})") from error
    return done


def import_all(path: Path, database: SqlVoiceStore, key: bytes | None) -> Exchange:
    """Puts the voiceprints of a file into a database; who is there already stays as he is.

    One speaker is one transaction; repeated, it goes on. Ids and times are kept.

    Args:
        path: What `export_all` wrote.
        database: Where they go.
        key: The key of the file, or None.

    Raises:
        DatabaseError: If the file is no such export, or has another key, or the database fails.
    """
    pyarrow = import_pyarrow()
    if not path.is_file():
        raise DatabaseError(f"{path}: no such file; check the path")
    options = {}
    if key is not None:
        make = pyarrow.parquet.encryption.create_decryption_properties
        options["decryption_properties"] = make(key)
    done = Exchange()
    try:
        with pyarrow.parquet.ParquetFile(path, **options) as file:
            missing = set(_schema(pyarrow, False).names) - set(file.schema_arrow.names)
            if missing:
                raise DatabaseError(
                    f"{path}: not an export of voiceprints, it lacks {min(missing)}"
                )
            batches = file.iter_batches(batch_size=ROWS_AT_ONCE)
            rows = (row for batch in batches for row in batch.to_pylist())
            for _, own in groupby(rows, key=lambda row: row["speaker_id"]):
                _import_speaker(list(own), database, done)
    except (OSError, pyarrow.ArrowException) as error:
        raise DatabaseError(
            f"{path}: cannot be read; check the file and the key in {EXPORT_KEY_VARIABLE}"
        ) from error
    return done


def _schema(pyarrow: Any, with_audio: bool) -> Any:
    """Returns the columns of the file."""
    moment = pyarrow.timestamp("us", tz="UTC")
    columns = [
        ("speaker_id", pyarrow.string()),
        ("group", pyarrow.string()),
        ("speaker", pyarrow.string()),
        ("speaker_created_at", moment),
        ("speaker_updated_at", moment),
        ("recording_id", pyarrow.string()),
        ("position", pyarrow.int32()),
        ("created_at", moment),
        ("speech_s", pyarrow.float64()),
        ("duration_s", pyarrow.float64()),
        ("file_name", pyarrow.string()),
        ("model_id", pyarrow.string()),
        ("embedding", pyarrow.list_(pyarrow.float32())),
    ]
    return pyarrow.schema(columns + [("audio", pyarrow.binary())] * with_audio)


def _rows(
    database: SqlVoiceStore, done: Exchange, with_audio: bool
) -> Iterator[list[dict[str, Any]]]:
    """Yields the rows of each speaker, opened."""
    for speaker_id, _, name in database.transfer.speakers():
        try:
            found = database.transfer.read(speaker_id)
            rows = [] if found is None else _open(found, with_audio)
        except DamagedVoiceError as error:
            done.refused.append((name, str(error)))
            continue
        if found is not None:
            done.num_speakers += 1
            done.num_recordings += len(found.recordings)
            yield rows


def _open(found: SpeakerRows, with_audio: bool) -> list[dict[str, Any]]:
    """Returns a speaker's rows; the sound stands in a recording's first one."""
    speaker = found.speaker.row
    sounds = {row["recording_id"]: row["content"] for row in found.audio}
    rows = []
    for record in found.recordings:
        for each in found.embeddings:
            if each["recording_id"] != record.id:
                continue
            sealed = each["embedding"] or b""
            row = {
                "speaker_id": found.speaker.id,
                "group": speaker["group_name"],
                "speaker": speaker["name"],
                "speaker_created_at": speaker["created_at"],
                "speaker_updated_at": speaker["updated_at"],
                "recording_id": record.id,
                "model_id": each["model_id"],
                "embedding": from_bytes(unseal(record.key, sealed, f"{record.id} embedding")),
            }
            for name in ("position", "created_at", "speech_s", "duration_s", "file_name"):
                row[name] = record.row[name]
            if with_audio:
                content = sounds.pop(record.id, None)
                place = f"{record.id} audio"
                row["audio"] = None if content is None else unseal(record.key, content, place)
            rows.append(row)
    return rows


def _import_speaker(rows: list[dict[str, Any]], database: SqlVoiceStore, done: Exchange) -> None:
    """Writes a speaker, or notes why not."""
    name = str(rows[0]["speaker"])
    try:
        sealed, sizes = _seal(rows)
        done.num_recordings += database.transfer.write(sealed, sizes)
        done.num_speakers += 1
    except SpeakerExistsError:
        done.refused.append((name, "somebody else has this name here"))
    except (DatabaseError, ValueError, TypeError) as error:
        done.refused.append((name, str(error)))


def _seal(rows: list[dict[str, Any]]) -> tuple[SpeakerRows, dict[str, int]]:
    """Returns a speaker as a database keeps it, under new keys, and the sizes of the embeddings.

    Raises:
        DatabaseError: If the name or the group cannot be one.
        ValueError: If an id or an embedding cannot be one.
    """
    first = rows[0]
    speaker_id, name = _checked_id(first["speaker_id"]), clean_name(first["speaker"])
    speaker = {
        "id": speaker_id,
        "name": name,
        "folded_name": fold_name(name),
        "created_at": first["speaker_created_at"],
        "updated_at": first["speaker_updated_at"],
        "is_being_deleted": False,
        "group_name": clean_group(first["group"]),
    }
    key, records, embeddings, audio = os.urandom(KEY_BYTES), {}, [], []
    vectors: dict[str, list[Any]] = {}
    for row in rows:
        id_ = _checked_id(row["recording_id"])
        if id_ not in records:
            columns = ("position", "created_at", "speech_s", "duration_s", "file_name")
            kept = {column: row[column] for column in columns}
            kept |= {"id": id_, "speaker_id": speaker_id, "content_mark": None}
            records[id_] = Record(kept, os.urandom(KEY_BYTES))
        own = records[id_].key
        vector = _checked_vector(row["embedding"])
        vectors.setdefault(row["model_id"], []).append(vector)
        content = seal(own, to_bytes(vector), f"{id_} embedding")
        embeddings.append({"recording_id": id_, "model_id": row["model_id"], "embedding": content})
        if row.get("audio") is not None:
            sealed = seal(own, row["audio"], f"{id_} audio")
            audio.append({"recording_id": id_, "content": sealed})
    means = tuple(
        {
            "speaker_id": speaker_id,
            "model_id": model_id,
            "embedding": seal(key, to_bytes(mean_embedding(some)), f"{speaker_id} embedding"),
        }
        for model_id, some in vectors.items()
    )
    found = SpeakerRows(
        speaker=Record(speaker, key),
        recordings=tuple(records.values()),
        means=means,
        embeddings=tuple(embeddings),
        audio=tuple(audio),
        inbox=(),
    )
    return found, {model_id: len(some[0]) for model_id, some in vectors.items()}


def _checked_id(text: str) -> str:
    """Returns an id."""
    if len(text) != ID_LENGTH or not set(text) <= set("0123456789abcdef"):
        raise ValueError(f"received the id {text[:40]!r}, expected {ID_LENGTH} hexadecimal digits")
    return text


def _checked_vector(numbers: list[float]) -> Any:
    """Returns an embedding, shape `(embedding_size,)`, of unit length."""
    vector = np.asarray(numbers, np.float32)
    length = float(np.linalg.norm(vector))
    if vector.ndim != 1 or not 0.99 < length < 1.01:
        raise ValueError(f"received an embedding of length {length:.3f}, expected 1")
    return vector
