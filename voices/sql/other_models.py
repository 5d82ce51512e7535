"""What of the database was embedded by other models only, and the same recordings by this one.

Each recording keeps the embeddings of all models that have seen it. So a change of model loses
none, a change back finds the earlier ones, and a process with the earlier model works on meanwhile.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, select

from utils.arrays import FloatArray
from utils.errors import AudioError, DamagedVoiceError
from utils.verification.embedding import Encoder
from voices.sql.audio import decode
from voices.sql.engine import SqlConnections
from voices.sql.rows import VoiceRows
from voices.sql.schema import audio, embeddings, info, keys, recordings, speakers

NO_SOUND = "made by another model, and its sound was not kept; enrol it again"

DAMAGED_KEY = "its key was changed from outside; delete it, and enrol it again"

SoundFiles = Mapping[str, Callable[[], FloatArray]]
"""Id of a recording whose sound is a file -> what reads it, shape `(num_samples,)`, 16 kHz."""


@dataclass(frozen=True)
class Missing:
    """A recording without an embedding by this model.

    Attributes:
        id: Its id.
        speaker_id: Its speaker's.
        group: The speaker's group.
        label: NAME/ID, for people.
        has_audio: Whether the database keeps its sound.
        stored: The stored form of its key.
    """

    id: str
    speaker_id: str
    group: str
    label: str
    has_audio: bool
    stored: bytes


class OtherModels:
    """The recordings of one database that one model has not embedded."""

    def __init__(self, connections: SqlConnections, rows: VoiceRows) -> None:
        self._connections = connections
        self._rows = rows
        self._counted: dict[str | None, tuple[int, int]] = {}

    def missing(self, speaker_id: str | None = None, group: str | None = None) -> list[Missing]:
        """Returns the recordings without an embedding by this model, speaker by speaker.

        Args:
            speaker_id: Only those of this speaker.
            group: Only those of this group.
        """
        columns = recordings.c.id, recordings.c.speaker_id, speakers.c.group_name, speakers.c.name
        query = self._query(select(*columns, audio.c.recording_id, keys.c.stored))
        query = (
            query.join(speakers, speakers.c.id == recordings.c.speaker_id)
            .join(keys, keys.c.id == recordings.c.key_id)
            .outerjoin(audio, audio.c.recording_id == recordings.c.id)
            .order_by(speakers.c.group_name, speakers.c.name, recordings.c.position)
        )
        if speaker_id is not None:
            query = query.where(recordings.c.speaker_id == speaker_id)
        if group is not None:
            query = query.where(speakers.c.group_name == group)
        return [
            Missing(
                id=row.id,
                speaker_id=row.speaker_id,
                group=row.group_name,
                label=f"{row.name}/{row.id}",
                has_audio=row.recording_id is not None,
                stored=row.stored,
            )
            for row in self._connections.fetch(query)
        ]

    def count(self, group: str | None = None) -> int:
        """Returns how many recordings have no embedding by this model, in a group or in all."""
        number = int(self._connections.fetch(select(info.c.change_number))[0][0])
        counted = self._counted.get(group)
        if counted is None or counted[0] != number:
            query = self._query(select(func.count()).select_from(recordings))
            if group is not None:
                query = query.join(speakers, speakers.c.id == recordings.c.speaker_id)
                query = query.where(speakers.c.group_name == group)
            counted = (number, int(self._connections.fetch(query)[0][0]))
            self._counted[group] = counted
        return counted[1]

    def read_audio(self, recording: Missing) -> FloatArray:
        """Returns the sound that the database keeps, shape `(num_samples,)`, 16 kHz.

        Raises:
            AudioError: If it cannot be decoded.
            DamagedVoiceError: If it was changed from outside.
        """
        with self._connections.read() as connection:
            return decode(self._rows.read_audio(connection, recording.id) or b"")

    def add(self, speaker_id: str, new: Mapping[str, FloatArray]) -> list[str]:
        """Adds this model's embeddings to recordings, by their ids; who went is left out.

        Returns:
            Ids of the recordings whose key was changed from outside.
        """
        damaged = []
        with self._connections.write() as connection:
            number = self._rows.next_change(connection)
            query = self._query(select(recordings.c.id, keys.c.stored))
            query = query.join(keys, keys.c.id == recordings.c.key_id)
            query = query.where(recordings.c.id.in_(new), recordings.c.speaker_id == speaker_id)
            rows = connection.execute(query).all()
            for row in rows:
                try:
                    self._rows.add_embedding(connection, row, new[row.id])
                except DamagedVoiceError:
                    damaged.append(row.id)
            if len(damaged) < len(rows):
                self._rows.set_means(connection, speaker_id, number, skip_damaged=True)
        return damaged

    def _query(self, query: "Select[Any]") -> "Select[Any]":
        """Narrows a query to recordings without an embedding by this model."""
        of_model = select(embeddings.c.recording_id).where(
            embeddings.c.recording_id == recordings.c.id,
            embeddings.c.model_id == self._rows.model_id,
        )
        return query.where(~of_model.exists())


class Reembedding:
    """Embeds the recordings of other models by this one, as far as their sound is kept.

    One speaker is one transaction: what ends the process in between loses at most one speaker's
    work, and the next run goes on. Several processes may run at once.

    Attributes:
        rejected: `(recording, reason)` of those that cannot be embedded.
        num_done: Recordings that this run has embedded.
    """

    def __init__(
        self,
        others: OtherModels,
        encoder: Encoder,
        files: SoundFiles | None = None,
        group: str | None = None,
    ) -> None:
        """Finds out what there is to do.

        Args:
            others: Where the recordings are.
            encoder: The model.
            files: Sound that lies in files.
            group: The group whose recordings are embedded, None for all.
        """
        self.rejected: list[tuple[str, str]] = []
        self.num_done = 0
        self._others = others
        self._encoder = encoder
        self._files = files or {}
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[str, int]] = {}
        for recording in others.missing(group=group):
            if recording.has_audio or recording.id in self._files:
                _, waiting = self._waiting.get(recording.speaker_id, ("", 0))
                self._waiting[recording.speaker_id] = (recording.group, waiting + 1)
            else:
                self.rejected.append((recording.label, NO_SOUND))

    def num_waiting(self, group: str | None = None) -> int:
        """Returns how many recordings are still to be embedded, in a group or in all."""
        with self._lock:
            return sum(num for theirs, num in self._waiting.values() if group in (None, theirs))

    def is_waiting(self, speaker_id: str) -> bool:
        """Tells whether a speaker has recordings that are still to be embedded."""
        with self._lock:
            return speaker_id in self._waiting

    def run(self, is_stopped: Callable[[], bool] = lambda: False) -> None:
        """Embeds all that wait, until it is stopped.

        Raises:
            DatabaseError: If the database fails; another call goes on.
        """
        for speaker_id in list(self._waiting):
            new, labels, rejected = {}, {}, []
            # Asked now: another process, or a deletion, may have been here.
            for recording in self._others.missing(speaker_id):
                if is_stopped():
                    return
                label = labels[recording.id] = recording.label
                try:
                    waveform = self._read(recording)
                    if waveform is not None:
                        new[recording.id] = self._encoder.embed_waveform(waveform, source=label)
                except (AudioError, DamagedVoiceError) as error:
                    rejected.append((label, str(error)))
            damaged = self._others.add(speaker_id, new) if new else []
            rejected += [(labels[each], DAMAGED_KEY) for each in damaged]
            self.num_done += len(new) - len(damaged)
            self.rejected += rejected
            with self._lock:
                del self._waiting[speaker_id]

    def _read(self, recording: Missing) -> FloatArray | None:
        """Returns the sound of a recording, None where none is kept."""
        if recording.has_audio:
            return self._others.read_audio(recording)
        read_file = self._files.get(recording.id)
        return None if read_file is None else read_file()
