"""Recordings of several people that the service works on."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Adds the table of the jobs."""
    op.create_table(
        "voiceprint_jobs",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("group_name", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("worker", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("progress", sa.Float(53), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("key_id", BIG_ID, sa.ForeignKey("voiceprint_keys.id")),
        sa.Column("result", sa.LargeBinary),
        sa.Column("voices", sa.LargeBinary),
        comment="Recordings of several people that the service works on, and what it found, for a "
        "time",
    )
    op.create_index("voiceprint_jobs_actor", "voiceprint_jobs", ["group_name", "actor"])


def downgrade() -> None:
    """Forgets the jobs and destroys their keys."""
    op.execute(
        "UPDATE voiceprint_keys SET stored = zeroblob(length(stored)) WHERE id IN "
        "(SELECT key_id FROM voiceprint_jobs)"
        if op.get_bind().dialect.name == "sqlite"
        else "UPDATE voiceprint_keys SET stored = decode(repeat('00', length(stored)), 'hex') "
        "WHERE id IN (SELECT key_id FROM voiceprint_jobs)"
    )
    op.drop_table("voiceprint_jobs")
