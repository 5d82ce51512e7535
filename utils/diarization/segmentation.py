"""Which speakers of a window speak at each moment: pyannote's segmentation network on ONNX Runtime.

The network numbers the speakers of each window of 10 s by itself, at most three; who they are
beyond the window is for `clustering`. models/segmentation.onnx comes from
tools/fetch_segmentation.py.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from utils.arrays import BoolArray, FloatArray
from utils.audio.waveform import SAMPLE_RATE
from utils.errors import ModelError
from utils.onnx_session import open_session

MODEL_PATH = Path(__file__).resolve().parents[2] / "models" / "segmentation.onnx"

FRAME_SAMPLES = 270
"""16.9 ms, from one frame to the next."""

FIELD_SAMPLES = 991
"""Samples that a frame depends on directly; its middle is where it stands in time."""

FRAME_START = FIELD_SAMPLES // 2 - FRAME_SAMPLES // 2
"""Samples from the beginning of a window to where its first frame begins."""

WINDOW_SAMPLES = 10 * SAMPLE_RATE
"""The length that the network was trained on."""

HOP_FRAMES = 296
"""5 s from one window to the next, in whole frames: each moment is seen in two windows."""

NUM_LOCAL_SPEAKERS = 3

POWERSET = np.array(
    [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]], bool
)
"""Who speaks in each of the network's seven classes."""

LEAST_SAMPLES = SAMPLE_RATE
"""1 s: a shorter window is filled with zeros."""


def num_frames(num_samples: int) -> int:
    """Returns how many frames the network gives for a window."""
    return max(0, (num_samples - FIELD_SAMPLES) // FRAME_SAMPLES + 1)


def frame_time_s(frame: float) -> float:
    """Returns where a frame begins, in seconds."""
    return (frame * FRAME_SAMPLES + FRAME_START) / SAMPLE_RATE


def local_speakers(window: FloatArray) -> BoolArray:
    """Tells which of up to three speakers of a window speak in each frame.

    Args:
        window: Shape `(num_samples,)`, 16 kHz, at most `WINDOW_SAMPLES`.

    Returns:
        Shape `(num_frames, 3)`: the network's most probable class, at most two at once.

    Raises:
        ModelError: If ONNX Runtime or the network's file is missing.
    """
    samples = np.pad(window, (0, max(LEAST_SAMPLES - len(window), 0))).astype(np.float32)
    (scores,) = _session().run(None, {"x": samples[None, None]})
    return np.asarray(POWERSET[scores[0].argmax(axis=-1)][: num_frames(len(samples))])


@lru_cache(maxsize=1)
def _session() -> Any:
    """Loads the network at its first use; each call runs on the thread that makes it."""
    if not MODEL_PATH.is_file():
        raise ModelError(
            f"{MODEL_PATH}: missing, expected the segmentation network; copy it again, or run "
            "tools/fetch_segmentation.py"
        )
    return open_session(MODEL_PATH)
