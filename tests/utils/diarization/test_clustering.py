"""Speakers found among embeddings of which the truth is known."""

import numpy as np
import pytest

from utils.diarization import clustering
from utils.diarization.clustering import SpeakerCount, cluster_stretches
from utils.diarization.stretches import FRAME_S, Stretch

SIZE = 64


def voices(num_speakers: int, seed: int = 0) -> np.ndarray:
    """Unit vectors that have little in common, one a speaker."""
    random = np.random.default_rng(seed)
    vectors, _ = np.linalg.qr(random.normal(size=(SIZE, num_speakers)))
    return vectors.T


def conversation(
    owners: list[int], seconds: float = 1.5, spread: float = 0.12, seed: int = 0
) -> list[Stretch]:
    """Stretches of these speakers, one after the other, half a second apart."""
    random = np.random.default_rng(seed)
    known = voices(max(owners) + 1)
    stretches = []
    for number, owner in enumerate(owners):
        vector = known[owner] + spread * random.normal(size=SIZE)
        start = round(number * (seconds + 0.5) / FRAME_S)
        embedding = (vector / np.linalg.norm(vector)).astype(np.float32)
        stretches.append(Stretch(start, start + round(seconds / FRAME_S), embedding))
    return stretches


@pytest.mark.parametrize("num_speakers", [1, 2, 3, 6, 50])
def test_speakers_are_found_and_numbered_as_they_appear(num_speakers: int) -> None:
    owners = list(range(num_speakers)) * 6
    labels, means = cluster_stretches(conversation(owners), SpeakerCount())
    assert labels.tolist() == owners
    assert means.shape == (num_speakers, SIZE)
    np.testing.assert_allclose(np.linalg.norm(means, axis=1), 1, atol=1e-5)
    assert np.diag(means @ voices(num_speakers).T).min() > 0.8


def test_a_cough_is_no_speaker() -> None:
    owners = [0, 1] * 10 + [2] + [0, 1] * 10
    labels, means = cluster_stretches(conversation(owners), SpeakerCount())
    assert len(means) == 2
    assert [label for label, owner in zip(labels, owners, strict=True) if owner < 2] == [0, 1] * 20


@pytest.mark.parametrize(
    ("least", "most", "expected"), [(1, 2, 2), (3, 3, 3), (1, 1, 1), (1, 9, 4), (4, None, 4)]
)
def test_number_of_speakers_can_be_given(least: int, most: int | None, expected: int) -> None:
    owners = [0, 1, 2, 3] * 5
    _, means = cluster_stretches(conversation(owners), SpeakerCount(least, most))
    assert len(means) == expected


def test_more_speakers_than_scores_tell_apart() -> None:
    # Speakers 0 and 1 are relatives: their scores lie above both thresholds.
    known = voices(3)
    alike = known[0] + 0.6 * known[1], known[0] - 0.6 * known[1], known[2]
    stretches = []
    for number in range(30):
        vector = alike[number % 3] + 0.03 * np.random.default_rng(number).normal(size=SIZE)
        embedding = (vector / np.linalg.norm(vector)).astype(np.float32)
        stretches.append(Stretch(120 * number, 120 * number + 90, embedding))
    together, _ = cluster_stretches(stretches, SpeakerCount())
    apart, _ = cluster_stretches(stretches, SpeakerCount(least=3))
    assert len(set(together.tolist())) in (2, 3)
    assert apart.tolist() == [0, 1, 2] * 10


def test_short_stretches_join_but_make_no_speaker() -> None:
    long = conversation([0, 1] * 6)
    short = [Stretch(s.start + 2000, s.start + 2020, s.embedding) for s in long[:4]]
    labels, means = cluster_stretches([*long, *short], SpeakerCount())
    assert labels.tolist() == [0, 1] * 8
    assert len(means) == 2
    # Where all are short, they must do.
    labels, _ = cluster_stretches(short, SpeakerCount())
    assert labels.tolist() == [0, 1, 0, 1]
    labels, means = cluster_stretches(short[:1], SpeakerCount())
    assert (labels.tolist(), means.shape) == ([0], (1, SIZE))


@pytest.mark.parametrize(("gap", "expected"), [(0, [0, 0, 0]), (30, [0, 1, 0])])
def test_touching_stretches_change_the_speaker_for_a_reason(gap: int, expected: list[int]) -> None:
    means = voices(2).astype(np.float32)
    # The middle one is more like speaker 1, but by less than two changes cost.
    middle = 0.65 * means[0] + 0.7 * means[1]
    embeddings = np.stack([means[0], middle, means[0]])
    starts = [number * (90 + gap) for number in range(3)]
    stretches = [
        Stretch(start, start + 90, vector) for start, vector in zip(starts, embeddings, strict=True)
    ]
    assert clustering._assign(stretches, embeddings, np.full(3, 1.5), means).tolist() == expected


def test_blocks_find_the_same_speakers(monkeypatch: pytest.MonkeyPatch) -> None:
    owners = [0, 1, 2] * 20
    expected, _ = cluster_stretches(conversation(owners), SpeakerCount())
    monkeypatch.setattr(clustering, "MAX_CLUSTERED", 14)
    found, means = cluster_stretches(conversation(owners), SpeakerCount())
    assert found.tolist() == expected.tolist()
    assert len(means) == 3
