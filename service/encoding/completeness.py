"""How far an enrolment has come: enough speech, in enough recordings, of one voice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.arrays import FloatArray
from utils.verification.embedding import Encoder, mean_embedding, score_pair, scores_to_all
from utils.verification.verdict import verdict


@dataclass(frozen=True)
class Completeness:
    """What is there and what is missing.

    Attributes:
        similarity: Scores between the recordings, shape `(n, n)`.
        agrees: Whether each recording has the voice of the others.
        speech_s: Seconds of speech in those that count: they agree, or are confirmed.
        share: From 0 to 1.
        next_step: "record", "decide" or "finish".
    """

    similarity: FloatArray
    agrees: tuple[bool, ...]
    speech_s: float
    share: float
    next_step: str


def judge(
    encoder: Encoder,
    voices: Sequence[tuple[FloatArray, float]],
    needed_s: float,
    needed_recordings: int,
    confirmed: Sequence[bool] | None = None,
) -> Completeness:
    """Judges the recordings of an enrolment.

    A recording agrees if its score with the mean of the others reaches the model's threshold for
    "same speaker". Two that do not agree are both told: which of them is wrong, nobody can know.
    One that does not agree counts only if somebody confirms it.

    Args:
        encoder: The speaker model.
        voices: Embedding, shape `(embedding_size,)`, and seconds of speech of each recording.
        needed_s: Seconds of speech that are needed together.
        needed_recordings: How many recordings are needed.
        confirmed: Whether each is said to be the speaker's whatever its score; none if None.
    """
    matrix = np.zeros((len(voices), len(voices)), np.float32)
    agrees = []
    every = [embedding for embedding, _ in voices]
    for index, embedding in enumerate(every):
        others = every[:index] + every[index + 1 :]
        matrix[index] = scores_to_all(encoder, embedding, np.stack(every))
        score = score_pair(encoder, embedding, mean_embedding(others)) if others else 1.0
        agrees.append(verdict(score, encoder.threshold))
    confirmed = confirmed or [False] * len(voices)
    counts = [one or said for one, said in zip(agrees, confirmed, strict=True)]
    speech_s = sum(seconds for (_, seconds), one in zip(voices, counts, strict=True) if one)
    share = min(speech_s / needed_s, sum(counts) / needed_recordings, 1.0)
    next_step = "record"
    if not all(counts):
        next_step = "decide"
    elif share >= 1:
        next_step = "finish"
    return Completeness(matrix, tuple(agrees), speech_s, share, next_step)
