"""A recording that is being decoded: by libsndfile where it can, else by ffmpeg.

PyAV, whose wheels bring ffmpeg along, is handed an open file and the name of one container, so that
a playlist cannot make it open something else, and it decodes audio only.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import numpy as np

from utils.arrays import FloatArray
from utils.audio.integrity import Layout, find_layout
from utils.errors import AudioError, AudioFormatError, AudioTooLargeError

Source = str | Path | bytes | BinaryIO
"""A file's path, the bytes of a file, or an open file."""

MAX_READ_SAMPLES = 1 << 20
"""Samples, of all channels together, that are decoded at a time: 4 MB. Memory follows what is
there, not what a damaged header promises."""

SAMPLE_RATES = (2000, 768_000)
"""Hz. Rates outside are damaged headers: at 1 Hz a second of samples would become five hours."""

MAX_CHANNELS = 32
"""Channels. More are a damaged header or a bomb: 255 silent Vorbis channels take no space."""

UNKNOWN_FRAMES = 1 << 62
"""Frames. FLAC streams whose writer did not know the length claim 2^63 - 1."""

MP3_FRAME = 1152
"""Samples of a frame: encoders differ in whether the one with the header is counted."""

SUPPORTED = "wav, flac, mp3, ogg, opus or aiff"

FFMPEG_OPTIONS = {
    "codec_whitelist": "aac,aac_fixed,aac_latm,alac,amrnb,amrwb,mp1,mp1float,mp2,mp2float,mp3,"
    "mp3float,opus,libopus,vorbis,libvorbis,flac,wmav1,wmav2,wmapro,wmalossless,wmavoice,ac3,eac3,"
    "adpcm_ima_wav,adpcm_ima_qt,adpcm_ms,gsm,gsm_ms,qcelp,pcm_s8,pcm_u8,pcm_s16le,pcm_s16be,"
    "pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_f32le,pcm_f32be,pcm_f64le,pcm_f64be,pcm_alaw,"
    "pcm_mulaw,speex,libspeex",
}
"""Decoders of sound alone: none of pictures or subtitles starts on what came with it."""

DEMUXERS = {"mov": "mov", "matroska": "matroska", "asf": "asf", "amr": "amr", "aac": "aac"}
DEMUXERS |= {"wav": "wav", "w64": "w64", "aiff": "aiff", "caf": "caf", "au": "au", "ogg": "ogg"}
DEMUXERS |= {"flac": "flac", "mp3": "mp3", "nist": "nistsphere"}
"""What ffmpeg calls the readers of the containers; each is named, so that none is guessed."""


class Stream(Protocol):
    """A recording that is being decoded.

    Attributes:
        name: What an error calls it.
        layout: What kind of file it is.
        rate: In Hz.
        channels: How many.
        frames: Length as the header tells it, or None.
    """

    name: str
    layout: Layout
    rate: int
    channels: int
    frames: int | None

    def skip(self, num_frames: int) -> None:
        """Moves forward from the beginning."""

    def read(self, num_frames: int) -> FloatArray:
        """Returns the next frames, shape `(n, channels)`; fewer only at the end."""


