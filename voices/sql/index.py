"""Embeddings of many speakers in one matrix, for comparing voices with all of them at once.

A long matrix is not read whole: a copy in 8 bits, a quarter of the bytes, tells which few speakers
can be the best, and only their scores are computed in full. The error of the copy is known, so that
nobody who belongs among the best is ever left out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from threading import Lock

import numkong
import numpy as np
import numpy.typing as npt

from utils.arrays import FloatArray
from utils.speaker_names import DEFAULT_GROUP, fold_name

MIN_CAPACITY = 16
"""Rows of the smallest matrix, of a small group; it doubles when it is full."""

SCORE_BLOCK = 64
"""Scores of which the largest stands for all, when the best of many are looked for."""

LONG = 4_096
"""Rows from which the copy in 8 bits is asked first; before, reading everything is as fast."""

QUESTION_BLOCK = 4
"""Questions that one pass over the copy answers in the time of one."""

CODE_BLOCK = 256
"""Rows that are rounded at a time: they stay in the processor's cache."""

MAX_CODE = 127
"""Largest number of the copy."""

ROUNDING = 1e-5
"""Float32 rounding error of a dot product."""

IntArray = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Question:
    """Who sounds most like this?

    Attributes:
        embedding: Unit length, shape `(embedding_size,)`.
        top_k: How many speakers to tell at most; None for all.
        names: Compare with these only, None for all; unknown ones are passed over.
        group: Whose speakers are compared; `VectorIndex` holds those of one group.
    """

    embedding: FloatArray
    top_k: int | None = 1
    names: Sequence[str] | None = None
    group: str = DEFAULT_GROUP


class VectorIndex:
    """Speakers' embeddings, searched exactly; any number of threads may search and change it.

    Rows are only ever appended: a changed speaker gets a new row and the old one is marked dead.
    A search works on what was there when it began, without holding anybody up.
    """

    def __init__(self, embedding_size: int) -> None:
        """Makes an empty index for embeddings of one length."""
        self._lock = Lock()
        self._matrix = np.empty((MIN_CAPACITY, embedding_size), np.float32)
        self._codes = _Codes(MIN_CAPACITY, embedding_size)
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
            first = len(self._names)
            for speaker_id in removed:
                self._kill(speaker_id, is_alive)
            for speaker_id, name, embedding in changed:
                self._kill(speaker_id, is_alive)
                row = len(self._names)
                if row == len(self._matrix):
                    self._matrix = np.concatenate([self._matrix, np.empty_like(self._matrix)])
                    self._codes = self._codes.resized(2 * row)
                    is_alive = np.concatenate([is_alive, np.zeros_like(is_alive)])
                self._matrix[row] = embedding
                is_alive[row] = True
                self._names.append(name)
                self._rows[speaker_id] = self._row_of_name[fold_name(name)] = row
            self._codes.put(first, self._matrix[first : len(self._names)])
            self._is_alive = is_alive
            if len(self._names) > max(2 * len(self._rows), MIN_CAPACITY):
                self._compact()

    def best(
        self, embedding: FloatArray, top_k: int | None, names: Sequence[str] | None = None
    ) -> list[tuple[str, float]]:
        """Answers one question; see `Question` and `best_of_each`."""
        return self.best_of_each([Question(embedding, top_k, names)])[0]

    def best_of_each(self, questions: Sequence[Question]) -> list[list[tuple[str, float]]]:
        """Finds the speakers whose embeddings are most alike, for several voices at once.

        Args:
            questions: The voices, and whom to compare them with.

        Returns:
            `(name, score)` for each question, the best first; scores are cosines in [-1, 1].
        """
        with self._lock:
            matrix, names, codes = self._matrix, self._names, self._codes
            is_alive = self._is_alive[: len(names)]
            num_alive = len(self._rows)
            rows_of_each = [self._rows_of(question.names) for question in questions]
        asked = [
            number
            for number, (question, rows) in enumerate(zip(questions, rows_of_each, strict=True))
            if rows is None and 0 < (question.top_k or 0) < num_alive and num_alive >= LONG
        ]
        if asked:
            likely = codes.likely_rows_of_each([questions[number] for number in asked], is_alive)
            for number, rows in zip(asked, likely, strict=True):
                rows_of_each[number] = rows
        # As many rows as there were above: others are appended meanwhile.
        rows_in_use = matrix[: len(is_alive)]
        all_rows = np.flatnonzero(is_alive)
        return [
            _best_among(all_rows if rows is None else rows, rows_in_use, names, question)
            for question, rows in zip(questions, rows_of_each, strict=True)
        ]

    def ids(self) -> list[str]:
        """Returns the ids of all speakers."""
        with self._lock:
            return list(self._rows)

    def _rows_of(self, names: Sequence[str] | None) -> IntArray | None:
        """Returns where the speakers of some names are, None for all."""
        if names is None:
            return None
        folded = {fold_name(name) for name in names}
        found = [self._row_of_name[name] for name in folded if name in self._row_of_name]
        return np.array(sorted(found), dtype=np.intp)

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
        self._codes = _Codes(capacity, matrix.shape[1])
        self._codes.put(0, matrix[: len(rows)])
        self._is_alive = np.arange(capacity) < len(rows)
        self._names = [self._names[row] for row in rows]
        self._rows = {key: new_row[row] for key, row in self._rows.items()}
        self._row_of_name = {key: new_row[row] for key, row in self._row_of_name.items()}


