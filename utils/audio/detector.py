"""Whether somebody speaks in a recording: the recurrent network of silero-vad, on ONNX Runtime.

Energy cannot tell: noise is as loud as speech, and the embeddings of two noises lie close together.
The detector decides about a recording as a whole; `utils/audio/activity.py` cuts its silence.

Source: https://github.com/snakers4/silero-vad, version 6.2.3, `silero_vad_16k_sequence.onnx`.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from utils.arrays import FloatArray
from utils.audio.waveform import SAMPLE_RATE
from utils.errors import AudioError, ModelError
from utils.onnx_session import open_session

MODEL_PATH = Path(__file__).resolve().parents[2] / "models" / "silero_vad.onnx"

FRAME_SAMPLES = 512
"""32 ms, the network's frame at 16 kHz."""

CONTEXT_SAMPLES = 64
"""Samples of the frame before that the network sees again."""

STATE_SIZE = 128

BLOCK_FRAMES = 32
"""About 1 s at a time: most recordings convince within two blocks, and the rest is not heard."""

SPEECH_PROBABILITY = 0.5

ENOUGH_FRAMES = 10
"""0.32 s of speech convince. Of 1,423 recordings of 110 people 4 had less (one child's whispers),
the next one 13; of 905 noises, tones and pieces of music 7 had as much, most of them sneezes."""

SHORT_FRAMES = 50
"""1.6 s. Shorter recordings, single words, are heard twice: the network knows too little of a voice
before the first word ends. The second time counts."""

SHORT_PROBABILITY = 0.4
"""Of a frame of a short recording. With 0.5 at the first hearing 5.2 % of AudioMNIST's words were
refused and 1.5 % of other sounds of 0.5 to 1.5 s accepted, so it is 2.0 % and 1.1 %."""

SHORT_SHARE = 5
"""In short recordings one frame of this many is enough."""

TONE_SAMPLES = 2048
"""128 ms: the harmonics of 50 Hz lie 6 bins apart."""

TONE_NEIGHBOURS = 10
"""Bins on each side that a tone stands out from."""

TONE_DB = 15.0
"""dB over the median of the neighbours; one bin of noise in a billion stands out so far."""

TONE_SHARE = 0.5
"""Share of the power in such bins from which a sound is called tones: noise has under 0.1."""

STEADY_RANGE_DB = 10.0
"""dB between the 95th and the 10th percentile of the levels of 30 ms: hiss and fans have 1 to 9."""

LEVEL_FRAME_SAMPLES = 480


class NoSpeechError(AudioError):
    """There is sound in a recording, but nobody speaks.

    Attributes:
        sound: What it is: "steady noise", "tones or music", "other sounds".
    """

    def __init__(self, source: str, sound: str) -> None:
        super().__init__(
            f"{source}: no speech: {sound}, expected somebody who speaks; record a voice"
        )
        self.sound = sound


class SpeechStream:
    """Tells for each 32 ms of sound that keeps coming how probably somebody speaks."""

    def __init__(self) -> None:
        self._context = np.zeros(CONTEXT_SAMPLES, np.float32)
        self._state = [np.zeros((1, 1, STATE_SIZE), np.float32) for _ in range(2)]

    def hear(self, samples: FloatArray) -> FloatArray:
        """Hears the next piece; what is missing in its last frame counts as silence.

        Args:
            samples: Shape `(num_samples,)`, 16 kHz.

        Returns:
            A probability for each `FRAME_SAMPLES` samples, shape `(num_frames,)`.

        Raises:
            ModelError: If ONNX Runtime or the detector's file is missing.
        """
        if len(samples) == 0:
            return np.empty(0, np.float32)
        frames = np.pad(samples, (0, -len(samples) % FRAME_SAMPLES)).reshape(-1, FRAME_SAMPLES)
        contexts = np.vstack([self._context, frames[:-1, -CONTEXT_SAMPLES:]])
        hidden, cell = self._state
        inputs = {"input": np.hstack([contexts, frames]), "h": hidden, "c": cell}
        probabilities, *self._state = _session().run(["speech_probs", "hn", "cn"], inputs)
        self._context = frames[-1, -CONTEXT_SAMPLES:]
        return np.asarray(probabilities, np.float32).ravel()


