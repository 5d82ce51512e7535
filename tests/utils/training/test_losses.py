import math
from typing import Any

import numpy as np
import pytest
from keras import ops

from utils.training.losses import (
    CLASSIFICATION_LOSSES,
    aam_softmax,
    am_softmax,
    penalise_nearest,
    softmax,
    sphereface2,
    teacher_contrast,
    teacher_distance,
)
from utils.training.settings import DEFAULT_MARGINS

COSINES = np.array([[0.9, 0.1, -0.3], [0.2, 0.5, 0.4], [-0.8, 0.1, 0.3]], np.float32)
LABELS = np.array([0, 1, 0], np.int32)


def value(tensor: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(tensor))


def cross_entropy(logits: np.ndarray) -> np.ndarray:
    chosen = logits[np.arange(len(logits)), LABELS]
    return np.log(np.exp(logits).sum(axis=1)) - chosen


def test_every_loss_has_its_default_margin() -> None:
    assert CLASSIFICATION_LOSSES.keys() == DEFAULT_MARGINS.keys()


def test_softmax_is_the_cross_entropy_of_plain_logits() -> None:
    logits = ops.convert_to_tensor([[math.log(3.0), 0.0, 0.0]])
    assert value(softmax(logits, np.array([0]), 0.5, 32.0)) == pytest.approx(math.log(5 / 3))
    assert value(softmax(logits, np.array([1]), 0.0, 1.0)) == pytest.approx(math.log(5))


@pytest.mark.parametrize("loss", [am_softmax, aam_softmax])
def test_without_margin_it_is_the_softmax_of_scaled_cosines(loss: Any) -> None:
    ours = value(loss(ops.convert_to_tensor(COSINES), LABELS, 0.0, 8.0))
    np.testing.assert_allclose(ours, cross_entropy(8.0 * COSINES), rtol=1e-3)


def test_am_softmax_by_hand() -> None:
    # Cosines 0.9 and 0.1, margin 0.3, scale 10: logits 6 and 1.
    cosines = ops.convert_to_tensor([[0.9, 0.1]])
    expected = math.log(1 + math.exp(-5))
    assert value(am_softmax(cosines, np.array([0]), 0.3, 10.0)) == pytest.approx(expected, rel=1e-4)


def test_aam_softmax_by_hand() -> None:
    # An angle of 60 degrees widened by 30 is 90 degrees: cosine 0, against 0.1; scale 10.
    cosines = ops.convert_to_tensor([[0.5, 0.1]])
    expected = math.log(1 + math.exp(1))
    ours = value(aam_softmax(cosines, np.array([0]), math.pi / 6, 10.0))
    assert ours == pytest.approx(expected, rel=1e-4)


def test_sphereface2_by_hand() -> None:
    # Cosines 0.6 and 0: g(0.6) = 2 * 0.8^3 - 1 = 0.024, g(0) = 2 / 8 - 1 = -0.75. Margin 0.1,
    # scale 10, bias 0.5: the true class at 10 * (0.024 - 0.1) + 0.5 = -0.26, the other at
    # 10 * (-0.75 + 0.1) + 0.5 = -6.
    expected = (0.7 * math.log(1 + math.exp(0.26)) + 0.3 * math.log(1 + math.exp(-6))) / 10
    cosines = ops.convert_to_tensor([[0.6, 0.0]])
    assert value(sphereface2(cosines, np.array([0]), 0.1, 10.0, 0.5)) == pytest.approx(
        expected, rel=1e-4
    )


def test_nearest_wrong_classes_come_nearer() -> None:
    # The angles of the two nearest wrong classes, 60 and 90 degrees, shrink by 30.
    cosines = ops.convert_to_tensor([[0.9, 0.5, 0.0, -0.5], [0.0, -0.5, 0.5, 0.9]])
    labels = np.array([0, 3])
    ours = value(penalise_nearest(cosines, labels, math.pi / 6, 2))
    half = math.cos(math.pi / 3)
    expected = [[0.9, math.cos(math.pi / 6), half, -0.5], [half, -0.5, math.cos(math.pi / 6), 0.9]]
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    # More than there are: all wrong ones. An angle can't fall below 0.
    ours = value(penalise_nearest(cosines, labels, math.pi / 6, 9))
    assert ours[0, 3] == pytest.approx(0.0, abs=1e-5) and ours[0, 0] == pytest.approx(0.9)
    near = ops.convert_to_tensor([[0.2, 0.999]])
    assert value(penalise_nearest(near, np.array([0]), 0.2, 1))[0, 1] == 1
    # A single class has no wrong one.
    assert value(penalise_nearest(near[:, :1], np.array([0]), 0.2, 5)) == pytest.approx(0.2)


