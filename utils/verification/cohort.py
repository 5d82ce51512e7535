"""AS-norm: scores as seen from a cohort, people of the training whom both sides are compared with.

A score says more where strangers score low. What is subtracted from it, and what it is divided by,
are mean and deviation of the scores of each side against those of the cohort who are most like it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.arrays import FloatArray, RealArray

SCORE_NORMS = ("none", "asnorm")
"""The choices of `--score_norm`: the cosine itself, or AS-norm with the model's cohort."""

TOP = 200
"""People of the cohort who count for a side; between 50 and 300 makes no difference on dev."""

DEVIATIONS = 20.0
"""Standard deviations in one unit of a normalised score: a score of oneself has about 20, so that
all scores lie in [-1, 1], as thresholds and histograms expect of cosines."""

LEAST_DEVIATION = 1e-3
"""Floor of a deviation; a cohort of people has 0.03 and more."""

BLOCK_ROWS = 1024
"""Embeddings that are compared with the cohort at a time."""


@dataclass(frozen=True, eq=False)
class CohortStatistics:
    """How embeddings score against those of the cohort who are most like them.

    Attributes:
        means: Shape `(n,)`.
        deviations: Standard deviations, shape `(n,)`.
    """

    means: RealArray
    deviations: RealArray

    def __getitem__(self, rows: Any) -> "CohortStatistics":
        """Returns the statistics of some of the embeddings, in the shape of the index."""
        return CohortStatistics(self.means[rows], self.deviations[rows])


def normalised(scores: Any, first: CohortStatistics, second: CohortStatistics) -> Any:
    """Returns the AS-norm of cosines, in units of 20 standard deviations, held to [-1, 1].

    Args:
        scores: Cosines of any shape.
        first: Statistics of the first sides, of a shape that fits.
        second: Statistics of the second sides.

    Source: Matejka et al., Analysis of Score Normalization in Multilingual Speaker Recognition
        (2017): "AS-norm1", each side with those of the cohort most like itself.
    """
    total = (scores - first.means) / first.deviations + (scores - second.means) / second.deviations
    return np.clip(total / (2 * DEVIATIONS), -1, 1)


@dataclass(frozen=True, eq=False)
class Cohort:
    """People whom every side of a comparison is compared with first.

    Attributes:
        embeddings: Mean embedding of each, unit length, shape `(num_people, embedding_size)`.
        top: How many of them count for a side: those most like it.
    """

    embeddings: FloatArray
    top: int = TOP

    def statistics(self, embeddings: RealArray) -> CohortStatistics:
        """Compares embeddings with the cohort.

        Args:
            embeddings: Of any length but 0; not finite ones have no finite statistics. Shape
                `(n, embedding_size)`.
        """
        top = min(self.top, len(self.embeddings))
        means, deviations = np.empty(len(embeddings)), np.empty(len(embeddings))
        for start in range(0, len(embeddings), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            lengths = np.linalg.norm(embeddings[rows], axis=1, keepdims=True)
            scores = embeddings[rows] / lengths @ self.embeddings.T
            best = np.partition(scores, -top, axis=1)[:, -top:].astype(np.float64)
            means[rows], deviations[rows] = best.mean(axis=1), best.std(axis=1)
        return CohortStatistics(means, np.maximum(deviations, LEAST_DEVIATION))

    def score(self, first: FloatArray, second: FloatArray) -> float:
        """Returns the normalised score of two embeddings of unit length, in [-1, 1]."""
        return float(self.scores(first, second[None])[0])

    def scores(self, embedding: FloatArray, others: FloatArray) -> RealArray:
        """Returns the normalised scores of one embedding and several others, in [-1, 1].

        Args:
            embedding: Unit length, shape `(embedding_size,)`.
            others: Unit length, shape `(n, embedding_size)`.

        Returns:
            Shape `(n,)`.
        """
        own = self.statistics(embedding[None])
        return np.asarray(normalised(others @ embedding, own, self.statistics(others)))

    def to_bytes(self) -> npt.NDArray[np.int8]:
        """Returns the embeddings in 8 bits: the largest number of each becomes 127.

        The lengths, which are lost, are known: 1.
        """
        largest = np.abs(self.embeddings).max(axis=1, keepdims=True)
        numbers: npt.NDArray[np.int8] = np.rint(127 * self.embeddings / largest).astype(np.int8)
        return numbers

    @classmethod
    def from_bytes(cls, numbers: npt.NDArray[np.int8], top: int = TOP) -> "Cohort":
        """Returns the cohort that `to_bytes` wrote.

        Raises:
            ValueError: If the array has another form, or a row of zeros.
        """
        if numbers.ndim != 2 or numbers.dtype != np.int8 or not numbers.any(axis=1).all():
            raise ValueError(f"a cohort of shape {numbers.shape} and type {numbers.dtype}")
        values = numbers.astype(np.float32)
        return cls(values / np.linalg.norm(values, axis=1, keepdims=True), top)
