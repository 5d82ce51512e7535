"""Milvus as an index of speakers' embeddings, for more of them than one PostgreSQL can search.

The database stays the store of truth: the index holds ids, and is asked for those that may be the
best. A collection holds the embeddings of one model; its row `STATE` says whose speakers they are,
and how far it has followed the database.
"""

import contextlib
import hashlib
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grpc
import numpy as np
from pymilvus import DataType, MilvusClient, MilvusException

from utils.arrays import FloatArray
from utils.errors import DatabaseError

ADDRESS = re.compile(r"milvus(\+tls)?://([^:/?@]+):(\d+)(?:/([A-Za-z_]\w*))?")

EXPECTED = "milvus://HOST:PORT[/DATABASE], or milvus+tls:// and so on"

PREFIX = "voiceprint_"
"""What the names of collections begin with."""

LAYOUT = 1
"""Version of the fields; part of a collection's name."""

OLDEST = (2, 3)
"""The oldest Milvus that can replace rows."""

STATE = "state"
"""The id of the row that is no speaker."""

STATE_GROUP = 0
"""Its group, which is nobody's."""

TIMEOUT_S = 10.0
"""Seconds after which a server that does not answer counts as unreachable."""

INDEX: dict[str, Any] = {
    "index_type": "HNSW",
    "metric_type": "COSINE",
    "params": {"M": 16, "efConstruction": 200},
}
"""A graph over full vectors: 1 kB a speaker of 192 numbers."""

SEARCH: dict[str, Any] = {"ef": 1024}
"""How many speakers a search of the graph looks at, at least: among 200,000 it finds the best in
96 % of the questions; 256 do in 90 %, in little less time (benchmarks/identification.py)."""

BUILD_POLL_S = 0.5
"""Seconds between two looks whether the graph is built."""

LOAD_S = 120.0
"""Seconds after which a built graph that is not in use yet is waited for no longer."""

SMALL_SEGMENT = 1024
"""Rows below which Milvus builds no graph, and compares with all."""

IDS_AT_ONCE = 5_000
"""Ids that are read or removed together."""


