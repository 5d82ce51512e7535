"""The answer of every comparison: the score of two embeddings, and whether it is one speaker."""

import numpy as np

from utils.arrays import FloatArray


def cosine_score(first: FloatArray, second: FloatArray) -> float:
    """Returns the cosine of two embeddings of unit length, in [-1, 1].

    Args:
        first: Shape `(embedding_size,)`.
        second: Shape `(embedding_size,)`.
    """
    return float(np.clip(first @ second, -1, 1))


def verdict(score: float, threshold: float) -> bool:
    """Returns whether a score says "same speaker": from the threshold up."""
    return score >= threshold
