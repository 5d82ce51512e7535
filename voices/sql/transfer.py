"""Speakers as they lie in one database, to be laid into another: sealed contents stay sealed.

Ids, times, order, groups and the embeddings of all models are kept. Only the keys of the records
are sealed anew, with the other database's master key.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import Connection, Table, insert, select

from utils.errors import DatabaseError, SpeakerExistsError
from voices.sql.cipher import KeyRing, unseal
from voices.sql.engine import SqlConnections
from voices.sql.rows import VoiceRows, from_bytes
from voices.sql.schema import (
    audio,
    audit,
    embeddings,
    inbox,
    keys,
    means,
    models,
    recordings,
    speakers,
    uploads,
    vectors,
)

Rows = tuple[dict[str, Any], ...]

COPIED = "take over"
"""Action of the audit line that says how far the lines of another database were copied."""


@dataclass(frozen=True)
class Record:
    """A speaker or a recording with its key, opened.

    Attributes:
        row: The columns, without the number of the key's row.
        key: 32 bytes.
    """

    row: dict[str, Any]
    key: bytes

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.row["id"])


@dataclass(frozen=True)
class SpeakerRows:
    """Everything that a database holds of a speaker's voice."""

    speaker: Record
    recordings: tuple[Record, ...]
    means: Rows
    embeddings: Rows
    audio: Rows
    inbox: Rows
    uploads: tuple[Record, ...] = ()

    def holds(self, sent: "SpeakerRows") -> bool:
        """Tells whether this is the voice that was sent; means may be of more recordings."""
        own, other = (
            (each.speaker.id, each.recordings, each.embeddings, each.audio) for each in (self, sent)
        )
        return own == other

    def without(self, ids: set[str]) -> "SpeakerRows":
        """Returns the same without some recordings."""
        rest: dict[str, Any] = {
            name: tuple(row for row in getattr(self, name) if row["recording_id"] not in ids)
            for name in ("embeddings", "audio", "inbox")
        }
        kept = tuple(each for each in self.recordings if each.id not in ids)
        return replace(self, recordings=kept, **rest)


