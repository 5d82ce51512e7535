"""Keeps an index outside of the database in step with it, by the number of changes.

What replicas learn from each other by, the index follows by too: whoever was changed after the
number that the index notes is put there again, and whoever was removed is taken out. All of it may
be done twice, and one process does it at a time.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from sqlalchemy import Connection, Select, select, text

from utils.arrays import FloatArray
from utils.errors import DatabaseError
from voices.sql.engine import SqlConnections
from voices.sql.rows import KEPT_REMOVALS, VoiceRows
from voices.sql.schema import info, keys, means, removals, speakers

ROWS_AT_ONCE = 1_000
"""Speakers that are sent to the index together, 1 MB of 192 numbers."""

LOCK = 0x766F6965
"""Number of the PostgreSQL advisory lock under which one process keeps the index."""

POLL_S = 0.2
"""Seconds between two looks whether another process is done."""

SETTLED_S = 30.0
"""Seconds after which the index surely finds what it was sent, also through another process: it
promises five, and its rough index of what came lately is replaced after a dozen."""

RETRY_S = 1.0
"""Seconds between two tries to follow in the background."""

LOGGER = logging.getLogger("voiceprint")
"""The service's; elsewhere its warnings are lines on stderr."""


class SearchIndex(Protocol):
    """An index outside of the database; `MilvusIndex` is one, and describes the methods."""

    name: str

    def open(self, size: int) -> None:
        """Makes the index if it is missing."""

    def seen(self) -> int:
        """Returns the number of the change up to which everything is there, -1 for none."""

    def drop(self) -> None:
        """Removes it."""

    def put(self, rows: Sequence[tuple[str, str, FloatArray]]) -> None:
        """Adds or replaces speakers: `(id, group, embedding)`."""

    def remove(self, ids: Sequence[str]) -> None:
        """Removes speakers; some may not be there."""

    def note(self, number: int) -> None:
        """Notes up to which change everything is there."""

    def nearest(self, group: str, embeddings: Sequence[FloatArray], top_k: int) -> list[list[str]]:
        """Returns the ids of the speakers of a group who are most alike, the best first."""

    def finish(self) -> None:
        """Makes it quick and exact again, after some were sent; waits until it is."""

    def ids(self) -> Iterator[str]:
        """Yields the ids of all speakers."""

    def close(self) -> None:
        """Lets the connection go."""


