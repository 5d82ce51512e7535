"""Enrolments that are under way, recording by recording."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Adds their tables."""
    op.create_table(
        "voiceprint_enrolments",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("group_name", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("key_id", BIG_ID, sa.ForeignKey("voiceprint_keys.id"), nullable=False),
        sa.Column("wish", sa.LargeBinary, nullable=False),
        comment="Enrolments that are under way",
    )
    op.create_index("voiceprint_enrolments_actor", "voiceprint_enrolments", ["group_name", "actor"])
    there = sa.ForeignKey("voiceprint_enrolments.id", ondelete="CASCADE")
    op.create_table(
        "voiceprint_parts",
        sa.Column("enrolment_id", sa.String(32), there, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        comment="The recordings of enrolments that are under way",
    )


def downgrade() -> None:
    """Forgets them and destroys their keys."""
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    zeros = "zeroblob(length(stored))"
    if not is_sqlite:
        zeros = "decode(repeat('00', length(stored)), 'hex')"
    op.execute(
        f"UPDATE voiceprint_keys SET stored = {zeros} WHERE id IN "
        "(SELECT key_id FROM voiceprint_enrolments)"
    )
    op.drop_table("voiceprint_parts")
    op.drop_table("voiceprint_enrolments")
