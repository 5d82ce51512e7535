"""An id of the database, by which an index outside of it knows whose speakers it holds."""

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Adds the id."""
    op.add_column("voiceprint_info", sa.Column("database_id", sa.String(32)))
    op.execute(f"UPDATE voiceprint_info SET database_id = '{uuid.uuid4().hex}'")


def downgrade() -> None:
    """Forgets it."""
    op.drop_column("voiceprint_info", "database_id")
