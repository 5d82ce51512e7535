import numpy as np
import pytest
from keras import ops

from utils.crops.draws import VIEW_MARGIN_FRAMES, draw_views
from utils.training.views import cut_views, interpolation

NUM_FRAMES = 9


@pytest.fixture
def magnitudes() -> np.ndarray:
    random = np.random.default_rng(0)
    return random.uniform(0.1, 1.0, (8, NUM_FRAMES + VIEW_MARGIN_FRAMES, 257)).astype(np.float32)


def plain_views(num_samples: int, num_views: int) -> dict[str, np.ndarray]:
    """Views at the start, without colour or mixture."""
    return {
        "starts": np.zeros((num_samples, num_views), np.int32),
        "gains_db": np.zeros((num_samples, num_views, 8), np.float32),
        "mix_db": np.full((num_samples, num_views), -200.0, np.float32),
    }


def cut(magnitudes: np.ndarray, views: dict[str, np.ndarray]) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(cut_views(magnitudes, views, NUM_FRAMES)))


def test_plain_views_are_crops_that_follow_each_other(magnitudes: np.ndarray) -> None:
    views = plain_views(8, 2)
    views["starts"][:, 1] = np.arange(8) * 3
    result = cut(magnitudes, views).reshape(8, 2, NUM_FRAMES, 257)
    for row in range(8):
        np.testing.assert_allclose(result[row, 0], magnitudes[row, :NUM_FRAMES], rtol=1e-4)
        expected = magnitudes[row, 3 * row : 3 * row + NUM_FRAMES]
        np.testing.assert_allclose(result[row, 1], expected, rtol=1e-4)


def test_gains_colour_the_spectrum(magnitudes: np.ndarray) -> None:
    views = plain_views(8, 1)
    views["gains_db"][:] = np.linspace(-7.0, 7.0, 8)
    result = cut(magnitudes, views)
    change_db = 20.0 * np.log10(result / magnitudes[:, :NUM_FRAMES])
    np.testing.assert_allclose(change_db, np.broadcast_to(np.linspace(-7, 7, 257), result.shape),
                               atol=0.01)  # fmt: skip


def test_mixture_adds_another_sample_at_its_level(magnitudes: np.ndarray) -> None:
    views = plain_views(8, 1)
    views["mix_db"][:] = -6.0
    power = magnitudes[:, :NUM_FRAMES].astype(np.float64) ** 2
    added = cut(magnitudes, views).astype(np.float64) ** 2 - power
    ratio = added.mean(axis=(1, 2)) / power.mean(axis=(1, 2))
    np.testing.assert_allclose(10 * np.log10(ratio), -6.0, atol=0.01)
    other = np.roll(power, 3, axis=0)
    for row in range(8):
        assert np.corrcoef(added[row].ravel(), other[row].ravel())[0, 1] > 0.999


def test_silence_stays_finite() -> None:
    views = plain_views(8, 1)
    views["mix_db"][:] = -3.0
    silent = np.zeros((8, NUM_FRAMES + VIEW_MARGIN_FRAMES, 257), np.float32)
    assert np.isfinite(cut(silent, views)).all()


def test_what_the_reader_draws_fits(magnitudes: np.ndarray) -> None:
    views = draw_views(np.random.default_rng(0), 8, 3)
    views["starts"][0, 0] = VIEW_MARGIN_FRAMES  # the last place there is
    result = cut(magnitudes, views)
    assert result.shape == (24, NUM_FRAMES, 257)
    assert np.isfinite(result).all()


def test_interpolation_meets_its_points() -> None:
    matrix = interpolation()
    assert matrix.shape == (8, 257)
    np.testing.assert_allclose(matrix.sum(axis=0), 1.0, atol=1e-6)
    gains = np.arange(8.0)
    np.testing.assert_allclose(gains @ matrix, np.linspace(0, 7, 257), atol=1e-4)
