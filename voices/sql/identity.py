"""What a database says of itself: which key seals it, and whose embeddings are compared."""

import numpy as np
from sqlalchemy import Connection, insert, select, update

from utils.arrays import FloatArray
from utils.errors import DatabaseError
from utils.verification.embedding import Encoder
from voices.sql.cipher import KeyRing
from voices.sql.engine import SqlConnections
from voices.sql.schema import info, models


class Identity:
    """The key and the model of one database, as this process has opened it.

    Attributes:
        model_id: The model whose embeddings are compared; empty if none is known.
        index_address: Where an index outside of the database is, None without one.
    """

    def __init__(self, connections: SqlConnections, ring: KeyRing, encoder: Encoder | None) -> None:
        """Compares the key with the database's, and notes a key and a model that are new to it.

        Raises:
            DatabaseError: If it was made with another key.
        """
        self._connections = connections
        self._ring = ring
        with connections.read() as connection:
            row = connection.execute(select(info)).one()
            sizes = {each.id: each.embedding_size for each in connection.execute(select(models))}
        self.index_address: str | None = row.index_address
        self.model_id = (row.model_id or "") if encoder is None else str(encoder.model_id)
        self._size: int | None = sizes.get(self.model_id)
        # Nobody has been enrolled in a database without models: it takes any key.
        if row.key_check is not None or sizes:
            ring.check(row.key_check, connections.name)
        ring.known_check = row.key_check
        is_known = encoder is None or (row.model_id == self.model_id and self._size is not None)
        if not is_known or (row.key_check is None and ring.is_encrypted):
            self._claim(None if encoder is None else int(encoder.embedding_size))

    def note_size(self, connection: Connection, size: int) -> None:
        """Makes sure that all embeddings of the model have one length.

        Raises:
            DatabaseError: If those in the database have another one.
        """
        known = connection.execute(
            select(models.c.embedding_size).where(models.c.id == self.model_id)
        ).scalar()
        if known is None:
            connection.execute(insert(models), {"id": self.model_id, "embedding_size": size})
        elif known != size:
            raise DatabaseError(
                f"received {size} numbers, expected {known} as in {self._connections.name}"
            )
        self._size = size

    def checked(self, embedding: FloatArray) -> FloatArray:
        """Returns an embedding with unit length; another shape is a programmer's mistake."""
        array = np.asarray(embedding, np.float32)
        length = float(np.linalg.norm(array))
        if array.ndim != 1 or self._size not in (None, len(array)) or not 0 < length < np.inf:
            raise ValueError(
                f"expected a finite embedding of {self._size} numbers, received {array.shape}"
            )
        return np.asarray(array / length, np.float32)

    def _claim(self, size: int | None) -> None:
        """Notes key and model in the database, unless another process was quicker."""
        with self._connections.write() as connection:
            row = connection.execute(select(info).with_for_update()).one()
            if row.key_check is not None or connection.execute(select(models)).first() is not None:
                self._ring.check(row.key_check, self._connections.name)
            check = self._ring.known_check = row.key_check or self._ring.check_text()
            noted = update(info).values(key_check=check, model_id=self.model_id or None)
            connection.execute(noted)
            if size is not None:
                self.note_size(connection, size)
