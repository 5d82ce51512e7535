"""The documents that the service answers."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def rounded(value: float) -> float:
    """Rounds a score or a probability: single precision has no more digits of meaning."""
    return round(value, 6)


Number = Annotated[float, AfterValidator(rounded)]
"""A score or a probability."""


class ProblemDocument(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(extra="allow")
    type: str
    title: str
    status: int
    detail: str


class ClassicError(BaseModel):
    """An error of the classic routes."""

    detail: str


class QualityDocument(BaseModel):
    """How good a recording is; lengths in seconds, levels in dB relative to full scale."""

    duration_s: float
    speech_s: float
    level_dbfs: float
    peak_dbfs: float
    clipped_fraction: float
    noise_dbfs: float
    snr_db: float
    heard: str = Field(
        description='"speech", "silence", "steady noise", "tones or music" or "other sounds"'
    )
    warnings: list[str] = Field(
        description='Any of "quiet", "clipped", "noisy", "short", "two_voices"'
    )


class CalibrationDocument(BaseModel):
    """Log-odds of one speaker: slope * score + offset."""

    slope: float
    offset: float


class RatesDocument(BaseModel):
    """What a threshold led to among the people on whom it was found; rates are fractions.

    The strict threshold's come first. There are none where nothing was measured.
    """

    threshold: float
    false_accept_rate: Number = Field(description="Mean over the groups of people")
    worst_rate: Number = Field(description="The same in the worst group")
    worst_group: str
    miss_rate: Number = Field(description="Pairs of one person that were refused")
    num_trials: int = Field(description="Pairs of different people")


class InfoDocument(BaseModel):
    """What the service is and allows. Without a valid token only auth_required and version."""

    auth_required: bool
    version: str
    token: str | None = Field(default=None, description="The name of the token")
    scopes: list[str] | None = Field(default=None, description="What it allows")
    group: str | None = Field(default=None, description="Whose speakers the request reaches")
    groups: list[str] | None = Field(
        default=None, description="Groups that it may choose by the header Voiceprint-Group"
    )
    model_id: str | None = None
    embedding_size: int | None = None
    threshold: float | None = None
    strict_threshold: float | None = None
    score_norm: str | None = None
    calibration: CalibrationDocument | None = None
    rates: list[RatesDocument] | None = None
    min_speech_s: float | None = None
    max_duration_s: float | None = None
    max_upload_bytes: int | None = None
    max_recordings: int | None = None
    keep_audio: bool | None = None
    challenge: Literal["off", "optional", "required"] | None = None
    num_speakers: int | None = None


class CompareDocument(BaseModel):
    """Whether two recordings are of one speaker."""

    score: Number
    threshold: float
    is_same_speaker: bool
    probability: Number
    quality: list[QualityDocument]


class EmbedDocument(BaseModel):
    """The voiceprint of a recording: unit length, comparable within one model_id."""

    embedding: list[float]
    model_id: str
    quality: QualityDocument


class RecordingDocument(BaseModel):
    """A stored recording."""

    id: str
    created_at: str
    speech_s: float
    duration_s: float
    has_audio: bool
    is_comparable: bool = Field(
        description="Whether the model in use has embedded it; false after a change of model"
    )


class OtherModelsDocument(BaseModel):
    """Recordings that only other models have embedded."""

    waiting: int = Field(description="Are being embedded from their sound")
    without_sound: int = Field(description="Their sound was not kept: enrol again")


class SpeakerDocument(BaseModel):
    """An enrolled speaker; times are UTC, ISO 8601."""

    name: str
    created_at: str
    updated_at: str
    is_damaged: bool = Field(
        description="Whether something stored of the speaker was changed from outside: an "
        "unreadable time is the year 1, an unreadable character U+2BD1"
    )
    recordings: list[RecordingDocument]


class NewSpeakerDocument(SpeakerDocument):
    """A speaker who was enrolled now."""

    looks_like: list[str] = Field(
        description="Enrolled names of other people that look the same, in other letters"
    )


class EnrolledDocument(NewSpeakerDocument):
    """An enrolled speaker, with how alike and how good the sent recordings are."""

    similarity: list[list[float]] = Field(description="Cosines between the sent recordings")
    quality: list[QualityDocument]


class SpeakersDocument(BaseModel):
    """A page of speakers, ordered by name."""

    speakers: list[SpeakerDocument]
    total: int
    offset: int
    limit: int
    other_models: OtherModelsDocument


class RenameDocument(BaseModel):
    """A new name."""

    name: str


class RemovedDocument(BaseModel):
    """What a deletion removed."""

    embeddings: int
    recordings: int
    files: list[str]


class DeletedDocument(BaseModel):
    """A deleted speaker."""

    name: str
    removed: RemovedDocument


class VerifyDocument(BaseModel):
    """Whether a recording is of the claimed speaker."""

    name: str
    score: Number
    threshold: float
    is_same_speaker: bool
    probability: Number
    challenge_passed: bool = Field(
        description="Whether a challenge was sent and is fresh; what was said is not understood"
    )
    quality: QualityDocument


class NewChallengeDocument(BaseModel):
    """For whom, and in which language, digits are to be read."""

    speaker: str | None = Field(None, description="The only name that it may be used for")
    language: Literal["en", "zh"] = "en"


class ChallengeDocument(BaseModel):
    """Digits to be read aloud; the recording is sent with `id` in the field `challenge`."""

    id: str
    digits: str = Field(description='Such as "402918"')
    text: str = Field(description="The same in words, separated by spaces")
    language: str
    speaker: str | None
    expires_at: str
    expires_in_s: float
    min_speech_s: float = Field(description="Seconds of speech that the recording must have")


class MatchDocument(BaseModel):
    """An enrolled speaker and how alike the voice is."""

    name: str
    score: Number
    probability: Number


class IdentifyDocument(BaseModel):
    """Whose voice it is: null if nobody's score reaches the threshold."""

    name: str | None
    score: Number | None = Field(description="Of the best match; null if nobody is enrolled")
    threshold: float
    matches: list[MatchDocument]
    quality: QualityDocument


