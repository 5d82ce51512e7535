"""Front ends: layers that turn waveforms into what a network takes, on the training device.

A network says by the name of its input which one it takes. `utils.networks.features` holds their
twins in NumPy.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from utils.networks.filterbank import (
    FRAME_SHIFT,
    LOG_FLOOR,
    NUM_FFT_BINS,
    NUM_MEL_BINS,
    frame_basis,
    mel_filters,
    num_filterbank_frames,
)
from utils.resnet import Spectrogram


@keras.saving.register_keras_serializable("voiceprint")
class FilterBank(layers.Layer):
    """Log mel energies less their mean over time.

    Call arguments:
        waveforms: float32 in [-1, 1], 16 kHz, at least one frame of 400 samples.

    Input shape: `(batch, num_samples)`.

    Output shape: `(batch, 80, 1 + (num_samples - 400) // 160, 1)`, natural logarithm, float32.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, waveforms: Any) -> Any:
        return self.normalize(self.magnitude(waveforms))

    def magnitude(self, waveforms: Any) -> Any:
        """Returns the magnitude spectrum of each frame, shape `(batch, num_frames, 257)`."""
        kernel = ops.convert_to_tensor(frame_basis()[:, None, :])
        transform = ops.conv(
            ops.expand_dims(waveforms, -1), kernel, FRAME_SHIFT, "valid", "channels_last"
        )
        square = ops.square(transform)
        return ops.sqrt(square[..., :NUM_FFT_BINS] + square[..., NUM_FFT_BINS:])

    def normalize(self, magnitudes: Any) -> Any:
        """Returns the network's input `(batch, 80, num_frames, 1)` for such magnitudes."""
        energies = ops.matmul(ops.square(magnitudes), ops.convert_to_tensor(mel_filters()))
        levels = ops.log(ops.maximum(energies, LOG_FLOOR))
        levels = levels - ops.mean(levels, axis=1, keepdims=True)
        return ops.expand_dims(ops.transpose(levels, [0, 2, 1]), -1)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        samples = input_shape[1]
        frames = None if samples is None else num_filterbank_frames(samples)
        return (input_shape[0], NUM_MEL_BINS, frames, 1)


FRONT_ENDS: dict[str, type[layers.Layer]] = {"spectrogram": Spectrogram, "filterbank": FilterBank}
"""Front ends by the name that a network's input has. Each computes magnitudes, `(batch,
num_frames, 257)`, by `magnitude`, and from them the network's input by `normalize`."""


def front_end(network: keras.Model) -> Any:
    """Returns the layer that a network's input asks for.

    Raises:
        ValueError: If the input's name is none of `FRONT_ENDS`.
    """
    name = network.inputs[0].name
    if name not in FRONT_ENDS:
        raise ValueError(f"received an input named {name!r}, expected one of {list(FRONT_ENDS)}")
    return FRONT_ENDS[name](name="features")
