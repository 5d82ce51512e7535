"""What is needed of a speaker model, and the mean of several embeddings of one speaker."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from utils.arrays import FloatArray, RealArray
from utils.audio.recording import Recording
from utils.errors import AudioError
from utils.verification.calibration import Calibration
from utils.verification.cohort import Cohort


class ClipEncoder(Protocol):
    """What embedding the clips of a list needs: any network that embeds files."""

    def embed_files(
        self, paths: Sequence[str | Path], *, on_error: Any = ...
    ) -> Iterator[tuple[int, FloatArray | AudioError]]:
        """Yields position and embedding, or the reason why there is none, in order."""


class Encoder(ClipEncoder, Protocol):
    """A speaker model as everything above it uses it; `utils.model.encoder.SpeakerEncoder` is one.

    What works with embeddings alone needs no thresholds.
    """

    @property
    def model_id(self) -> str:
        """A text that differs for every model."""

    @property
    def embedding_size(self) -> int:
        """Length of an embedding."""

    @property
    def cohort(self) -> Cohort | None:
        """People whose scores normalise all others (AS-norm), None for plain cosines."""

    @property
    def calibration(self) -> Calibration:
        """Thresholds and probability scale of the model."""

    @property
    def is_calibrated(self) -> bool:
        """Whether the model holds thresholds."""

    @property
    def threshold(self) -> float:
        """The score from which the scripts answer "same person"."""

    @property
    def strict_threshold(self) -> float:
        """The score that at most 0.3 % of strangers should reach, in any group of people alike."""

    def probability(
        self, score: float, speech_s: tuple[float | None, float | None] | None = None
    ) -> float:
        """Returns how probable one speaker is at a score, given the seconds of speech of both."""

    def embed_waveform(
        self, recording: Recording | FloatArray, source: str = "recording"
    ) -> FloatArray:
        """Returns the unit-length embedding, shape `(embedding_size,)`."""

    def embed_speech(self, speech: FloatArray) -> FloatArray:
        """Returns the unit-length embedding of a stretch that is known to be speech."""

    def embed_file(self, path: str | Path) -> FloatArray:
        """Returns the unit-length embedding of a recording, shape `(embedding_size,)`."""


def score_pair(encoder: Encoder, first: FloatArray, second: FloatArray) -> float:
    """Returns the score of two embeddings, shape `(embedding_size,)`, as `scores_to_all` does."""
    return float(scores_to_all(encoder, first, second[None])[0])


def scores_to_all(encoder: Encoder, embedding: FloatArray, others: FloatArray) -> RealArray:
    """Returns the scores of one embedding and several others, as the model is to be used.

    Args:
        encoder: Cosines, or with its cohort AS-norm.
        embedding: Unit length, shape `(embedding_size,)`.
        others: Unit length, shape `(n, embedding_size)`.

    Returns:
        Shape `(n,)`, in [-1, 1].
    """
    if encoder.cohort is not None:
        return encoder.cohort.scores(embedding, others)
    return np.asarray(np.clip(others @ embedding, -1, 1))


def mean_embedding(embeddings: Sequence[FloatArray]) -> FloatArray:
    """Returns the mean of a speaker's embeddings, scaled to unit length.

    Args:
        embeddings: At least one, unit length, shape `(embedding_size,)` each.
    """
    mean = np.mean(embeddings, axis=0)
    # Opposite embeddings could cancel out; the floor keeps the division defined.
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-6), np.float32)