class TurnDocument(BaseModel):
    """A stretch of speech of one speaker."""

    start_s: float
    end_s: float
    speaker: str = Field(description="The label of the speaker")
    name: str | None = Field(description="The enrolled speaker, null if it is nobody's voice")
    score: Number | None = Field(
        description="Cosine of the turn and its speaker's voice here; null for very short turns"
    )
    is_overlapped: bool = Field(description="Whether somebody else speaks meanwhile")


class FoundSpeakerDocument(BaseModel):
    """A speaker of a recording."""

    label: str = Field(description='"1", "2", ...: numbers in the order of the first turns')
    name: str | None
    score: Number | None = Field(description="Of the best enrolled voice; null if there is none")
    speech_s: float
    num_turns: int
    can_be_enrolled: bool = Field(description="Whether there is enough speech without others'")


class DiarizationResult(BaseModel):
    """Who spoke when; times in seconds."""

    recording: str = Field(description="The name of the file that was sent, without its ending")
    duration_s: float
    overlap_share: float | None = Field(
        None,
        description="Share of the speech with several people at once; from 0.4 on, speakers and "
        "turns are doubtful",
    )
    threshold: float = Field(description="Least score that names a speaker")
    speakers: list[FoundSpeakerDocument]
    turns: list[TurnDocument]


JobState = Literal["queued", "running", "done", "failed", "cancelled", "lost"]


class JobDocument(BaseModel):
    """A recording that is worked on; times are UTC, ISO 8601."""

    id: str
    state: JobState
    progress: float = Field(description="From 0 to 1")
    created_at: str
    expires_at: str = Field(description="When it is removed; later while it is being worked on")
    error: ProblemDocument | None = Field(None, description="Why it failed or was lost")


