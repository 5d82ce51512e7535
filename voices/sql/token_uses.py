"""When which token of the service was used last, as all processes together know it."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import delete, insert, select

from voices.sql.engine import SqlConnections
from voices.sql.schema import token_uses


class TokenUses:
    """The last uses in one database, by the tokens' fingerprints."""

    def __init__(self, connections: SqlConnections) -> None:
        self._connections = connections

    def all(self) -> dict[str, datetime]:
        """Returns the moment of each last use, UTC."""
        query = select(token_uses.c.fingerprint, token_uses.c.used_at)
        return {row.fingerprint: row.used_at for row in self._connections.fetch(query)}

    def note(self, uses: Mapping[str, datetime]) -> None:
        """Writes last uses; an earlier moment than the known one changes nothing."""
        if not uses:
            return
        with self._connections.write() as connection:
            known = select(token_uses).where(token_uses.c.fingerprint.in_(uses)).with_for_update()
            earlier = {row.fingerprint: row.used_at for row in connection.execute(known)}
            rows = [
                {"fingerprint": key, "used_at": max(moment, earlier.get(key, moment))}
                for key, moment in uses.items()
            ]
            connection.execute(delete(token_uses).where(token_uses.c.fingerprint.in_(uses)))
            connection.execute(insert(token_uses), rows)