class _SoundFileStream:
    """What libsndfile reads."""

    def __init__(self, file: Any, name: str, layout: Layout) -> None:
        self.name, self.layout, self._file = name, layout, file
        self.rate, self.channels = file.samplerate, file.channels
        self.frames: int | None = file.frames if file.frames < UNKNOWN_FRAMES else None
        self._num_read = 0
        if self.frames is None:
            # soundfile seeks after each read, which fails at an end that the header does not tell.
            file.seekable = lambda: False

    def skip(self, num_frames: int) -> None:
        if self.frames is None:
            _skip_by_reading(self, num_frames)
        elif num_frames:
            self._num_read = min(num_frames, self.frames)
            with self._errors():
                self._file.seek(self._num_read)

    def read(self, num_frames: int) -> FloatArray:
        with self._errors():
            samples: FloatArray = self._file.read(num_frames, dtype="float32", always_2d=True)
        self._num_read += len(samples)
        if len(samples) < num_frames and self.frames is not None:
            shortest = self.frames
            if self.layout.container == "mp3" or self._file.subtype.startswith("MPEG"):
                # The length may be an estimate, where no header of the encoder tells it.
                is_exact = self.layout.container == "mp3" and self.layout.is_exact
                shortest = self.frames - 3 * MP3_FRAME if is_exact else int(0.8 * self.frames)
            if self._num_read < shortest:
                raise AudioError(
                    f"{self.name}: truncated, {self._num_read} samples of {self.frames} could be "
                    "read; fetch or record it again"
                )
        return samples

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        import soundfile

        try:
            yield
        except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
            whole = "" if self.frames is None else f" of {self.frames}"
            raise AudioError(
                f"{self.name}: truncated or damaged audio ({_reason(error)}) after "
                f"{self._num_read} samples{whole}; fetch or record it again"
            ) from error


class _AvStream:
    """What ffmpeg reads, through PyAV."""

    def __init__(self, container: Any, name: str, layout: Layout) -> None:
        import av

        self.name, self.layout = name, layout
        if not container.streams.audio:
            raise AudioFormatError(f"{name}: {layout.container} without any sound in it")
        stream = container.streams.audio[0]
        stream.codec_context.thread_count = 1
        self.rate, self.channels = int(stream.rate or 0), int(stream.channels or 0)
        self.frames: int | None = None
        if layout.container in ("mov", "matroska", "asf") and container.duration:
            self.frames = round(container.duration / 1e6 * self.rate)
        self._errors = av.FFmpegError
        self._frames = container.decode(stream)
        self._resampler = av.AudioResampler(format="flt", rate=self.rate)
        self._blocks: list[FloatArray] = []
        self._num_pending = self._num_read = 0

    def skip(self, num_frames: int) -> None:
        _skip_by_reading(self, num_frames)

    def read(self, num_frames: int) -> FloatArray:
        while self._num_pending < num_frames:
            try:
                frame = next(self._frames, None)
            except (self._errors, EOFError) as error:
                raise AudioError(
                    f"{self.name}: truncated or damaged audio ({_reason(error)}) after "
                    f"{self._num_read + self._num_pending} samples; fetch or record it again"
                ) from error
            if frame is None:
                break
            for resampled in self._resampler.resample(frame):
                block = resampled.to_ndarray().reshape(-1, len(resampled.layout.channels))
                if block.shape[1] != self.channels:
                    raise AudioError(
                        f"{self.name}: changes from {self.channels} to {block.shape[1]} channels; "
                        "convert it to wav"
                    )
                self._blocks.append(block)
                self._num_pending += len(block)
        if not self._blocks:
            return np.empty((0, self.channels), np.float32)
        samples = np.concatenate(self._blocks)
        self._blocks = [samples[num_frames:]] if len(samples) > num_frames else []
        self._num_pending = max(len(samples) - num_frames, 0)
        self._num_read += min(len(samples), num_frames)
        return samples[:num_frames]