class Transfer:
    """Reads and writes whole speakers of one database, of all its groups."""

    def __init__(self, connections: SqlConnections, rows: VoiceRows, ring: KeyRing) -> None:
        self._connections = connections
        self._rows = rows
        self._ring = ring

    def speakers(self) -> list[tuple[str, str, str]]:
        """Returns `(id, group, name)` of all speakers, in the order of the names."""
        query = select(speakers.c.id, speakers.c.group_name, speakers.c.name)
        query = query.order_by(speakers.c.group_name, speakers.c.name)
        return [(row[0], row[1], row[2]) for row in self._connections.fetch(query)]

    def read(self, speaker_id: str) -> SpeakerRows | None:
        """Returns a speaker, None if there is none with this id.

        Raises:
            DamagedVoiceError: If the key of a record was changed from outside.
        """
        with self._connections.read() as connection:
            found = self._records(connection, speakers, speakers.c.id == speaker_id)
            if not found:
                return None
            own = self._records(connection, recordings, recordings.c.speaker_id == speaker_id)
            ids = [record.id for record in own]

            def of_recordings(table: Table) -> Rows:
                query = select(table).where(table.c.recording_id.in_(ids))
                query = query.order_by(*table.primary_key.columns)
                return tuple(dict(row) for row in connection.execute(query).mappings())

            query = select(means).where(means.c.speaker_id == speaker_id).order_by(means.c.model_id)
            return SpeakerRows(
                speaker=found[0],
                recordings=own,
                means=tuple(dict(row) for row in connection.execute(query).mappings()),
                embeddings=of_recordings(embeddings),
                audio=of_recordings(audio),
                inbox=of_recordings(inbox),
                uploads=self._records(connection, uploads, uploads.c.speaker_id == speaker_id),
            )

    def write(self, new: SpeakerRows, sizes: dict[str, int]) -> int:
        """Writes a speaker in one transaction, or what the database lacks of one.

        Args:
            new: The speaker.
            sizes: Lengths of the models' embeddings.

        Returns:
            How many recordings were written.

        Raises:
            SpeakerExistsError: If somebody else has the name.
            DatabaseError: If embeddings of one of the models have another length here.
        """
        speaker = new.speaker
        with self._connections.write() as connection:
            number = self._rows.next_change(connection)
            self._note_models(connection, sizes)
            is_here = speakers.c.id == speaker.id
            has_name = (speakers.c.group_name == speaker.row["group_name"]) & (
                speakers.c.folded_name == speaker.row["folded_name"]
            )
            there = list(connection.scalars(select(speakers.c.id).where(is_here | has_name)))
            if any(each != speaker.id for each in there):
                raise SpeakerExistsError(f"{speaker.row['name']}: somebody else has this name")
            ids = connection.scalars(
                select(recordings.c.id).where(recordings.c.speaker_id == speaker.id)
            )
            missing = new.without(set(ids))
            if not there:
                self._insert(connection, speakers, speaker, change_number=number)
                for record in new.uploads:
                    self._insert(connection, uploads, record)
            for record in missing.recordings:
                self._insert(connection, recordings, record)
            for table, rows in (
                (embeddings, missing.embeddings),
                (audio, missing.audio),
                (inbox, missing.inbox),
            ):
                if rows:
                    connection.execute(insert(table), list(rows))
            if there and missing.recordings:
                self._rows.set_means(connection, speaker.id, number, skip_damaged=True)
            elif not there:
                self._insert_means(connection, new)
        return len(missing.recordings)

    def sizes(self) -> dict[str, int]:
        """Returns the lengths of the models' embeddings."""
        rows = self._connections.fetch(select(models))
        return {str(row.id): int(row.embedding_size) for row in rows}

    def copy_audit(self, source: "Transfer") -> int:
        """Adds the audit lines of another database that were not copied before.

        Their order and times stay. A line of its own says how far they went.

        Returns:
            How many lines were added.
        """
        name = source._connections.name
        begin = f"{name} up to line "
        with self._connections.write() as connection:
            self._rows.next_change(connection)
            marks = select(audit.c.outcome).where(audit.c.action == COPIED)
            numbers = [
                int(text.removeprefix(begin))
                for text in connection.scalars(marks)
                if text.startswith(begin)
            ]
            with source._connections.read() as other:
                lines = select(audit).where(audit.c.id > max(numbers, default=0))
                options = {"yield_per": 1_000}
                result = other.execute(lines.order_by(audit.c.id), execution_options=options)
                last, num_lines = 0, 0
                for some in result.mappings().partitions():
                    rows = [{k: v for k, v in row.items() if k != "id"} for row in some]
                    connection.execute(insert(audit), rows)
                    last, num_lines = some[-1]["id"], num_lines + len(rows)
            if num_lines:
                now = datetime.now(timezone.utc)
                mark = {"at": now, "actor": "move_voices", "action": COPIED, "speaker": ""}
                connection.execute(insert(audit), {**mark, "outcome": f"{begin}{last}"})
        return num_lines

    def _records(self, connection: Connection, table: Table, condition: Any) -> tuple[Record, ...]:
        """Returns rows with their keys, opened."""
        query = select(table, keys.c.stored).join(keys, keys.c.id == table.c.key_id)
        if table is recordings:
            query = query.order_by(recordings.c.position, recordings.c.id)
        left_out = {"stored", "key_id", "change_number"}
        return tuple(
            Record(
                {name: value for name, value in row.items() if name not in left_out},
                self._ring.open(row["stored"]),
            )
            for row in connection.execute(query.where(condition)).mappings()
        )

    def _insert(self, connection: Connection, table: Table, record: Record, **more: Any) -> None:
        """Inserts a row, its key sealed with this database's master key."""
        stored = {"stored": self._ring.wrap(record.key)}
        key_id = connection.execute(insert(keys).returning(keys.c.id), stored).scalar_one()
        connection.execute(insert(table), {**record.row, **more, "key_id": int(key_id)})

    def _insert_means(self, connection: Connection, new: SpeakerRows) -> None:
        """Inserts a speaker's means, and the vectors that PostgreSQL searches."""
        for row in new.means:
            connection.execute(insert(means), row)
            if self._rows.has_vectors and row["embedding"]:
                place = f"{new.speaker.id} embedding"
                vector = from_bytes(unseal(new.speaker.key, row["embedding"], place))
                connection.execute(insert(vectors), {**row, "embedding": vector})

    def _note_models(self, connection: Connection, sizes: dict[str, int]) -> None:
        """Adds models that are new here."""
        known = {row.id: row.embedding_size for row in connection.execute(select(models))}
        for model_id, size in sizes.items():
            if model_id not in known:
                connection.execute(insert(models), {"id": model_id, "embedding_size": size})
            elif known[model_id] != size:
                raise DatabaseError(
                    f"{self._connections.name} holds embeddings of {known[model_id]} numbers of "
                    f"the model {model_id}, received {size}; they are of two models"
                )
