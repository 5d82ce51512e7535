"""Rows of speakers and recordings: written, read and destroyed, sealed with keys of their own."""

import hmac
import uuid
from collections.abc import Collection, Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np
from sqlalchemy import Connection, Select, delete, insert, select, update
from sqlalchemy.dialects import postgresql

from utils.arrays import FloatArray
from utils.errors import DamagedVoiceError
from utils.speaker_names import fold_name
from utils.verification.embedding import mean_embedding
from voices.sql.cipher import KeyRing, seal, unseal
from voices.sql.keys import destroy_keys, new_key
from voices.sql.records import NewRecording, Speaker, StoredRecording
from voices.sql.schema import (
    UNREADABLE,
    UNREADABLE_TIME,
    audio,
    embeddings,
    inbox,
    info,
    keys,
    means,
    models,
    recordings,
    removals,
    speakers,
    uploads,
    vectors,
)

KEPT_REMOVALS = 10_000
"""Changes after which the id of a removed speaker is forgotten; a process that slept through more
of them reads everything again."""


def to_bytes(embedding: FloatArray) -> bytes:
    """Returns an embedding as little-endian float32."""
    return np.asarray(embedding, "<f4").tobytes()


def from_bytes(content: bytes) -> FloatArray:
    """Returns the embedding that `to_bytes` wrote, shape `(embedding_size,)`."""
    return np.frombuffer(content, "<f4").astype(np.float32)