class MilvusIndex:
    """The speakers' embeddings by one model in Milvus.

    Attributes:
        name: The address.
        version: What the server says of itself.
    """

    def __init__(self, address: str, model_id: str, owner: str, login: str = "") -> None:
        """Connects.

        Args:
            address: As in `EXPECTED`.
            model_id: Whose embeddings it holds.
            owner: Id of the database that it follows.
            login: USER:PASSWORD, or nothing.

        Raises:
            DatabaseError: If the address is none, nobody answers, or Milvus is too old.
        """
        found = ADDRESS.fullmatch(address)
        if found is None:
            raise DatabaseError(f"received the index {address[:200]!r}, expected {EXPECTED}")
        tls, host, port, database = found.groups()
        self.name = address
        self._owner = owner
        model = hashlib.sha256(model_id.encode()).hexdigest()[:16]
        self._collection = f"{PREFIX}{LAYOUT}_{model}"
        self._size = 0
        try:
            self._client = MilvusClient(
                f"http{'s' if tls else ''}://{host}:{port}",
                token=login,
                db_name=database or "",
                timeout=TIMEOUT_S,
            )
            self.version = str(self._client.get_server_version(timeout=TIMEOUT_S))
        except MilvusException as error:
            raise DatabaseError(
                f"{self.name}: Milvus doesn't answer there ({_reason(error)}); check host, port, "
                "database and VOICEPRINT_INDEX_LOGIN"
            ) from None
        numbers = re.search(r"(\d+)\.(\d+)", self.version)
        if numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST:
            oldest = ".".join(map(str, OLDEST))
            raise DatabaseError(
                f"{self.name}: is Milvus {self.version[:40]}, expected {oldest} or later"
            )

    def open(self, size: int) -> None:
        """Makes the collection if it is missing, and loads it.

        Args:
            size: Length of the embeddings.

        Raises:
            DatabaseError: If it holds something else.
        """
        self._size = size
        with self._errors():
            if not self._client.has_collection(self._collection):
                self._make()
            self._client.load_collection(self._collection)
            fields = self._client.describe_collection(self._collection)["fields"]
        sizes = [field.get("params", {}).get("dim") for field in fields]
        found = next((int(each) for each in sizes if each), None)
        if found != size:
            raise DatabaseError(
                f"{self.name}: {self._collection} holds vectors of {found} numbers, expected "
                f"{size}; name another database of Milvus"
            )
        self.seen()

    def seen(self) -> int:
        """Returns the number of the change up to which everything is there, -1 for none.

        Raises:
            DatabaseError: If it is another database's.
        """
        with self._errors():
            found = self._client.get(
                self._collection, [STATE], ["number", "owner"], consistency_level="Strong"
            )
        if not found or found[0]["owner"] != self._owner:
            raise DatabaseError(
                f"{self.name}: holds the speakers of another voice database; name another database "
                "of Milvus, or overwrite it with manage_voices.py index --replace"
            )
        return int(found[0]["number"])

    def drop(self) -> None:
        """Removes the collection."""
        with self._errors():
            self._client.drop_collection(self._collection)

    def put(self, rows: Sequence[tuple[str, str, FloatArray]]) -> None:
        """Adds or replaces speakers.

        Args:
            rows: `(id, group, embedding)`.
        """
        if rows:
            self._upsert([_row(key, group_number(group), vector) for key, group, vector in rows])

    def remove(self, ids: Sequence[str]) -> None:
        """Removes speakers, also from the collections of other models; some may not be there."""
        if not ids:
            return
        with self._errors():
            for name in self._client.list_collections():
                if name.startswith(PREFIX):
                    for start in range(0, len(ids), IDS_AT_ONCE):
                        self._client.delete(name, ids=list(ids[start : start + IDS_AT_ONCE]))

    def note(self, number: int) -> None:
        """Notes up to which change everything is there."""
        state = _row(STATE, STATE_GROUP, np.eye(1, self._size, dtype=np.float32)[0])
        self._upsert([state | {"number": number, "owner": self._owner}])

    def nearest(self, group: str, embeddings: Sequence[FloatArray], top_k: int) -> list[list[str]]:
        """Returns the ids of the speakers of a group who are most alike, the best first.

        Args:
            group: Its name.
            embeddings: One for each question, shape `(embedding_size,)`.
            top_k: How many for each question, at most.
        """
        with self._errors():
            found = self._client.search(
                self._collection,
                data=[embedding.tolist() for embedding in embeddings],
                filter=f"group_number == {group_number(group)}",
                limit=top_k,
                search_params={
                    "metric_type": "COSINE",
                    "params": {key: max(value, top_k) for key, value in SEARCH.items()},
                },
                consistency_level="Bounded",
            )
        return [[str(hit["id"]) for hit in hits] for hits in found]

    def finish(self) -> None:
        """Builds the graph now, after many were sent; else Milvus does when nothing comes."""
        with self._errors():
            self._client.flush(self._collection)
            while self._num_pending():
                time.sleep(BUILD_POLL_S)
        self._wait_for_graph()

    def build(self, index: Mapping[str, Any]) -> None:
        """Puts another kind of index in the place of the one that is there."""
        params = self._client.prepare_index_params()
        params.add_index("embedding", **index)
        with self._errors():
            self._client.release_collection(self._collection)
            self._client.drop_index(self._collection, "embedding")
            self._client.create_index(self._collection, params)
            while self._num_pending():
                time.sleep(BUILD_POLL_S)
            self._client.load_collection(self._collection)
        self._wait_for_graph()

    def ids(self) -> Iterator[str]:
        """Yields the ids of all speakers, as they were a moment ago."""
        # Of servers that don't tell the moment: nothing depends on it.
        logging.getLogger("pymilvus.client.iterator").setLevel(logging.ERROR)
        with self._errors():
            found = self._client.query_iterator(
                self._collection,
                batch_size=IDS_AT_ONCE,
                filter=f"group_number != {STATE_GROUP}",
                output_fields=["id"],
                consistency_level="Strong",
            )
            try:
                while some := found.next():
                    yield from (str(each["id"]) for each in some)
            finally:
                found.close()

    def close(self) -> None:
        """Lets the connection go."""
        self._client.close()

    def _make(self) -> None:
        """Makes the collection, of nobody yet."""
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, max_length=32, is_primary=True)
        schema.add_field("group_number", DataType.INT64)
        schema.add_field("number", DataType.INT64)
        schema.add_field("owner", DataType.VARCHAR, max_length=32)
        schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=self._size)
        params = self._client.prepare_index_params()
        params.add_index("embedding", **INDEX)
        self._client.create_collection(
            self._collection, schema=schema, index_params=params, consistency_level="Bounded"
        )
        self.note(-1)

    def _num_pending(self) -> int:
        """Returns how many rows are not in the graph yet."""
        found = self._client.describe_index(self._collection, "embedding")
        return int(found.get("total_rows") or 0) - int(found.get("indexed_rows") or 0)

    def _wait_for_graph(self) -> None:
        """Waits until searches use the graph, a dozen seconds after it is built.

        Before, they use the rough index that Milvus keeps of what came lately: it misses the best
        match in a quarter of the questions.
        """
        give_up = time.monotonic() + LOAD_S
        while time.monotonic() < give_up:
            try:
                loaded = self._client.list_loaded_segments(self._collection)
            except (MilvusException, grpc.RpcError):
                return  # milvus-lite has no such state
            if all(each.index_name for each in loaded if each.num_rows >= SMALL_SEGMENT):
                return
            time.sleep(BUILD_POLL_S)

    def _upsert(self, rows: list[dict[str, Any]]) -> None:
        with self._errors():
            self._client.upsert(self._collection, rows)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turns Milvus's errors into one line."""
        try:
            yield
        except MilvusException as error:
            raise DatabaseError(f"{self.name}: Milvus: {_reason(error)}") from None


def group_number(group: str) -> int:
    """Returns the number that stands for a group, so that its name stays in the database."""
    digest = hashlib.sha256(group.encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True) or 1


def _row(key: str, group: int, embedding: FloatArray) -> dict[str, Any]:
    """Returns a row of the collection."""
    return {
        "id": key,
        "group_number": group,
        "number": 0,
        "owner": "",
        "embedding": np.asarray(embedding, np.float32).tolist(),
    }


def _reason(error: Exception) -> str:
    """Returns what Milvus says, in one line."""
    return " ".join(str(getattr(error, "message", "") or error).split())[:200]
