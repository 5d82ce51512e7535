"""The index outside of the database; the database names it, so that no process misses it."""

import logging
import threading

from sqlalchemy import func, select, update

from utils.environment import read_variable
from utils.errors import DatabaseError
from voices.sql.engine import SqlConnections
from voices.sql.index_keeper import IndexKeeper
from voices.sql.indexed_search import IndexedSearch
from voices.sql.rows import VoiceRows
from voices.sql.schema import info, means

LOGIN_VARIABLE = "VOICEPRINT_INDEX_LOGIN"
"""Environment variable with USER:PASSWORD for the index, which backups must not hold."""

FORGET_S = 5.0
"""Seconds that a removal waits for another process, which follows up to it in the end."""

LOGGER = logging.getLogger("voiceprint")
"""The service's; elsewhere its warnings are lines on stderr."""


class OutsideIndex:
    """Opens the index when it is first needed.

    Attributes:
        address: `milvus://HOST:PORT` and so on; None where the database alone is searched.
    """

    def __init__(
        self, connections: SqlConnections, rows: VoiceRows, address: str | None = None
    ) -> None:
        """Takes the address that the database names."""
        self.address = address
        self._connections = connections
        self._rows = rows
        self._lock = threading.Lock()
        self._search: IndexedSearch | None = None

    def search(self) -> IndexedSearch | None:
        """Returns the search by the index; None without one, or while nobody is enrolled.

        Raises:
            DatabaseError: If it cannot be opened, or is not this database's.
        """
        if self.address is None:
            return None
        with self._lock:
            if self._search is None:
                keeper = self._open(self.address)
                if keeper is not None:
                    self._search = IndexedSearch(self._connections, self._rows, keeper)
            return self._search

    def forget(self) -> None:
        """Takes whoever was removed out of it; what fails is done with a later change."""
        try:
            search = self.search()
            if search is not None:
                search.keeper.follow(wait_s=FORGET_S)
        except DatabaseError as error:
            LOGGER.warning("%s; who was removed goes out of it as soon as it answers", error)

    def set_up(self, address: str, *, replace: bool = False) -> int:
        """Fills an index and notes it in the database; processes that start from then on use it.

        Args:
            address: Where it is.
            replace: Whether what is there is removed first.

        Returns:
            How many speakers it holds.

        Raises:
            DatabaseError: If it cannot be filled, or nobody is enrolled.
        """
        keeper = self._open(address, replace=replace)
        if keeper is None:
            raise DatabaseError(
                f"{self._connections.name}: nobody is enrolled; enrol a speaker first"
            )
        self._note(address)
        keeper.follow()
        self.address, self._search = address, None
        counted = select(func.count()).where(means.c.model_id == self._rows.model_id)
        return int(self._connections.fetch(counted)[0][0])

    def remove(self) -> None:
        """Empties the index, and searches the database alone from the next start on.

        Raises:
            DatabaseError: If there is none, or it cannot be opened.
        """
        search = self.search()
        if search is None:
            raise DatabaseError(f"{self._connections.name}: has no index outside of it")
        search.keeper.index.drop()
        self._note(None)
        self.address, self._search = None, None

    def _note(self, address: str | None) -> None:
        with self._connections.write() as connection:
            connection.execute(update(info).values(index_address=address))

    def _open(self, address: str, *, replace: bool = False) -> IndexKeeper | None:
        """Opens an index; None while no model's embeddings are known."""
        try:
            from voices.sql.milvus import MilvusIndex
        except ModuleNotFoundError as error:
            raise DatabaseError(
                f"{address} needs the package {error.name}; pip install -r requirements-search.txt"
            ) from error
        with self._connections.read() as connection:
            owner = str(connection.execute(select(info.c.database_id)).scalar_one())
            size = connection.execute(self._rows.size_query()).scalar()
        if size is None:
            return None
        index = MilvusIndex(address, self._rows.model_id, owner, read_variable(LOGIN_VARIABLE))
        if replace:
            index.drop()
        index.open(size)
        return IndexKeeper(self._connections, self._rows, index)
