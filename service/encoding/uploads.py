"""From an upload to a voice: read, decoded, measured and embedded in the pool."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from fastapi import UploadFile

from service.encoding.pool import EncodingPool
from service.settings import Settings
from utils.arrays import FloatArray
from utils.audio.quality import Quality, measure_quality
from utils.audio.recording import Recording
from utils.verification.calibration import Calibration
from voices.sql.audio import encode_flac
from voices.sql.records import NewRecording

DECODE_TIMEOUT_S = 30.0
"""Seconds after which a recording is given up: minutes of speech are decoded in one."""


class Encoder(Protocol):
    """What the service needs of `SpeakerEncoder`."""

    @property
    def model_id(self) -> str:
        """A text that differs for every model."""

    @property
    def embedding_size(self) -> int:
        """Length of an embedding."""

    @property
    def calibration(self) -> Calibration:
        """Thresholds and probability scale of the model."""

    @property
    def threshold(self) -> float:
        """Score at which false accepts and misses were equally frequent."""

    @property
    def strict_threshold(self) -> float:
        """Score that at most one of a thousand strangers reached."""

    def probability(self, score: float) -> float:
        """Returns how probable one speaker is at a score."""

    def embed_waveform(
        self, waveform: FloatArray | Recording, source: str = "recording"
    ) -> FloatArray:
        """Returns the unit-length embedding, shape `(embedding_size,)`."""


@dataclass(frozen=True)
class Voice:
    """What was found in an upload.

    Attributes:
        quality: How good the recording is.
        embedding: Unit length, shape `(embedding_size,)`; None if none was asked for.
        audio: FLAC, if sound is kept.
    """

    quality: Quality
    embedding: FloatArray | None
    audio: bytes | None

    @property
    def vector(self) -> FloatArray:
        """The embedding of a voice that has one."""
        if self.embedding is None:
            raise ValueError("this voice was not embedded")
        return self.embedding

    def to_recording(self) -> NewRecording:
        """Returns the voice as the database takes it."""
        return NewRecording(
            embedding=self.vector,
            speech_s=self.quality.speech_s,
            audio=self.audio,
            duration_s=self.quality.duration_s,
        )


class VoiceReader:
    """Turns uploads into voices, all of a request at a time, in the pool."""

    def __init__(self, encoder: Encoder, pool: EncodingPool, settings: Settings) -> None:
        """Takes what is needed.

        Args:
            encoder: The speaker model.
            pool: Where the work is done.
            settings: Longest recording, and whether sound is kept.
        """
        self._encoder = encoder
        self._pool = pool
        self._settings = settings

    async def read(
        self,
        uploads: Sequence[tuple[str, UploadFile]],
        *,
        embed: bool = True,
        keep: bool = False,
    ) -> list[Voice]:
        """Reads uploads.

        Args:
            uploads: `(field, upload)`; the field is what an error calls the recording.
            embed: Whether embeddings are wanted.
            keep: Whether the recordings are going to be stored.

        Raises:
            AudioError: If one of them cannot be used.
            Problem: 503 if too many recordings are waiting.
        """
        jobs = [await self._job(field, upload, embed, keep) for field, upload in uploads]
        futures = [asyncio.wrap_future(future) for future in self._pool.submit(jobs)]
        results: list[Any] = await asyncio.gather(*futures, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    async def begin(
        self, field: str, upload: UploadFile, on_voice: Callable[[Voice], None]
    ) -> "Future[None]":
        """Begins to read an upload, and hands its voice on in the thread that has embedded it.

        Returns:
            What is done after `on_voice`, or has the AudioError of a recording that is unusable.

        Raises:
            Problem: 503 if too many recordings are waiting.
        """
        job = await self._job(field, upload, embed=True, keep=False)
        (future,) = self._pool.submit([lambda: on_voice(job())])
        return future

    async def _job(
        self, field: str, upload: UploadFile, embed: bool, keep: bool
    ) -> Callable[[], Voice]:
        """Takes the bytes of an upload, and returns the work to be done on them."""
        data = await upload.read()
        await upload.close()
        return partial(self._work, data, field, embed, keep and self._settings.keep_audio)

    def _work(self, data: bytes, source: str, embed: bool, with_audio: bool) -> Voice:
        """Does one recording; runs in a thread of the pool."""
        recording = Recording.load(
            data,
            name=source,
            max_duration_s=self._settings.max_duration_s,
            timeout_s=DECODE_TIMEOUT_S,
        )
        embedding = self._encoder.embed_waveform(recording) if embed else None
        audio = encode_flac(recording.waveform) if with_audio else None
        return Voice(measure_quality(recording), embedding, audio)


def name_fields(files: Sequence[UploadFile]) -> list[tuple[str, UploadFile]]:
    """Gives each of several files of one field the name under which errors tell it."""
    if len(files) == 1:
        return [("file", files[0])]
    return [(f"file {number}", file) for number, file in enumerate(files, 1)]
