"""Requests and failed attempts, counted in PostgreSQL for all processes that share a database.

Each count is one statement, and thus one round trip. The tables are unlogged: no count waits for a
disk, and after a crash of the server they are empty. Keys are stored as their SHA-256 only, since
they hold names and addresses, and rows that say nothing any more are removed within a minute.
"""

import hashlib
import threading
import time

from sqlalchemy import text

from voices.sql.engine import SqlConnections

SWEEP_S = 60.0
"""Seconds between two removals of expired rows by one process."""

NOW = "extract(epoch from statement_timestamp())::float8"
"""Seconds by the server's clock: the replicas' own may differ."""

REFILLED = f"least(bucket.units + greatest({NOW} - bucket.at, 0) * :per_minute / 60.0, :per_minute)"

TAKE = text(
    f"""
    INSERT INTO voiceprint_rates AS bucket (key, units, is_allowed, at, expires_at)
    VALUES (:key, CAST(:per_minute AS float8) - 1, true, {NOW}, {NOW} + 60)
    ON CONFLICT (key) DO UPDATE SET
        units = {REFILLED} - CASE WHEN {REFILLED} >= 1 THEN 1 ELSE 0 END,
        is_allowed = {REFILLED} >= 1,
        at = greatest({NOW}, bucket.at),
        expires_at = {NOW} + 60
    RETURNING is_allowed, units
    """
)
"""Whoever waits for the row sees the count of the one before, since each is a transaction."""

RECENT = f"ARRAY(SELECT t FROM unnest(known.times) AS t WHERE t > {NOW} - :period_s ORDER BY t)"

ATTEMPT = text(
    f"""
    INSERT INTO voiceprint_attempts AS known (key, times, is_locked, expires_at)
    VALUES (:key, ARRAY[{NOW}], false, {NOW} + :period_s)
    ON CONFLICT (key) DO UPDATE SET
        times = CASE WHEN cardinality({RECENT}) >= :most THEN {RECENT}
                ELSE {RECENT} || {NOW} END,
        is_locked = cardinality({RECENT}) >= :most,
        expires_at = {NOW} + :period_s
    RETURNING times, is_locked, {NOW} AS now
    """
)

FORGET_ONE = text(
    "UPDATE voiceprint_attempts SET times = array_remove(times, CAST(:mark AS float8)) "
    "WHERE key = :key"
)
FORGET_ALL = text("DELETE FROM voiceprint_attempts WHERE key = :key")
SWEEPS = tuple(
    text(f"DELETE FROM {table} WHERE expires_at < {NOW}")
    for table in ("voiceprint_rates", "voiceprint_attempts")
)


class SharedCounts:
    """The counts of one PostgreSQL database."""

    def __init__(self, connections: SqlConnections) -> None:
        """Takes the connections; nothing is asked before something is counted."""
        self._connections = connections
        self._lock = threading.Lock()
        self._swept_at = time.monotonic()

    def take(self, key: str, per_minute: int) -> float:
        """Takes a request out of a bucket that holds a minute's and fills steadily.

        Returns:
            0, or after how many seconds there will be one.

        Raises:
            DatabaseError: If the database does not answer.
        """
        values = {"key": _hashed(key), "per_minute": per_minute}
        ((is_allowed, units),) = self._connections.execute_alone(TAKE, values)
        self._sweep()
        return 0.0 if is_allowed else float((1 - units) * 60 / per_minute)

    def attempt(self, key: str, most: int, period_s: float) -> tuple[float, float]:
        """Notes an attempt, unless there were `most` within the last `period_s` seconds.

        Returns:
            The mark of the attempt, and 0; or after how many seconds there may be another.

        Raises:
            DatabaseError: If the database does not answer.
        """
        values = {"key": _hashed(key), "most": most, "period_s": period_s}
        ((times, is_locked, now),) = self._connections.execute_alone(ATTEMPT, values)
        self._sweep()
        return (now, times[-most] + period_s - now) if is_locked else (times[-1], 0.0)

    def forget(self, key: str, mark: float | None = None) -> None:
        """Removes one attempt, or all of a key.

        Raises:
            DatabaseError: If the database does not answer.
        """
        if mark is None:
            self._connections.execute_alone(FORGET_ALL, {"key": _hashed(key)})
        else:
            self._connections.execute_alone(FORGET_ONE, {"key": _hashed(key), "mark": mark})

    def _sweep(self) -> None:
        """Removes what says nothing any more: full buckets, and attempts of the past."""
        with self._lock:
            if time.monotonic() - self._swept_at < SWEEP_S:
                return
            self._swept_at = time.monotonic()
        for sweep in SWEEPS:
            self._connections.execute_alone(sweep, {})


def _hashed(key: str) -> bytes:
    """Returns what is stored of a key, 32 bytes."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
