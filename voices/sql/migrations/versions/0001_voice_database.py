"""The tables of the first version."""

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import VECTOR

revision = "0001"
down_revision = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
SORTED_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

SQLITE_GUARD = """
CREATE TRIGGER voiceprint_audit_{event} BEFORE {event} ON voiceprint_audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END
"""

POSTGRESQL_GUARD = """
CREATE FUNCTION voiceprint_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$;
CREATE TRIGGER voiceprint_audit_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON voiceprint_audit
FOR EACH STATEMENT EXECUTE FUNCTION voiceprint_refuse();
"""


def upgrade() -> None:
    """Makes the tables, and the guards of the audit log."""
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    op.create_table(
        "voiceprint_info",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("model_id", sa.String(64)),
        sa.Column("embedding_size", sa.Integer),
        sa.Column("key_check", sa.LargeBinary),
        sa.Column("change_number", sa.BigInteger, nullable=False),
        comment="One row about the whole database",
    )
    op.create_table(
        "voiceprint_keys",
        sa.Column("id", BIG_ID, primary_key=True, autoincrement=True),
        sa.Column("stored", sa.LargeBinary, nullable=False),
        comment="Keys of the voice records; zeros where the record was removed",
        sqlite_autoincrement=True,
    )
    op.create_table(
        "voiceprint_speakers",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("name", SORTED_TEXT, nullable=False),
        sa.Column("folded_name", SORTED_TEXT, nullable=False, unique=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("model_id", sa.String(64)),
        sa.Column("key_id", BIG_ID, sa.ForeignKey("voiceprint_keys.id"), nullable=False),
        sa.Column("embedding", sa.LargeBinary),
        sa.Column("change_number", sa.BigInteger, nullable=False),
        comment="Who is enrolled, with the normalised mean of the recordings' embeddings",
    )
    op.create_index("voiceprint_speakers_name", "voiceprint_speakers", ["name"])
    op.create_index("voiceprint_speakers_change", "voiceprint_speakers", ["change_number"])
    op.create_table(
        "voiceprint_recordings",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column(
            "speaker_id",
            sa.String(32),
            sa.ForeignKey("voiceprint_speakers.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("speech_s", sa.Float(53), nullable=False),
        sa.Column("duration_s", sa.Float(53), nullable=False),
        sa.Column("file_name", sa.Text, nullable=False),
        sa.Column("model_id", sa.String(64), nullable=False),
        sa.Column("key_id", BIG_ID, sa.ForeignKey("voiceprint_keys.id"), nullable=False),
        sa.Column("embedding", sa.LargeBinary, nullable=False),
        comment="The recordings of the speakers",
    )
    op.create_index("voiceprint_recordings_speaker", "voiceprint_recordings", ["speaker_id"])
    op.create_index("voiceprint_recordings_model", "voiceprint_recordings", ["model_id"])
    op.create_table(
        "voiceprint_audio",
        sa.Column(
            "recording_id",
            sa.String(32),
            sa.ForeignKey("voiceprint_recordings.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("content", sa.LargeBinary, nullable=False),
        comment="The sound of recordings, where it is kept",
    )
    op.create_table(
        "voiceprint_removals",
        sa.Column("change_number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("speaker_id", sa.String(32), nullable=False),
        comment="Ids that went lately, so that other processes forget them too",
    )
    op.create_table(
        "voiceprint_audit",
        sa.Column("id", BIG_ID, primary_key=True, autoincrement=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("speaker", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("score", sa.Float(53)),
        comment="Who did what and when; triggers refuse to change or remove a row",
        sqlite_autoincrement=True,
    )
    if is_sqlite:
        for event in ("UPDATE", "DELETE"):
            op.execute(SQLITE_GUARD.format(event=event))
    else:
        op.execute(POSTGRESQL_GUARD)
        op.execute("CREATE EXTENSION IF NOT EXISTS vector")
        op.create_table(
            "voiceprint_vectors",
            sa.Column(
                "speaker_id",
                sa.String(32),
                sa.ForeignKey("voiceprint_speakers.id", ondelete="CASCADE"),
                primary_key=True,
            ),
            sa.Column("model_id", sa.String(64), nullable=False),
            sa.Column("embedding", VECTOR(), nullable=False),
            comment="The speakers' embeddings for the vector index; empty in an encrypted database",
        )
    op.execute("INSERT INTO voiceprint_info (id, change_number) VALUES (1, 0)")


def downgrade() -> None:
    """Removes all tables, with everything that is in them."""
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    if not is_sqlite:
        op.drop_table("voiceprint_vectors")
    for name in ("audit", "removals", "audio", "recordings", "speakers", "keys", "info"):
        op.drop_table(f"voiceprint_{name}")
    if not is_sqlite:
        op.execute("DROP FUNCTION voiceprint_refuse()")
