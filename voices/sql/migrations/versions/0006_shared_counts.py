"""Requests and failed attempts, counted for all processes on one PostgreSQL."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Adds the tables, on PostgreSQL only: SQLite is one machine's, and counts in memory."""
    if op.get_bind().dialect.name == "sqlite":
        return
    op.create_table(
        "voiceprint_rates",
        sa.Column("key", sa.LargeBinary, primary_key=True),
        sa.Column("units", sa.Float(53), nullable=False),
        sa.Column("is_allowed", sa.Boolean, nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=False),
        comment="How many requests each token may still make, counted for all processes",
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "voiceprint_attempts",
        sa.Column("key", sa.LargeBinary, primary_key=True),
        sa.Column("times", sa.ARRAY(sa.Float(53)), nullable=False),
        sa.Column("is_locked", sa.Boolean, nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=False),
        comment="When verifications failed lately, counted for all processes",
        prefixes=["UNLOGGED"],
    )


def downgrade() -> None:
    """Forgets the counts."""
    if op.get_bind().dialect.name == "sqlite":
        return
    op.drop_table("voiceprint_attempts")
    op.drop_table("voiceprint_rates")
