"""From an upload to a voice: read, decoded, measured and embedded in the pool."""

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from fastapi import UploadFile

from service.encoding.pool import EncodingPool
from service.settings import Settings
from utils.arrays import FloatArray
from utils.audio.fidelity import encode_faithfully
from utils.audio.quality import Quality, measure_quality
from utils.audio.recording import Recording
from utils.errors import AudioError
from utils.verification.channel_voices import differing_channels
from utils.verification.conditions import embed_waveform_cuts
from utils.verification.embedding import Encoder
from voices.sql.records import NewRecording
from voices.sql.uploads import Upload

DECODE_TIMEOUT_S = 30.0
"""Seconds after which a recording is given up: minutes of speech are decoded in one."""

LONGEST_FACTOR = 10
"""How many times as long as is used a recording may be from which a part is taken."""


@dataclass(frozen=True)
class Voice:
    """The voice in an upload.

    Attributes:
        quality: Quality of the recording.
        embedding: Unit length, shape `(embedding_size,)`; None if not requested.
        audio: FLAC, if audio is kept.
        sha256: Of what was sent.
        upload: By what it would be known again; None if not requested.
        cuts: Embedding and seconds of speech under each condition of a calibration, if requested.
    """

    quality: Quality
    embedding: FloatArray | None
    audio: bytes | None
    sha256: str = ""
    upload: Upload | None = None
    cuts: Mapping[str, tuple[FloatArray, float]] = field(default_factory=dict)

    @property
    def vector(self) -> FloatArray:
        """The embedding of a voice that has one."""
        if self.embedding is None:
            raise ValueError("this voice was not embedded")
        return self.embedding

    def to_recording(self) -> NewRecording:
        """Returns the voice as a recording for the database."""
        return NewRecording(
            embedding=self.vector,
            speech_s=self.quality.speech_s,
            audio=self.audio,
            duration_s=self.quality.duration_s,
            sha256=self.sha256,
        )


class VoiceReader:
    """Turns uploads into voices, all of a request at a time, in the pool."""

    def __init__(self, encoder: Encoder, pool: EncodingPool, settings: Settings) -> None:
        self._encoder = encoder
        self._pool = pool
        self._settings = settings

    async def read(
        self,
        uploads: Sequence[tuple[str, UploadFile]],
        *,
        embed: bool = True,
        store_audio: bool = False,
        take_print: bool = False,
        may_shorten: bool = False,
        cut: bool = False,
    ) -> list[Voice]:
        """Reads uploads.

        Args:
            uploads: `(field, upload)`; errors name the recording by its field.
            embed: Whether to compute embeddings.
            store_audio: Whether the recordings will be stored.
            take_print: Whether they are to be known again.
            may_shorten: Whether of one that is too long the part with most speech is used.
            cut: Whether to embed them as a calibration wants them, too.

        Raises:
            AudioError: If one of them cannot be used.
            Problem: 503 if too many recordings are waiting.
        """
        options = {"embed": embed, "take_print": take_print, "cut": cut}
        options["may_shorten"] = may_shorten
        options["with_audio"] = store_audio and self._settings.keep_audio
        jobs = [await self._job(name, upload, options) for name, upload in uploads]
        return await self._run(jobs)

    async def read_contents(self, contents: Sequence[tuple[str, bytes]]) -> list[Voice]:
        """Reads the contents of files, `(name, content)`, as `read` does with `store_audio`."""
        options = {"embed": True, "take_print": False, "may_shorten": False}
        options["with_audio"] = self._settings.keep_audio
        jobs = [partial(self._work, data, "binary", name, **options) for name, data in contents]
        return await self._run(jobs)

    async def _run(self, jobs: Sequence[Callable[[], Voice]]) -> list[Voice]:
        """Runs jobs in the pool; the first error of any is raised when all have ended."""
        futures = [asyncio.wrap_future(future) for future in self._pool.submit(jobs)]
        results: list[Any] = await asyncio.gather(*futures, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    async def _job(
        self, name: str, upload: UploadFile, options: dict[str, bool]
    ) -> Callable[[], Voice]:
        """Reads the bytes of an upload, and returns the job to run on them."""
        data = await upload.read()
        await upload.close()
        encoding = upload.headers.get("content-transfer-encoding", "binary").strip().lower()
        return partial(self._work, data, encoding, name, **options)

    def _work(
        self,
        data: bytes,
        encoding: str,
        source: str,
        *,
        embed: bool,
        take_print: bool,
        may_shorten: bool,
        with_audio: bool,
        cut: bool = False,
    ) -> Voice:
        """Processes one recording; runs in a thread of the pool."""
        max_duration_s = self._settings.max_duration_s
        recording = Recording.load(
            _from_base64(data, source) if encoding == "base64" else data,
            name=source,
            max_bytes=self._settings.max_upload_bytes,
            max_duration_s=max_duration_s * (LONGEST_FACTOR if may_shorten else 1),
            timeout_s=DECODE_TIMEOUT_S,
        )
        if may_shorten:
            recording = recording.best_part(max_duration_s)
        embedding = self._encoder.embed_waveform(recording) if embed else None
        audio = None
        if with_audio and embedding is not None:
            embed_again = self._encoder.embed_waveform
            audio = encode_faithfully(recording.waveform, embedding, embed_again, "FLAC")
        quality = measure_quality(recording)
        if differing_channels(self._encoder, recording, self._encoder.threshold):
            quality = replace(quality, warnings=(*quality.warnings, "two_voices"))
        upload = Upload.of(recording.waveform) if take_print else None
        cuts = embed_waveform_cuts(self._encoder, recording.waveform, source) if cut else {}
        return Voice(quality, embedding, audio, hashlib.sha256(data).hexdigest(), upload, cuts)


def _from_base64(data: bytes, source: str) -> bytes:
    """Returns what a part says it carries as base64 (RFC 2045, 6.8)."""
    try:
        return base64.b64decode(b"".join(data.split()), validate=True)
    except binascii.Error as error:
        raise AudioError(
            f"{source}: not base64 ({error}), as its Content-Transfer-Encoding says; send the "
            "bytes as they are"
        ) from error


def name_fields(files: Sequence[UploadFile]) -> list[tuple[str, UploadFile]]:
    """Names each file of a field for error messages."""
    if len(files) == 1:
        return [("file", files[0])]
    return [(f"file {number}", file) for number, file in enumerate(files, 1)]
