"""Embeddings of many speakers in one matrix, for comparing a voice with all of them at once."""

from collections.abc import Iterable
from threading import Lock

import numpy as np
import numpy.typing as npt

from utils.audio import FloatArray
from utils.speaker_names import fold_name

MIN_CAPACITY = 256
"""Rows of the smallest matrix; it doubles when it is full."""

SCORE_BLOCK = 64
"""Scores of which the largest stands for all, when the best of many are looked for."""


class VectorIndex:
    """Speakers' embeddings, searched exactly; any number of threads may search and change it.

    Rows are only ever appended: a changed speaker gets a new row and the old one is marked dead.
    A search works on what was there when it began, without holding anybody up.
    """

    def __init__(self, embedding_size: int) -> None:
        """Makes an empty index for embeddings of one length."""
        self._lock = Lock()
        self._matrix = np.empty((MIN_CAPACITY, embedding_size), np.float32)
        self._is_alive = np.zeros(MIN_CAPACITY, bool)
        self._names: list[str] = []
        self._rows: dict[str, int] = {}
        self._row_of_name: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def update(
        self, changed: Iterable[tuple[str, str, FloatArray]], removed: Iterable[str] = ()
    ) -> None:
        """Adds and replaces speakers, after others were removed.

        Args:
            changed: `(id, name, embedding)`; unit length, shape `(embedding_size,)`.
            removed: Ids, also such as are not here.
        """
        # Read to the end first: what raises here must not leave half a change behind.
        changed, removed = list(changed), list(removed)
        with self._lock:
            is_alive = self._is_alive.copy()
            for speaker_id in removed:
                self._kill(speaker_id, is_alive)
            for speaker_id, name, embedding in changed:
                self._kill(speaker_id, is_alive)
                row = len(self._names)
                if row == len(self._matrix):
                    self._matrix = np.concatenate([self._matrix, np.empty_like(self._matrix)])
                    is_alive = np.concatenate([is_alive, np.zeros_like(is_alive)])
                self._matrix[row] = embedding
                is_alive[row] = True
                self._names.append(name)
                self._rows[speaker_id] = self._row_of_name[fold_name(name)] = row
            self._is_alive = is_alive
            if len(self._names) > max(2 * len(self._rows), MIN_CAPACITY):
                self._compact()

    def best(
        self, embedding: FloatArray, top_k: int | None, names: Iterable[str] | None = None
    ) -> list[tuple[str, float]]:
        """Returns the speakers whose embeddings are most alike.

        Args:
            embedding: Unit length, shape `(embedding_size,)`.
            top_k: How many to return; None returns all.
            names: Compare with these only; unknown ones are passed over.

        Returns:
            `(name, score)`, the best first; the score is a cosine in [-1, 1].
        """
        with self._lock:
            matrix, all_names, is_alive = self._matrix, self._names, self._is_alive
            if names is None:
                rows = None
                num_rows = len(all_names)
            else:
                folded = {fold_name(name) for name in names}
                found = [self._row_of_name[name] for name in folded if name in self._row_of_name]
                rows = np.array(sorted(found), dtype=np.intp)
        if rows is None:
            scores = _cosines(matrix[:num_rows], embedding)
            scores[~is_alive[:num_rows]] = -np.inf
            num_found = int(is_alive[:num_rows].sum())
        else:
            scores = _cosines(matrix[rows], embedding)
            num_found = len(rows)
        top_k = num_found if top_k is None else min(top_k, num_found)
        if top_k <= 0:
            return []
        order = _largest(scores, top_k)
        # Rounding can carry a cosine of equal embeddings past 1.
        return [
            (all_names[i if rows is None else rows[i]], float(np.clip(scores[i], -1, 1)))
            for i in order
        ]

    def ids(self) -> list[str]:
        """Returns the ids of all speakers."""
        with self._lock:
            return list(self._rows)

    def _kill(self, speaker_id: str, is_alive: npt.NDArray[np.bool_]) -> None:
        """Takes a speaker's row out of the comparison."""
        row = self._rows.pop(speaker_id, None)
        if row is None:
            return
        is_alive[row] = False
        folded = fold_name(self._names[row])
        if self._row_of_name.get(folded) == row:
            del self._row_of_name[folded]

    def _compact(self) -> None:
        """Moves the living rows into a new matrix; searches under way keep the old one."""
        rows = sorted(self._rows.values())
        new_row = {row: index for index, row in enumerate(rows)}
        capacity = max(MIN_CAPACITY, 2 * len(rows))
        matrix = np.empty((capacity, self._matrix.shape[1]), np.float32)
        matrix[: len(rows)] = self._matrix[rows]
        self._matrix = matrix
        self._is_alive = np.arange(capacity) < len(rows)
        self._names = [self._names[row] for row in rows]
        self._rows = {key: new_row[row] for key, row in self._rows.items()}
        self._row_of_name = {key: new_row[row] for key, row in self._row_of_name.items()}


def _cosines(matrix: FloatArray, embedding: FloatArray) -> FloatArray:
    """Multiplies a matrix by a vector on the calling thread, row by row.

    Faster than `@`, which shares the work among threads of the matrix library: on a busy machine
    they wait for each other, and one question can take 100 times as long.
    """
    cosines: FloatArray = np.vecdot(matrix, np.asarray(embedding, np.float32))
    return cosines


def _largest(scores: FloatArray, top_k: int) -> npt.NDArray[np.intp]:
    """Returns where the `top_k` largest scores are, the best first."""
    size = len(scores) // SCORE_BLOCK * SCORE_BLOCK
    found = np.arange(len(scores))
    if top_k < len(scores) // SCORE_BLOCK:
        # Each of them is in a block with one of the largest maxima, or in the rest at the end:
        # far fewer scores are left to be sorted out, for one quick pass over all.
        maxima = scores[:size].reshape(-1, SCORE_BLOCK).max(axis=1)
        blocks = np.argpartition(-maxima, top_k - 1)[:top_k]
        inside = (np.sort(blocks)[:, None] * SCORE_BLOCK + np.arange(SCORE_BLOCK)).ravel()
        found = np.concatenate([inside, np.arange(size, len(scores))])
    if top_k < len(found):
        found = np.sort(found[np.argpartition(-scores[found], top_k - 1)[:top_k]])
    return found[np.argsort(-scores[found], kind="stable")][:top_k]
