"""What networks take as input: the settings and, in NumPy, the computation of each front end."""

from collections.abc import Callable
from typing import Any

from utils.arrays import FloatArray
from utils.audio.spectrogram import EPSILON, HOP_LENGTH, N_FFT, WIN_LENGTH, spectrogram
from utils.audio.waveform import SAMPLE_RATE
from utils.networks import filterbank as kaldi
from utils.networks.filterbank import filterbank

FEATURES: dict[str, dict[str, Any]] = {
    "spectrogram": {
        "sample_rate": SAMPLE_RATE,
        "n_fft": N_FFT,
        "win_length": WIN_LENGTH,
        "hop_length": HOP_LENGTH,
        "epsilon": EPSILON,
    },
    "filterbank": {
        "sample_rate": SAMPLE_RATE,
        "frame_length": kaldi.FRAME_LENGTH,
        "frame_shift": kaldi.FRAME_SHIFT,
        "fft_length": kaldi.FFT_LENGTH,
        "num_mel_bins": kaldi.NUM_MEL_BINS,
        "lowest_hz": kaldi.LOWEST_HZ,
        "pre_emphasis": kaldi.PRE_EMPHASIS,
    },
}
"""Settings of each front end, as a model file holds them."""

FEATURE_FUNCTIONS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "spectrogram": spectrogram,
    "filterbank": filterbank,
}
"""From a waveform, `(num_samples,)`, to the input of a network, `(num_bins, num_frames)`."""


def front_end_name(settings: Any) -> str | None:
    """Returns which front end has these settings, or `None`."""
    for name, known in FEATURES.items():
        if settings == known:
            return name
    return None