class IndexKeeper:
    """Follows the database with an index.

    Attributes:
        index: The index.
        settled: The number of a change that the index surely finds; -1 while it is being built.
    """

    def __init__(self, connections: SqlConnections, rows: VoiceRows, index: SearchIndex) -> None:
        """Takes an index that is open."""
        self.index = index
        self.settled = index.seen()
        self._connections = connections
        self._rows = rows
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._noted = self.settled
        self._has_sent = False
        self._settling: tuple[float, int] | None = None
        self._tried_at = -RETRY_S
        if rows.is_encrypted:
            LOGGER.warning("%s holds the speakers' embeddings without encryption", index.name)

    def start(self, number: int) -> None:
        """Follows in a thread, unless the index is in step with a change or one is at it."""
        now = time.monotonic()
        if self._settling is not None and now - self._settling[0] > SETTLED_S:
            self.settled, self._settling = self._settling[1], None
        if number == self._noted or now - self._tried_at < RETRY_S:
            return
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._tried_at = now
                self._thread = threading.Thread(target=self._try, name="search index", daemon=True)
                self._thread.start()

    def follow(self, wait_s: float = float("inf")) -> bool:
        """Brings the index in step; returns whether it is, or another process was at it so long.

        Raises:
            DatabaseError: If the database or the index fails, or it is ahead of the database.
        """
        with self._alone(wait_s) as is_alone:
            while is_alone and not self._is_in_step():
                pass
            if is_alone:
                self._settle()
        return is_alone

    def _try(self) -> None:
        """Follows; a failure is told and tried again with a later question."""
        try:
            self.follow(wait_s=0)
        except DatabaseError as error:
            LOGGER.warning("the search index is behind, new speakers are in memory: %s", error)

    def _is_in_step(self) -> bool:
        """Does the next part of the work; returns whether nothing was left."""
        seen = self.index.seen()
        with self._reading() as connection:
            number = int(connection.execute(select(info.c.change_number)).scalar_one())
            if seen > number:
                raise DatabaseError(
                    f"{self.index.name}: is ahead of {self._connections.name}, which an earlier "
                    "backup was put into; run manage_voices.py index --replace"
                )
            if seen == number:
                self._noted = number
                return True
            changed = self._changed(connection, seen, number)
            if changed is not None:
                present, removed = self._usable(changed)
                gone = select(removals.c.speaker_id).where(removals.c.change_number > seen)
                removed += list(connection.execute(gone).scalars())
                self.index.put(present)
                self.index.remove(removed)
                self._has_sent |= bool(present)
        if changed is None:
            self._send_all()
        self.index.note(number)
        self._noted = number
        return False

    def _settle(self) -> None:
        """Makes what was sent a part of the graph; until it surely is, memory is asked too."""
        if self._settling is None and self._noted > self.settled:
            if self._has_sent:
                self.index.finish()
                self._has_sent = False
            self._settling = time.monotonic(), self._noted

    def _changed(self, connection: Connection, seen: int, number: int) -> list[Any] | None:
        """Returns the speakers who were changed after a number; None if they are too many."""
        if seen < 0 or number - seen > KEPT_REMOVALS:
            return None
        query = self._speakers().where(speakers.c.change_number > seen)
        found = list(connection.execute(query.limit(ROWS_AT_ONCE + 1)))
        return None if len(found) > ROWS_AT_ONCE else found

    def _send_all(self) -> None:
        """Sends every speaker, and takes out whoever is not in the database."""
        last = ""
        while True:
            with self._reading() as connection:
                # First the ids alone: with the joins PostgreSQL reads everything for each part.
                page = select(speakers.c.id).where(speakers.c.id > last).order_by(speakers.c.id)
                ids = list(connection.execute(page.limit(ROWS_AT_ONCE)).scalars())
                found = list(connection.execute(self._speakers().where(speakers.c.id.in_(ids))))
                if not ids:
                    break
                present, removed = self._usable(found)
                self.index.put(present)
                self.index.remove(removed)
            last = ids[-1]
        self.index.finish()
        some: list[str] = []
        for key in self.index.ids():
            some.append(key)
            if len(some) == ROWS_AT_ONCE:
                self._remove_absent(some)
                some = []
        self._remove_absent(some)

    def _remove_absent(self, ids: list[str]) -> None:
        """Takes out of the index whoever is not in the database."""
        with self._reading() as connection:
            query = select(means.c.speaker_id).where(
                means.c.speaker_id.in_(ids), means.c.model_id == self._rows.model_id
            )
            present = set(connection.execute(query).scalars())
            self.index.remove([key for key in ids if key not in present])

    def _speakers(self) -> "Select[Any]":
        """Returns the query for speakers with their embeddings by the model."""
        query = select(
            speakers.c.id,
            speakers.c.group_name,
            means.c.speaker_id,
            means.c.embedding,
            keys.c.stored,
        )
        query = query.join(keys, keys.c.id == speakers.c.key_id)
        return query.outerjoin(
            means, (means.c.speaker_id == speakers.c.id) & (means.c.model_id == self._rows.model_id)
        )

    def _usable(self, rows: Sequence[Any]) -> tuple[list[tuple[str, str, FloatArray]], list[str]]:
        """Returns what the index is to hold of some speakers, and the ids of the others."""
        present, removed = [], []
        for row in rows:
            embedding = None
            if row.speaker_id is not None:
                with contextlib.suppress(DatabaseError):
                    embedding = self._rows.embedding(row)
            if embedding is None or not np.isfinite(embedding).all():
                # Damaged, another model's, or of a recording that went.
                removed.append(row.id)
            else:
                present.append((row.id, row.group_name, embedding))
        return present, removed

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Connection]:
        """Yields a connection for reading; on SQLite no other process writes meanwhile.

        So what was read there is in the index before it can change. On PostgreSQL `_alone` keeps
        other processes out.
        """
        connections = self._connections
        with connections.write() if connections.is_sqlite else connections.read() as connection:
            yield connection

    @contextlib.contextmanager
    def _alone(self, wait_s: float) -> Iterator[bool]:
        """Yields whether no other process keeps the index, after a wait, and holds it so."""
        if self._connections.is_sqlite:
            yield True
            return
        give_up = time.monotonic() + wait_s
        engine = self._connections.engine.execution_options(isolation_level="AUTOCOMMIT")
        lock = {"number": LOCK}
        with self._connections.driver_errors(), engine.connect() as connection:
            asked = text("SELECT pg_try_advisory_lock(:number)")
            while not (is_alone := bool(connection.execute(asked, lock).scalar())):
                if time.monotonic() >= give_up:
                    break
                time.sleep(POLL_S)
            try:
                yield is_alone
            finally:
                if is_alone:
                    connection.execute(text("SELECT pg_advisory_unlock(:number)"), lock)
