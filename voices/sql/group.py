"""The speakers of one group, found and described."""

from typing import Any

from sqlalchemy import Connection, func, select

from utils.arrays import FloatArray
from utils.errors import OtherModelError, UnknownSpeakerError
from utils.speaker_names import clean_name, fold_name, is_storable
from voices.sql.engine import SqlConnections
from voices.sql.records import Speaker
from voices.sql.rows import VoiceRows, recordings_of
from voices.sql.schema import UNREADABLE, keys, means, speakers
from voices.sql.search import Search


class GroupSpeakers:
    """Reads within a transaction that the caller opened, or in one of its own.

    Attributes:
        name: The group's.
        are_members: The condition on its speakers.
    """

    def __init__(
        self, name: str, connections: SqlConnections, rows: VoiceRows, search: Search
    ) -> None:
        """Takes the group's name, and what all groups of the database share."""
        self.name = name
        self.are_members = speakers.c.group_name == name
        self._connections = connections
        self._rows = rows
        self._search = search

    def in_group(self, name: str) -> "GroupSpeakers":
        """Returns the speakers of another group of the same database."""
        return GroupSpeakers(name, self._connections, self._rows, self._search)

    def find(self, connection: Connection, name: str) -> Any:
        """Returns the row, id and name, of the speaker who has a name; None if nobody has it.

        Raises:
            DatabaseError: If that cannot be a name.
        """
        query = select(speakers.c.id, speakers.c.name).where(self.are_members)
        folded_name = fold_name(clean_name(name))
        found = connection.execute(query.where(speakers.c.folded_name == folded_name)).one_or_none()
        if found is not None or UNREADABLE not in name:
            return found
        # No query finds by a name that cannot be read.
        rows = connection.execute(query)
        return next((row for row in rows if fold_name(row.name) == folded_name), None)

    def require(self, connection: Connection, name: str) -> Any:
        """Returns the row of the speaker who has a name, or raises UnknownSpeakerError."""
        row = self.find(connection, name)
        if row is None:
            raise UnknownSpeakerError(
                f"nobody named {clean_name(name)} in {self._connections.name}"
            )
        return row

    def require_recording(self, connection: Connection, speaker: Any, recording_id: str) -> Any:
        """Returns the row of one of a speaker's recordings, or raises UnknownSpeakerError."""
        for row in connection.execute(recordings_of([speaker.id])):
            if row.id == recording_id:
                return row
        raise UnknownSpeakerError(
            f"{speaker.name} has no recording {recording_id[:40]!r}; list the recordings"
        )

    def describe(self, connection: Connection, speaker_id: str) -> Speaker:
        """Reads a speaker.

        Raises:
            UnknownSpeakerError: If the speaker was deleted.
        """
        query = select(speakers).where(self.are_members, speakers.c.id == speaker_id)
        found = self._rows.describe(connection, query, self._search.damaged_ids())
        if not found:
            raise UnknownSpeakerError("what the repeated request enrolled was deleted meanwhile")
        return found[0]

    def mean(self, connection: Connection, name: str) -> FloatArray:
        """Returns a speaker's mean embedding by the model in use, shape `(embedding_size,)`.

        Raises:
            UnknownSpeakerError: If nobody has the name.
            OtherModelError: If there is no recording of this model.
            DamagedVoiceError: If the stored embedding was changed.
        """
        row = self.require(connection, name)
        query = select(speakers.c.id, means.c.embedding, keys.c.stored)
        query = query.join(keys, keys.c.id == speakers.c.key_id)
        query = query.join(means, means.c.speaker_id == speakers.c.id)
        query = query.where(speakers.c.id == row.id, means.c.model_id == self._rows.model_id)
        found = connection.execute(query).one_or_none()
        if found is None:
            raise OtherModelError(
                f"{row.name} was enrolled with another model; enrol the voice again", row.id
            )
        return self._rows.embedding(found)

    def count(self, connection: Connection) -> int:
        """Returns how many there are."""
        counted = select(func.count()).where(self.are_members)
        return int(connection.execute(counted).scalar_one())

    def names(self, *, comparable: bool = False) -> list[str]:
        """Returns the names in alphabetical order, of all or of those this model can compare."""
        query = select(speakers.c.name).where(self.are_members).order_by(speakers.c.name)
        if comparable:
            query = query.where(self._are_comparable())
        return [row.name for row in self._connections.fetch(query)]

    def names_of_length(self, length: int) -> list[str]:
        """Returns the names of so many characters: a database of 100,000 need not send all."""
        query = select(speakers.c.name).where(self.are_members)
        query = query.where(func.length(speakers.c.folded_name) == length)
        return [row.name for row in self._connections.fetch(query)]

    def all(self) -> list[Speaker]:
        """Returns all with their recordings, in the order of their names."""
        with self._connections.read() as connection:
            query = select(speakers).where(self.are_members).order_by(speakers.c.name)
            return self._rows.describe(connection, query)

    def page(
        self, offset: int, limit: int, query: str, comparable: bool | None
    ) -> tuple[list[Speaker], int]:
        """Returns some in the order of their names, and how many there are in all.

        Args:
            offset: How many to pass over.
            limit: How many to return at most.
            query: Only those whose name contains it.
            comparable: Only those whom this model can compare, or only the others.
        """
        if not is_storable(query):
            return [], 0
        conditions = [self.are_members]
        if query:
            name = fold_name(query)
            conditions.append(speakers.c.folded_name.contains(name, autoescape=True))
        if comparable is not None:
            conditions.append(self._are_comparable() if comparable else ~self._are_comparable())
        with self._connections.read() as connection:
            counted = select(func.count()).where(*conditions)
            page = select(speakers).where(*conditions)
            page = page.order_by(speakers.c.name).offset(offset).limit(limit)
            total = int(connection.execute(counted).scalar_one())
            return self._rows.describe(connection, page, self._search.damaged_ids()), total

    def _are_comparable(self) -> Any:
        """The condition on speakers whom the model in use can compare."""
        own = select(means.c.speaker_id).where(means.c.model_id == self._rows.model_id)
        return speakers.c.id.in_(own)
