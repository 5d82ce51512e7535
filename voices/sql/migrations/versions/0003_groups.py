"""Groups of speakers, the last use of tokens, and requests that may be repeated."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
SORTED_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

SPEAKERS = "voiceprint_speakers"
UNIQUE = "voiceprint_speakers_group_folded_name"

COLUMNS = (
    "id, name, folded_name, created_at, updated_at, model_id, key_id, embedding, change_number, "
    "is_being_deleted"
)


def upgrade() -> None:
    """Puts all that is there into the default group."""
    if op.get_bind().dialect.name == "sqlite":
        _rebuild_speakers(
            sa.Column("group_name", SORTED_TEXT, nullable=False, server_default="default"),
            sa.UniqueConstraint("group_name", "folded_name", name=UNIQUE),
        )
        op.create_index("voiceprint_speakers_change", SPEAKERS, ["change_number"])
    else:
        # Beside the indexes of version 2.2, which goes on serving meanwhile.
        column = sa.Column("group_name", SORTED_TEXT, nullable=False, server_default="default")
        op.add_column(SPEAKERS, column)
        op.drop_constraint("voiceprint_speakers_folded_name_key", SPEAKERS)
        op.create_index("voiceprint_speakers_folded_name", SPEAKERS, ["folded_name"])
        op.create_unique_constraint(UNIQUE, SPEAKERS, ["group_name", "folded_name"])
    op.create_index("voiceprint_speakers_group_name", SPEAKERS, ["group_name", "name"])
    op.create_index("voiceprint_speakers_group_change", SPEAKERS, ["group_name", "change_number"])
    op.add_column("voiceprint_recordings", sa.Column("content_mark", sa.LargeBinary))
    op.add_column(
        "voiceprint_audit",
        sa.Column("group_name", sa.Text, nullable=False, server_default="default"),
    )
    op.create_table(
        "voiceprint_requests",
        sa.Column("group_name", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        comment="Keys of requests that were carried out lately, so that a retry is not done twice",
    )
    op.create_index("voiceprint_requests_at", "voiceprint_requests", ["at"])
    op.create_table(
        "voiceprint_token_uses",
        sa.Column("fingerprint", sa.String(12), primary_key=True),
        sa.Column("used_at", sa.BigInteger, nullable=False),
        comment="When which token was used last",
    )


def downgrade() -> None:
    """Forgets the groups.

    Raises:
        RuntimeError: If there are several: names would clash, and strangers would be compared.
    """
    groups = op.get_bind().execute(sa.text(f"SELECT DISTINCT group_name FROM {SPEAKERS}")).scalars()
    if set(groups) - {"default"}:
        raise RuntimeError("there are speakers of other groups than the default one; delete them")
    op.drop_table("voiceprint_token_uses")
    op.drop_table("voiceprint_requests")
    op.drop_column("voiceprint_audit", "group_name")
    op.drop_column("voiceprint_recordings", "content_mark")
    op.drop_index("voiceprint_speakers_group_name", SPEAKERS)
    op.drop_index("voiceprint_speakers_group_change", SPEAKERS)
    if op.get_bind().dialect.name == "sqlite":
        op.drop_index("voiceprint_speakers_change", SPEAKERS)
        _rebuild_speakers(sa.UniqueConstraint("folded_name"))
        op.create_index("voiceprint_speakers_name", SPEAKERS, ["name"])
        op.create_index("voiceprint_speakers_change", SPEAKERS, ["change_number"])
    else:
        op.drop_index("voiceprint_speakers_folded_name", SPEAKERS)
        op.drop_constraint(UNIQUE, SPEAKERS)
        op.drop_column(SPEAKERS, "group_name")
        op.create_unique_constraint(
            "voiceprint_speakers_folded_name_key", SPEAKERS, ["folded_name"]
        )


def _rebuild_speakers(*more: sa.schema.SchemaItem) -> None:
    """Copies the speakers into a table with other constraints, which SQLite cannot change.

    Raises:
        RuntimeError: If foreign keys are on: dropping the old table would delete the recordings.
    """
    connection = op.get_bind()
    if connection.execute(sa.text("PRAGMA foreign_keys")).scalar():
        raise RuntimeError(
            "foreign keys are on; open the transaction with SqlConnections.migrating"
        )
    op.create_table(
        "voiceprint_speakers_new",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("name", SORTED_TEXT, nullable=False),
        sa.Column("folded_name", SORTED_TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("model_id", sa.String(64)),
        sa.Column("key_id", BIG_ID, sa.ForeignKey("voiceprint_keys.id"), nullable=False),
        sa.Column("embedding", sa.LargeBinary),
        sa.Column("change_number", sa.BigInteger, nullable=False),
        sa.Column("is_being_deleted", sa.Boolean, nullable=False, server_default=sa.false()),
        *more,
    )
    op.execute(f"INSERT INTO voiceprint_speakers_new ({COLUMNS}) SELECT {COLUMNS} FROM {SPEAKERS}")
    op.drop_table(SPEAKERS)
    op.rename_table("voiceprint_speakers_new", SPEAKERS)
