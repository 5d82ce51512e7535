"""What networks take as input: the settings and, in NumPy, the computation of each front end."""

from collections.abc import Callable
from typing import Any

from utils.arrays import FloatArray
from utils.audio.spectrogram import (
    CROP_SAMPLES,
    EPSILON,
    HOP_LENGTH,
    N_FFT,
    WIN_LENGTH,
    extend,
    spectrogram,
)
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

PUBLIC_FRONT_ENDS = ("wespeaker", "3dspeaker", "sherpa", "nemo")
"""Front ends of other projects: an imported .onnx file holds the one that it needs."""

FUNCTIONS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "spectrogram": spectrogram,
    "filterbank": filterbank,
}
"""From a waveform, `(num_samples,)`, to the input of a network, `(num_bins, num_frames)`."""

LEAST_SAMPLES = {"spectrogram": CROP_SAMPLES, "filterbank": kaldi.FRAME_LENGTH}
"""Length to which a shorter waveform is repeated: a training crop where that helps (1 s of speech
tells CAM++'s filter bank more by itself), else what the front end needs."""


def compute_features(front_end: str, waveform: FloatArray) -> FloatArray:
    """Returns the input of a network for a waveform of any length.

    Args:
        front_end: A key of `FEATURES`.
        waveform: Shape `(num_samples,)`, at least one sample, 16 kHz.

    Returns:
        Shape `(num_bins, num_frames)`.
    """
    size = max(len(waveform), LEAST_SAMPLES[front_end])
    return FUNCTIONS[front_end](extend(waveform, size))


def front_end_name(settings: Any) -> str | None:
    """Returns which front end has these settings, or `None`."""
    if isinstance(settings, dict) and settings.get("front_end") in PUBLIC_FRONT_ENDS:
        return str(settings["front_end"])
    for name, known in FEATURES.items():
        if settings == known:
            return name
    return None
