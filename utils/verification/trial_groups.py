"""Trials that are hard in use: both recordings of one corpus, by speakers of one sex.

All pairs of a large list are mostly easy: other languages, other microphones, other sexes. A
stranger at one's own door shares all of these. Each group of such trials counts alike, however
many recordings it has.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from utils.arrays import FloatArray
from utils.corpus.lists import LabelledClip
from utils.verification.cohort import CohortStatistics, normalised

FULL_LENGTH = "full length"

MAX_CLIPS = 1000
"""Recordings of a group that are paired: half a million trials tell its rates well enough."""

FEWEST_PEOPLE = 5
"""Groups of fewer people are joined with the others of their corpus that are as small."""


@dataclass(frozen=True, eq=False)
class Condition:
    """Embeddings of the recordings of a list, all treated alike.

    Attributes:
        name: Such as "full length" or "3 s".
        embeddings: Unit length; NaN where a recording can't be used. Shape `(num_clips, size)`.
        speech_s: Seconds of speech in each. Shape `(num_clips,)`.
        statistics: Of each, for AS-norm of the cosines.
    """

    name: str
    embeddings: FloatArray
    speech_s: npt.NDArray[np.float64]
    statistics: CohortStatistics | None = None


@dataclass(frozen=True, eq=False)
class TrialGroup:
    """The scores of a group under one condition.

    Attributes:
        corpus: The corpus of all its recordings.
        people: What its speakers have in common beside it: their sex, or nothing.
        condition: Such as "3 s", or "full length against 1 s".
        scores: Cosines, or their AS-norm. Shape `(num_trials,)`.
        is_target: Whether both are of one speaker. Shape `(num_trials,)`.
        speakers: Labels of both speakers. Shape `(num_trials, 2)`.
        speech_s: Seconds of speech of both. Shape `(num_trials, 2)`.
    """

    corpus: str
    people: str
    condition: str
    scores: npt.NDArray[np.float64]
    is_target: npt.NDArray[np.bool_]
    speakers: npt.NDArray[np.int64]
    speech_s: npt.NDArray[np.float64]

    @property
    def name(self) -> str:
        """Corpus, sex and condition, as far as there are any."""
        return ", ".join(part for part in (self.corpus, self.people, self.condition) if part)

    @property
    def nontarget_scores(self) -> npt.NDArray[np.float64]:
        """Scores of pairs of two people."""
        return self.scores[~self.is_target]

    @property
    def target_scores(self) -> npt.NDArray[np.float64]:
        """Scores of pairs of one person's recordings."""
        return self.scores[self.is_target]

    @property
    def has_targets(self) -> bool:
        """Whether somebody has two recordings."""
        return bool(self.is_target.any())

    def rates_at(self, threshold: float) -> tuple[float, float]:
        """Returns false accepts and misses at a threshold, fractions; NaN misses of no targets."""
        misses = (self.target_scores < threshold).mean() if self.has_targets else np.nan
        return float((self.nontarget_scores >= threshold).mean()), float(misses)

    @property
    def num_people(self) -> int:
        """How many speakers there are."""
        return len(np.unique(self.speakers))


def make_groups(
    clips: Sequence[LabelledClip],
    conditions: Iterable[tuple[Condition, Condition]],
) -> list[TrialGroup]:
    """Pairs the recordings of each corpus and sex, once under each pair of conditions.

    Args:
        clips: The recordings.
        conditions: What is compared with what; twice the same one for clean pairs.

    Returns:
        The groups that have pairs of different people.
    """
    members: dict[tuple[str, str], list[int]] = {}
    for index, clip in enumerate(clips):
        members.setdefault((clip.corpus, clip.sex), []).append(index)
    labels = np.array([clip.label for clip in clips])
    several = len({sex for _, sex in members}) > 1
    groups: list[TrialGroup] = []
    for left, right in conditions:
        for corpus in sorted({corpus for corpus, _ in members}):
            found = [
                _pair(corpus, sex or ("undeclared" if several else ""), left, right, rows, labels)
                for (other, sex), rows in sorted(members.items())
                if other == corpus
            ]
            groups += _joined([group for group in found if group is not None])
    return groups


def _joined(groups: list[TrialGroup]) -> list[TrialGroup]:
    """Joins the small groups of a corpus; their people still meet their own sex only."""
    small = [group for group in groups if group.num_people < FEWEST_PEOPLE]
    if len(small) < 2:
        return groups
    joined = replace(
        small[0],
        people=" and ".join(group.people for group in small),
        scores=np.concatenate([group.scores for group in small]),
        is_target=np.concatenate([group.is_target for group in small]),
        speakers=np.concatenate([group.speakers for group in small]),
        speech_s=np.concatenate([group.speech_s for group in small]),
    )
    return [*(group for group in groups if group not in small), joined]


def _pair(
    corpus: str,
    people: str,
    left: Condition,
    right: Condition,
    rows: Sequence[int],
    labels: npt.NDArray[np.int64],
) -> TrialGroup | None:
    """Returns the trials of some recordings, or None if no two people are among them."""
    indices = np.array(rows)
    if len(indices) > MAX_CLIPS:
        indices = np.sort(np.random.default_rng(0).permutation(indices)[:MAX_CLIPS])
    usable = np.isfinite(left.embeddings[indices, 0]) & np.isfinite(right.embeddings[indices, 0])
    indices = indices[usable]
    # Each pair of recordings once, also if one of them is cut: which one alternates.
    first, second = (indices[rows] for rows in np.triu_indices(len(indices), 1))
    if left is not right:
        swap = (first + second) % 2 == 1
        first, second = np.where(swap, second, first), np.where(swap, first, second)
    is_target = labels[first] == labels[second]
    if is_target.all():
        return None
    products = left.embeddings[indices] @ right.embeddings[indices].T
    place = np.zeros(len(labels), np.intp)
    place[indices] = np.arange(len(indices))
    name = left.name if left is right else f"{left.name} against {right.name}"
    scores = np.clip(products[place[first], place[second]], -1, 1).astype(np.float64)
    if left.statistics is not None and right.statistics is not None:
        scores = normalised(scores, left.statistics[first], right.statistics[second])
    return TrialGroup(
        corpus,
        people,
        name,
        scores,
        is_target,
        np.stack([labels[first], labels[second]], axis=1),
        np.stack([left.speech_s[first], right.speech_s[second]], axis=1),
    )
