"""What may be done to recordings before they go into a list: a channel, less noise, no silence.

The network is trained on noise and cuts silence itself, so nothing of this is done unasked;
docs/data_format.md says what it changes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.arrays import FloatArray
from utils.audio.activity import FRAME_SAMPLES, BoolArray, find_activity, remove_silence
from utils.audio.decode import load_audio
from utils.audio.recording import Recording
from utils.audio.waveform import SAMPLE_RATE, within_full_scale
from utils.errors import ModelError


@dataclass(frozen=True, slots=True)
class Treatment:
    """How recordings are changed when they are converted.

    Attributes:
        channel: As in `load_audio`.
        denoise: Whether steady noise is turned down.
        trim_silence: Whether leading, trailing and long inner silence is cut out.
    """

    channel: str = "mix"
    denoise: bool = False
    trim_silence: bool = False

    def __str__(self) -> str:
        """Names what is done, "" for nothing: the mark of files that were treated so."""
        names = [f"channel {self.channel}"] if self.channel != "mix" else []
        names += ["denoise"] if self.denoise else []
        return ", ".join([*names, "trim_silence"] if self.trim_silence else names)

    def load(self, path: str | Path) -> FloatArray:
        """Reads a recording and treats it.

        Returns:
            Shape `(num_samples,)`, 16 kHz, in [-1, 1]; empty if nothing is left.

        Raises:
            AudioError: As `load_audio`.
            ModelError: If noise is to be turned down and noisereduce is missing.
        """
        waveform = load_audio(path, channel=self.channel)
        if self.denoise:
            waveform = turn_down_noise(waveform)
        if self.trim_silence:
            waveform = remove_silence(waveform, Recording(waveform, str(path)).activity)
        return waveform


UNTREATED = Treatment()

MIN_PAUSE_S = 0.2
"""Seconds of pauses that show what the noise is like: a dozen frames of the gate."""

PAUSE_DB = 6.0
"""dB over the quietest tenth of a recording: what is louder may be a voice."""

QUIET_PERCENTILE = 10.0


def turn_down_noise(waveform: FloatArray) -> FloatArray:
    """Turns down steady noise by spectral gating, as noisereduce does it.

    What the noise is like, the pauses tell. A recording without any stays as it is: of the voice
    itself the gate would cut away as much.

    Args:
        waveform: Shape `(num_samples,)`, 16 kHz, in [-1, 1].

    Returns:
        The same shape, in [-1, 1].

    Raises:
        ModelError: If noisereduce is missing.

    Source: T. Sainburg, M. Thielk, T. Q. Gentner: Finding, visualizing, and quantifying latent
    structure across diverse animal vocal repertoires, 2020, and https://github.com/timsainb/noisereduce
    """
    try:
        from noisereduce import reduce_noise
    except ImportError as error:
        raise ModelError(
            "the package noisereduce is missing, expected it for --denoise; pip install noisereduce"
        ) from error
    is_pause = np.repeat(~_loud_frames(waveform), FRAME_SAMPLES)[: len(waveform)]
    pauses = waveform[is_pause]
    if len(pauses) < MIN_PAUSE_S * SAMPLE_RATE or not pauses.any():
        return waveform
    reduced = reduce_noise(y=waveform, sr=SAMPLE_RATE, y_noise=pauses, stationary=True)
    return within_full_scale(np.nan_to_num(np.asarray(reduced, dtype=np.float32)))


def _loud_frames(waveform: FloatArray) -> BoolArray:
    """Returns which frames of 10 ms are louder than the pauses, shape `(num_frames,)`."""
    levels = 10 * np.log10(find_activity(waveform).power + 1e-10)
    return np.asarray(levels > np.percentile(levels, QUIET_PERCENTILE) + PAUSE_DB)
