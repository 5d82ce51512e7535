"""Whose voice it is by an index outside of the database, whose answers the database checks.

The index names candidates; the database says who they are, in which group, and their embeddings,
with which they are scored. So nobody who was removed is found, and no score is rounded.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, select

from utils.arrays import FloatArray
from utils.errors import DatabaseError
from utils.speaker_names import fold_name, is_storable
from voices.sql.engine import SqlConnections
from voices.sql.index import Question, VectorIndex
from voices.sql.index_keeper import IndexKeeper
from voices.sql.rows import VoiceRows
from voices.sql.schema import keys, means, speakers

NUM_SPARE = 64
"""Candidates beyond those asked for: the index rounds, or has somebody who was removed."""

AT_ONCE = 500
"""Ids or names in a query; SQLite takes no more than some thousands."""

Found = list[tuple[str, float]]
"""`(name, score)`, the best first."""


class IndexedSearch:
    """Answers questions about groups of any size; what it holds in memory does not grow with them.

    Attributes:
        keeper: Keeps the index in step.
    """

    def __init__(self, connections: SqlConnections, rows: VoiceRows, keeper: IndexKeeper) -> None:
        self.keeper = keeper
        self._connections = connections
        self._rows = rows

    def best_of_each(
        self, group: str, questions: Sequence[Question], recent: VectorIndex | None
    ) -> list[Found]:
        """Answers questions.

        Args:
            group: Whose speakers are compared.
            questions: Each with its `top_k`.
            recent: Those who were changed lately: the index may not find them yet.
        """
        found: list[Found] = [[] for _ in questions]
        open_ones = []
        for place, question in enumerate(questions):
            if question.names is not None:
                found[place] = self._among(group, question)
            elif (question.top_k or 0) > 0:
                open_ones.append(place)
        if not open_ones:
            return found
        asked = [questions[place] for place in open_ones]
        top_k = max(question.top_k or 0 for question in asked) + NUM_SPARE
        embeddings = [question.embedding for question in asked]
        ids_of_each = self.keeper.index.nearest(group, embeddings, top_k)
        known = set(recent.ids()) if recent is not None else set()
        wanted = sorted({key for ids in ids_of_each for key in ids} - known)
        stored = self._read(group, speakers.c.id, wanted)
        lately = recent.best_of_each(asked) if recent is not None else [[] for _ in asked]
        for place, ids, more in zip(open_ones, ids_of_each, lately, strict=True):
            candidates = [stored[key] for key in ids if key in stored]
            scored = _score(candidates, questions[place].embedding)
            best = sorted([*scored, *more], key=lambda pair: -pair[1])
            found[place] = best[: questions[place].top_k]
        return found

    def _among(self, group: str, question: Question) -> Found:
        """Compares with some names only, without the index."""
        names = sorted({fold_name(name) for name in question.names or () if is_storable(name)})
        stored = self._read(group, speakers.c.folded_name, names)
        best = sorted(_score(list(stored.values()), question.embedding), key=lambda pair: -pair[1])
        return best[: question.top_k]

    def _read(
        self, group: str, column: "ColumnElement[str]", values: Sequence[str]
    ) -> dict[str, tuple[str, FloatArray]]:
        """Returns name and embedding by id of the speakers of a group that a column has."""
        query = (
            select(speakers.c.id, speakers.c.name, means.c.embedding, keys.c.stored)
            .join(keys, keys.c.id == speakers.c.key_id)
            .join(means, means.c.speaker_id == speakers.c.id)
            .where(speakers.c.group_name == group, means.c.model_id == self._rows.model_id)
        )
        found: dict[str, tuple[str, FloatArray]] = {}
        for start in range(0, len(values), AT_ONCE):
            some: list[Any] = self._connections.fetch(
                query.where(column.in_(values[start : start + AT_ONCE]))
            )
            for row in some:
                try:
                    found[row.id] = (str(row.name), self._rows.embedding(row))
                except DatabaseError:
                    continue  # damaged: the list of speakers says so
        return found


def _score(candidates: Sequence[tuple[str, FloatArray]], embedding: FloatArray) -> Found:
    """Returns the cosines of candidates, `(name, embedding)`."""
    if not candidates:
        return []
    matrix = np.stack([vector for _, vector in candidates])
    scores = np.clip(np.vecdot(matrix, np.asarray(embedding, np.float32)), -1, 1)
    return [(name, score) for (name, _), score in zip(candidates, scores.tolist(), strict=True)]
