"""Adapts the last layer of a network to noise, rooms, lines and codecs, without labels.

All before the last layer stays as it is, so that its output, the statistics of the pooling, is
computed once for each crop. The last layer then learns in seconds to say of a degraded crop what
the network said of the clean utterance.
"""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from utils.arrays import FloatArray
from utils.crops.batches import INT16_SCALE, BatchMaker
from utils.errors import ModelError
from utils.networks.front_ends import front_end
from utils.resnet import UnitLength
from utils.training.losses import teacher_contrast, teacher_distance

LAST_LAYER = "projection"

BATCH_SIZE = 256
LEARNING_RATE = 1e-3
TEMPERATURE = 0.07


@dataclass
class PooledCrops:
    """Crops as the last layer sees them, shapes with `n` crops.

    Attributes:
        statistics: Output of the pooling, `(n, num_statistics)`.
        labels: Speakers, int, `(n,)`.
        teachers: What the teacher says of the clean utterances, unit length, `(n, size)`.
    """

    statistics: FloatArray
    labels: Any
    teachers: FloatArray


def pool_crops(network: Any, maker: BatchMaker, num_batches: int) -> PooledCrops:
    """Computes the statistics of the crops of some batches; those without a teacher are left out.

    Args:
        network: One of `utils.networks.catalogue`.
        maker: Makes the batches, with a teacher file in its settings.
        num_batches: How many.
    """
    from tqdm import tqdm

    layer = front_end(network)
    body = keras.Model(network.inputs, network.get_layer(LAST_LAYER).input)
    body.compile()  # for predict_on_batch
    rows, labels, teachers = [], [], []
    for number in tqdm(range(num_batches), desc="crops"):
        batch = maker.batch(1, number)
        waveforms = ops.convert_to_tensor(batch.waveforms.astype(np.float32) / INT16_SCALE)
        pooled = np.asarray(body.predict_on_batch(layer(waveforms)))
        is_known = batch.has_teacher > 0
        rows.append(pooled[is_known])
        labels.append(batch.labels[is_known])
        teachers.append(batch.teachers[is_known])
    return PooledCrops(np.concatenate(rows), np.concatenate(labels), np.concatenate(teachers))


class LastLayer(keras.Model):
    """The change of the last layer that is learned, on standardised statistics.

    Call arguments:
        inputs: `(statistics, outputs)`: standardised statistics and what the layer made of them
            so far, in deviations of these outputs.

    Output shape: `(batch, size)`, unit length.
    """

    def __init__(self, size: int, contrast: float, penalty: float) -> None:
        super().__init__()
        self.change = keras.layers.Dense(size, kernel_initializer="zeros", dtype="float32")
        self.unit_length = UnitLength()
        self.contrast = contrast
        self.penalty = penalty

    def call(self, inputs: Any) -> Any:
        statistics, outputs = inputs
        return self.unit_length(outputs + self.change(statistics))

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None,
        training: bool = True,
    ) -> Any:  # fmt: skip
        """Returns distance to and contrast with the teacher's vectors, and the penalty."""
        del x, sample_weight, training
        labels, teachers = y
        loss = ops.mean(teacher_distance(y_pred, teachers))
        everywhere = ops.ones_like(ops.cast(labels, "float32"))
        values = teacher_contrast(y_pred, teachers, labels, everywhere, TEMPERATURE)
        size = ops.sum(ops.square(self.change.kernel))
        return loss + self.contrast * ops.mean(values) + self.penalty * size


def adapt_last_layer(
    network: Any,
    crops: PooledCrops,
    num_steps: int = 700,
    contrast: float = 1.0,
    penalty: float = 0.01,
    share: float = 0.75,
) -> None:
    """Trains the last layer of a network in place.

    Args:
        network: One of `utils.networks.catalogue`.
        crops: Degraded and clean ones.
        num_steps: Steps of 256 crops.
        contrast: Weight of picking the own teacher vector out of the batch.
        penalty: Weight of the squared change.
        share: How far to go from the old weights to the trained ones: part of the way keeps more
            of what the layer knew.

    Raises:
        ModelError: If the teacher's vectors are not of the embedding's size.

    Source: Wortsman et al., Robust Fine-Tuning of Zero-Shot Models (2022), for `share`.
    """
    layer = network.get_layer(LAST_LAYER)
    kernel, bias = (np.asarray(weight) for weight in (layer.kernel, layer.bias))
    if crops.teachers.shape[1] != len(bias):
        raise ModelError(
            f"the teacher's vectors have {crops.teachers.shape[1]} numbers, the embedding "
            f"{len(bias)}; make them with this model by tools/make_teacher.py"
        )
    mean, deviation = crops.statistics.mean(axis=0), crops.statistics.std(axis=0) + 1e-3
    statistics = (crops.statistics - mean) / deviation
    outputs = crops.statistics @ kernel + bias
    scale = float(outputs.std())
    trainer = LastLayer(len(bias), contrast, penalty)
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, num_steps)
    trainer.compile(optimizer=keras.optimizers.Adam(schedule))
    random = np.random.default_rng(0)
    for _ in range(num_steps):
        rows = random.integers(0, len(statistics), BATCH_SIZE)
        trainer.train_on_batch(
            (statistics[rows], outputs[rows] / scale), (crops.labels[rows], crops.teachers[rows])
        )
    change = np.asarray(trainer.change.kernel) / deviation[:, None] * scale
    offset = np.asarray(trainer.change.bias) * scale - mean @ change
    layer.set_weights([kernel + share * change, bias + share * offset])


def centred(network: Any, crops: PooledCrops) -> Any:
    """Returns the network with the mean embedding of some crops subtracted from every one.

    What all voices have in common says nothing of one of them.

    Raises:
        ModelError: If the network has such a layer already.
    """
    if any(layer.name == "whitening" for layer in network.layers):
        raise ModelError("the model is centred already, expected one without; adapt its origin")
    layer = network.get_layer(LAST_LAYER)
    outputs = crops.statistics @ np.asarray(layer.kernel) + np.asarray(layer.bias)
    mean = np.mean(outputs / np.linalg.norm(outputs, axis=1, keepdims=True), axis=0)
    shift = keras.layers.Dense(len(mean), dtype="float32", name="whitening")
    classification, embedding = network.outputs
    result = UnitLength(name="whitened_embedding")(shift(embedding))
    shift.set_weights([np.eye(len(mean), dtype=np.float32), -mean.astype(np.float32)])
    return keras.Model(network.input, [classification, result], name=network.name)
