"""A recording: its sound, where somebody speaks in it, and what it is called.

What is asked of it more than once is found once: speech is looked for when it is first needed. A
long one is looked at in blocks, so that an hour is in memory once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.arrays import FloatArray
from utils.audio.activity import FRAME_SAMPLES, Activity, find_activity, remove_silence
from utils.audio.decode import load_channels
from utils.audio.detector import SpeechListener
from utils.audio.rumble import without_rumble
from utils.audio.waveform import SAMPLE_RATE
from utils.errors import AudioError

BLOCK_S = 30.0
"""Seconds that are looked at together: what is loud and what is quiet may change in an hour."""


@dataclass(frozen=True, eq=False)
class Recording:
    """A recording that was read or made.

    Attributes:
        waveform: As it was heard, shape `(num_samples,)`, 16 kHz mono.
        source: What to call it in an error.
        channels: Those mixed channels that have little in common: number, from 1 -> loads it alone.
    """

    waveform: FloatArray
    source: str = "recording"
    channels: Mapping[int, Callable[[], Recording]] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        source: str | Path | bytes,
        *,
        name: str | None = None,
        channel: str = "mix",
        max_bytes: float = float("inf"),
        max_duration_s: float = float("inf"),
        timeout_s: float = float("inf"),
    ) -> Recording:
        """Reads a recording; the arguments and errors are those of `load_channels`."""
        name = name or ("recording" if isinstance(source, bytes) else str(source))
        load = partial(
            cls.load,
            source,
            name=name,
            max_bytes=max_bytes,
            max_duration_s=max_duration_s,
            timeout_s=timeout_s,
        )
        waveform, unlike = load_channels(source, channel=channel, **load.keywords)
        loaders = {number: partial(load, channel=str(number)) for number in unlike}
        return cls(waveform, name, loaders)

    def part(self, start_s: float, end_s: float) -> Recording:
        """Returns a part of the recording.

        Raises:
            AudioError: If it reaches beyond the end.
        """
        if end_s > self.duration_s:
            raise AudioError(
                f"{self.source}: lasts {self.duration_s:.2f} s, expected the part "
                f"{start_s:g}-{end_s:g} s inside it; choose another part"
            )
        samples = slice(round(start_s * SAMPLE_RATE), round(end_s * SAMPLE_RATE))
        return Recording(self.waveform[samples], self.source)

    def best_part(self, duration_s: float) -> Recording:
        """Returns the part of some length in which most is spoken; itself if it is no longer."""
        length = round(duration_s * SAMPLE_RATE)
        if len(self.waveform) <= length:
            return self
        spoken = np.concatenate([[0], np.cumsum(self.activity.is_speech)])
        width = min(length // FRAME_SAMPLES, len(spoken) - 1)
        start = FRAME_SAMPLES * int(np.argmax(spoken[width:] - spoken[:-width]))
        return Recording(self.waveform[start : start + length], self.source)

    def blocks(self) -> Iterator[Recording]:
        """Yields the recording in blocks of 30 s, the last one shorter; itself if it has one."""
        size = round(BLOCK_S * SAMPLE_RATE)
        if len(self.waveform) <= size:
            yield self
            return
        for start in range(0, len(self.waveform), size):
            yield Recording(self.waveform[start : start + size], self.source)

    @cached_property
    def _steady(self) -> FloatArray:
        """What `steady` is, for a recording of one block."""
        return without_rumble(self.waveform)

    @property
    def steady(self) -> FloatArray:
        """The waveform without offset and rumble, block by block, as the network gets it."""
        return _joined(block._steady for block in self.blocks())

    @cached_property
    def activity(self) -> Activity:
        """Where somebody speaks, looked for in blocks of 30 s."""
        found = [find_activity(block._steady) for block in self.blocks()]
        return Activity(
            _joined(activity.power for activity in found),
            _joined(activity.is_speech for activity in found),
        )

    @property
    def speech(self) -> FloatArray:
        """The parts in which somebody speaks, joined, shape `(num_samples,)`."""
        return remove_silence(self.steady, self.activity)

    @cached_property
    def missing_speech(self) -> str | None:
        """What is heard instead of speech, as `SpeechListener.missing_speech` says it, or None."""
        listener = SpeechListener()
        for block in self.blocks():
            listener.hear(block._steady)
            if listener.is_sure:
                break
        return listener.missing_speech

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


def _joined(arrays: Iterable[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Joins arrays; one alone is not copied."""
    parts = list(arrays)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
