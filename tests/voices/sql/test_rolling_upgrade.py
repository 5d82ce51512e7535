"""A replica of version 2.2 goes on beside one of this version, on one PostgreSQL.

`Before` runs the statements of that version, word for word; contents are sealed as it did.
"""

import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from tests.support.fake_encoder import FakeEncoder
from tests.support.voice_databases import new, vector
from voices.sql.cipher import KeyRing, seal, unseal
from voices.sql.engine import SqlConnections, migrate
from voices.sql.rows import from_bytes, to_bytes
from voices.sql.store import SqlVoiceStore

pytestmark = pytest.mark.slow

MODEL = "fake"


class Before:
    """A replica of version 2.2: what it asked of the database when enrolling, reading, removing."""

    def __init__(self, url: str) -> None:
        self._connections = SqlConnections(url, migrate=False)
        self._ring = KeyRing(None)

    def open(self) -> None:
        """The first start: notes model and size."""
        with self._connections.write() as connection:
            connection.execute(
                text("UPDATE voiceprint_info SET key_check = :key_check, model_id = :model_id"),
                {"key_check": self._ring.check_text(), "model_id": MODEL},
            )
            connection.execute(text("UPDATE voiceprint_info SET embedding_size = 64"))

    def enrol(self, name: str, seed: int) -> None:
        """Enrols a speaker with a recording, or puts another recording in its place."""
        with self._connections.write() as connection:
            number = self._next(connection)
            found = connection.execute(
                text("SELECT id FROM voiceprint_speakers WHERE folded_name = :name"),
                {"name": name.lower()},
            ).one_or_none()
            speaker_id = uuid.uuid4().hex if found is None else found.id
            if found is None:
                key_id, _ = self._new_key(connection)
                connection.execute(
                    text(
                        "INSERT INTO voiceprint_speakers (id, name, folded_name, created_at, "
                        "updated_at, key_id, change_number) "
                        "VALUES (:id, :name, :folded_name, 0, 0, :key_id, 0)"
                    ),
                    {"id": speaker_id, "name": name, "folded_name": name.lower(), "key_id": key_id},
                )
            else:
                self._remove_recordings(connection, speaker_id)
            key_id, key = self._new_key(connection)
            recording_id = uuid.uuid4().hex
            connection.execute(
                text(
                    "INSERT INTO voiceprint_recordings (id, speaker_id, position, created_at, "
                    "speech_s, duration_s, file_name, model_id, key_id, embedding) VALUES (:id, "
                    ":speaker_id, 0, 0, 1.5, 2.0, '', :model_id, :key_id, :embedding)"
                ),
                {
                    "id": recording_id, "speaker_id": speaker_id, "model_id": MODEL,
                    "key_id": key_id,
                    "embedding": seal(key, to_bytes(vector(seed)), f"{recording_id} embedding"),
                },
            )  # fmt: skip
            key, stored = self._ring.new()
            connection.execute(
                text(
                    "UPDATE voiceprint_keys SET stored = :stored WHERE id = (SELECT key_id FROM "
                    "voiceprint_speakers WHERE id = :id)"
                ),
                {"stored": stored, "id": speaker_id},
            )
            connection.execute(
                text(
                    "UPDATE voiceprint_speakers SET embedding = :embedding, model_id = :model_id, "
                    "updated_at = 0, change_number = :number WHERE id = :id"
                ),
                {
                    "embedding": seal(key, to_bytes(vector(seed)), f"{speaker_id} embedding"),
                    "model_id": MODEL, "number": number, "id": speaker_id,
                },
            )  # fmt: skip
            connection.execute(
                text(
                    "INSERT INTO voiceprint_vectors (speaker_id, model_id, embedding) VALUES (:id, "
                    ":model_id, CAST(:vector AS vector)) ON CONFLICT (speaker_id) DO UPDATE SET "
                    "model_id = :model_id, embedding = CAST(:vector AS vector)"
                ),
                {"id": speaker_id, "model_id": MODEL, "vector": str(vector(seed).tolist())},
            )

    def remove(self, name: str) -> None:
        with self._connections.write() as connection:
            number = self._next(connection)
            speaker = connection.execute(
                text("SELECT id, key_id FROM voiceprint_speakers WHERE folded_name = :name"),
                {"name": name.lower()},
            ).one()
            self._remove_recordings(connection, speaker.id)
            self._destroy(connection, speaker.key_id)
            for statement in (
                "DELETE FROM voiceprint_vectors WHERE speaker_id = :id",
                "DELETE FROM voiceprint_speakers WHERE id = :id",
            ):
                connection.execute(text(statement), {"id": speaker.id})
            connection.execute(
                text(
                    "INSERT INTO voiceprint_removals (change_number, speaker_id) "
                    "VALUES (:number, :id)"
                ),
                {"number": number, "id": speaker.id},
            )

    def speakers(self) -> dict[str, np.ndarray]:
        """Reads all speakers as its memory does."""
        query = (
            "SELECT s.id, s.name, s.model_id, s.embedding, k.stored FROM voiceprint_speakers s "
            "JOIN voiceprint_keys k ON k.id = s.key_id WHERE s.change_number > -1"
        )
        return {
            row.name: from_bytes(
                unseal(self._ring.open(row.stored), row.embedding, f"{row.id} embedding")
            )
            for row in self._connections.fetch(text(query))
            if row.model_id == MODEL
        }

    def recordings(self) -> list[np.ndarray]:
        """Reads the embeddings of all recordings, as before it computes a mean again."""
        query = (
            "SELECT r.id, r.embedding, k.stored FROM voiceprint_recordings r "
            "JOIN voiceprint_keys k ON k.id = r.key_id WHERE r.model_id = 'fake'"
        )
        return [
            from_bytes(unseal(self._ring.open(row.stored), row.embedding, f"{row.id} embedding"))
            for row in self._connections.fetch(text(query))
        ]

    def vectors(self) -> int:
        query = text("SELECT speaker_id FROM voiceprint_vectors WHERE model_id = 'fake'")
        return len(self._connections.fetch(query))

    def embedding_size(self) -> int:
        return int(self._connections.ask("SELECT embedding_size FROM voiceprint_info"))

    def close(self) -> None:
        self._connections.close()

    def _next(self, connection: Any) -> int:
        counted = "UPDATE voiceprint_info SET change_number = change_number + 1"
        return int(connection.execute(text(f"{counted} RETURNING change_number")).scalar_one())

    def _new_key(self, connection: Any) -> tuple[int, bytes]:
        key, stored = self._ring.new()
        statement = text("INSERT INTO voiceprint_keys (stored) VALUES (:stored) RETURNING id")
        return int(connection.execute(statement, {"stored": stored}).scalar_one()), key

    def _remove_recordings(self, connection: Any, speaker_id: str) -> None:
        owner = {"id": speaker_id}
        ids = text("SELECT key_id FROM voiceprint_recordings WHERE speaker_id = :id")
        for key_id in connection.execute(ids, owner).scalars():
            self._destroy(connection, key_id)
        connection.execute(text("DELETE FROM voiceprint_recordings WHERE speaker_id = :id"), owner)

    def _destroy(self, connection: Any, key_id: int) -> None:
        zeros = text("UPDATE voiceprint_keys SET stored = :zeros WHERE id = :id")
        connection.execute(zeros, {"zeros": bytes(32), "id": key_id})


