"""ECAPA-TDNN: time-delay layers whose channels are weighted by what the whole utterance holds.

Source: Desplanques et al., ECAPA-TDNN: Emphasized Channel Attention, Propagation and Aggregation in
TDNN Based Speaker Verification (2020), figures 1 and 2. As in CAM++ feature maps keep four axes,
`(batch, 1, num_frames, channels)`. Unlike the paper it takes log mel energies of 80 bins, as CAM++
does, and no batch normalisation stands behind the last layer, whose output goes to unit length.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from utils.networks.campplus import FrequenciesToChannels
from utils.networks.filterbank import NUM_MEL_BINS
from utils.resnet import FusedBatchNormalization, speaker_outputs

CHANNELS = 512
"""Channels of the frame layers: 512 or 1024 in the paper."""

DILATIONS = (2, 3, 4)
"""Distance of the frames that the three blocks join."""

SCALE = 8
"""Groups of channels in a block, each convolved with what the one before it gave."""

BOTTLENECK = 128
"""Units of the squeeze-excitation and of the attention."""

AGGREGATED_CHANNELS = 1536
"""Channels of the layer that joins the outputs of all blocks."""

EMBEDDING_SIZE = 192


@keras.saving.register_keras_serializable("voiceprint")
class ChannelGroup(layers.Layer):
    """One of several equal groups of channels.

    Args:
        index: Which one, from 0.
        num_groups: How many there are.

    Input shape: `(batch, 1, num_frames, channels)`.

    Output shape: `(batch, 1, num_frames, channels / num_groups)`.
    """

    def __init__(self, index: int, num_groups: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.index = index
        self.num_groups = num_groups

    def call(self, inputs: Any) -> Any:
        width = inputs.shape[-1] // self.num_groups
        return inputs[..., self.index * width : (self.index + 1) * width]

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        assert input_shape[-1] is not None
        return (*input_shape[:-1], input_shape[-1] // self.num_groups)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "index": self.index, "num_groups": self.num_groups}


@keras.saving.register_keras_serializable("voiceprint")
class ContextStatistics(layers.Layer):
    """Mean and deviation over time, every channel with its own weights of the frames.

    The attention sees a frame beside mean and deviation of the whole utterance (section 3.1).

    Args:
        attention_size: Units of its hidden layer.

    Input shape: `(batch, 1, num_frames, channels)`.

    Output shape: `(batch, 2 * channels)`, float32.
    """

    def __init__(self, attention_size: int = BOTTLENECK, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.attention_size = attention_size
        self.hidden = layers.Dense(attention_size, name="hidden")
        self.context = layers.Dense(attention_size, use_bias=False, name="context")

    def build(self, input_shape: Sequence[int]) -> None:
        channels = input_shape[3]
        self.hidden.build((None, None, channels))
        # The part of the paper's matrix W that sees mean and deviation.
        self.context.build((None, 2 * channels))
        self.weight = layers.Dense(channels, kernel_initializer="zeros", name="weight")
        self.weight.build((None, None, self.attention_size))
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        frames = ops.cast(inputs[:, 0], "float32")
        whole = _statistics(frames, 1.0 / ops.cast(ops.shape(frames)[1], "float32"))
        context = ops.expand_dims(self.context(whole), 1)
        hidden = ops.tanh(self.hidden(inputs[:, 0]) + context)
        scores = ops.cast(self.weight(hidden), "float32")  # equation 1
        # Equation 2 by hand: Keras warns of a softmax over a single frame.
        powers = ops.exp(scores - ops.max(scores, axis=1, keepdims=True))
        weights = powers / ops.sum(powers, axis=1, keepdims=True)
        return _statistics(frames, weights)  # equations 3 and 4

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, int]:
        assert input_shape[3] is not None
        return (input_shape[0], 2 * input_shape[3])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "attention_size": self.attention_size}


def _statistics(frames: Any, weights: Any) -> Any:
    """Returns weighted mean and deviation, `(batch, 2 * channels)`."""
    mean = ops.sum(weights * frames, axis=1)
    square = ops.sum(weights * ops.square(frames), axis=1)
    # The floor keeps the gradient of the root finite for constant channels.
    deviation = ops.sqrt(ops.maximum(square - ops.square(mean), 1e-4))
    return ops.concatenate([mean, deviation], axis=-1)


def build_ecapa_tdnn(
    num_classes: int,
    channels: int = CHANNELS,
    scale: int = SCALE,
    bottleneck: int = BOTTLENECK,
    aggregated_channels: int = AGGREGATED_CHANNELS,
    embedding_size: int = EMBEDDING_SIZE,
    cosine_classifier: bool = True,
    num_subcenters: int = 1,
) -> keras.Model:
    """Returns the network with its two outputs.

    Args:
        num_classes: Number of training speakers.
        channels: Channels of the frame layers.
        scale: Groups of channels in a block.
        bottleneck: Units of the squeeze-excitation and of the attention.
        aggregated_channels: Channels of the layer in front of the pooling.
        embedding_size: Length of an embedding.
        cosine_classifier: As in `utils.resnet.build_resnet34`.
        num_subcenters: As there.

    Returns:
        A model from log mel energies, shape `(batch, 80, num_frames, 1)`, to
        `[classification, embedding]` with shapes `(batch, num_classes)` and
        `(batch, embedding_size)`; embeddings have unit length.

    Raises:
        ValueError: If `num_classes` is below 1 or `channels` no multiple of `scale`.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}, expected at least 1")
    if channels % scale:
        raise ValueError(f"channels is {channels}, expected a multiple of scale, {scale}")
    # The name says which front end the network takes.
    inputs = keras.Input((NUM_MEL_BINS, None, 1), name="filterbank")
    x = FrequenciesToChannels(name="bins_to_channels")(inputs)
    x = _time_delay(x, channels, 5, 1, "stem")
    blocks: list[Any] = []
    for number, dilation in enumerate(DILATIONS, start=1):
        blocks.append(_block(x, scale, bottleneck, dilation, f"block{number}"))
        # Each block sees the sum of all outputs before it (section 3.3).
        x = layers.Add(name=f"sum{number}")([x, blocks[-1]])
    x = layers.Concatenate(name="aggregation")(blocks)
    x = layers.Conv2D(
        aggregated_channels, 1, kernel_initializer="he_normal", name="aggregation_conv"
    )(x)
    x = layers.ReLU(name="aggregation_relu")(x)
    x = ContextStatistics(bottleneck, name="pooling")(x)
    x = _norm(x, "pooling", dtype="float32")
    outputs = speaker_outputs(x, num_classes, embedding_size, cosine_classifier, num_subcenters)
    return keras.Model(inputs, outputs, name="ecapa_tdnn")


