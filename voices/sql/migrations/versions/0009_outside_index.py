"""Which index outside of the database holds its speakers, and by which id it knows them."""

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Adds the columns."""
    op.add_column("voiceprint_info", sa.Column("database_id", sa.String(32)))
    op.add_column("voiceprint_info", sa.Column("index_address", sa.Text))
    op.execute(f"UPDATE voiceprint_info SET database_id = '{uuid.uuid4().hex}'")


def downgrade() -> None:
    """Forgets them; the index stays as it is."""
    op.drop_column("voiceprint_info", "index_address")
    op.drop_column("voiceprint_info", "database_id")
