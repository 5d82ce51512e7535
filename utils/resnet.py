"""ResNet34 with a classification head and an embedding head, on the normalised magnitude.

Source: He et al., Deep Residual Learning for Image Recognition (2016), table 1, for the blocks;
Okabe et al., Attentive Statistics Pooling for Deep Speaker Embedding (2018) for the pooling over
time. Only `keras.layers` and `keras.ops` are used, so the file runs on the TensorFlow, JAX and
PyTorch backends and a model written on one loads on the others.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from utils.audio.spectrogram import EPSILON, HOP_LENGTH, N_FFT, NUM_BINS, padded_window

NUM_BLOCKS = (3, 4, 6, 3)
"""Residual blocks of the four stages of a ResNet34."""

STAGE_STRIDES = ((1, 1), (2, 2), (2, 2), (2, 1))
"""Stride over (frequency, time) where a stage begins; the last keeps its frames for the pooling."""

DEFAULT_WIDTHS = (32, 64, 128, 256)
"""Channels of the stages, half of the original's: a 3 s embedding in 0.03-0.05 s on one core."""

EMBEDDING_SIZE = 192

COMPRESSION_OFFSET = 1e-2
"""Added before the logarithm, in deviations of a frame: 60 dB below a loud harmonic (about 10)."""


@keras.saving.register_keras_serializable("voiceprint")
class Spectrogram(layers.Layer):
    """The features of `utils.audio.spectrogram`, computed on the training device.

    Call arguments:
        waveforms: float32 in [-1, 1], 16 kHz.

    Input shape: `(batch, num_samples)`.

    Output shape: `(batch, 257, 1 + num_samples // 160, 1)`, float32.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, waveforms: Any) -> Any:
        return self.normalize(self.magnitude(waveforms))

    def magnitude(self, waveforms: Any) -> Any:
        """Returns magnitudes before normalisation, shape `(batch, num_frames, 257)`."""
        padded = ops.pad(waveforms, [[0, 0], [N_FFT // 2, N_FFT // 2]])
        real, imaginary = ops.stft(
            padded, N_FFT, HOP_LENGTH, N_FFT, window=padded_window(), center=False
        )
        return ops.sqrt(ops.square(real) + ops.square(imaginary))

    def normalize(self, magnitudes: Any) -> Any:
        """Returns the network's input `(batch, 257, num_frames, 1)` for such magnitudes."""
        mean = ops.mean(magnitudes, axis=-1, keepdims=True)
        deviation = ops.std(magnitudes, axis=-1, keepdims=True)
        normalized = (magnitudes - mean) / (deviation + EPSILON)
        return ops.expand_dims(ops.transpose(normalized, [0, 2, 1]), -1)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        samples = input_shape[1]
        frames = None if samples is None else 1 + samples // HOP_LENGTH
        return (input_shape[0], NUM_BINS, frames, 1)


@keras.saving.register_keras_serializable("voiceprint")
class LogCompression(layers.Layer):
    """Logarithm of the normalised magnitude, less its mean over time.

    The normalisation of a frame is undone up to its scale by subtracting the smallest bin, which
    is almost silence; the logarithm then spreads the weak high frequencies over the same range as
    the strong low ones. Subtracting each bin's mean over time removes a fixed channel
    (microphone, line), as cepstral mean normalisation does.

    Call arguments:
        spectrograms: normalised magnitudes.

    Input shape: `(batch, 257, num_frames, 1)`.

    Output shape: same, float32.
    """

    def __init__(self, offset: float = COMPRESSION_OFFSET, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.offset = offset

    def call(self, spectrograms: Any) -> Any:
        magnitudes = spectrograms - ops.min(spectrograms, axis=1, keepdims=True)
        levels = ops.log(magnitudes + self.offset)
        return levels - ops.mean(levels, axis=2, keepdims=True)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "offset": self.offset}


