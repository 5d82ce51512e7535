"""The documents of /v1/calibrations."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from service.answers.schemas import Number, QualityDocument


class CutDocument(BaseModel):
    """The embedding of a recording, or of the middle of its speech."""

    name: Literal["full length", "3 s", "1 s"]
    speech_s: float = Field(ge=0, allow_inf_nan=False)
    embedding: list[Annotated[float, Field(allow_inf_nan=False)]] = Field(max_length=4096)


class CutRecordingDocument(BaseModel):
    """A recording as a calibration wants it: embedded whole, and cut to 3 s and 1 s of speech."""

    model_id: str
    quality: QualityDocument
    cuts: list[CutDocument]


class EmbeddedRecording(BaseModel):
    """Whose a recording is, and its embeddings."""

    speaker: str = Field(max_length=120, description="Any text that tells the people apart")
    cuts: list[CutDocument] = Field(max_length=3)


class CalibrationRequest(BaseModel):
    """Recordings of several people, embedded by POST /v1/calibrations/recordings."""

    model_id: str
    recordings: list[EmbeddedRecording] = Field(max_length=300)


Limits = Annotated[list[Number], Field(min_length=3, max_length=3)]
"""A rate, and between which limits it lies with the confidence told; fractions."""


class ProposedThresholdDocument(BaseModel):
    """One of the two thresholds, and what it leads to among these people."""

    promised: float = Field(description="False accepts that it may lead to")
    is_promised: bool = Field(description="Whether these people are enough to promise that")
    in_use: float
    found: float = Field(description="What these people alone would make of it")
    proposed: float = Field(description="Lower than in_use only as far as can be promised")
    false_accepts: Limits
    misses: Limits


class CurveDocument(BaseModel):
    """The rates at every threshold."""

    thresholds: list[float]
    false_accepts: list[Limits]
    misses: list[Limits]


class ProposalDocument(BaseModel):
    """Thresholds for some people and their microphone; nothing is changed."""

    num_people: int
    num_pairs: int = Field(description="Pairs of different people that were compared")
    num_recordings: int
    confidence: float
    strict: ProposedThresholdDocument
    default: ProposedThresholdDocument
    curve: CurveDocument
    file: dict[str, Any] = Field(description="calibration.json for tools/calibrate.py")
    commands: list[str] = Field(description="What applies it where the service runs")