class DiarizationDocument(JobDocument):
    """A job and, once it is done, what was found."""

    result: DiarizationResult | None = None


class JobsDocument(BaseModel):
    """The jobs of a token, the newest first, without results."""

    diarizations: list[JobDocument]


EnrolmentRule = Annotated[
    Literal["error", "add", "replace"],
    Field(description="What to do if the name is enrolled: refuse, add to its recordings, replace"),
]


class EnrolFoundDocument(BaseModel):
    """As whom to enrol a speaker of a recording."""

    name: str
    if_exists: Literal["error", "add"] = Field(
        "error", description="What to do if the name is enrolled: refuse, or add a recording"
    )


class NewEnrolmentDocument(BaseModel):
    """Whom to enrol, recording by recording; the name may come at the end."""

    name: str | None = None
    if_exists: EnrolmentRule = "error"


class FinishDocument(BaseModel):
    """Whom to enrol, where the beginning did not say it or it is to be somebody else."""

    name: str | None = None
    if_exists: EnrolmentRule | None = None


class ConfirmDocument(BaseModel):
    """What somebody says of a recording whose voice differs."""

    confirmed: bool = Field(description="Whether it is the speaker's own voice all the same")


class EnrolmentPartDocument(BaseModel):
    """A recording of an enrolment that is under way; it counts if it agrees or is confirmed."""

    number: int
    agrees: bool = Field(description="Whether it has the voice of the others")
    confirmed: bool = Field(description="Whether somebody said that it is the speaker's")
    quality: QualityDocument


class EnrolmentDocument(BaseModel):
    """An enrolment that is under way: what is there, and what is missing."""

    id: str
    name: str | None
    created_at: str
    expires_at: str = Field(description="When it is removed; later with each recording")
    speech_s: float = Field(description="In the recordings that count")
    needed_speech_s: float
    needed_recordings: int
    completeness: float = Field(description="From 0 to 1")
    next: Literal["record", "decide", "finish"] = Field(
        description="Add a recording; confirm or remove those whose voice differs; or finish"
    )
    similarity: list[list[float]] = Field(description="Scores between the recordings")
    recordings: list[EnrolmentPartDocument]


class BulkRowDocument(BaseModel):
    """What became of a recording of a zip."""

    recording: str
    speaker: str
    outcome: Literal["enrolled", "enrolled before", "skipped", "left"] = Field(
        description='"left": there was no time for it, send the zip again'
    )
    reason: str


class BulkDocument(BaseModel):
    """What became of the recordings of a zip."""

    enrolled: int
    present: int = Field(description="Enrolled before")
    skipped: int
    left: int
    recordings: list[BulkRowDocument]


class EventDocument(BaseModel):
    """Something that happened, at a time in UTC."""

    id: int
    at: str
    actor: str = Field(description="The token's name, or who else did it")
    action: str = Field(
        description='"enrol", "add", "replace", "rename", "delete", "delete recording", "hear", '
        '"lock" or "refuse"; later versions may have more'
    )
    speaker: str
    outcome: str


class EventsDocument(BaseModel):
    """Events, the oldest first, and the number to ask for later ones with."""

    events: list[EventDocument]
    next: int


class HealthDocument(BaseModel):
    """State of the service."""

    status: str
    warning: str | None = None
    other_models: OtherModelsDocument | None = Field(
        None, description="After a change of model only"
    )


class ClassicHealth(BaseModel):
    """State of the service, as classic clients read it."""

    total_voiceprints: int
    status: str


class ClassicAnswer(BaseModel):
    """Success of a classic registration or deletion."""

    success: bool
    msg: str


class ClassicMatch(BaseModel):
    """Whose voice it is, as classic clients read it: "" if nobody's reaches the threshold."""

    speaker_id: str
    score: Number