@pytest.mark.parametrize("loss", [am_softmax, aam_softmax])
def test_the_penalty_makes_a_margin_loss_larger(loss: Any) -> None:
    cosines = ops.convert_to_tensor(COSINES)
    penalised = penalise_nearest(cosines, LABELS, 0.1, 1)
    more, less = (value(loss(found, LABELS, 0.2, 8.0)) for found in (penalised, cosines))
    assert (more > less).all()


@pytest.mark.parametrize("loss", [am_softmax, aam_softmax, sphereface2])
def test_a_wider_margin_costs_more(loss: Any) -> None:
    cosines = ops.convert_to_tensor(COSINES)
    values = np.stack([value(loss(cosines, LABELS, margin, 8.0)) for margin in (0, 0.1, 0.2, 0.4)])
    assert (np.diff(values, axis=0) > 0).all()


@pytest.mark.parametrize("loss", [am_softmax, aam_softmax, sphereface2])
@pytest.mark.parametrize("margin", [0.0, 0.2, 0.5])
def test_a_better_cosine_costs_less_over_the_whole_range(loss: Any, margin: float) -> None:
    true = np.linspace(-1.0, 1.0, 401, dtype=np.float32)
    cosines = ops.convert_to_tensor(np.stack([true, np.zeros_like(true)], axis=1))
    values = value(loss(cosines, np.zeros(401, np.int32), margin, 8.0))
    assert np.isfinite(values).all()
    assert (np.diff(values) < 1e-6).all()


@pytest.mark.parametrize("name", CLASSIFICATION_LOSSES)
def test_gradients_are_finite_at_the_ends(name: str) -> None:
    import tensorflow as tf

    cosines = tf.constant([[1.0, -1.0], [-1.0, 1.0], [1.0000001, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(cosines)
        losses = CLASSIFICATION_LOSSES[name](cosines, tf.constant([0, 0, 0]), 0.2, 32.0)
        loss = tf.reduce_sum(losses)
    assert losses.shape == (3,)
    assert np.isfinite(tape.gradient(loss, cosines).numpy()).all()


def test_teacher_distance_is_the_squared_distance() -> None:
    vectors = np.array([[1.0, 0.0], [0.6, 0.8], [1.0, 0.0]], np.float32)
    teachers = np.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], np.float32)
    ours = value(teacher_distance(ops.convert_to_tensor(vectors), ops.convert_to_tensor(teachers)))
    np.testing.assert_allclose(ours, ((vectors - teachers) ** 2).sum(axis=1), atol=1e-6)
    np.testing.assert_allclose(ours, [0.0, 0.8, 4.0], atol=1e-6)


def contrast(labels: list[int], has_teacher: list[float], temperature: float = 0.5) -> np.ndarray:
    vectors = ops.convert_to_tensor(np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32))
    return value(
        teacher_contrast(
            vectors, vectors, np.array(labels), np.array(has_teacher, np.float32), temperature
        )
    )


def test_teacher_contrast_by_hand() -> None:
    # Row 0 against its own vector (cosine 1) and the others (0 and 0.6), temperature 0.5.
    expected = math.log(math.exp(2) + math.exp(0) + math.exp(1.2)) - 2
    assert contrast([0, 1, 2], [1, 1, 1])[0] == pytest.approx(expected, rel=1e-4)


def test_teacher_contrast_leaves_out_the_same_speaker_and_filler() -> None:
    same_speaker = math.log(math.exp(2) + math.exp(0)) - 2
    assert contrast([0, 1, 0], [1, 1, 1])[0] == pytest.approx(same_speaker, rel=1e-4)
    without_filler = math.log(math.exp(2) + math.exp(1.2)) - 2
    assert contrast([0, 1, 2], [1, 0, 1])[0] == pytest.approx(without_filler, rel=1e-4)
    assert contrast([0, 0, 0], [1, 1, 1]) == pytest.approx(np.zeros(3), abs=1e-5)
