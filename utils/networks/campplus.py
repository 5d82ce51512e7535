"""CAM++: a densely connected time-delay network whose layers mask what the context makes likely.

Source: Wang et al., CAM++: A Fast and Efficient Network for Speaker Verification Using
Context-Aware Masking (2023), figure 1 and table 1. Feature maps keep four axes throughout,
`(batch, frequencies, num_frames, channels)`, one frequency after the front: so all parts are
two-dimensional convolutions, which every exporter knows.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from utils.networks.filterbank import NUM_MEL_BINS
from utils.resnet import FusedBatchNormalization, speaker_outputs

FRONT_WIDTH = 32
"""Channels of the two-dimensional convolutions at the front."""

INITIAL_WIDTH = 128
"""Channels of the first time-delay layer."""

BLOCK_LAYERS = (12, 24, 16)
"""Layers of the three densely connected blocks."""

BLOCK_DILATIONS = (1, 2, 2)
"""Distance of the frames that a layer of each block joins."""

GROWTH = 32
"""Channels that a layer adds to what it got."""

BOTTLENECK = 128
"""Channels inside a layer."""

SEGMENT_FRAMES = 100
"""Frames of the local context; at 20 ms each these are 2 s."""

EMBEDDING_SIZE = 192


@keras.saving.register_keras_serializable("voiceprint")
class FrequenciesToChannels(layers.Layer):
    """Makes channels of the frequencies, so that what follows goes over time alone.

    Input shape: `(batch, frequencies, num_frames, channels)`.

    Output shape: `(batch, 1, num_frames, frequencies * channels)`.
    """

    def call(self, inputs: Any) -> Any:
        _, frequencies, _, channels = inputs.shape
        frames = ops.transpose(inputs, [0, 2, 1, 3])
        num_frames = ops.shape(inputs)[2]
        return ops.reshape(frames, [-1, 1, num_frames, frequencies * channels])

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        batch, frequencies, num_frames, channels = input_shape
        assert frequencies is not None and channels is not None
        return (batch, 1, num_frames, frequencies * channels)


@keras.saving.register_keras_serializable("voiceprint")
class SegmentMeans(layers.Layer):
    """Context of each segment: its mean plus that of the whole utterance (equations 2 to 4).

    Input shape: `(batch, 1, num_frames, channels)`.

    Output shape: `(batch, 1, num_segments, channels)`; the last segment may be shorter.
    """

    def call(self, inputs: Any) -> Any:
        num_frames, channels = ops.shape(inputs)[2], inputs.shape[3]
        num_segments = (num_frames + SEGMENT_FRAMES - 1) // SEGMENT_FRAMES
        filler = num_segments * SEGMENT_FRAMES - num_frames
        padded = ops.pad(inputs, [[0, 0], [0, 0], [0, filler], [0, 0]])
        segments = ops.reshape(padded, [-1, num_segments, SEGMENT_FRAMES, channels])
        starts = ops.arange(num_segments) * SEGMENT_FRAMES
        sizes = ops.minimum(num_frames - starts, SEGMENT_FRAMES)
        sizes = ops.cast(sizes, self.compute_dtype)[None, None, :, None]
        sums = ops.expand_dims(ops.sum(segments, axis=2), 1)
        return sums / sizes + ops.mean(inputs, axis=2, keepdims=True)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        frames = input_shape[2]
        segments = None if frames is None else -(-frames // SEGMENT_FRAMES)
        return (input_shape[0], 1, segments, input_shape[3])


@keras.saving.register_keras_serializable("voiceprint")
class SegmentMask(layers.Layer):
    """Multiplies each frame by the mask of its segment (equation 1).

    Call arguments:
        inputs: feature maps `(batch, 1, num_frames, channels)` and masks
            `(batch, 1, num_segments, channels)`.

    Output shape: that of the feature maps.
    """

    def call(self, inputs: Any) -> Any:
        frames, masks = inputs
        num_frames = ops.shape(frames)[2]
        repeated = ops.repeat(masks, SEGMENT_FRAMES, axis=2)[:, :, :num_frames]
        return frames * repeated

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return tuple(input_shape[0])


@keras.saving.register_keras_serializable("voiceprint")
class Statistics(layers.Layer):
    """Mean and standard deviation over time.

    Input shape: `(batch, 1, num_frames, channels)`.

    Output shape: `(batch, 2 * channels)`, float32.
    """

    def call(self, inputs: Any) -> Any:
        frames = ops.cast(inputs[:, 0], "float32")
        num_frames = ops.cast(ops.shape(frames)[1], "float32")
        mean = ops.mean(frames, axis=1)
        square = ops.sum(ops.square(frames - mean[:, None]), axis=1)
        variance = square / ops.maximum(num_frames - 1.0, 1.0)
        # The floor keeps the gradient of the root finite for constant channels.
        return ops.concatenate([mean, ops.sqrt(ops.maximum(variance, 1e-10))], axis=-1)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, int]:
        assert input_shape[3] is not None
        return (input_shape[0], 2 * input_shape[3])


def build_campplus(
    num_classes: int,
    front_width: int = FRONT_WIDTH,
    initial_width: int = INITIAL_WIDTH,
    block_layers: Sequence[int] = BLOCK_LAYERS,
    growth: int = GROWTH,
    bottleneck: int = BOTTLENECK,
    embedding_size: int = EMBEDDING_SIZE,
    cosine_classifier: bool = True,
    num_subcenters: int = 1,
) -> keras.Model:
    """Returns the network with its two outputs; the constants above explain the sizes.

    Returns:
        A model from log mel energies, shape `(batch, 80, num_frames, 1)`, to
        `[classification, embedding]` with shapes `(batch, num_classes)` and
        `(batch, embedding_size)`; embeddings have unit length.

    Raises:
        ValueError: If `num_classes` is below 1 or there are not three blocks.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}, expected at least 1")
    if len(block_layers) != len(BLOCK_DILATIONS):
        raise ValueError(f"expected {len(BLOCK_DILATIONS)} numbers of layers, got {block_layers}")
    # The name says which front end the network takes.
    inputs = keras.Input((NUM_MEL_BINS, None, 1), name="filterbank")
    x = _front(inputs, front_width)
    x = _time_delay(x, initial_width, 5, "tdnn", stride=2)
    for block, (num_layers, dilation) in enumerate(
        zip(block_layers, BLOCK_DILATIONS, strict=True), start=1
    ):
        for number in range(1, num_layers + 1):
            name = f"block{block}_layer{number}"
            added = _masked_layer(x, bottleneck, growth, dilation, name)
            x = layers.Concatenate(name=f"{name}_concatenate")([x, added])
        x = _norm_relu(x, f"transit{block}")
        x = layers.Conv2D(x.shape[-1] // 2, 1, use_bias=False, name=f"transit{block}_conv")(x)
    x = _norm_relu(x, "output")
    x = Statistics(dtype="float32", name="pooling")(x)
    outputs = speaker_outputs(x, num_classes, embedding_size, cosine_classifier, num_subcenters)
    return keras.Model(inputs, outputs, name="campplus")


def _front(x: Any, width: int) -> Any:
    """The convolution module: from 80 bins to 10, which become channels of one frequency."""
    x = layers.ReLU(name="front_relu")(_convolution(x, width, 3, 1, "front_conv"))
    for stage in (1, 2):
        x = _residual_block(x, width, 2, f"front{stage}_block1")
        x = _residual_block(x, width, 1, f"front{stage}_block2")
    x = layers.ReLU(name="front_last_relu")(_convolution(x, width, 3, 2, "front_last"))
    return FrequenciesToChannels(name="front_channels")(x)


def _residual_block(x: Any, width: int, stride: int, name: str) -> Any:
    """Two 3 x 3 convolutions around a shortcut; the stride is that of the frequencies."""
    shortcut = x
    if stride != 1:
        shortcut = _convolution(x, width, 1, stride, f"{name}_shortcut")
    x = layers.ReLU(name=f"{name}_relu1")(_convolution(x, width, 3, stride, f"{name}_conv1"))
    x = _convolution(x, width, 3, 1, f"{name}_conv2")
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_relu2")(x)


def _convolution(x: Any, width: int, size: int, stride: int, name: str) -> Any:
    """Convolution over frequency and time, and batch normalisation; zeros on all four sides."""
    if size > 1:
        x = layers.ZeroPadding2D(size // 2, name=f"{name}_padding")(x)
    x = layers.Conv2D(
        width, size, (stride, 1), use_bias=False, kernel_initializer="he_normal", name=name
    )(x)
    return _norm(x, name)


def _time_delay(x: Any, width: int, size: int, name: str, stride: int = 1) -> Any:
    """Convolution over time, batch normalisation and ReLU."""
    if size > 1:
        x = layers.ZeroPadding2D((0, size // 2), name=f"{name}_padding")(x)
    x = layers.Conv2D(
        width, (1, size), (1, stride), use_bias=False, kernel_initializer="he_normal", name=name
    )(x)
    return layers.ReLU(name=f"{name}_relu")(_norm(x, name))


def _masked_layer(x: Any, bottleneck: int, growth: int, dilation: int, name: str) -> Any:
    """A time-delay layer whose output is masked by its context (section 2.2)."""
    x = _time_delay(_norm_relu(x, f"{name}_input"), bottleneck, 1, f"{name}_bottleneck")
    context = SegmentMeans(name=f"{name}_context")(x)
    context = layers.Conv2D(bottleneck // 2, 1, name=f"{name}_mask1")(context)
    context = layers.ReLU(name=f"{name}_mask_relu")(context)
    masks = layers.Conv2D(growth, 1, activation="sigmoid", name=f"{name}_mask2")(context)
    x = layers.ZeroPadding2D((0, dilation), name=f"{name}_local_padding")(x)
    x = layers.Conv2D(
        growth, (1, 3), dilation_rate=(1, dilation), use_bias=False,
        kernel_initializer="he_normal", name=f"{name}_local",
    )(x)  # fmt: skip
    return SegmentMask(name=f"{name}_masking")([x, masks])


def _norm_relu(x: Any, name: str) -> Any:
    """Batch normalisation and ReLU in front of a convolution."""
    return layers.ReLU(name=f"{name}_relu")(_norm(x, name))


def _norm(x: Any, name: str) -> Any:
    """Batch normalisation."""
    return FusedBatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)
