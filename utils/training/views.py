"""Several views of one waveform, made on the training device: crops, responses and mixtures.

Reading, decoding and augmenting a waveform takes a processor core about 3 ms; a fast GPU trains on
it in 0.1 ms. Several crops of each waveform, with varying frequency responses and background
speakers, keep such a GPU busy. The reader draws all random numbers, so a view is a pure function of
the batch.

This is data echoing (Choi et al., Faster Neural Network Training with Data Echoing, 2019), with
changes to each repeated sample.
"""

from typing import Any

import numpy as np
from keras import ops

from utils.arrays import FloatArray
from utils.audio.spectrogram import NUM_BINS


def cut_views(magnitudes: Any, views: dict[str, Any], num_frames: int) -> Any:
    """Returns the views of a batch of magnitudes, sample by sample.

    Args:
        magnitudes: Shape `(batch, num_long_frames, 257)`.
        views: From `utils.crops.draws.draw_views`: `starts` int `(batch, k)` first frames,
            `gains_db` `(batch, k, 8)` responses at 8 frequencies, `mix_db` `(batch, k)` level of
            another sample relative to this one, very low for none.
        num_frames: Frames of a view.

    Returns:
        Magnitudes, shape `(batch * k, num_frames, 257)`; a sample's views follow each other.
    """
    num_views = views["starts"].shape[1]
    frames = ops.arange(num_frames)
    result = []
    for view in range(num_views):
        places = ops.cast(views["starts"][:, view, None], "int32") + frames[None, :]
        # (batch, num_frames, 257)
        crop = ops.take_along_axis(magnitudes, ops.cast(places[:, :, None], "int32"), axis=1)
        power = ops.square(crop)
        # Another sample of the batch; since the order is random, a fixed offset will do.
        other = ops.roll(power, 7 * view + 3, axis=0)
        level = ops.mean(power, axis=(1, 2), keepdims=True)
        other_level = ops.maximum(ops.mean(other, axis=(1, 2), keepdims=True), 1e-12)
        ratio = ops.power(10.0, views["mix_db"][:, view, None, None] / 10.0)
        power = power + other * ratio * level / other_level
        response = ops.matmul(views["gains_db"][:, view], interpolation())
        result.append(ops.sqrt(power + 1e-12) * ops.power(10.0, response / 20.0)[:, None, :])
    stacked = ops.stack(result, axis=1)
    return ops.reshape(stacked, [-1, num_frames, NUM_BINS])


def interpolation() -> FloatArray:
    """Returns the matrix from gains at 8 frequencies to all bins, shape `(8, 257)`."""
    points = np.linspace(0, NUM_BINS - 1, 8)
    rows = [np.interp(np.arange(NUM_BINS), points, row) for row in np.eye(8)]
    return np.stack(rows).astype(np.float32)
