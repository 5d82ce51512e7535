"""Embeddings of several models beside each other: a change of model loses none.

On PostgreSQL replicas of version 2.2 go on meanwhile. What they read and write stays, and triggers
carry each change of the model in use over from the old form to the new one and back; the release
after this one removes both. SQLite is one machine's, whose service is stopped: there the old form
goes.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import VECTOR

revision = "0005"
down_revision = "0004"

MODEL = "(SELECT coalesce(model_id, '') FROM voiceprint_info)"

PREFIX = "voiceprint_between"
"""What the names of triggers and their functions begin with."""

FROM_BEFORE = {
    "size": (
        "UPDATE OF embedding_size ON voiceprint_info",
        "NEW.embedding_size IS NOT NULL",
        "INSERT INTO voiceprint_models (id, embedding_size) "
        "VALUES (coalesce(NEW.model_id, ''), NEW.embedding_size) ON CONFLICT DO NOTHING;",
    ),
    "recording": (
        "INSERT OR UPDATE OF model_id, embedding ON voiceprint_recordings",
        "NEW.embedding <> ''",
        "INSERT INTO voiceprint_embeddings (recording_id, model_id, embedding) "
        "VALUES (NEW.id, NEW.model_id, NEW.embedding) "
        "ON CONFLICT (recording_id, model_id) DO UPDATE SET embedding = EXCLUDED.embedding;",
    ),
    # It gives a speaker another key with each mean: what other models said can't be opened.
    "speaker": (
        "UPDATE OF model_id, embedding ON voiceprint_speakers",
        "NEW.embedding IS DISTINCT FROM OLD.embedding",
        "DELETE FROM voiceprint_means WHERE speaker_id = NEW.id "
        "AND (NEW.embedding IS NOT NULL OR model_id = OLD.model_id);"
        "IF NEW.embedding IS NOT NULL THEN "
        "INSERT INTO voiceprint_means (speaker_id, model_id, embedding) "
        "VALUES (NEW.id, NEW.model_id, NEW.embedding); END IF;",
    ),
    "vector": (
        "INSERT OR UPDATE ON voiceprint_vectors",
        "",
        "INSERT INTO voiceprint_model_vectors (speaker_id, model_id, embedding) "
        "VALUES (NEW.speaker_id, NEW.model_id, NEW.embedding) "
        "ON CONFLICT (speaker_id, model_id) DO UPDATE SET embedding = EXCLUDED.embedding;",
    ),
    "vector_gone": (
        "DELETE ON voiceprint_vectors",
        "",
        "DELETE FROM voiceprint_model_vectors "
        "WHERE speaker_id = OLD.speaker_id AND model_id = OLD.model_id;",
    ),
}
"""What version 2.2 writes: event, condition and statements of each trigger.

