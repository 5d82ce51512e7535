"""Embeddings of several models beside each other: a change of model loses none."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Moves the embeddings into tables by recording or speaker, and model."""
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    op.create_table(
        "voiceprint_models",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("embedding_size", sa.Integer, nullable=False),
        comment="Models whose embeddings the database may hold",
    )
    op.execute(
        "INSERT INTO voiceprint_models (id, embedding_size) SELECT used.model_id, "
        "info.embedding_size FROM (SELECT coalesce(model_id, '') AS model_id FROM voiceprint_info "
        "UNION SELECT model_id FROM voiceprint_recordings) used, voiceprint_info info "
        "WHERE info.embedding_size IS NOT NULL"
    )
    op.create_table(
        "voiceprint_embeddings",
        _owner("recording"),
        sa.Column("model_id", sa.String(64), primary_key=True),
        sa.Column("embedding", sa.LargeBinary, nullable=False),
        comment="The embeddings of the recordings, by each model",
    )
    op.execute(
        "INSERT INTO voiceprint_embeddings (recording_id, model_id, embedding) "
        "SELECT id, model_id, embedding FROM voiceprint_recordings"
    )
    op.create_table(
        "voiceprint_means",
        _owner("speaker"),
        sa.Column("model_id", sa.String(64), primary_key=True),
        sa.Column("embedding", sa.LargeBinary, nullable=False),
        comment="The normalised mean of a speaker's embeddings, by each model",
    )
    op.execute(
        "INSERT INTO voiceprint_means (speaker_id, model_id, embedding) "
        "SELECT id, model_id, embedding FROM voiceprint_speakers "
        "WHERE model_id IS NOT NULL AND embedding IS NOT NULL"
    )
    op.drop_index("voiceprint_recordings_model", "voiceprint_recordings")
    for table, column in _moved():
        op.drop_column(table, column.name)
    if not is_sqlite:
        op.execute("COMMENT ON TABLE voiceprint_speakers IS 'Who is enrolled'")
        # An index over vectors of one length would refuse those of other models.
        op.execute("DROP INDEX IF EXISTS voiceprint_vectors_hnsw")
        op.drop_constraint("voiceprint_vectors_pkey", "voiceprint_vectors", type_="primary")
        op.create_primary_key(
            "voiceprint_vectors_pkey", "voiceprint_vectors", ["speaker_id", "model_id"]
        )


def downgrade() -> None:
    """Puts back the embeddings of the model in use; recordings without one are lost."""
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    model = "(SELECT coalesce(model_id, '') FROM voiceprint_info)"
    op.execute(
        "DELETE FROM voiceprint_recordings WHERE NOT EXISTS (SELECT 1 FROM voiceprint_embeddings e "
        f"WHERE e.recording_id = voiceprint_recordings.id AND e.model_id = {model})"
    )
    for table, column in _moved():
        op.add_column(table, column)
    op.execute(
        f"UPDATE voiceprint_info SET embedding_size = (SELECT embedding_size FROM "
        f"voiceprint_models WHERE id = {model})"
    )
    for table, source, owner in (
        ("voiceprint_recordings", "voiceprint_embeddings", "recording_id"),
        ("voiceprint_speakers", "voiceprint_means", "speaker_id"),
    ):
        found = f"FROM {source} e WHERE e.{owner} = {table}.id AND e.model_id = {model}"
        op.execute(
            f"UPDATE {table} SET embedding = (SELECT e.embedding {found}), model_id = {model} "
            f"WHERE EXISTS (SELECT 1 {found})"
        )
    op.create_index("voiceprint_recordings_model", "voiceprint_recordings", ["model_id"])
    op.drop_table("voiceprint_means")
    op.drop_table("voiceprint_embeddings")
    op.drop_table("voiceprint_models")
    if not is_sqlite:
        op.execute(
            "COMMENT ON TABLE voiceprint_speakers IS "
            "'Who is enrolled, with the normalised mean of the recordings'' embeddings'"
        )
        op.execute(
            "DELETE FROM voiceprint_vectors v USING voiceprint_info i "
            "WHERE v.model_id <> coalesce(i.model_id, '')"
        )
        op.drop_constraint("voiceprint_vectors_pkey", "voiceprint_vectors", type_="primary")
        op.create_primary_key("voiceprint_vectors_pkey", "voiceprint_vectors", ["speaker_id"])


def _owner(kind: str) -> "sa.Column[str]":
    """Returns the column that says whose embedding it is."""
    there = sa.ForeignKey(f"voiceprint_{kind}s.id", ondelete="CASCADE")
    return sa.Column(f"{kind}_id", sa.String(32), there, primary_key=True)


def _moved() -> list[tuple[str, "sa.Column[Any]"]]:
    """Returns the columns that go, each with its table."""
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