class VoiceRows:
    """Works inside a transaction that the caller opened.

    Attributes:
        model_id: The model whose embeddings are compared.
        has_vectors: Whether speakers' embeddings go into the vector table too.
    """

    def __init__(self, ring: KeyRing, model_id: str, has_vectors: bool) -> None:
        """Takes the keys' keeper and what the embeddings are."""
        self.model_id = model_id
        self.has_vectors = has_vectors
        self._ring = ring

    @property
    def is_encrypted(self) -> bool:
        """Whether a key encrypts what is stored of voices."""
        return self._ring.is_encrypted

    def size_query(self) -> "Select[Any]":
        """Returns the query for the length of the model's embeddings."""
        return select(models.c.embedding_size).where(models.c.id == self.model_id)

    def next_change(self, connection: Connection) -> int:
        """Counts a write, and returns its number; until its end no other process writes.

        Raises:
            DatabaseError: If the database was given another key meanwhile.
        """
        counted = update(info).values(change_number=info.c.change_number + 1)
        columns = info.c.change_number, info.c.key_check
        row = connection.execute(counted.returning(*columns)).one()
        self.check_key(row.key_check)
        return int(row.change_number)

    def check_key(self, stored: bytes | None) -> None:
        """Raises DatabaseError if the database was given another key meanwhile."""
        self._ring.check_unchanged(stored)

    def add_speaker(
        self, connection: Connection, group: str, name: str, new: Sequence[NewRecording]
    ) -> str:
        """Inserts a speaker dated by the oldest of the new recordings; returns its id."""
        speaker_id = uuid.uuid4().hex
        now = datetime.now(timezone.utc)
        row = {
            "id": speaker_id,
            "name": name,
            "folded_name": fold_name(name),
            "created_at": min(recording.created_at or now for recording in new),
            "updated_at": now,
            "key_id": new_key(connection, self._ring)[0],
            "change_number": 0,
            "group_name": group,
        }
        connection.execute(insert(speakers), row)
        return speaker_id

    def add_recordings(
        self,
        connection: Connection,
        speaker_id: str,
        new: Sequence[NewRecording],
        position: int,
        *,
        store_audio: bool,
    ) -> None:
        """Stores recordings from a position on, with their sound if `store_audio`."""
        for place, recording in enumerate(new, position):
            recording_id = recording.id or uuid.uuid4().hex
            key_id, key = new_key(connection, self._ring)
            row = {
                "id": recording_id,
                "speaker_id": speaker_id,
                "position": place,
                "created_at": recording.created_at or datetime.now(timezone.utc),
                "speech_s": float(recording.speech_s),
                "duration_s": float(recording.duration_s),
                "file_name": recording.file_name,
                "key_id": key_id,
                "content_mark": _mark(key, recording.sha256),
            }
            connection.execute(insert(recordings), row)
            self._put_embedding(connection, recording_id, key, recording.embedding)
            if store_audio and recording.audio is not None:
                content = seal(key, recording.audio, f"{recording_id} audio")
                sound = {"recording_id": recording_id, "content": content}
                connection.execute(insert(audio), sound)
            if recording.inbox_path is not None:
                file = {"path": recording.inbox_path, "sha256": recording.inbox_sha256}
                connection.execute(insert(inbox), file | {"recording_id": recording_id})
        # Whoever is enrolled again is not to be deleted any more.
        speaker = update(speakers).where(speakers.c.id == speaker_id)
        connection.execute(speaker.values(is_being_deleted=False))

    def are_last(
        self, connection: Connection, speaker_id: str, new: Sequence[NewRecording]
    ) -> bool:
        """Tells whether a speaker's last recordings have the content of the new ones."""
        query = select(recordings.c.content_mark, keys.c.stored)
        query = query.join(keys, keys.c.id == recordings.c.key_id)
        query = query.where(recordings.c.speaker_id == speaker_id)
        rows = connection.execute(query.order_by(recordings.c.position)).all()[-len(new) :]
        return len(rows) == len(new) and all(
            row.content_mark is not None
            and hmac.compare_digest(
                row.content_mark, _mark(self._ring.open(row.stored), recording.sha256) or b""
            )
            for row, recording in zip(rows, new, strict=True)
        )

    def add_embedding(self, connection: Connection, recording: Any, new: FloatArray) -> None:
        """Adds this model's embedding to those of other models.

        Args:
            connection: An open transaction.
            recording: A row with its id and the stored form of its key.
            new: Unit length, shape `(embedding_size,)`.
        """
        self._put_embedding(connection, recording.id, self._ring.open(recording.stored), new)

    def _put_embedding(
        self, connection: Connection, recording_id: str, key: bytes, new: FloatArray
    ) -> None:
        """Inserts this model's embedding of a recording."""
        content = seal(key, to_bytes(new), f"{recording_id} embedding")
        row = {"recording_id": recording_id, "model_id": self.model_id, "embedding": content}
        connection.execute(insert(embeddings), row)

    def set_means(
        self,
        connection: Connection,
        speaker_id: str,
        number: int,
        usable: Sequence[FloatArray] | None = None,
        *,
        skip_damaged: bool = False,
    ) -> None:
        """Computes a speaker's mean embeddings by all models again, under a new key.

        Args:
            connection: An open transaction.
            speaker_id: Whose.
            number: The change's number.
            usable: The embeddings of all recordings, where they are at hand; else they are read.
            skip_damaged: Leave damaged recordings out: they must not keep others from being
                removed. Those of other models are always left out.

        Raises:
            DamagedVoiceError: If a recording is damaged, unless such are skipped.
        """
        if usable is None:
            usable_of = self._read_embeddings(connection, speaker_id, skip_damaged)
        else:
            usable_of = {self.model_id: list(usable)}
        mean_of = {model_id: mean_embedding(some) for model_id, some in usable_of.items() if some}
        connection.execute(delete(means).where(means.c.speaker_id == speaker_id))
        key, stored = self._ring.new()
        key_id = select(speakers.c.key_id).where(speakers.c.id == speaker_id)
        replaced = update(keys).where(keys.c.id == key_id.scalar_subquery())
        connection.execute(replaced.values(stored=stored))
        for model_id in usable_of:
            mean, content = mean_of.get(model_id), b""
            # A speaker of damaged recordings only is damaged, too: nothing opens an empty text.
            if mean is not None:
                content = seal(key, to_bytes(mean), f"{speaker_id} embedding")
            row = {"speaker_id": speaker_id, "model_id": model_id, "embedding": content}
            connection.execute(insert(means), row)
        changed = update(speakers).where(speakers.c.id == speaker_id)
        connection.execute(changed.values(change_number=number))
        if self.has_vectors:
            self._set_vectors(connection, speaker_id, mean_of)

    def touch(self, connection: Connection, speaker_id: str) -> None:
        """Notes that a speaker's recordings were changed now."""
        changed = update(speakers).where(speakers.c.id == speaker_id)
        connection.execute(changed.values(updated_at=datetime.now(timezone.utc)))

    def _read_embeddings(
        self, connection: Connection, speaker_id: str, skip_damaged: bool
    ) -> dict[str, list[FloatArray]]:
        """Returns a speaker's embeddings by model; of damaged ones there is only the model."""
        query = (
            select(recordings.c.id, embeddings.c.model_id, embeddings.c.embedding, keys.c.stored)
            .join(embeddings, embeddings.c.recording_id == recordings.c.id)
            .join(keys, keys.c.id == recordings.c.key_id)
            .where(recordings.c.speaker_id == speaker_id)
            .order_by(recordings.c.position)
        )
        usable: dict[str, list[FloatArray]] = {}
        for row in connection.execute(query):
            of_model = usable.setdefault(row.model_id, [])
            try:
                of_model.append(self.embedding(row))
            except DamagedVoiceError:
                if row.model_id == self.model_id and not skip_damaged:
                    raise
        return usable

    def _set_vectors(
        self, connection: Connection, speaker_id: str, mean_of: dict[str, FloatArray]
    ) -> None:
        """Puts a speaker's embeddings into the vector table, and takes out what was there."""
        gone = delete(vectors).where(vectors.c.speaker_id == speaker_id)
        connection.execute(gone.where(vectors.c.model_id.not_in(mean_of)))
        for model_id, mean in mean_of.items():
            row = postgresql.insert(vectors).values(
                speaker_id=speaker_id, model_id=model_id, embedding=mean
            )
            connection.execute(
                row.on_conflict_do_update(
                    index_elements=["speaker_id", "model_id"], set_={"embedding": mean}
                )
            )

    def embedding(self, row: Any) -> FloatArray:
        """Opens the embedding of a row with its id and the stored form of its key.

        Raises:
            DamagedVoiceError: If it or its key was changed.
        """
        key = self._ring.open(row.stored)
        return from_bytes(unseal(key, row.embedding or b"", f"{row.id} embedding"))

    def read_audio(self, connection: Connection, recording_id: str) -> bytes | None:
        """Returns the sound of a recording, None if none is kept."""
        query = select(audio.c.content, keys.c.stored)
        query = query.join(recordings, recordings.c.id == audio.c.recording_id)
        query = query.join(keys, keys.c.id == recordings.c.key_id)
        row = connection.execute(query.where(recordings.c.id == recording_id)).one_or_none()
        if row is None:
            return None
        return unseal(self._ring.open(row.stored), row.content, f"{recording_id} audio")

    def remove_recordings(self, connection: Connection, ids: Sequence[str]) -> None:
        """Destroys recordings: first their keys, then the rows."""
        if not ids:
            return
        chosen = select(recordings.c.key_id).where(recordings.c.id.in_(ids))
        destroy_keys(connection, self._ring, connection.execute(chosen).scalars().all())
        connection.execute(delete(audio).where(audio.c.recording_id.in_(ids)))
        connection.execute(delete(embeddings).where(embeddings.c.recording_id.in_(ids)))
        connection.execute(delete(recordings).where(recordings.c.id.in_(ids)))

    def remove_speaker(self, connection: Connection, speaker_id: str, number: int) -> None:
        """Destroys a speaker, the recordings too; other processes learn the id that went."""
        chosen = select(recordings.c.id).where(recordings.c.speaker_id == speaker_id)
        self.remove_recordings(connection, list(connection.execute(chosen).scalars()))
        key_id = select(speakers.c.key_id).where(speakers.c.id == speaker_id)
        of_uploads = select(uploads.c.key_id).where(uploads.c.speaker_id == speaker_id)
        gone = connection.execute(key_id.union(of_uploads)).scalars().all()
        destroy_keys(connection, self._ring, gone)
        connection.execute(delete(uploads).where(uploads.c.speaker_id == speaker_id))
        if self.has_vectors:
            connection.execute(delete(vectors).where(vectors.c.speaker_id == speaker_id))
        connection.execute(delete(means).where(means.c.speaker_id == speaker_id))
        connection.execute(delete(speakers).where(speakers.c.id == speaker_id))
        connection.execute(insert(removals), {"change_number": number, "speaker_id": speaker_id})
        old = removals.c.change_number <= number - KEPT_REMOVALS
        connection.execute(delete(removals).where(old))

    def describe(
        self, connection: Connection, query: "Select[Any]", damaged: Collection[str] = ()
    ) -> list[Speaker]:
        """Returns the speakers that a query finds, with their recordings.

        Args:
            connection: An open transaction.
            query: For rows of speakers.
            damaged: Ids of speakers whose voice cannot be read.
        """
        rows = connection.execute(query).all()
        found: dict[str, list[StoredRecording]] = {row.id: [] for row in rows}
        # Ids from a subquery of its own: a limit is allowed only there.
        ids = select(query.with_only_columns(speakers.c.id).subquery().c.id)
        own = select(embeddings.c.recording_id).where(embeddings.c.model_id == self.model_id)
        own = own.join(recordings, recordings.c.id == embeddings.c.recording_id)
        comparable = set(connection.scalars(own.where(recordings.c.speaker_id.in_(ids))))
        unreadable = set(damaged)
        for recording in connection.execute(recordings_of(ids)):
            lengths = recording.speech_s, recording.duration_s
            if recording.created_at == UNREADABLE_TIME or not np.isfinite(lengths).all():
                unreadable.add(recording.speaker_id)
            found[recording.speaker_id].append(
                StoredRecording(
                    id=recording.id,
                    created_at=recording.created_at,
                    speech_s=float(np.nan_to_num(recording.speech_s)),
                    duration_s=float(np.nan_to_num(recording.duration_s)),
                    has_audio=recording.recording_id is not None,
                    is_comparable=recording.id in comparable,
                )
            )
        return [
            Speaker(
                name=row.name,
                created_at=row.created_at,
                updated_at=row.updated_at,
                recordings=tuple(found[row.id]),
                is_damaged=row.id in unreadable
                or UNREADABLE in row.name
                or UNREADABLE_TIME in (row.created_at, row.updated_at),
            )
            for row in rows
        ]


def _mark(key: bytes, sha256: str) -> bytes | None:
    """Returns by what the same content is known again, together with the record's key."""
    return hmac.digest(key, sha256.encode(), "sha256") if sha256 else None


def recordings_of(speaker_ids: Any) -> Any:
    """Returns the query for the recordings of speakers, a list of ids or a query for them.

    In the order of enrolment, without voice data.
    """
    return (
        select(
            recordings.c.id,
            recordings.c.speaker_id,
            recordings.c.position,
            recordings.c.created_at,
            recordings.c.speech_s,
            recordings.c.duration_s,
            recordings.c.file_name,
            audio.c.recording_id,
        )
        .outerjoin(audio, audio.c.recording_id == recordings.c.id)
        .where(recordings.c.speaker_id.in_(speaker_ids))
        .order_by(recordings.c.position)
    )
