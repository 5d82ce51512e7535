"""AS-norm among enrolled speakers: the best by cosine are ranked anew as a cohort sees them."""

from dataclasses import replace

import numpy as np
from sqlalchemy import select

from utils.arrays import FloatArray
from utils.errors import DatabaseError
from utils.speaker_names import fold_name
from utils.verification.cohort import Cohort
from voices.sql.engine import SqlConnections
from voices.sql.index import Question
from voices.sql.rows import VoiceRows
from voices.sql.schema import keys, means, speakers

NUM_RANKED = 100
"""Speakers whose scores are normalised at least: nobody further down by cosine comes first."""

NAMES_AT_ONCE = 500
"""Names in a query; SQLite takes no more than some thousands."""


def widened(question: Question) -> Question:
    """Returns the question for all speakers whose scores are to be normalised."""
    top_k = None if question.top_k is None else max(question.top_k, NUM_RANKED)
    return replace(question, top_k=top_k)


class NormalisedRanking:
    """Ranks speakers by AS-norm, from their stored embeddings."""

    def __init__(self, cohort: Cohort, connections: SqlConnections, rows: VoiceRows) -> None:
        self._cohort = cohort
        self._connections = connections
        self._rows = rows

    def rank(self, question: Question, found: list[tuple[str, float]]) -> list[tuple[str, float]]:
        """Ranks anew.

        Args:
            question: As it was asked.
            found: `(name, cosine)` of the answer to the widened question.

        Returns:
            `(name, normalised score)`, the best first, at most `question.top_k`.
        """
        embeddings = self._read([name for name, _ in found], question.group)
        if not embeddings:
            return []
        scores = self._cohort.scores(question.embedding, np.stack(list(embeddings.values())))
        ranked = sorted(zip(embeddings, map(float, scores), strict=True), key=lambda pair: -pair[1])
        return ranked[: question.top_k]

    def _read(self, names: list[str], group: str) -> dict[str, FloatArray]:
        """Returns the embeddings by name; whoever was removed or damaged meanwhile is left out."""
        query = (
            select(speakers.c.id, speakers.c.name, means.c.embedding, keys.c.stored)
            .join(keys, keys.c.id == speakers.c.key_id)
            .join(means, means.c.speaker_id == speakers.c.id)
            .where(speakers.c.group_name == group, means.c.model_id == self._rows.model_id)
        )
        found = {}
        for start in range(0, len(names), NAMES_AT_ONCE):
            folded = [fold_name(name) for name in names[start : start + NAMES_AT_ONCE]]
            for row in self._connections.fetch(query.where(speakers.c.folded_name.in_(folded))):
                try:
                    found[str(row.name)] = self._rows.embedding(row)
                except DatabaseError:
                    continue
        return found
