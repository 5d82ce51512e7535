"""The Keras training model: features, network, losses and running figures in one."""

from typing import Any

import keras
from keras import ops

from utils.audio.spectrogram import NUM_BINS
from utils.crops.batches import INT16_SCALE
from utils.crops.draws import VIEW_MARGIN_FRAMES
from utils.networks.front_ends import front_end
from utils.training.losses import (
    CLASSIFICATION_LOSSES,
    penalise_nearest,
    teacher_contrast,
    teacher_distance,
)
from utils.training.settings import LossSettings
from utils.training.views import cut_views


class SpeakerLearner(keras.Model):
    """Trains a network on 16-bit waveforms.

    Call arguments:
        inputs: `{"waveforms": int16 (batch, num_samples), "masks": int32 (batch, k, 4)}`; in
            with several views of a waveform, also the inputs of `utils.training.views.cut_views`.
            Outputs have `batch * k` rows.

    Targets: `{"labels": int32 (batch,), "has_class": (batch,), "teachers": (batch, teacher_size),
    "has_teacher": (batch,)}`.
    """

    def __init__(
        self, network: keras.Model, losses: LossSettings, teacher_size: int = 1,
        num_views: int = 1, keep_statistics: bool = False,
    ) -> None:  # fmt: skip
        """Wraps a network.

        Args:
            network: One of `utils.networks.catalogue`.
            losses: Losses and weights.
            teacher_size: Size of the teacher's vectors; if it differs from the embedding's, a
                linear layer between the two is trained too.
            num_views: Views of each waveform in a training batch.
            keep_statistics: Whether batch normalisation keeps the means and variances that the
                network came with, so that small batches of other speech don't move them.
        """
        # Views and features are computed in 32 bits even with 16-bit floats.
        super().__init__(name="learner", autocast=False)
        self.network = network
        self.losses_used = losses
        self.num_views = num_views
        self.keep_statistics = keep_statistics
        self.features = front_end(network)
        embedding_size = network.output_shape[1][-1]
        self.bridge = (
            keras.layers.Dense(teacher_size, use_bias=False, dtype="float32", name="bridge")
            if self.uses_teacher and teacher_size != embedding_size
            else None
        )
        # Where SphereFace2 draws the line between the same and another speaker is learned too.
        self.bias = (
            self.add_weight(name="bias", shape=(), initializer="zeros")
            if losses.name == "sphereface2"
            else None
        )
        self.trackers = [
            keras.metrics.Mean(name=name)
            for name in ["accuracy"] + (["teacher_cosine"] if self.uses_teacher else [])
        ]

    @property
    def uses_teacher(self) -> bool:
        """Whether a teacher loss has any weight."""
        return self.losses_used.distance > 0 or self.losses_used.contrast > 0

    def build(self, input_shape: Any) -> None:
        # Only parts of the layer are called. Keras would take it for an unbuilt model and trace it
        # again in every `fit` on several devices.
        self.features.built = True
        if self.bridge is not None:
            self.bridge.build(self.network.output_shape[1])

    def call(self, inputs: dict[str, Any], training: bool = False) -> dict[str, Any]:
        waveforms = ops.cast(inputs["waveforms"], "float32") / INT16_SCALE
        magnitudes = self.features.magnitude(waveforms)
        if "starts" in inputs:
            num_frames = magnitudes.shape[1] - VIEW_MARGIN_FRAMES
            magnitudes = cut_views(magnitudes, inputs, num_frames)
        masks = ops.cast(ops.reshape(inputs["masks"], [-1, 4]), "int32")
        spectrograms = mask_spectrograms(self.features.normalize(magnitudes), masks)
        classification, embedding = self.network(
            spectrograms, training=training and not self.keep_statistics
        )
        outputs = {"classification": classification, "embedding": embedding}
        if self.bridge is not None:
            outputs["teacher"] = ops.normalize(self.bridge(embedding), axis=-1)
        return outputs

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None,
        training: bool = True,
    ) -> Any:  # fmt: skip
        """Returns the weighted sum of the losses, a scalar."""
        del x, sample_weight, training
        y = self._repeat(y)
        settings = self.losses_used
        total = 0.0
        if settings.classification > 0:
            values = self._classification_loss(y_pred["classification"], y["labels"])
            weight = y["has_class"] / ops.maximum(ops.sum(y["has_class"]), 1.0)
            total = total + settings.classification * ops.sum(weight * values)
        if self.uses_teacher:
            guess = y_pred.get("teacher", y_pred["embedding"])
            weight = y["has_teacher"] / ops.maximum(ops.sum(y["has_teacher"]), 1.0)
            values = settings.distance * teacher_distance(guess, y["teachers"])
            if settings.contrast > 0:
                values = values + settings.contrast * teacher_contrast(
                    guess, y["teachers"], y["labels"], y["has_teacher"], settings.temperature
                )
            total = total + ops.sum(weight * values)
        return total / _num_replicas()

    def _classification_loss(self, outputs: Any, labels: Any) -> Any:
        """Returns the classification loss of each sample, with the margin of this step."""
        settings = self.losses_used
        margin: Any = settings.margin
        if settings.margin_steps:
            step = ops.cast(self.optimizer.iterations, "float32")
            margin = margin * ops.minimum(step / settings.margin_steps, 1.0)
        if settings.nearest_penalty:
            outputs = penalise_nearest(
                outputs, labels, settings.nearest_penalty, settings.num_nearest
            )
        learned = {} if self.bias is None else {"bias": self.bias}
        return CLASSIFICATION_LOSSES[settings.name](
            outputs, labels, margin, settings.scale, **learned
        )

    def _repeat(self, targets: dict[str, Any]) -> dict[str, Any]:
        """Repeats each sample's targets for its views."""
        if self.num_views == 1:
            return targets
        return {name: ops.repeat(value, self.num_views, axis=0) for name, value in targets.items()}

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Updates and returns the classification accuracy and the teacher's cosine."""
        del x, sample_weight
        y = self._repeat(y)
        is_right = ops.cast(ops.argmax(y_pred["classification"], axis=-1), "int32") == ops.cast(
            y["labels"], "int32"
        )
        self.trackers[0].update_state(ops.cast(is_right, "float32"), sample_weight=y["has_class"])
        if self.uses_teacher:
            guess = y_pred.get("teacher", y_pred["embedding"])
            cosine = ops.sum(guess * y["teachers"], axis=-1)
            self.trackers[1].update_state(cosine, sample_weight=y["has_teacher"])
        results: dict[str, Any] = self.get_metrics_result()
        return results


def _num_replicas() -> int:
    """Returns the number of devices whose losses TensorFlow sums; other backends average."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def mask_spectrograms(spectrograms: Any, masks: Any) -> Any:
    """Sets one band and one stretch of time of each spectrogram to zero, the mean.

    Args:
        spectrograms: Shape `(batch, num_bins, num_frames, 1)`.
        masks: First and end bin out of 257, first and end frame, int, shape `(batch, 4)`.

    Returns:
        Shape as `spectrograms`.
    """
    num_bins = spectrograms.shape[1]
    bins = (ops.arange(num_bins) * NUM_BINS // num_bins)[None, :, None, None]
    frames = ops.arange(spectrograms.shape[2])[None, None, :, None]
    edges = [masks[:, column][:, None, None, None] for column in range(4)]
    is_band = ops.logical_and(bins >= edges[0], bins < edges[1])
    is_time = ops.logical_and(frames >= edges[2], frames < edges[3])
    return ops.where(ops.logical_or(is_band, is_time), 0.0, spectrograms)
