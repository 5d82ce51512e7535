"""Runs the migrations on the connection that voices/sql/engine.py hands over."""

from typing import Any

from alembic import context

from voices.sql.schema import POSTGRESQL_TABLES, VERSION_TABLE, metadata

connection = context.config.attributes["connection"]


def include_name(name: str | None, kind: str, parents: Any) -> bool:
    """Looks at this toolkit's tables only: the database may be shared with other programs."""
    return kind != "table" or str(name).startswith("voiceprint_")


def include_object(item: Any, name: str | None, kind: str, *_: Any) -> bool:
    """Leaves out what this kind of database does not have."""
    table = item if kind == "table" else getattr(item, "table", None)
    is_sqlite = connection.dialect.name == "sqlite"
    return table is None or not (is_sqlite and table.name in POSTGRESQL_TABLES)


context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
    include_name=include_name,
    include_object=include_object,
)
with context.begin_transaction():
    context.run_migrations()
