"""Stretches of a recording in which one speaker alone is heard, each with its embedding.

A window is heard whole, but only its middle is used, up to half-way to its neighbours, where the
network sees what comes before and after. Stretches don't cross these borders, so that windows are
independent of each other and of the length of the recording.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from utils.arrays import BoolArray, FloatArray
from utils.audio.detector import FRAME_SAMPLES as DETECTOR_SAMPLES
from utils.audio.detector import SpeechStream
from utils.audio.rumble import without_rumble
from utils.audio.waveform import SAMPLE_RATE
from utils.diarization.segmentation import FRAME_SAMPLES, FRAME_START, local_speakers

EmbedSpeech = Callable[[FloatArray], FloatArray]
"""From speech, `(num_samples,)`, to its unit embedding, `(embedding_size,)`."""

STRETCH_S = 1.5
"""Seconds. Longer stretches are cut: the segmentation takes two alike voices for one now and then,
and shorter ones tell less. Uncut, three times as many seconds went to the wrong speaker."""

MIN_STRETCH_S = 0.2
"""Seconds. Shorter ones have no embedding: they go with the others of their local speaker."""

HEARD_PROBABILITY = 0.3
"""What the speech detector must say once in a run of activity. At its own threshold of 0.5 it
misses voices over the telephone; 0.2 to 0.4 keep the same turns, and most barks stay below."""

FRAME_S = FRAME_SAMPLES / SAMPLE_RATE


@dataclass(frozen=True)
class Stretch:
    """One speaker alone.

    Attributes:
        start: First frame, counted from the beginning of the recording.
        end: Frame after the last one.
        embedding: Unit length, shape `(embedding_size,)`.
    """

    start: int
    end: int
    embedding: FloatArray

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return (self.end - self.start) * FRAME_S


@dataclass(frozen=True)
class Window:
    """What was heard in a window.

    Attributes:
        start: Its first frame, counted from the beginning of the recording.
        middle: First frame used and the frame after the last one, counted likewise.
        active: Which local speakers speak, shape `(num_frames, 3)`.
        stretches: Those in the middle, in order of time.
    """

    start: int
    middle: tuple[int, int]
    active: BoolArray
    stretches: list[Stretch]


def hear_window(
    samples: FloatArray, start: int, middle: tuple[int, int | None], embed: EmbedSpeech
) -> Window:
    """Finds the speakers of a window and embeds the stretches in its middle.

    Args:
        samples: Shape `(num_samples,)`, 16 kHz.
        start: Frame of the recording at which it begins.
        middle: First frame to use, and the frame after the last one, None for the window's end.
        embed: The speaker model.
    """
    active = hear_speech(samples, local_speakers(samples))
    first, last = middle[0], min(middle[1] or start + len(active), start + len(active))
    offset = (first - start) * FRAME_SAMPLES
    used = (last - first) * FRAME_SAMPLES + FRAME_START
    steady = without_rumble(samples[offset : offset + used])
    stretches = []
    for begin, end in _cut(_alone(active[first - start : last - start])):
        speech = steady[begin * FRAME_SAMPLES + FRAME_START : end * FRAME_SAMPLES + FRAME_START]
        if np.any(speech):
            stretches.append(Stretch(first + begin, first + end, embed(speech)))
    return Window(start, (first, last), active, stretches)


def hear_speech(samples: FloatArray, active: BoolArray) -> BoolArray:
    """Takes runs of activity in which the speech detector hears no speech out of it.

    The segmentation takes barks, crying and chainsaws for voices; the detector knows better, but
    its borders are coarser and it does not tell speakers apart.

    Args:
        samples: A window, shape `(num_samples,)`, 16 kHz.
        active: Which local speakers speak, shape `(num_frames, 3)`.

    Returns:
        The same shape.
    """
    probabilities = SpeechStream().hear(samples)
    frames = np.arange(len(active)) * FRAME_SAMPLES + FRAME_START
    heard = probabilities[np.minimum(frames // DETECTOR_SAMPLES, len(probabilities) - 1)]
    anybody = active.any(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], anybody, [False]]).astype(np.int8)))
    kept = np.zeros(len(active), bool)
    for start, end in edges.reshape(-1, 2).tolist():
        kept[start:end] = heard[start:end].max() >= HEARD_PROBABILITY
    return active & kept[:, None]


def _alone(active: BoolArray) -> list[tuple[int, int]]:
    """Returns where one local speaker alone speaks, first frame and the frame after the last."""
    speaker = np.where(active.sum(axis=1) == 1, active.argmax(axis=1), -1)
    borders = np.flatnonzero(np.diff(speaker)) + 1
    edges = [0, *map(int, borders), len(speaker)]
    return [(begin, end) for begin, end in pairwise(edges) if end > begin and speaker[begin] >= 0]


def _cut(stretches: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Cuts long stretches into equal parts of about `STRETCH_S`; leaves out the shortest."""
    parts: list[tuple[int, int]] = []
    for begin, end in stretches:
        duration_s = (end - begin) * FRAME_S
        if duration_s < MIN_STRETCH_S:
            continue
        count = max(1, round(duration_s / STRETCH_S))
        edges = np.linspace(begin, end, count + 1).round().astype(int).tolist()
        parts.extend(pairwise(edges))
    return parts
