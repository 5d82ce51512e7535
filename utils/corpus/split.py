"""Which clips go into the test list, and the numbers of the speakers."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from utils.errors import DataListError

MIN_TRIAL_UTTERANCES = 2
"""A test speaker needs two utterances to form a target trial."""

MIN_TRAIN_SPEAKERS = 2
"""A classifier needs at least two speakers."""


def choose_test_clips(speakers: Sequence[str], test_every: int) -> list[bool]:
    """Keeps every n-th clip for the test, beginning with the first.

    A speaker's last training clip stays in training, so that labels have no gap.

    Args:
        speakers: Speaker of each clip.
        test_every: 200 keeps the clips 0, 200, 400, ...

    Returns:
        Whether each clip goes into the test list.
    """
    left = Counter(speakers)
    is_test = []
    for number, speaker in enumerate(speakers):
        chosen = number % test_every == 0 and left[speaker] > 1
        left[speaker] -= chosen
        is_test.append(chosen)
    return is_test


def choose_test_speakers(
    speakers: Sequence[str], test_speakers: int | float, seed: int
) -> set[str]:
    """Chooses the speakers of the test list among those with two clips or more.

    The choice depends only on names and seed (the smallest hashes win), not on the order or the
    Python version, and changes little when speakers are added.

    Args:
        speakers: Speaker of each clip.
        test_speakers: Their number (int), or their share of all speakers (float below 1).
        seed: Varies the choice.

    Raises:
        DataListError: If there are too few speakers.
    """
    counts = Counter(speakers)
    number = test_speakers
    if isinstance(test_speakers, float):
        number = max(1, round(test_speakers * len(counts)))
    able = [name for name, count in counts.items() if count >= MIN_TRIAL_UTTERANCES]
    most = min(len(able), len(counts) - MIN_TRAIN_SPEAKERS)
    if number > most:
        raise DataListError(
            f"--test_speakers asks for {number} speakers, at most {max(most, 0)} can be kept for "
            f"the test: {len(counts)} speakers, {len(able)} with two clips or more, and "
            f"{MIN_TRAIN_SPEAKERS} must stay for training"
        )

    def rank(name: str) -> str:
        key = f"{seed}/{name}".encode(errors="surrogateescape")
        return hashlib.sha256(key).hexdigest()

    return set(sorted(able, key=rank)[: int(number)])


def number_speakers(
    speakers: Sequence[str], is_test: Sequence[bool], test_last: bool
) -> dict[str, int]:
    """Numbers speakers from 0 by first appearance; with `test_last`, training's come first."""
    order = list(dict.fromkeys(speakers))
    if test_last:
        in_test = {name for name, test in zip(speakers, is_test, strict=True) if test}
        order.sort(key=lambda name: name in in_test)  # stable
    return {name: label for label, name in enumerate(order)}
