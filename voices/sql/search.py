"""Whose voice it is among all speakers of the SQL database: in memory, or by an index.

The index is pgvector's, or one outside of the database.
"""

import contextlib
import hashlib
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import ColumnElement, Connection, Select, cast, func, literal, select, text
from sqlalchemy.dialects import postgresql

from utils.arrays import FloatArray
from utils.errors import DatabaseError
from utils.speaker_names import fold_name, is_storable
from voices.sql.engine import SqlConnections
from voices.sql.index import Question, VectorIndex
from voices.sql.index_keeper import IndexKeeper
from voices.sql.outside_index import OutsideIndex
from voices.sql.rows import KEPT_REMOVALS, VoiceRows
from voices.sql.schema import info, keys, means, removals, speakers, vectors

VECTOR_INDEX_MIN_SPEAKERS = 7_000_000
"""Speakers from which a PostgreSQL database is searched by its own index.

Among a million the memory answers in 17 ms and is always right; the index takes 119 ms (2 cores,
benchmarks/identification.py). The memory's time grows with the number, and so reaches the index's
at about seven million, where each process would hold 7 GB."""

VECTOR_INDEX = "voiceprint_vectors_hnsw"
"""What the names of the indexes begin with; there is one for each model."""

VECTOR_INDEX_LOCK = 0x766F6964
"""Number of the PostgreSQL advisory lock under which one process builds the index."""

CHANGE_NUMBER = str(select(info.c.change_number))
"""The question for the number of the last write."""

NODE_BYTES = 1_000
"""Bytes of memory that building the index takes for a speaker beside the numbers: a graph that
does not fit is built on the disk, many times slower."""

MIN_BUILD_KB = 65_536
"""PostgreSQL's own default."""

MAX_BUILD_KB = 2_097_151
"""The most that PostgreSQL takes on every system: two million speakers' worth."""

BUILD_POLL_S = 0.5
"""Seconds between two looks whether another process has built the index."""

EF_SEARCH = 1_000
"""Candidates that pgvector's index looks at; more it does not allow. Among a million random
directions, the hardest case, 400 found the right one in 68 % of the questions (50 ms), 700 in 85 %
(80 ms), 1000 in 93 % (119 ms)."""

MAX_RECENT = 10_000
"""Speakers that are held in memory beside an index outside, until it surely finds them."""

LITERALLY: dict[str, Any] = {
    "dialect": postgresql.dialect(),  # type: ignore[no-untyped-call]
    "compile_kwargs": {"literal_binds": True},
}
"""How a condition becomes a part of a statement that takes no parameters."""

LOGGER = logging.getLogger("voiceprint")
"""The service's; elsewhere its warnings are lines on stderr."""


