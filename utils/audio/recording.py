"""A recording: its sound, where somebody speaks in it, and what it is called.

What is asked of it more than once is found once: speech is looked for when it is first needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from utils.arrays import FloatArray
from utils.audio.activity import FRAME_SAMPLES, Activity, find_activity, remove_silence
from utils.audio.decode import load_audio
from utils.audio.waveform import SAMPLE_RATE, without_rumble

BLOCK_S = 30.0
"""Seconds that are looked at together: what is loud and what is quiet may change in an hour."""


@dataclass(frozen=True, eq=False)
class Recording:
    """A recording that was read or made.

    Attributes:
        waveform: As it was heard, shape `(num_samples,)`, 16 kHz mono.
        source: What to call it in an error.
    """

    waveform: FloatArray
    source: str = "recording"

    @classmethod
    def load(
        cls,
        source: str | Path | bytes,
        *,
        name: str | None = None,
        channel: str = "mix",
        max_duration_s: float = float("inf"),
        timeout_s: float = float("inf"),
    ) -> Recording:
        """Reads a recording; the arguments and errors are those of `load_audio`."""
        waveform = load_audio(
            source, name=name, channel=channel, max_duration_s=max_duration_s, timeout_s=timeout_s
        )
        return cls(waveform, name or ("recording" if isinstance(source, bytes) else str(source)))

    @cached_property
    def steady(self) -> FloatArray:
        """The waveform without offset and rumble, block by block, as the network gets it."""
        blocks = [without_rumble(block) for block in _blocks(self.waveform)]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    @cached_property
    def activity(self) -> Activity:
        """Where somebody speaks, looked for in blocks of 30 s."""
        found = [find_activity(block) for block in _blocks(self.steady)]
        if len(found) == 1:
            return found[0]
        return Activity(
            np.concatenate([activity.power for activity in found]),
            np.concatenate([activity.is_speech for activity in found]),
        )

    @property
    def speech(self) -> FloatArray:
        """The parts in which somebody speaks, joined, shape `(num_samples,)`."""
        return remove_silence(self.steady, self.activity)

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.waveform) / SAMPLE_RATE

    @property
    def speech_s(self) -> float:
        """Seconds in which somebody speaks."""
        mask = self.activity.is_speech
        num_samples = FRAME_SAMPLES * int(mask.sum())
        if len(mask) and mask[-1]:
            num_samples -= FRAME_SAMPLES * len(mask) - len(self.waveform)  # the last may be cut off
        return num_samples / SAMPLE_RATE

    @property
    def level_dbfs(self) -> float:
        """Root mean square of the speech, or of everything if nobody speaks; floor -100 dBFS."""
        power, mask = self.activity.power, self.activity.is_speech
        heard = power[mask] if mask.any() else power
        return float(10 * np.log10(max(float(heard.mean()) if len(heard) else 0.0, 1e-10)))


def _blocks(waveform: FloatArray) -> list[FloatArray]:
    """Cuts a waveform into blocks of 30 s, the last one shorter; at least one."""
    size = round(BLOCK_S * SAMPLE_RATE)
    return [waveform[start : start + size] for start in range(0, max(len(waveform), 1), size)]