@keras.saving.register_keras_serializable("voiceprint")
class FusedBatchNormalization(layers.BatchNormalization):
    """Batch normalisation over the last axis with TensorFlow's fused kernel.

    Keras computes it in several passes on TensorFlow, which takes most of a training step on a
    CPU. Results equal the stock layer's; other backends and other ranks use the stock layer.

    Call arguments:
        inputs, training: as the stock layer; masks are not supported.

    Input shape: `(batch, height, width, channels)`. Output shape: same.
    """

    def call(self, inputs: Any, training: bool = False, mask: Any = None) -> Any:
        if keras.backend.backend() != "tensorflow" or len(inputs.shape) != 4:
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        is_training = bool(training) and self.trainable
        empty = tf.constant([], tf.float32)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=tf.cast(inputs, self.compute_dtype),
            scale=tf.cast(self.gamma, tf.float32),
            offset=tf.cast(self.beta, tf.float32),
            mean=empty if is_training else tf.cast(self.moving_mean, tf.float32),
            variance=empty if is_training else tf.cast(self.moving_variance, tf.float32),
            epsilon=self.epsilon,
            is_training=is_training,
        )
        if is_training:
            shape = tf.shape(inputs)
            count = tf.cast(shape[0] * shape[1] * shape[2], tf.float32)
            # The kernel reports the unbiased variance; Keras averages the biased one.
            variance = variance * (count - 1.0) / count
            for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moving.assign(moving * self.momentum + value * (1.0 - self.momentum))
        return outputs


@keras.saving.register_keras_serializable("voiceprint")
class AttentiveStatistics(layers.Layer):
    """Mean and standard deviation over time, weighted by how much each frame tells.

    Source: Okabe et al. (2018), equations 1-6, with one weight per channel and frame.

    Args:
        attention_size: Width of the hidden layer of the attention.

    Call arguments:
        inputs: feature maps of the last stage.

    Input shape: `(batch, frequencies, num_frames, channels)`.

    Output shape: `(batch, 2 * frequencies * channels)`, float32.
    """

    def __init__(self, attention_size: int = 64, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.attention_size = attention_size
        self.hidden = layers.Dense(attention_size, activation="tanh", name="hidden")

    def build(self, input_shape: Sequence[int]) -> None:
        size = input_shape[1] * input_shape[3]
        self.hidden.build((None, None, size))
        self.weight = layers.Dense(size, kernel_initializer="zeros", name="weight")
        self.weight.build((None, None, self.attention_size))
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        _, frequencies, _, channels = inputs.shape
        frames = ops.transpose(inputs, [0, 2, 1, 3])
        # (batch, num_frames, frequencies * channels)
        frames = ops.reshape(frames, [-1, ops.shape(inputs)[2], frequencies * channels])
        weights = ops.softmax(ops.cast(self.weight(self.hidden(frames)), "float32"), axis=1)
        frames = ops.cast(frames, "float32")
        mean = ops.sum(weights * frames, axis=1)  # equation 5
        square = ops.sum(weights * ops.square(frames), axis=1)
        # Equation 6; the floor keeps the gradient of the root finite for constant channels.
        deviation = ops.sqrt(ops.maximum(square - ops.square(mean), 1e-4))
        return ops.concatenate([mean, deviation], axis=-1)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, int]:
        assert input_shape[1] is not None and input_shape[3] is not None
        return (input_shape[0], 2 * input_shape[1] * input_shape[3])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "attention_size": self.attention_size}


