"""The process that finds who spoke when in one recording.

A process of its own can be ended at any moment, gives its memory back, cannot pull the service down
with it, and has a low priority: requests that are answered at once go first. The recording comes
through the pipe as the decoder asks for it; the file and its key stay with the service.
"""

import contextlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection

from service.diarization.spool import BUFFER_BYTES, SpoolReader
from utils.arrays import FloatArray
from utils.audio.activity import speech_seconds
from utils.audio.fidelity import encode_faithfully
from utils.audio.waveform import SAMPLE_RATE
from utils.diarization.clustering import SpeakerCount
from utils.diarization.diarizer import Diarization, diarize
from utils.diarization.enrolment import speech_of_each
from utils.errors import AudioError, ModelError, VoiceprintError
from utils.verification.embedding import Encoder
from utils.workers import prepare_worker

NICENESS = 10
"""How much less urgent than the service: at 10 it gets a tenth of a processor that both want."""

NAME = "file"
"""What errors call the recording: the field of the form."""


@dataclass(frozen=True)
class Task:
    """What to do.

    Attributes:
        size: Bytes of the recording.
        count: How many speakers there may be.
        max_duration_s: Longest recording that is allowed, in seconds.
        num_threads: Windows that are heard at a time.
        keep_audio: Whether the speakers' speech is returned too.
        model_id: The model that the service uses.
    """

    size: int
    count: SpeakerCount
    max_duration_s: float
    num_threads: int
    keep_audio: bool
    model_id: str


@dataclass(frozen=True)
class FoundVoice:
    """A speaker's voice, as it would be enrolled.

    Attributes:
        embedding: Unit length, shape `(embedding_size,)`; None if there is too little speech.
        speech_s: Seconds of speech in it.
        duration_s: Its length in seconds.
        audio: FLAC, if audio is kept.
        defect: Why it cannot be enrolled, or None.
    """

    embedding: FloatArray | None
    speech_s: float
    duration_s: float
    audio: bytes | None
    defect: str | None = None


@dataclass(frozen=True)
class Findings:
    """What was found: the turns, and the voice of each speaker by number, "1" first."""

    diarization: Diarization
    voices: Mapping[str, FoundVoice]


def work(pipe: Connection, encoder: Encoder, task: Task) -> None:
    """Finds who spoke when; the main function of the process.

    It sends `("read", offset, size)` and receives the bytes; `("heard", seconds)`; and in the end
    `("done", Findings)`, or `("failed", class, args, attributes)` of a VoiceprintError.
    """
    prepare_worker()
    with contextlib.suppress(AttributeError, OSError):  # Windows has no niceness
        os.nice(NICENESS)
    try:
        if encoder.model_id != task.model_id:
            raise ModelError("the model's file has changed since the start; restart the service")
        pipe.send(("done", find(pipe, encoder, task)))
    except VoiceprintError as error:
        pipe.send(("failed", type(error), error.args, vars(error)))


def find(pipe: Connection, encoder: Encoder, task: Task) -> Findings:
    """Finds the turns, and the speech of each speaker in a second pass.

    Raises:
        AudioError: If the recording cannot be used.
    """

    def read_at(offset: int, size: int) -> bytes:
        pipe.send(("read", offset, size))
        return bytes(pipe.recv_bytes())

    source = io.BufferedReader(SpoolReader(read_at, task.size), BUFFER_BYTES)
    found = diarize(
        source,
        encoder,
        task.count,
        task.num_threads,
        on_progress=lambda seconds: pipe.send(("heard", seconds)),
        name=NAME,
        max_duration_s=task.max_duration_s,
    )
    labels = [str(number) for number in range(1, len(found.embeddings) + 1)]
    speech = speech_of_each(labels, found.turns, source)
    voices = {
        label: _voice(speech.get(label), encoder, keep_audio=task.keep_audio) for label in labels
    }
    return Findings(found, voices)


def _voice(speech: FloatArray | None, encoder: Encoder, *, keep_audio: bool) -> FoundVoice:
    """Returns the voice in some speech."""
    if speech is None:
        defect = "speaks only while others do, expected speech of one voice"
        return FoundVoice(None, 0.0, 0.0, None, defect)
    duration_s = len(speech) / SAMPLE_RATE
    audio = None
    try:
        embedding = encoder.embed_waveform(speech, "the speaker's turns")
        if keep_audio:
            audio = encode_faithfully(speech, embedding, encoder.embed_waveform, "FLAC")
    except AudioError as error:
        return FoundVoice(None, speech_seconds(speech), duration_s, None, str(error))
    return FoundVoice(embedding, speech_seconds(speech), duration_s, audio)
