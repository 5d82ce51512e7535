"""Digits to be read, and prints of what was sent in a speaker's name."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Adds their tables."""
    op.create_table(
        "voiceprint_challenges",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("group_name", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("speaker", sa.Text, nullable=False),
        sa.Column("digits", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("used_at", sa.BigInteger),
        comment="Digits that somebody was asked to read, for a time",
    )
    op.create_index("voiceprint_challenges_expires_at", "voiceprint_challenges", ["expires_at"])
    there = sa.ForeignKey("voiceprint_speakers.id", ondelete="CASCADE")
    op.create_table(
        "voiceprint_uploads",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("speaker_id", sa.String(32), there, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("key_id", BIG_ID, sa.ForeignKey("voiceprint_keys.id"), nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        comment="Prints of recordings that were sent in a speaker's name, so that none is sent "
        "twice",
    )
    columns = ["speaker_id", "created_at"]
    op.create_index("voiceprint_uploads_speaker", "voiceprint_uploads", columns)
    op.create_index("voiceprint_uploads_created_at", "voiceprint_uploads", ["created_at"])


def downgrade() -> None:
    """Forgets them and destroys the keys of the prints."""
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    zeros = "zeroblob(length(stored))"
    if not is_sqlite:
        zeros = "decode(repeat('00', length(stored)), 'hex')"
    op.execute(
        f"UPDATE voiceprint_keys SET stored = {zeros} WHERE id IN "
        "(SELECT key_id FROM voiceprint_uploads)"
    )
    op.drop_table("voiceprint_uploads")
    op.drop_table("voiceprint_challenges")
