"""Training losses: speaker classification (softmax and margins) and distance to a teacher.

All functions take and return tensors of the Keras backend in use.
"""

from collections.abc import Callable
from typing import Any

from keras import ops

FAR_BELOW = -4.0
"""Added to the true class's cosine where it shall not count among the largest."""

BALANCE = 0.7
"""Weight of the true class in SphereFace2; all others share the rest (the paper's lambda)."""

SHARPNESS = 3
"""How much SphereFace2 spreads high cosines and squeezes low ones (the paper's t)."""


def softmax(outputs: Any, labels: Any, margin: Any, scale: float) -> Any:
    """Returns the cross-entropy of plain logits; margin and scale are unused.

    Args:
        outputs: Logits, shape `(batch, num_classes)`.
        labels: True classes, int, shape `(batch,)`.
        margin: Unused.
        scale: Unused.

    Returns:
        Loss of each sample, shape `(batch,)`.
    """
    del margin, scale
    return ops.sparse_categorical_crossentropy(labels, outputs, from_logits=True)


def am_softmax(outputs: Any, labels: Any, margin: Any, scale: float) -> Any:
    """Returns the additive-margin softmax loss: the true class's cosine is lowered by a margin.

    Args:
        outputs: Cosines, shape `(batch, num_classes)`.
        labels: True classes, int, shape `(batch,)`.
        margin: Subtracted from the true class's cosine; a number or a scalar tensor.
        scale: Multiplies all cosines before the softmax.

    Returns:
        Loss of each sample, shape `(batch,)`.

    Source: Wang et al., Additive Margin Softmax for Face Verification (2018), equation 6.
    """
    is_true = ops.one_hot(labels, outputs.shape[-1], dtype=outputs.dtype)
    return ops.sparse_categorical_crossentropy(
        labels, scale * (outputs - margin * is_true), from_logits=True
    )


def aam_softmax(outputs: Any, labels: Any, margin: Any, scale: float) -> Any:
    """Returns the additive-angular-margin loss: the true class's angle is widened by a margin.

    Args:
        outputs: Cosines, shape `(batch, num_classes)`.
        labels: True classes, int, shape `(batch,)`.
        margin: Added to the true class's angle, in radians; a number or a scalar tensor.
        scale: Multiplies all cosines before the softmax.

    Returns:
        Loss of each sample, shape `(batch,)`.

    Source: Deng et al., ArcFace (2019), equation 3. Beyond angle pi - margin, where the cosine
    would rise again, it continues as a line, as in the authors' published code.
    """
    cosine = ops.clip(outputs, -1.0, 1.0)
    sine = ops.sqrt(ops.maximum(1.0 - ops.square(cosine), 1e-7))
    margin = ops.cast(margin, cosine.dtype)
    widened = cosine * ops.cos(margin) - sine * ops.sin(margin)  # cos(angle + margin)
    line = cosine - ops.sin(margin) * margin
    widened = ops.where(cosine > -ops.cos(margin), widened, line)
    is_true = ops.one_hot(labels, outputs.shape[-1], dtype=outputs.dtype)
    logits = scale * (cosine + is_true * (widened - cosine))
    return ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)


def sphereface2(outputs: Any, labels: Any, margin: Any, scale: float, bias: Any = 0.0) -> Any:
    """Returns the SphereFace2 loss: for every class, whether it is the true one or not.

    No class competes with another: a stranger may be like none of them.

    Args:
        outputs: Cosines, shape `(batch, num_classes)`.
        labels: True classes, int, shape `(batch,)`.
        margin: Subtracted from the true class's adjusted cosine, added to all others'.
        scale: Multiplies the adjusted cosines.
        bias: Learned; where a cosine counts as neither the one nor the other.

    Returns:
        Loss of each sample, shape `(batch,)`.

    Source: Wen et al., SphereFace2: Binary Classification Is All You Need for Deep Face Recognition
    (2022), the final loss, with its similarity adjustment g(z) = 2 ((z + 1) / 2)^t - 1; for
    speakers, Han et al., Exploring Binary Classification Loss for Speaker Verification (2023).
    """
    halves = (ops.clip(outputs, -1.0, 1.0) + 1.0) / 2.0
    adjusted = 2.0 * ops.power(halves, SHARPNESS) - 1.0
    true = ops.softplus(-(scale * (adjusted - margin) + bias))
    other = ops.softplus(scale * (adjusted + margin) + bias)
    is_true = ops.one_hot(labels, outputs.shape[-1], dtype=outputs.dtype)
    values = BALANCE * is_true * true + (1.0 - BALANCE) * (1.0 - is_true) * other
    return ops.sum(values, axis=-1) / scale