class _Codes:
    """Embeddings in 8 bits: each number is `code * scale`, with one scale for each embedding."""

    def __init__(self, capacity: int, embedding_size: int) -> None:
        """Makes room for so many."""
        self._codes = np.zeros((capacity, embedding_size), np.int8)
        self._scales = np.zeros(capacity, np.float32)
        self._length = 0.0
        self._error = 0.0

    def put(self, first: int, embeddings: FloatArray) -> None:
        """Writes embeddings, shape `(n, embedding_size)`, into the rows from `first` on."""
        for start in range(0, len(embeddings), CODE_BLOCK):
            some = embeddings[start : start + CODE_BLOCK]
            rows = slice(first + start, first + start + len(some))
            self._codes[rows], self._scales[rows], lengths, errors = _encode(some)
            self._length = max(self._length, float(lengths.max()))
            self._error = max(self._error, float(errors.max()))

    def resized(self, capacity: int) -> "_Codes":
        """Returns a copy with more room."""
        copy = _Codes(capacity, self._codes.shape[1])
        copy._codes[: len(self._codes)] = self._codes
        copy._scales[: len(self._scales)] = self._scales
        copy._length, copy._error = self._length, self._error
        return copy

    def likely_rows_of_each(
        self, questions: Sequence[Question], is_alive: npt.NDArray[np.bool_]
    ) -> list[IntArray]:
        """Returns the rows among which the best of each question certainly are, in order.

        Args:
            questions: Each for fewer than the rows that are somebody's.
            is_alive: Which of the rows in use are somebody's.
        """
        dead = np.flatnonzero(~is_alive)
        found: list[IntArray] = []
        for start in range(0, len(questions), QUESTION_BLOCK):
            block = questions[start : start + QUESTION_BLOCK]
            found += self._likely_rows(block, len(is_alive), dead)
        return found

    def _likely_rows(
        self, questions: Sequence[Question], num_rows: int, dead: IntArray
    ) -> list[IntArray]:
        """Does the same for one pass over the copy.

        Args:
            questions: At most `QUESTION_BLOCK`.
            num_rows: Rows in use.
            dead: Those of them that are nobody's.

        With x = s c + e for a row and q = t d + f for a question, x q differs from s t c d by
        e q + s c f, at most |e| |q| + |s c| |f| (Cauchy and Schwarz). So who is more than twice
        that below the k-th best by codes is below k others.
        """
        asked = np.zeros((QUESTION_BLOCK, self._codes.shape[1]), np.float32)
        asked[: len(questions)] = [question.embedding for question in questions]
        codes, scales, _, errors = _encode(asked)
        margins = 2 * (self._error * np.linalg.norm(asked, axis=1) + self._length * errors)
        packed = numkong.dots_pack(codes)
        products = np.asarray(numkong.dots_packed(self._codes[:num_rows], packed))
        # Exact: sums of 192 products of such small numbers are whole numbers of 24 bits at most.
        scores_of_each = products.T.astype(np.float32, order="C")
        found = []
        for number, question in enumerate(questions):
            scores = scores_of_each[number]
            scores *= self._scales[:num_rows] * scales[number]
            scores[dead] = -np.inf
            last = scores[_largest(scores, question.top_k or 1)[-1]]
            found.append(np.flatnonzero(scores >= last - np.float32(margins[number] + ROUNDING)))
        return found