None is fired by another one's work.
"""

TO_BEFORE = {
    "model": (
        "INSERT ON voiceprint_models",
        "",
        "UPDATE voiceprint_info SET embedding_size = NEW.embedding_size "
        "WHERE coalesce(model_id, '') = NEW.id;",
    ),
    "embedding": (
        "INSERT OR UPDATE ON voiceprint_embeddings",
        "",
        "UPDATE voiceprint_recordings SET model_id = NEW.model_id, embedding = NEW.embedding "
        f"WHERE id = NEW.recording_id AND NEW.model_id = {MODEL};",
    ),
    "mean": (
        "INSERT OR UPDATE ON voiceprint_means",
        "",
        "UPDATE voiceprint_speakers SET model_id = NEW.model_id, embedding = NEW.embedding "
        f"WHERE id = NEW.speaker_id AND NEW.model_id = {MODEL};",
    ),
    "mean_gone": (
        "DELETE ON voiceprint_means",
        "",
        "UPDATE voiceprint_speakers SET model_id = NULL, embedding = NULL "
        "WHERE id = OLD.speaker_id AND model_id = OLD.model_id;",
    ),
    "model_vector": (
        "INSERT OR UPDATE ON voiceprint_model_vectors",
        "",
        "INSERT INTO voiceprint_vectors (speaker_id, model_id, embedding) "
        "SELECT NEW.speaker_id, NEW.model_id, NEW.embedding "
        f"WHERE NEW.model_id = {MODEL} ON CONFLICT (speaker_id) "
        "DO UPDATE SET model_id = EXCLUDED.model_id, embedding = EXCLUDED.embedding;",
    ),
    "model_vector_gone": (
        "DELETE ON voiceprint_model_vectors",
        "",
        "DELETE FROM voiceprint_vectors "
        "WHERE speaker_id = OLD.speaker_id AND model_id = OLD.model_id;",
    ),
}
"""What it reads."""


def upgrade() -> None:
    """Copies the embeddings into tables by recording or speaker, and model."""
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    op.create_table(
        "voiceprint_models",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("embedding_size", sa.Integer, nullable=False),
        comment="Models whose embeddings the database may hold",
    )
    op.create_table(
        "voiceprint_embeddings",
        _owner("recording"),
        sa.Column("model_id", sa.String(64), primary_key=True),
        sa.Column("embedding", sa.LargeBinary, nullable=False),
        comment="The embeddings of the recordings, by each model",
    )
    op.create_table(
        "voiceprint_means",
        _owner("speaker"),
        sa.Column("model_id", sa.String(64), primary_key=True),
        sa.Column("embedding", sa.LargeBinary, nullable=False),
        comment="The normalised mean of a speaker's embeddings, by each model",
    )
    if not is_sqlite:
        op.create_table(
            "voiceprint_model_vectors",
            _owner("speaker"),
            sa.Column("model_id", sa.String(64), primary_key=True),
            sa.Column("embedding", VECTOR(), nullable=False),
            comment="The speakers' embeddings for the vector index; empty in an encrypted database",
        )
        # Before the copies: whoever writes waits from here on, and is carried over afterwards.
        for name in FROM_BEFORE:
            _carry_over(name, *FROM_BEFORE[name])
    op.execute(
        "INSERT INTO voiceprint_models (id, embedding_size) SELECT used.model_id, "
        "info.embedding_size FROM (SELECT coalesce(model_id, '') AS model_id FROM voiceprint_info "
        "UNION SELECT model_id FROM voiceprint_recordings) used, voiceprint_info info "
        "WHERE info.embedding_size IS NOT NULL"
    )
    op.execute(
        "INSERT INTO voiceprint_embeddings (recording_id, model_id, embedding) "
        "SELECT id, model_id, embedding FROM voiceprint_recordings"
    )
    op.execute(
        "INSERT INTO voiceprint_means (speaker_id, model_id, embedding) "
        "SELECT id, model_id, embedding FROM voiceprint_speakers "
        "WHERE model_id IS NOT NULL AND embedding IS NOT NULL"
    )
    if is_sqlite:
        op.drop_index("voiceprint_recordings_model", "voiceprint_recordings")
        for table, column in _moved():
            op.drop_column(table, column.name)
        return
    op.execute(
        "INSERT INTO voiceprint_model_vectors (speaker_id, model_id, embedding) "
        "SELECT speaker_id, model_id, embedding FROM voiceprint_vectors"
    )
    for name in TO_BEFORE:
        _carry_over(name, *TO_BEFORE[name])
    for column_name in ("model_id", "embedding"):
        op.alter_column("voiceprint_recordings", column_name, server_default="")
    op.execute("COMMENT ON TABLE voiceprint_speakers IS 'Who is enrolled'")


def downgrade() -> None:
    """Puts back the embeddings of the model in use; recordings without one are lost."""
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    for name, (event, _, _) in {} if is_sqlite else (FROM_BEFORE | TO_BEFORE).items():
        op.execute(f"DROP TRIGGER {PREFIX}_{name} ON {event.split()[-1]}")
        op.execute(f"DROP FUNCTION {PREFIX}_{name}()")
    op.execute(
        "DELETE FROM voiceprint_recordings WHERE NOT EXISTS (SELECT 1 FROM voiceprint_embeddings e "
        f"WHERE e.recording_id = voiceprint_recordings.id AND e.model_id = {MODEL})"
    )
    if is_sqlite:
        for table, column in _moved():
            op.add_column(table, column)
        op.create_index("voiceprint_recordings_model", "voiceprint_recordings", ["model_id"])
    op.execute(
        f"UPDATE voiceprint_info SET embedding_size = (SELECT embedding_size FROM "
        f"voiceprint_models WHERE id = {MODEL})"
    )
    for table, source, owner in (
        ("voiceprint_recordings", "voiceprint_embeddings", "recording_id"),
        ("voiceprint_speakers", "voiceprint_means", "speaker_id"),
    ):
        found = f"FROM {source} e WHERE e.{owner} = {table}.id AND e.model_id = {MODEL}"
        op.execute(
            f"UPDATE {table} SET embedding = (SELECT e.embedding {found}), model_id = {MODEL} "
            f"WHERE EXISTS (SELECT 1 {found})"
        )
    op.drop_table("voiceprint_means")
    op.drop_table("voiceprint_embeddings")
    op.drop_table("voiceprint_models")
    if is_sqlite:
        return
    op.drop_table("voiceprint_model_vectors")
    for column_name in ("model_id", "embedding"):
        op.alter_column("voiceprint_recordings", column_name, server_default=None)
    op.execute(
        "COMMENT ON TABLE voiceprint_speakers IS "
        "'Who is enrolled, with the normalised mean of the recordings'' embeddings'"
    )


def _carry_over(name: str, event: str, condition: str, statements: str) -> None:
    """Makes a trigger of PostgreSQL and its function."""
    op.execute(
        f"CREATE OR REPLACE FUNCTION {PREFIX}_{name}() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN {statements} RETURN NULL; END $$"
    )
    condition = " AND ".join(filter(None, ("pg_trigger_depth() = 0", condition)))
    op.execute(
        f"CREATE TRIGGER {PREFIX}_{name} AFTER {event} FOR EACH ROW WHEN ({condition}) "
        f"EXECUTE FUNCTION {PREFIX}_{name}()"
    )


def _owner(kind: str) -> "sa.Column[str]":
    """Returns the column that says whose embedding it is."""
    there = sa.ForeignKey(f"voiceprint_{kind}s.id", ondelete="CASCADE")
    return sa.Column(f"{kind}_id", sa.String(32), there, primary_key=True)


def _moved() -> list[tuple[str, "sa.Column[Any]"]]:
    """Returns the columns that go from SQLite, each with its table."""
    return [
        ("voiceprint_info", sa.Column("embedding_size", sa.Integer)),
        ("voiceprint_speakers", sa.Column("model_id", sa.String(64))),
        ("voiceprint_speakers", sa.Column("embedding", sa.LargeBinary)),
        (
            "voiceprint_recordings",
            sa.Column("model_id", sa.String(64), nullable=False, server_default=""),
        ),
        (
            "voiceprint_recordings",
            sa.Column("embedding", sa.LargeBinary, nullable=False, server_default=""),
        ),
    ]