@keras.saving.register_keras_serializable("voiceprint")
class UnitLength(layers.Layer):
    """Scales vectors to length one.

    Input shape: `(batch, size)`. Output shape: same, float32.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, inputs: Any) -> Any:
        square = ops.sum(ops.square(inputs), axis=-1, keepdims=True)
        return inputs * ops.rsqrt(ops.maximum(square, 1e-12))

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        return tuple(input_shape)


@keras.saving.register_keras_serializable("voiceprint")
class CosineClassifier(layers.Layer):
    """Cosine between an embedding and a learned vector per speaker, or the nearest of several.

    Args:
        num_classes: Number of training speakers.
        num_subcenters: Vectors of each.

    Input shape: `(batch, embedding_size)`, unit length.

    Output shape: `(batch, num_classes)`, float32 in [-1, 1].

    Source: Deng et al., Sub-center ArcFace: Boosting Face Recognition by Large-Scale Noisy Web
    Faces (2020), section 3.2, for several vectors: recordings with a wrong label gather at one.
    """

    def __init__(self, num_classes: int, num_subcenters: int = 1, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.num_classes = num_classes
        self.num_subcenters = num_subcenters

    def build(self, input_shape: Sequence[int]) -> None:
        # First one vector of every speaker, then the second of every speaker, and so on.
        shape = (input_shape[-1], self.num_subcenters * self.num_classes)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer="glorot_uniform")

    def call(self, inputs: Any) -> Any:
        square = ops.sum(ops.square(self.kernel), axis=0, keepdims=True)
        cosines = ops.matmul(inputs, self.kernel * ops.rsqrt(ops.maximum(square, 1e-12)))
        if self.num_subcenters == 1:
            return cosines
        shape = [-1, self.num_subcenters, self.num_classes]
        return ops.max(ops.reshape(cosines, shape), axis=1)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, int]:
        return (input_shape[0], self.num_classes)

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "num_classes": self.num_classes}
        # Version 2.1 doesn't know it.
        more = {"num_subcenters": self.num_subcenters} if self.num_subcenters > 1 else {}
        return config | more


def build_resnet34(
    num_classes: int,
    widths: Sequence[int] = DEFAULT_WIDTHS,
    embedding_size: int = EMBEDDING_SIZE,
    cosine_classifier: bool = True,
    num_blocks: Sequence[int] = NUM_BLOCKS,
    num_subcenters: int = 1,
) -> keras.Model:
    """Returns the network with its two outputs.

    Args:
        num_classes: Number of training speakers.
        widths: Channels of the four stages.
        embedding_size: Length of an embedding.
        cosine_classifier: Whether the classification output is the cosine to each speaker, as
            the margin losses need, or a plain linear layer on the embedding (softmax loss).
        num_blocks: Residual blocks of the four stages.
        num_subcenters: Learned vectors of each speaker, with `cosine_classifier`.

    Returns:
        A model from normalised magnitudes, shape `(batch, 257, num_frames, 1)` for any
        `num_frames` from 17, to `[classification, embedding]` with shapes
        `(batch, num_classes)` and `(batch, embedding_size)`; embeddings have unit length.

    Raises:
        ValueError: If `num_classes` is below 1 or `widths` and `num_blocks` differ in length.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}, expected at least 1")
    if not len(widths) == len(num_blocks) == len(STAGE_STRIDES):
        raise ValueError(f"expected {len(STAGE_STRIDES)} widths and block counts, got {widths}")
    inputs = keras.Input((NUM_BINS, None, 1), name="spectrogram")
    x = LogCompression(name="log_compression")(inputs)
    x = _convolution(x, widths[0], 7, (2, 2), "stem")
    x = layers.ReLU(name="stem_relu")(x)
    x = layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)
    for stage, (width, blocks) in enumerate(zip(widths, num_blocks, strict=True), start=1):
        for block in range(1, blocks + 1):
            strides = STAGE_STRIDES[stage - 1] if block == 1 else (1, 1)
            x = _residual_block(x, width, strides, f"stage{stage}_block{block}")
    x = AttentiveStatistics(name="pooling")(x)
    outputs = speaker_outputs(x, num_classes, embedding_size, cosine_classifier, num_subcenters)
    return keras.Model(inputs, outputs, name="resnet34")


def speaker_outputs(
    pooled: Any,
    num_classes: int,
    embedding_size: int,
    cosine_classifier: bool,
    num_subcenters: int = 1,
) -> list[Any]:
    """Returns the two outputs of every network here: classification and embedding.

    Args:
        pooled: Statistics over time. Shape `(batch, size)`.
        num_classes: Speakers.
        embedding_size: Length of the embedding.
        cosine_classifier: Whether the classification gives cosines, for the margin losses.
        num_subcenters: Learned vectors of each speaker, if it does.
    """
    x = keras.layers.Dense(embedding_size, dtype="float32", name="projection")(pooled)
    embedding = UnitLength(name="embedding")(x)
    if cosine_classifier:
        classifier = CosineClassifier(num_classes, num_subcenters, name="classification")
        return [classifier(embedding), embedding]
    # Cosines alone are too flat for a softmax: the plain head sees the unscaled vector.
    return [keras.layers.Dense(num_classes, dtype="float32", name="classification")(x), embedding]


def _residual_block(x: Any, width: int, strides: tuple[int, int], name: str) -> Any:
    """Two 3 x 3 convolutions around a shortcut: He et al. (2016), figure 2 and equation 2."""
    shortcut = x
    if strides != (1, 1) or x.shape[-1] != width:
        shortcut = _convolution(x, width, 1, strides, f"{name}_shortcut")
    x = _convolution(x, width, 3, strides, f"{name}_conv1")
    x = layers.ReLU(name=f"{name}_relu1")(x)
    x = _convolution(x, width, 3, (1, 1), f"{name}_conv2", gamma="zeros")
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_relu2")(x)


def _convolution(
    x: Any, width: int, size: int, strides: tuple[int, int], name: str, gamma: str = "ones"
) -> Any:
    """Convolution and batch normalisation; `gamma="zeros"` lets a block begin as its shortcut."""
    x = layers.Conv2D(
        width, size, strides, padding="same", use_bias=False, name=name,
        kernel_initializer="he_normal",
    )(x)  # fmt: skip
    return FusedBatchNormalization(
        momentum=0.9, epsilon=1e-5, gamma_initializer=gamma, name=f"{name}_norm"
    )(x)