def _encode(
    embeddings: FloatArray,
) -> tuple[npt.NDArray[np.int8], FloatArray, FloatArray, FloatArray]:
    """Rounds embeddings, shape `(n, embedding_size)`, to 8 bits.

    Returns:
        Codes, scales, the lengths of what they stand for, and how far that is from each embedding.
    """
    scales = np.abs(embeddings).max(axis=1) / np.float32(MAX_CODE)
    scales[scales == 0] = 1
    codes = np.rint(embeddings / scales[:, None]).astype(np.int8)
    rounded = codes * scales[:, None]
    errors = np.linalg.norm(embeddings - rounded, axis=1)
    return codes, scales, np.linalg.norm(rounded, axis=1), errors


def _best_among(
    rows: IntArray, matrix: FloatArray, names: Sequence[str], question: Question
) -> list[tuple[str, float]]:
    """Returns name and score of the best of some rows for one question."""
    some = matrix if len(rows) == len(matrix) else matrix[rows]
    scores = _cosines(some, question.embedding)
    top_k = len(rows) if question.top_k is None else min(question.top_k, len(rows))
    order = _largest(scores, max(top_k, 0))
    # Rounding can carry a cosine of equal embeddings past 1.
    best = np.clip(scores[order], -1, 1).tolist()
    return [(names[rows[i]], score) for i, score in zip(order, best, strict=True)]


def _cosines(matrix: FloatArray, embedding: FloatArray) -> FloatArray:
    """Multiplies a matrix by a vector on the calling thread, row by row.

    Faster than `@`, which shares the work among threads of the matrix library: on a busy machine
    they wait for each other, and one question can take 100 times as long.
    """
    cosines: FloatArray = np.vecdot(matrix, np.asarray(embedding, np.float32))
    return cosines


def _largest(scores: FloatArray, top_k: int) -> IntArray:
    """Returns where the `top_k` largest scores are, the best first."""
    num_blocks = len(scores) // SCORE_BLOCK
    if top_k < num_blocks:
        # Each of them is in a block with one of the largest maxima, or in the rest at the end: far
        # fewer scores are left to be sorted out, for one quick pass over all. A block is every
        # n-th score, since maxima of whole rows are what a processor finds fastest.
        blocks = scores[: num_blocks * SCORE_BLOCK].reshape(SCORE_BLOCK, num_blocks)
        chosen = np.argpartition(-blocks.max(axis=0), max(top_k - 1, 0))[:top_k]
        inside = chosen + num_blocks * np.arange(SCORE_BLOCK)[:, None]
        found = np.concatenate([inside.ravel(), np.arange(blocks.size, len(scores))])
    else:
        found = np.arange(len(scores))
    if top_k < len(found):
        found = np.sort(found[np.argpartition(-scores[found], max(top_k - 1, 0))[:top_k]])
    return found[np.argsort(-scores[found], kind="stable")][:top_k]