@pytest.fixture
def both(postgres_url: str) -> Iterator[tuple[Before, SqlVoiceStore]]:
    """A replica of before with a speaker enrolled, beside which one of this version has started."""
    connections = SqlConnections(postgres_url)
    with connections.migrating() as connection:
        migrate(connection, "0002")
    connections.close()
    before = Before(postgres_url)
    before.open()
    before.enrol("Ann", 0)
    now = SqlVoiceStore(postgres_url, FakeEncoder(MODEL))
    yield before, now
    before.close()
    now.close()


def best(store: SqlVoiceStore, seed: int) -> str:
    """Who speaks, as far as a comparison of equal voices says; "" for nobody."""
    found = store.identify(vector(seed))
    return found[0][0] if found and found[0][1] > 0.999 else ""


def test_each_sees_what_the_other_does(both: tuple[Before, SqlVoiceStore]) -> None:
    before, now = both
    assert best(now, 0) == "Ann"
    before.enrol("Ben", 1)
    assert best(now, 1) == "Ben"
    assert len(now.speaker("Ben").recordings) == 1
    now.enrol("Cleo", [new(2)])
    np.testing.assert_array_equal(before.speakers()["Cleo"], vector(2))
    assert len(before.recordings()) == 3
    assert before.embedding_size() == 64

    # Each changes whom the other enrolled.
    before.enrol("Cleo", 3)
    assert (best(now, 2), best(now, 3)) == ("", "Cleo")
    now.enrol("Ben", [new(4)], if_exists="replace")
    np.testing.assert_allclose(before.speakers()["Ben"], vector(4), atol=1e-6)
    now.enrol("Ben", [new(5)], if_exists="add")
    mean = vector(4) + vector(5)
    np.testing.assert_allclose(before.speakers()["Ben"], mean / np.linalg.norm(mean), atol=1e-6)
    assert before.vectors() == 3

    # Each removes.
    before.remove("Ann")
    now.remove("Cleo")
    assert set(before.speakers()) == {"Ben"} == set(now.names())
    assert (best(now, 0), best(now, 3)) == ("", "")
    assert before.vectors() == 1
    assert now._connections.ask("SELECT count(*) FROM voiceprint_model_vectors") == 1
    assert now._connections.ask("SELECT count(*) FROM voiceprint_embeddings") == 2
    assert now._connections.ask("SELECT count(*) FROM voiceprint_means") == 1


def test_another_models_embeddings_are_not_shown_to_it(
    both: tuple[Before, SqlVoiceStore], postgres_url: str
) -> None:
    before, now = both
    row = now._connections.fetch(
        text(
            "SELECT r.id, k.stored FROM voiceprint_recordings r "
            "JOIN voiceprint_keys k ON k.id = r.key_id"
        )
    )[0]
    with now._connections.write() as connection:
        content = seal(KeyRing(None).open(row.stored), to_bytes(vector(9)), f"{row.id} embedding")
        connection.execute(
            text("INSERT INTO voiceprint_embeddings VALUES (:id, 'other', :content)"),
            {"id": row.id, "content": content},
        )
    np.testing.assert_array_equal(before.recordings()[0], vector(0))
    assert set(before.speakers()) == {"Ann"}


def test_the_way_back(both: tuple[Before, SqlVoiceStore]) -> None:
    before, now = both
    now.enrol("Cleo", [new(2)])
    before.enrol("Ben", 1)
    with now._connections.migrating() as connection:
        migrate(connection, "0002")
    assert set(before.speakers()) == {"Ann", "Ben", "Cleo"}
    before.enrol("Dan", 3)
    assert len(before.recordings()) == 4
