"""Which files of the service's inbox are enrolled, as the database remembers them."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update

from utils.speaker_names import DEFAULT_GROUP, fold_name
from voices.sql.engine import SqlConnections
from voices.sql.schema import inbox, recordings, speakers


@dataclass(frozen=True)
class InboxFile:
    """An enrolled file.

    Attributes:
        path: Its place in the inbox.
        sha256: Of its content, in hexadecimal.
        recording_id: As what it is enrolled; it is forgotten together with this recording.
        speaker: Whose recording that is.
    """

    path: str
    sha256: str
    recording_id: str
    speaker: str


class InboxFiles:
    """The files of one database; `NewRecording` brings new ones. All are the default group's."""

    def __init__(self, connections: SqlConnections) -> None:
        self._connections = connections

    def all(self) -> list[InboxFile]:
        """Returns all enrolled files."""
        query = select(inbox.c.path, inbox.c.sha256, inbox.c.recording_id, speakers.c.name)
        query = query.join(recordings, recordings.c.id == inbox.c.recording_id)
        query = query.join(speakers, speakers.c.id == recordings.c.speaker_id)
        return [InboxFile(*row) for row in self._connections.fetch(query)]

    def write(self, files: Iterable[InboxFile]) -> None:
        """Puts these files in the place of all that are known."""
        rows = [
            {"path": file.path, "sha256": file.sha256, "recording_id": file.recording_id}
            for file in files
        ]
        with self._connections.write() as connection:
            connection.execute(delete(inbox))
            if rows:
                connection.execute(insert(inbox), rows)

    def begin_deletion(self, name: str) -> None:
        """Notes that a speaker's files are being removed, before the speaker is."""
        speaker = update(speakers).where(
            speakers.c.group_name == DEFAULT_GROUP, speakers.c.folded_name == fold_name(name)
        )
        with self._connections.write() as connection:
            connection.execute(speaker.values(is_being_deleted=True))

    def begun_deletions(self) -> list[str]:
        """Returns the speakers whose deletion was begun and not finished."""
        query = select(speakers.c.name).where(speakers.c.is_being_deleted)
        return [row.name for row in self._connections.fetch(query)]