@dataclass
class _Memory:
    """The speakers of one group, as far as they have been read.

    Attributes:
        index: Their embeddings; None while nobody was ever enrolled.
        seen: The change's number up to which they were read, -1 for nothing.
        first: The change's number after which it began.
        damaged: Ids of those that cannot be read.
    """

    index: VectorIndex | None = None
    seen: int = -1
    first: int = -1
    damaged: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Search:
    """Compares embeddings with the speakers of a group, as the database has them at that moment.

    Each group has a memory of its own: no question reads strangers. Speakers whose stored
    embedding was damaged are left out, counted, and named in the log by id.
    """

    def __init__(self, connections: SqlConnections, rows: VoiceRows, outside: OutsideIndex) -> None:
        """Takes the database, and the index outside of it that it may name."""
        self.outside = outside
        self._connections = connections
        self._rows = rows
        self._lock = threading.Lock()
        self._memories: dict[str, _Memory] = {}
        self._recents: dict[str, _Memory] = {}
        self._large: set[str] = set()
        self._builder: threading.Thread | None = None
        self.uses_vector_index = False
        model = hashlib.sha256(rows.model_id.encode()).hexdigest()[:16]
        self._index_name = f"{VECTOR_INDEX}_{model}"

    def prepare(self) -> None:
        """Reads the groups that are searched in memory: the first question need not wait."""
        if self.outside.search() is not None:
            return
        groups = self._connections.fetch(select(speakers.c.group_name).distinct())
        number = self._connections.ask(CHANGE_NUMBER)
        for (group,) in groups:
            if not self._is_large(group):
                self._refresh(self._memory(group), group, number)

    def best_of_each(self, questions: Sequence[Question]) -> list[list[tuple[str, float]]]:
        """Answers questions, with what is in the database now; see `VectorIndex.best_of_each`."""
        by_group: dict[str, list[int]] = {}
        for place, question in enumerate(questions):
            by_group.setdefault(question.group, []).append(place)
        found: list[list[tuple[str, float]]] = [[] for _ in questions]
        number = self._connections.ask(CHANGE_NUMBER)
        for group, places in by_group.items():
            answers = self._best_of_group(group, [questions[place] for place in places], number)
            for place, answer in zip(places, answers, strict=True):
                found[place] = answer
        return found

    def _best_of_group(
        self, group: str, questions: Sequence[Question], number: int
    ) -> list[list[tuple[str, float]]]:
        """Answers the questions for one group."""
        are_few = all(question.top_k is not None for question in questions)
        if are_few and (indexed := self.outside.search()) is not None:
            indexed.keeper.start(number)
            recent = self._refresh(self._recent(group, indexed.keeper), group, number)
            return indexed.best_of_each(group, questions, recent)
        if are_few and self._is_large(group):
            return [self._best_in_database(question) for question in questions]
        index = self._refresh(self._memory(group), group, number)
        if index is None:
            return [[] for _ in questions]
        is_large = len(index) >= VECTOR_INDEX_MIN_SPEAKERS
        if is_large and self.outside.address is None and not self.uses_vector_index:
            self._start_building()
        return index.best_of_each(questions)

    def _is_large(self, group: str) -> bool:
        """Tells whether pgvector's index answers for a group: it exists, and there are enough.

        Among fewer the memory is faster, and the index would mostly find others' speakers.
        """
        if not self.uses_vector_index:
            return False
        memory = self._memories.get(group)
        if group not in self._large and memory is None:
            # Before its first question: a group is not read into memory in order to be counted.
            counted = select(func.count()).where(speakers.c.group_name == group)
            if self._connections.fetch(counted)[0][0] >= VECTOR_INDEX_MIN_SPEAKERS:
                self._large.add(group)
        elif memory is not None and len(memory.index or ()) >= VECTOR_INDEX_MIN_SPEAKERS:
            self._large.add(group)
        return group in self._large

    @property
    def num_damaged(self) -> int:
        """How many speakers were left out of the memory, since they cannot be read."""
        return sum(len(memory.damaged) for memory in list(self._memories.values()))

    def damaged_ids(self) -> set[str]:
        """Returns the ids of the speakers that were left out, since they cannot be read."""
        return set().union(*(memory.damaged for memory in list(self._memories.values())))

    def find_vector_index(self) -> None:
        """Turns to pgvector's index if a process has built it before."""
        if self._rows.has_vectors:
            with self._connections.read() as connection:
                self.uses_vector_index = self._is_ready(connection)

    def build_vector_index(self) -> None:
        """Builds pgvector's index if it is missing, and turns to it; takes minutes to an hour.

        Raises:
            ValueError: If the database has no vectors: SQLite, encrypted, or empty.
            DatabaseError: If it cannot be built.
        """
        with self._connections.read() as connection:
            size = connection.execute(self._rows.size_query()).scalar()
        if size is None or not self._rows.has_vectors:
            raise ValueError(f"{self._connections.name} holds no vectors to search")
        engine = self._connections.engine.execution_options(isolation_level="AUTOCOMMIT")
        with self._connections.driver_errors(), engine.connect() as connection:
            lock = {"number": VECTOR_INDEX_LOCK}
            # Asked again and again: who waits inside the server would hold up the build itself.
            while not connection.execute(
                text("SELECT pg_try_advisory_lock(:number)"), lock
            ).scalar():
                time.sleep(BUILD_POLL_S)
            try:
                if not self._is_ready(connection):
                    # What is left of a build that was interrupted.
                    connection.execute(text(f"DROP INDEX IF EXISTS {self._index_name}"))
                    counted = select(func.count()).select_from(vectors)
                    needed = connection.execute(counted.where(self._is_of_model))
                    kilobytes = needed.scalar_one() * (4 * int(size) + NODE_BYTES) // 1024
                    kilobytes = min(max(kilobytes, MIN_BUILD_KB), MAX_BUILD_KB)
                    connection.execute(text(f"SET maintenance_work_mem = '{kilobytes}kB'"))
                    connection.execute(
                        text(
                            f"CREATE INDEX CONCURRENTLY {self._index_name} ON {vectors.name} "
                            f"USING hnsw ((embedding::vector({int(size)})) vector_cosine_ops) "
                            f"WHERE {self._is_of_model.compile(**LITERALLY)}"
                        )
                    )
            finally:
                connection.execute(text("SELECT pg_advisory_unlock(:number)"), lock)
                connection.execute(text("RESET maintenance_work_mem"))
        self.uses_vector_index = True

    def _start_building(self) -> None:
        """Builds the index beside the questions, which the memory answers until it is ready."""

        def build() -> None:
            # Without it everything works on; the next process tries again.
            with contextlib.suppress(DatabaseError):
                self.build_vector_index()

        with self._lock:
            if self._builder is None and self._rows.has_vectors:
                self._builder = threading.Thread(target=build, name="vector index", daemon=True)
                self._builder.start()

    def _best_in_database(self, question: Question) -> list[tuple[str, float]]:
        """Asks pgvector's index, and without it for some speakers only, whom it might pass over."""
        setting = f"hnsw.ef_search = {EF_SEARCH}"
        if question.names is not None:
            setting = "enable_indexscan = off"
        with self._connections.read() as connection:
            connection.execute(text(f"SET LOCAL {setting}"))
            found = connection.execute(self._nearest(question)).all()
        return [(row.name, float(np.clip(1 - row.distance, -1, 1))) for row in found]

    def _nearest(self, question: Question) -> "Select[Any]":
        """Returns the query that answers a question with names and distances."""
        column = cast(vectors.c.embedding, VECTOR(len(question.embedding)))
        distance = column.cosine_distance(question.embedding).label("distance")
        query = select(speakers.c.name, distance)
        query = query.join(vectors, vectors.c.speaker_id == speakers.c.id)
        query = query.where(self._is_of_model, speakers.c.group_name == question.group)
        if question.names is not None:
            folded = {fold_name(name) for name in question.names if is_storable(name)}
            query = query.where(speakers.c.folded_name.in_(sorted(folded)))
        return query.order_by(distance).limit(max(question.top_k or 0, 0))

    def _refresh(self, memory: _Memory, group: str, number: int) -> VectorIndex | None:
        """Brings a group's matrix up to date, unless nothing was written since the last time."""
        if number == memory.seen:
            return memory.index
        with memory.lock, self._connections.read() as connection:
            row = connection.execute(select(info.c.change_number, info.c.key_check)).one()
            self._rows.check_key(row.key_check)
            number = int(row.change_number)
            size = connection.execute(self._rows.size_query()).scalar()
            if number > memory.seen and size is not None:
                if memory.index is None:
                    memory.index = VectorIndex(size)
                self._read_changes(connection, group, memory, memory.index, number, size)
            return memory.index

    def _memory(self, group: str) -> _Memory:
        """Returns the memory of all speakers of a group."""
        return self._memories.setdefault(group, _Memory())

    def _recent(self, group: str, keeper: IndexKeeper) -> _Memory:
        """Returns the memory of those speakers of a group whom the index may not find yet."""
        settled = keeper.settled
        memory = self._recents.setdefault(group, _Memory(seen=settled, first=settled))
        if len(memory.index or ()) > MAX_RECENT and memory.first < settled:
            memory = self._recents[group] = _Memory(seen=settled, first=settled)
        return memory

    def _read_changes(
        self,
        connection: Connection,
        group: str,
        memory: _Memory,
        index: VectorIndex,
        number: int,
        size: int,
    ) -> None:
        """Reads what was written since the last time, as far as the change with a number."""
        is_theirs = speakers.c.group_name == group
        if memory.seen < 0:
            removed: list[str] = []
        elif number - memory.seen > KEPT_REMOVALS:
            present = set(connection.execute(select(speakers.c.id).where(is_theirs)).scalars())
            removed = [key for key in index.ids() if key not in present]
        else:
            # Of all groups: those that are not here are passed over.
            gone = select(removals.c.speaker_id).where(removals.c.change_number > memory.seen)
            removed = list(connection.execute(gone).scalars())
        query = (
            select(
                speakers.c.id,
                speakers.c.name,
                means.c.speaker_id,
                means.c.embedding,
                keys.c.stored,
            )
            .join(keys, keys.c.id == speakers.c.key_id)
            .outerjoin(
                means,
                (means.c.speaker_id == speakers.c.id) & (means.c.model_id == self._rows.model_id),
            )
            .where(is_theirs, speakers.c.change_number > memory.seen)
        )
        rows: list[Any] = list(connection.execute(query))
        opened = [(row, self._open(row, size)) for row in rows if row.speaker_id is not None]
        usable = [(row.id, row.name, vector) for row, vector in opened if vector is not None]
        usable_ids = {speaker_id for speaker_id, _, _ in usable}
        # Speakers whose last usable recording went, is another model's now, or is damaged.
        removed += [row.id for row in rows if row.id not in usable_ids]
        index.update(usable, removed)
        memory.damaged -= {*removed, *usable_ids}
        memory.damaged |= {row.id for row, vector in opened if vector is None}
        memory.seen = number

    def _open(self, row: Any, size: int) -> FloatArray | None:
        """Opens a speaker's embedding; one that was changed must not stop all comparisons."""
        try:
            embedding = self._rows.embedding(row)
            if embedding.shape != (size,) or not np.isfinite(embedding).all():
                raise ValueError(f"received shape {embedding.shape}, expected {size} numbers")
        except (DatabaseError, ValueError) as error:
            # By the id: names stay out of logs.
            LOGGER.warning("speaker %s is left out of identification: %s", row.id, error)
            return None
        return embedding

    @property
    def _is_of_model(self) -> "ColumnElement[bool]":
        """The condition of the index; written out, since only so it fits a question's."""
        return vectors.c.model_id == literal(self._rows.model_id, literal_execute=True)

    def _is_ready(self, connection: Connection) -> bool:
        """Tells whether the index exists and is complete."""
        query = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")
        return bool(connection.execute(query, {"name": self._index_name}).scalar())
