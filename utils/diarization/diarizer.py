"""Who spoke when in a recording: from the file to the turns, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from utils.arrays import FloatArray
from utils.audio.decode import read_blocks
from utils.audio.decoders import Source
from utils.audio.detector import NoSpeechError, SpeechListener
from utils.audio.recording import Recording
from utils.audio.waveform import SAMPLE_RATE, describe_defect
from utils.diarization.assembly import assemble_turns, overlap_share
from utils.diarization.clustering import SpeakerCount, cluster_stretches
from utils.diarization.segmentation import FRAME_SAMPLES, HOP_FRAMES, WINDOW_SAMPLES, num_frames
from utils.diarization.stretches import Window, hear_window
from utils.diarization.turns import Turn
from utils.errors import AudioError
from utils.verification.embedding import Encoder
from utils.workers import map_ahead

HOP_SAMPLES = HOP_FRAMES * FRAME_SAMPLES

OVERLAP_FRAMES = num_frames(WINDOW_SAMPLES) - HOP_FRAMES
"""Frames that a window shares with the next one."""


Progress = Callable[[float], object]
"""Is called with the seconds that were heard since the last call."""


@dataclass(frozen=True)
class Diarization:
    """Who spoke when.

    Attributes:
        turns: In order of time; their speakers are numbered "1", "2", ... as they first speak.
        embeddings: Each speaker's, unit length, shape `(num_speakers, embedding_size)`.
        duration_s: Length of the recording in seconds.
        overlap_share: As `utils.diarization.assembly.overlap_share`.
    """

    turns: list[Turn]
    embeddings: FloatArray
    duration_s: float
    overlap_share: float


def diarize(
    source: Source | Recording,
    encoder: Encoder,
    count: SpeakerCount | None = None,
    num_threads: int = 1,
    channel: str = "mix",
    on_progress: Progress = lambda seconds: None,
    *,
    name: str | None = None,
    max_duration_s: float = math.inf,
) -> Diarization:
    """Finds the speakers of a recording and their turns.

    Args:
        source: A file of any length, as in `read_blocks`, or a recording in memory.
        encoder: The speaker model, on one thread.
        count: How many speakers there may be; None for any number.
        num_threads: Windows that are heard at a time.
        channel: As in `load_audio`, for a file.
        on_progress: Is called as it goes on.
        name: What to call a file in an error; None for its path.
        max_duration_s: Longest file that is allowed, in seconds.

    Raises:
        AudioError: If the recording cannot be read, is too long, silent, or nobody speaks.
    """
    if name is None:
        name = source.source if isinstance(source, Recording) else str(source)
    heard = _Heard(name)
    if isinstance(source, Recording):
        blocks = _pieces(source)
    else:
        hop_s = HOP_SAMPLES / SAMPLE_RATE
        blocks = read_blocks(
            source, hop_s, name=name, channel=channel, max_duration_s=max_duration_s
        )
    windows = _windows(heard.check(blocks))
    found: list[Window] = []
    with ThreadPoolExecutor(num_threads) as pool:
        hear = partial(_hear, embed=encoder.embed_speech)
        for window in map_ahead(pool, hear, windows, 2 * num_threads):
            found.append(window)
            on_progress(HOP_SAMPLES / SAMPLE_RATE)
    heard.require_speech()
    stretches = [stretch for window in found for stretch in window.stretches]
    if not stretches:
        raise AudioError(
            f"{name}: nobody is heard alone for as long as a syllable, expected turns; record "
            "longer or closer to the speakers"
        )
    labels, means = cluster_stretches(stretches, count or SpeakerCount())
    names = [str(number) for number in range(1, len(means) + 1)]
    turns = assemble_turns(found, labels, means, names)
    return Diarization(turns, means, heard.duration_s, overlap_share(found))


class _Heard:
    """What was noticed while a recording went by."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._listener = SpeechListener()
        self._loudest = np.empty(0, np.float32)
        self._num_samples = 0

    @property
    def duration_s(self) -> float:
        """Seconds so far."""
        return self._num_samples / SAMPLE_RATE

    def check(self, blocks: Iterable[FloatArray]) -> Iterator[FloatArray]:
        """Passes blocks on."""
        for block in blocks:
            self._num_samples += len(block)
            if np.abs(block).max() > np.abs(self._loudest).max(initial=-1.0):
                self._loudest = block
            self._listener.hear(block)
            yield block

    def require_speech(self) -> None:
        """Raises AudioError if nobody spoke."""
        defect = describe_defect(self._loudest)
        if defect is not None:
            raise AudioError(f"{self._source}: {defect}; record it again")
        sound = self._listener.missing_speech
        if sound is not None:
            raise NoSpeechError(self._source, sound)


@dataclass(frozen=True)
class _Job:
    """A window to hear: its samples, first frame, and the frames to use (None: to its end)."""

    samples: FloatArray
    start: int
    middle: tuple[int, int | None]


def _pieces(source: Recording) -> Iterator[FloatArray]:
    """Yields a recording in blocks of 5 s, the last one shorter."""
    for start in range(0, len(source.waveform), HOP_SAMPLES):
        yield source.waveform[start : start + HOP_SAMPLES]


def _windows(blocks: Iterable[FloatArray]) -> Iterator[_Job]:
    """Joins each block with the next one to a window of 10 s."""
    start = first = 0
    before: FloatArray | None = None
    window: FloatArray | None = None
    for block in blocks:
        if before is not None and window is not None:
            border = start + HOP_FRAMES + OVERLAP_FRAMES // 2
            yield _Job(window, start, (first, border))
            start, first = start + HOP_FRAMES, border
        window = None if before is None else np.concatenate([before, block])
        before = block
    last = before if window is None else window
    if last is not None:
        yield _Job(last, start, (first, None))


def _hear(job: _Job, embed: Callable[[FloatArray], FloatArray]) -> Window:
    """Hears one window."""
    return hear_window(job.samples, job.start, job.middle, embed)