def penalise_nearest(outputs: Any, labels: Any, penalty: float, num_nearest: int) -> Any:
    """Narrows the angles to the wrong classes that are nearest: the inter-top-k penalty.

    Args:
        outputs: Cosines, shape `(batch, num_classes)`.
        labels: True classes, int, shape `(batch,)`.
        penalty: Subtracted from their angles, in radians.
        num_nearest: How many classes; more than there are means all.

    Returns:
        Cosines for a margin loss, shape `(batch, num_classes)`; the true class's is as it was.

    Source: Zhao et al., Multi-Query Multi-Head Attention Pooling and Inter-TopK Penalty for Speaker
    Verification (2022).
    """
    cosine = ops.clip(outputs, -1.0, 1.0)
    is_true = ops.one_hot(labels, outputs.shape[-1], dtype=outputs.dtype)
    others = cosine + FAR_BELOW * is_true
    count = min(num_nearest, outputs.shape[-1] - 1)
    if count < 1:
        return outputs
    least = ops.top_k(others, count)[0][:, -1:]
    sine = ops.sqrt(ops.maximum(1.0 - ops.square(cosine), 1e-7))
    narrowed = cosine * ops.cos(penalty) + sine * ops.sin(penalty)  # cos(angle - penalty)
    # An angle below the penalty can't get narrower than 0.
    narrowed = ops.where(cosine > ops.cos(penalty), ops.ones_like(cosine), narrowed)
    return ops.where(others >= least, narrowed, outputs)


CLASSIFICATION_LOSSES: dict[str, Callable[..., Any]] = {
    "softmax": softmax,
    "am_softmax": am_softmax,
    "aam_softmax": aam_softmax,
    "sphereface2": sphereface2,
}
"""The choices of `--loss`. All but `softmax` take cosines as the classification output."""


def teacher_distance(embeddings: Any, teachers: Any) -> Any:
    """Returns the squared distance on the unit sphere: 2 (1 - cosine).

    Args:
        embeddings: Unit length, shape `(batch, size)`.
        teachers: The teacher's embeddings of the same utterances, unit length, same shape.

    Returns:
        Loss of each sample in [0, 4], shape `(batch,)`.
    """
    return 2.0 * (1.0 - ops.sum(embeddings * teachers, axis=-1))


def teacher_contrast(
    embeddings: Any, teachers: Any, labels: Any, has_teacher: Any, temperature: float
) -> Any:
    """Returns the contrastive loss of picking each embedding's teacher vector out of the batch.

    Other utterances of the same speaker are excluded, since they are not wrong answers.

    Args:
        embeddings: Unit length, shape `(batch, size)`.
        teachers: Unit length, same shape.
        labels: Speakers, int, shape `(batch,)`.
        has_teacher: 1 where `teachers` holds a vector, 0 where it is filler, shape `(batch,)`.
        temperature: Divides the cosines before the softmax.

    Returns:
        Loss of each sample, shape `(batch,)`.

    Source: van den Oord et al., Representation Learning with Contrastive Predictive Coding
    (2018), equation 4, with the teacher's vectors as candidates.
    """
    size = ops.shape(labels)[0]
    logits = ops.matmul(embeddings, ops.transpose(teachers)) / temperature
    is_own = ops.expand_dims(ops.arange(size), 1) == ops.expand_dims(ops.arange(size), 0)
    is_same = ops.expand_dims(labels, 1) == ops.expand_dims(labels, 0)
    is_filler = ops.expand_dims(has_teacher, 0) < 0.5
    excluded = ops.logical_and(ops.logical_or(is_same, is_filler), ops.logical_not(is_own))
    logits = ops.where(excluded, -1e4, logits)
    return ops.sparse_categorical_crossentropy(ops.arange(size), logits, from_logits=True)