class SpeechListener:
    """Hears a recording piece by piece until it is sure that somebody speaks."""

    def __init__(self) -> None:
        self._stream = SpeechStream()
        self._num_frames = 0
        self._num_speech = 0
        self._first: FloatArray | None = None

    def hear(self, waveform: FloatArray) -> None:
        """Hears the next piece.

        Args:
            waveform: Shape `(num_samples,)`, 16 kHz.

        Raises:
            ModelError: If ONNX Runtime or the detector's file is missing.
        """
        if self._first is None:
            self._first = waveform
        size = BLOCK_FRAMES * FRAME_SAMPLES
        for start in range(0, len(waveform), size):
            if self.is_sure:
                return
            self._hear_block(waveform[start : start + size])

    @property
    def is_sure(self) -> bool:
        """Whether somebody speaks in what was heard so far, whatever comes."""
        return self._num_speech >= ENOUGH_FRAMES

    @property
    def hears_speech(self) -> bool:
        """Whether somebody speaks, if what was heard so far is all."""
        if self._first is None or self.is_sure or not 0 < self._num_frames < SHORT_FRAMES:
            return self.is_sure
        twice = np.concatenate([self._first, self._first])
        second = SpeechStream().hear(twice)[-self._num_frames :]
        num_speech = int(np.count_nonzero(second >= SHORT_PROBABILITY))
        return num_speech >= max(self._num_frames // SHORT_SHARE, 1)

    @property
    def missing_speech(self) -> str | None:
        """What was heard at first instead of speech, as `describe_sound` says it, or None."""
        if self.hears_speech:
            return None
        return describe_sound(np.empty(0, np.float32) if self._first is None else self._first)

    def _hear_block(self, samples: FloatArray) -> None:
        probabilities = self._stream.hear(samples)
        self._num_frames += len(probabilities)
        self._num_speech += int(np.count_nonzero(probabilities >= SPEECH_PROBABILITY))


def describe_sound(waveform: FloatArray) -> str:
    """Names a sound that is no speech: "steady noise", "tones or music" or "other sounds".

    Args:
        waveform: Shape `(num_samples,)`, 16 kHz.
    """
    if len(waveform) < TONE_SAMPLES:
        return "other sounds"
    waveform = waveform[: 10 * SAMPLE_RATE] - waveform[: 10 * SAMPLE_RATE].mean()
    if _tone_share(waveform) >= TONE_SHARE:
        return "tones or music"
    num_frames = len(waveform) // LEVEL_FRAME_SAMPLES
    frames = waveform[: num_frames * LEVEL_FRAME_SAMPLES].reshape(num_frames, -1)
    levels = 10 * np.log10(np.square(frames).mean(axis=1) + 1e-12)
    low, high = np.percentile(levels, [10, 95])
    return "steady noise" if high - low < STEADY_RANGE_DB else "other sounds"


def _tone_share(waveform: FloatArray) -> float:
    """Returns the share of the power in bins that stand far out from their neighbours."""
    views = np.lib.stride_tricks.sliding_window_view
    frames = views(waveform, TONE_SAMPLES)[:: TONE_SAMPLES // 2]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(TONE_SAMPLES)))) + 1e-12
    sides = ((0, 0), (TONE_NEIGHBOURS, TONE_NEIGHBOURS))
    around = views(np.pad(power, sides, "edge"), 2 * TONE_NEIGHBOURS + 1, axis=1)
    is_tone = power > 10 ** (TONE_DB / 10) * np.median(around, axis=2)
    return float(power[is_tone].sum() / power.sum())


@lru_cache(maxsize=1)
def _session() -> Any:
    """Loads the network at its first use."""
    if not MODEL_PATH.is_file():
        raise ModelError(f"{MODEL_PATH}: missing, expected the speech detector; copy it again")
    return open_session(MODEL_PATH)
