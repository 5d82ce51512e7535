"""The files of the service's inbox, and speakers whose deletion has begun."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds the table of the files and the mark of a deletion."""
    op.add_column(
        "voiceprint_speakers",
        sa.Column("is_being_deleted", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    op.create_table(
        "voiceprint_inbox",
        sa.Column("path", sa.Text, primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column(
            "recording_id",
            sa.String(32),
            sa.ForeignKey("voiceprint_recordings.id", ondelete="CASCADE"),
            nullable=False,
        ),
        comment="Files of the service's inbox that were enrolled, by their place in it",
    )
    op.create_index("voiceprint_inbox_recording", "voiceprint_inbox", ["recording_id"])


def downgrade() -> None:
    """Forgets them."""
    op.drop_table("voiceprint_inbox")
    op.drop_column("voiceprint_speakers", "is_being_deleted")
