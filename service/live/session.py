"""From the samples of a stream to the events that its client hears."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from utils.arrays import FloatArray
from utils.audio.waveform import SAMPLE_RATE
from utils.verification.embedding import Encoder
from voices.live import LiveRecogniser, LiveTurn
from voices.live_voices import Rank

BYTES_PER_SAMPLE = 2

BYTES_PER_S = BYTES_PER_SAMPLE * SAMPLE_RATE


class LiveSession:
    """Follows the speakers of one stream; for one thread at a time."""

    def __init__(self, encoder: Encoder, rank: Rank) -> None:
        """Prepares to listen."""
        self._recogniser = LiveRecogniser(encoder, rank, encoder.strict_threshold)
        self._num_turns = 0
        self._is_open = False
        self._told: str | int | None = None
        self._num_samples = 0

    @property
    def heard_s(self) -> float:
        """Seconds that were heard."""
        return self._num_samples / SAMPLE_RATE

    def hear(self, data: bytes) -> list[dict[str, Any]]:
        """Hears 16-bit little-endian samples, a whole number of them; returns the events."""
        samples = np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)
        self._num_samples += len(samples)
        return [event for turn in self._recogniser.hear(samples) for event in self._events(turn)]

    def finish(self) -> list[dict[str, Any]]:
        """Ends the turn that is under way; returns the events."""
        return [event for turn in self._recogniser.finish() for event in self._events(turn)]

    def speech_of(self, number: int) -> FloatArray:
        """Returns what was heard of an unknown speaker, as `LiveRecogniser.speech_of`."""
        return self._recogniser.speech_of(number)

    def rename(self, number: int, name: str) -> None:
        """Gives an unknown speaker the name under which they were enrolled."""
        self._recogniser.rename(number, name)
        if self._told == number:
            self._told = name

    def _events(self, turn: LiveTurn) -> Iterator[dict[str, Any]]:
        """Yields what a turn, as far as it was heard, has news of."""
        if not self._is_open:
            self._num_turns += 1
            self._is_open, self._told = True, None
            yield {
                "event": "speech-start",
                "turn": self._num_turns,
                "start_s": round(turn.start_s, 3),
            }
        if turn.speaker is not None and turn.speaker != self._told:
            yield self._describe("speaker" if self._told is None else "speaker-corrected", turn)
            self._told = turn.speaker
        if turn.is_over:
            self._is_open = False
            yield self._describe("speech-end", turn)

    def _describe(self, event: str, turn: LiveTurn) -> dict[str, Any]:
        """Returns an event that tells whose a turn is."""
        return {
            "event": event,
            "turn": self._num_turns,
            "start_s": round(turn.start_s, 3),
            "end_s": round(turn.end_s, 3),
            "name": turn.name,
            "number": turn.number,
            "score": None if turn.score is None else round(turn.score, 6),
        }