def _block(x: Any, scale: int, bottleneck: int, dilation: int, name: str) -> Any:
    """An SE-Res2Block (figure 1): convolutions group by group, channels weighted, shortcut."""
    shortcut, channels = x, x.shape[-1]
    x = _time_delay(x, channels, 1, 1, f"{name}_before")
    groups: list[Any] = []
    for index in range(scale):
        group = ChannelGroup(index, scale, name=f"{name}_group{index + 1}")(x)
        if index > 1:
            group = layers.Add(name=f"{name}_add{index + 1}")([group, groups[-1]])
        if index > 0:  # The first group stays as it is.
            group = _time_delay(group, channels // scale, 3, dilation, f"{name}_conv{index + 1}")
        groups.append(group)
    x = layers.Concatenate(name=f"{name}_groups")(groups)
    x = _time_delay(x, channels, 1, 1, f"{name}_after")
    # Squeeze and excitation (equations 5 to 7)
    mean = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(x)
    hidden = layers.Conv2D(bottleneck, 1, name=f"{name}_excite1")(mean)
    hidden = layers.ReLU(name=f"{name}_excite_relu")(hidden)
    weights = layers.Conv2D(channels, 1, activation="sigmoid", name=f"{name}_excite2")(hidden)
    x = layers.Multiply(name=f"{name}_scaled")([x, weights])
    return layers.Add(name=f"{name}_output")([x, shortcut])


def _time_delay(x: Any, width: int, size: int, dilation: int, name: str) -> Any:
    """Convolution over time, ReLU and batch normalisation, in this order."""
    if size > 1:
        x = layers.ZeroPadding2D((0, dilation * (size // 2)), name=f"{name}_padding")(x)
    x = layers.Conv2D(
        width, (1, size), dilation_rate=(1, dilation), kernel_initializer="he_normal", name=name
    )(x)
    return _norm(layers.ReLU(name=f"{name}_relu")(x), name)


def _norm(x: Any, name: str, **options: Any) -> Any:
    """Batch normalisation."""
    return FusedBatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm", **options)(x)
