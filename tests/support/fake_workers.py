"""Processes that stand in for the one that finds who spoke when. They speak its language.

They are functions of a module, since the process that runs them imports them by name.
"""

import os
import time
from typing import Any

import numpy as np

from service.diarization.worker import Findings, FoundVoice
from utils.diarization.diarizer import Diarization
from utils.diarization.turns import Turn
from utils.errors import AudioTooLongError


def finds(pipe: Any, encoder: Any, task: Any) -> None:
    """Reads all, hears two speakers, and is done: the first is the encoder's voice of noise."""
    read = 0
    while read < task.size:
        pipe.send(("read", read, 1000))
        read += len(pipe.recv_bytes())
    pipe.send(("heard", 1.0))
    pipe.send(("done", findings(encoder.embedding_size)))


def findings(size: int, *, is_alone: bool = True) -> Findings:
    """Two speakers, unit vectors of the first two dimensions, who overlap once."""
    turns = [Turn(0.0, 2.0, "1", 0.9), Turn(1.5, 3.0, "2", 0.8), Turn(4.0, 4.2, "1", None)]
    voices = np.eye(size, dtype=np.float32)[:2]
    second = FoundVoice(voices[1], 1.0, 1.0, b"fLaC...") if is_alone else None
    return Findings(
        Diarization(turns, voices, 5.0, 0.125),
        {
            "1": FoundVoice(voices[0], 1.7, 1.7, None),
            "2": second or FoundVoice(None, 0.0, 0.0, None, "speaks only while others do"),
        },
    )


def hangs(pipe: Any, encoder: Any, task: Any) -> None:
    """Never ends, and listens to nobody."""
    pipe.send(("heard", 1.0))
    while True:
        time.sleep(10)


def dies(pipe: Any, encoder: Any, task: Any) -> None:
    """Ends at once without a word."""
    os._exit(7)


def fails(pipe: Any, encoder: Any, task: Any) -> None:
    """Finds the recording too long."""
    error = AudioTooLongError("file: 99.0 s or more, expected at most 10 s", 10)
    pipe.send(("failed", type(error), error.args, vars(error)))