def _skip_by_reading(stream: Stream, num_frames: int) -> None:
    """Moves forward in a stream that cannot seek."""
    while num_frames > 0:
        num_read = len(stream.read(min(num_frames, MAX_READ_SAMPLES // stream.channels)))
        num_frames = num_frames - num_read if num_read else 0


@contextlib.contextmanager
def open_stream(
    source: Source, name: str | None = None, max_bytes: float = math.inf
) -> Iterator[Stream]:
    """Opens a file or bytes, and checks structure and header."""
    with contextlib.ExitStack() as stack:
        is_path = isinstance(source, str | Path)
        if not isinstance(source, str | Path):
            name = name or "recording"
            file: BinaryIO = io.BytesIO(source) if isinstance(source, bytes) else source
            size = file.seek(0, io.SEEK_END)
        else:
            path = Path(source)
            name = name or str(source)
            if not path.is_file():
                kind = "a folder" if path.is_dir() else "no such file"
                raise AudioError(f"{name}: {kind}, expected an audio file; check the path")
            try:
                file = stack.enter_context(path.open("rb", buffering=0))
            except OSError as error:
                raise AudioError(f"{name}: cannot be read ({error.strerror})") from error
            size = path.stat().st_size
        if size == 0:
            what = "the file is empty" if is_path else "empty"
            raise AudioError(f"{name}: {what} (0 bytes), expected a recording; record it again")
        if size > max_bytes:
            raise AudioTooLargeError(
                f"{name}: {size} bytes, expected at most {max_bytes:.0f}; send a shorter recording "
                "or a compressed one",
                max_bytes,
            )
        layout = find_layout(file)
        if layout is None:
            raise AudioFormatError(
                f"{name}: not audio that can be read, {size} bytes; expected {SUPPORTED}"
            )
        if layout.defect is not None:
            raise AudioError(f"{name}: {layout.defect}; fetch or record it again")
        if layout.start or layout.patches:
            file = cast(BinaryIO, _Mended(file, layout.start, layout.patches))
        stream = _start(stack, file, name, layout)
        low, high = SAMPLE_RATES
        if not (low <= stream.rate <= high and 1 <= stream.channels <= MAX_CHANNELS):
            raise AudioError(
                f"{name}: damaged audio, sample rate {stream.rate} Hz in {stream.channels} "
                f"channels, expected {low} to {high} Hz in 1 to {MAX_CHANNELS}; record it again"
            )
        yield stream


def _start(stack: contextlib.ExitStack, file: BinaryIO, name: str, layout: Layout) -> Stream:
    """Starts the decoder that reads a file: libsndfile if it can, else ffmpeg."""
    import soundfile

    refusal: Exception | None = None
    if layout.is_regular:
        file.seek(0)
        # By its descriptor where it has one: libsndfile reads it itself, and sees no name.
        target = file.fileno() if isinstance(file, io.FileIO) else file
        try:
            opened = stack.enter_context(soundfile.SoundFile(target, closefd=False))
            return _SoundFileStream(opened, name, layout)
        except (soundfile.LibsndfileError, OSError, RuntimeError, TypeError) as error:
            refusal = error
    try:
        import av
    except ImportError as error:
        raise AudioFormatError(
            f"{name}: {layout.container} audio that needs PyAV, which is not installed; "
            f"pip install av, or convert it to {SUPPORTED}"
        ) from error
    file.seek(0)
    try:
        container = av.open(
            file, "r", format=DEMUXERS[layout.container], options=dict(FFMPEG_OPTIONS)
        )
        stack.callback(container.close)
        return _AvStream(container, name, layout)
    except (av.FFmpegError, OSError, EOFError, ValueError) as error:
        raise AudioFormatError(
            f"{name}: not audio that can be read ({layout.container}: {_reason(refusal or error)});"
            " convert it or check that it is complete"
        ) from error


class _Mended(io.RawIOBase):
    """A file without what was put before it, and with sizes that its writer left open."""

    def __init__(self, file: BinaryIO, start: int, patches: Mapping[int, bytes]) -> None:
        self._file, self._start, self._patches = file, start, patches

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        place = offset + self._start if whence == io.SEEK_SET else offset
        return self._file.seek(place, whence) - self._start

    def tell(self) -> int:
        return self._file.tell() - self._start

    def readinto(self, buffer: Any) -> int:
        place = self._file.tell()
        data = bytearray(self._file.read(len(buffer)))
        for position, patch in self._patches.items():
            for i, byte in enumerate(patch, position - place):
                if 0 <= i < len(data):
                    data[i] = byte
        buffer[: len(data)] = data
        return len(data)


def _reason(error: object) -> str:
    """Shortens a library's message to one short line."""
    lines = str(error).strip().splitlines()
    return lines[-1][:120] if lines else type(error).__name__
