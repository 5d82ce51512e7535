"""How good a recording is for recognition: length, level, clipping and noise, told in numbers.

A speaker who knows that the microphone is too far away can mend it; one who is only refused cannot.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.arrays import FloatArray
from utils.audio.activity import FRAME_SAMPLES
from utils.audio.recording import Recording
from utils.audio.waveform import SILENCE_PEAK_DB, largest_magnitude, peak_db

FLOOR_DBFS = -100.0
"""dBFS. Levels are told down to this: a digital zero has none."""

CLIPPING_LEVEL = 0.985
"""Magnitude from which a sample counts as clipped, if its neighbour is too: clipped peaks are flat,
and resampling moves them by about 1 %."""

NOISE_FRACTION = 0.1
"""The quietest 10 % of the 10 ms frames are taken for noise: people pause at least that much."""

QUIET_DBFS = -38.0
"""dBFS of the speech. Under it the speaker is far from the microphone, and 16 bits get coarse."""

CLIPPED_FRACTION = 0.001
"""Share of clipped samples that can be heard as distortion."""

NOISY_SNR_DB = 12.0
"""dB. Under this ratio of speech to noise the errors of recognition rise noticeably."""

SHORT_SPEECH_S = 2.0
"""Seconds of speech. The thresholds were calibrated on recordings of 3 s, pauses included."""


@dataclass(frozen=True)
class Quality:
    """What can be told of a recording.

    Attributes:
        duration_s: Length in seconds.
        speech_s: Seconds of it in which somebody speaks.
        level_dbfs: Root mean square of the speech, or of everything if nobody speaks.
        peak_dbfs: Largest magnitude.
        clipped_fraction: Share of the samples that are cut off at full scale.
        noise_dbfs: Root mean square of the quietest 10 % of the frames.
        snr_db: How far the speech is above that noise; low also if somebody speaks without pause.
        heard: "speech", "silence", or what is heard instead of speech: "steady noise", "tones or
            music", "other sounds".
        warnings: Any of "quiet", "clipped", "noisy", "short"; "two_voices" if channels with
            different voices were mixed, which only a speaker model can tell.
    """

    duration_s: float
    speech_s: float
    level_dbfs: float
    peak_dbfs: float
    clipped_fraction: float
    noise_dbfs: float
    snr_db: float
    heard: str
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields, ready for JSON."""
        return vars(self) | {"warnings": list(self.warnings)}


def measure_quality(recording: Recording | FloatArray) -> Quality:
    """Measures a recording.

    Args:
        recording: A recording, or the waveform of one: shape `(num_samples,)`, 16 kHz, finite.
            Empty and silent ones are measured too.

    Returns:
        Numbers that are always finite.
    """
    if not isinstance(recording, Recording):
        recording = Recording(np.asarray(recording, dtype=np.float32))
    waveform, activity = recording.waveform, recording.activity
    mask = activity.is_speech
    power = activity.power[: len(waveform) // FRAME_SAMPLES]
    is_speech = mask[: len(power)]
    speech = power[is_speech] if is_speech.any() else power
    level = _decibels(float(speech.mean())) if len(speech) else FLOOR_DBFS
    noise_power = 0.0
    if len(power):
        num_quiet = max(round(NOISE_FRACTION * len(power)), 1)
        noise_power = float(np.partition(power, num_quiet - 1)[:num_quiet].mean())
    noise = _decibels(noise_power)
    # What is measured while somebody speaks is speech and noise together.
    clean = _decibels(max(10 ** (level / 10) - 10 ** (noise / 10), 0.0))
    snr = max(clean - noise, 0.0)
    peak = largest_magnitude(waveform)
    clipped = 0.0
    if peak >= CLIPPING_LEVEL:
        level_of_clipping = np.float32(CLIPPING_LEVEL)
        is_clipped = (waveform >= level_of_clipping) | (waveform <= -level_of_clipping)
        clipped = float((is_clipped & (np.roll(is_clipped, 1) | np.roll(is_clipped, -1))).mean())
    speech_s = recording.speech_s
    is_silent = peak_db(waveform) < SILENCE_PEAK_DB
    heard = "silence" if is_silent else recording.missing_speech or "speech"
    checks = {
        "quiet": level < QUIET_DBFS,
        "clipped": clipped > CLIPPED_FRACTION,
        "noisy": snr < NOISY_SNR_DB,
        "short": speech_s < SHORT_SPEECH_S,
    }
    return Quality(
        duration_s=round(recording.duration_s, 3),
        speech_s=round(speech_s, 3),
        level_dbfs=round(level, 2),
        peak_dbfs=round(_decibels(peak**2), 2),
        clipped_fraction=round(clipped, 6),
        noise_dbfs=round(noise, 2),
        snr_db=round(snr, 2),
        heard=heard,
        warnings=tuple(code for code, is_true in checks.items() if is_true),
    )


def _decibels(power: float) -> float:
    """Returns a power relative to full scale in dB, not below the floor."""
    return float(max(10 * np.log10(max(power, 1e-20)), FLOOR_DBFS))
