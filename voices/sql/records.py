"""What goes into the SQL voice database and what comes out."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from utils.arrays import FloatArray
from utils.audio.activity import speech_seconds
from utils.audio.waveform import SAMPLE_RATE
from utils.speaker_names import DEFAULT_GROUP

IfExists = Literal["error", "add", "replace"]
"""What to do with a name that is enrolled: refuse, add to its recordings, or replace them."""


@dataclass(frozen=True)
class NewRecording:
    """A recording to enrol.

    Attributes:
        embedding: Unit length, shape `(embedding_size,)`.
        speech_s: Seconds of speech in it.
        audio: FLAC or WAV of 16 kHz mono, 16 or 24 bits; files that are moved in, as they are.
            Kept only if the database keeps audio.
        duration_s: Its length in seconds.
        created_at: When it was made, with a time zone; now if None.
        file_name: Its name in the speaker's folder, or only the suffix for NAME.wav itself.
        inbox_path: Its place in the service's inbox, if it is a file there.
        inbox_sha256: Of that file's content.
        sha256: Of what was sent, in hexadecimal; empty if that is not known.
        id: 32 hexadecimal digits; a new one if empty.
    """

    embedding: FloatArray
    speech_s: float
    audio: bytes | None
    duration_s: float
    created_at: datetime | None = None
    file_name: str = ""
    inbox_path: str | None = None
    inbox_sha256: str = ""
    sha256: str = ""
    id: str = ""

    @classmethod
    def of(
        cls, waveform: FloatArray, embedding: FloatArray, audio: bytes | None, **more: Any
    ) -> "NewRecording":
        """Returns the recording with a waveform, shape `(num_samples,)`, 16 kHz."""
        duration_s = len(waveform) / SAMPLE_RATE
        return cls(embedding, speech_seconds(waveform), audio, duration_s, **more)


@dataclass(frozen=True)
class StoredRecording:
    """An enrolled recording.

    Attributes:
        id: 32 hexadecimal digits.
        created_at: When it was made, UTC.
        speech_s: Seconds of speech in it.
        duration_s: Its length in seconds.
        has_audio: Whether the database keeps its sound.
        is_comparable: Whether it has an embedding by the model in use.
    """

    id: str
    created_at: datetime
    speech_s: float
    duration_s: float
    has_audio: bool
    is_comparable: bool = True


@dataclass(frozen=True)
class Speaker:
    """An enrolled speaker, the recordings in the order of enrolment, times in UTC.

    With `is_damaged`, something was changed from outside: a time reads as the year 1, an unreadable
    character as U+2BD1, a length as 0; or the voice is left out of identification. Such a speaker
    can be removed, or enrolled anew, as any other.
    """

    name: str
    created_at: datetime
    updated_at: datetime
    recordings: tuple[StoredRecording, ...]
    is_damaged: bool = False


@dataclass(frozen=True)
class Removal:
    """What a deletion removed; `files` names each thing in a word."""

    num_embeddings: int
    num_recordings: int
    files: tuple[str, ...]


@dataclass(frozen=True)
class AuditLine:
    """A line of the audit log: who did what to whom in which group, the outcome, when (UTC)."""

    actor: str
    action: str
    speaker: str
    outcome: str
    score: float | None = None
    at: datetime | None = None
    group: str = DEFAULT_GROUP
