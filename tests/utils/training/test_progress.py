"""The place in an epoch when batches change their size."""

import pytest

from utils.training.progress import Progress


@pytest.mark.parametrize(
    ("old", "new", "step", "expected", "share"),
    [
        (32, 64, 100, 50, 0.5),  # a second host: half as many steps
        (64, 32, 50, 100, 2.0),
        (96, 64, 3, 4, 1.5),
        (32, 32, 7, 7, 1.0),
        (0, 32, 7, 7, 1.0),  # of an earlier version, which knew no other size
        (64, 1, 50, 499, 64.0),  # an epoch is never over before its end
    ],
)
def test_steps_are_counted_anew(old: int, new: int, step: int, expected: int, share: float) -> None:
    progress = Progress(step=step, sums={"loss": 2.0 * step}, batch=old)
    assert progress.count_in_batches_of(new, 500) == share
    assert (progress.step, progress.batch) == (expected, new)
    assert progress.sums["loss"] / progress.step == pytest.approx(2.0)
