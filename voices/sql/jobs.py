"""Recordings that a service works on, and what it found in them, until they expire.

A job is a row. The process that works on it gives a sign of life every few seconds; where that
stays out, the process is gone and the job is lost. What was found is sealed under a key of its own,
as every voice record is, and destroyed with it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert, select, update

from utils.errors import DamagedVoiceError
from utils.speaker_names import fold_name
from voices.sql.cipher import KeyRing, seal, unseal
from voices.sql.engine import SqlConnections
from voices.sql.keys import destroy_keys, new_key, remove_sealed
from voices.sql.owned import OwnedTable, Owner, utc_now
from voices.sql.schema import jobs, keys

QUEUED, RUNNING, DONE, FAILED, LOST = "queued", "running", "done", "failed", "lost"

LOST_AFTER_S = 10.0
"""Seconds without a sign of life after which a job's process counts as gone."""

UNFINISHED = (jobs.c.state.in_([QUEUED, RUNNING]),)
"""Jobs that some process has to give signs of life for."""


@dataclass(frozen=True)
class Job:
    """A job as the database knows it.

    Attributes:
        id: 32 hexadecimal digits.
        state: queued, running, done, failed or lost.
        progress: From 0 to 1.
        created_at: When it came, UTC.
        expires_at: When it will be removed; a job that is not over is kept alive.
        error: Why it failed or was lost, a JSON text; else None.
    """

    id: str
    state: str
    progress: float
    created_at: datetime
    expires_at: datetime
    error: str | None = None


COLUMNS = (
    jobs.c.id,
    jobs.c.state,
    jobs.c.progress,
    jobs.c.created_at,
    jobs.c.expires_at,
    jobs.c.error,
    jobs.c.seen_at,
)


class JobTable(OwnedTable):
    """The jobs of one database, of all processes that share it."""

    def __init__(self, connections: SqlConnections, ring: KeyRing) -> None:
        """Takes the connections and the keeper of the keys."""
        super().__init__(connections, ring, jobs)

    def add(self, job_id: str, owner: Owner, worker: str, keep_s: float) -> Job:
        """Adds a job that waits, and returns it."""
        now = utc_now()
        job = Job(job_id, QUEUED, 0.0, now, now + timedelta(seconds=keep_s))
        row = {
            "id": job.id,
            "group_name": owner.group,
            "actor": owner.actor,
            "worker": worker,
            "state": QUEUED,
            "progress": 0.0,
        }
        row |= {"created_at": now, "seen_at": now, "expires_at": job.expires_at}
        with self._connections.write() as connection:
            connection.execute(insert(jobs), row)
        return job

    def find(self, job_id: str, owner: Owner) -> Job | None:
        """Returns an owner's job, None if there is none by now."""
        found = self._read(jobs.c.id == job_id, *self._are_of(owner))
        return found[0] if found else None

    def of(self, owner: Owner) -> list[Job]:
        """Returns all jobs of an owner, the newest first."""
        return self._read(*self._are_of(owner))

    def beat(self, worker: str, progress: Mapping[str, tuple[str, float]], keep_s: float) -> None:
        """Gives a sign of life.

        Args:
            worker: Whose.
            progress: State and progress of each of its jobs.
            keep_s: Seconds that a job is kept after its last sign of life.
        """
        now = utc_now()
        values = {"seen_at": now, "expires_at": now + timedelta(seconds=keep_s)}
        with self._connections.write() as connection:
            for job_id, (state, share) in progress.items():
                row = update(jobs).where(jobs.c.id == job_id, jobs.c.worker == worker, *UNFINISHED)
                connection.execute(row.values(state=state, progress=share, **values))

    def known(self, job_ids: list[str]) -> set[str]:
        """Returns which of some jobs are still there: another process may have removed them."""
        query = select(jobs.c.id).where(jobs.c.id.in_(job_ids))
        return {row.id for row in self._connections.fetch(query)}

    def finish(
        self,
        job_id: str,
        state: str,
        keep_s: float,
        *,
        progress: float = 1.0,
        result: bytes | None = None,
        voices: bytes | None = None,
        error: str | None = None,
    ) -> bool:
        """Ends a job, and keeps what it found; returns False if it was removed meanwhile."""
        now = utc_now()
        values: dict[str, Any] = {"state": state, "error": error, "seen_at": now}
        values |= {"progress": progress, "expires_at": now + timedelta(seconds=keep_s)}
        with self._connections.write() as connection:
            row = update(jobs).where(jobs.c.id == job_id, *UNFINISHED)
            if not connection.execute(row.values(**values)).rowcount:
                return False
            if result is not None:
                self._put(connection, job_id, result, voices or b"")
        return True

    def forget(self, group: str, name: str) -> None:
        """Does what `forget_in` does, in a transaction of its own."""
        with self._connections.write() as connection:
            self.forget_in(connection, group, name)
        self._connections.truncate_log()

    def forget_in(self, connection: Connection, group: str, name: str) -> None:
        """Takes a person who is deleted out of what the group's jobs found: the name and the voice.

        What a job finds is JSON: `speakers` and `turns` with a `name` each, and `voices` by the
        speaker's `label`. Jobs that run wait for the end of the transaction before they finish.

        Args:
            connection: An open transaction; the log has to be truncated after it.
            group: The person's.
            name: As it was enrolled.
        """
        mine = select(jobs.c.id, jobs.c.key_id, jobs.c.result, jobs.c.voices, keys.c.stored)
        mine = mine.outerjoin(keys, keys.c.id == jobs.c.key_id).where(jobs.c.group_name == group)
        # In one order, so that two deletions wait for each other instead of for ever.
        mine = mine.order_by(jobs.c.id).with_for_update(of=jobs)
        for row in connection.execute(mine).all():
            if row.result is None:
                continue
            try:
                key = self._ring.open(row.stored)
                result = json.loads(unseal(key, row.result, f"{row.id} result"))
                voices = json.loads(unseal(key, row.voices, f"{row.id} voices"))
            except DamagedVoiceError:
                remove_sealed(connection, self._ring, jobs, (jobs.c.id == row.id,))
                continue
            if _forget(result, voices, fold_name(name)):
                destroy_keys(connection, self._ring, [row.key_id])
                contents = [json.dumps(content).encode() for content in (result, voices)]
                self._put(connection, row.id, *contents)

    def result(self, job_id: str) -> bytes | None:
        """Returns what a job found, None if there is nothing."""
        return self._open(job_id, "result")

    def voices(self, job_id: str) -> bytes | None:
        """Returns the voices that a job found, None if there is nothing."""
        return self._open(job_id, "voices")

    def _put(self, connection: Connection, job_id: str, result: bytes, voices: bytes) -> None:
        """Stores what a job found under a new key."""
        key_id, key = new_key(connection, self._ring)
        sealed = {
            "result": seal(key, result, f"{job_id} result"),
            "voices": seal(key, voices, f"{job_id} voices"),
        }
        stored = update(jobs).where(jobs.c.id == job_id)
        connection.execute(stored.values(key_id=key_id, **sealed))

    def _read(self, *conditions: Any) -> list[Job]:
        """Returns jobs that meet conditions; those without a sign of life are lost."""
        now = utc_now()
        query = select(*COLUMNS).where(*conditions)
        found = []
        for row in self._connections.fetch(query.order_by(jobs.c.created_at.desc(), jobs.c.id)):
            is_silent = now - row.seen_at > timedelta(seconds=LOST_AFTER_S)
            state = LOST if is_silent and row.state in (QUEUED, RUNNING) else row.state
            found.append(
                Job(row.id, state, row.progress, row.created_at, row.expires_at, row.error)
            )
        return found

    def _open(self, job_id: str, column: str) -> bytes | None:
        """Opens what is sealed in a column."""
        query = select(jobs.c[column].label("content"), keys.c.stored)
        query = query.join(keys, keys.c.id == jobs.c.key_id).where(jobs.c.id == job_id)
        rows = self._connections.fetch(query)
        if not rows:
            return None
        return unseal(self._ring.open(rows[0].stored), rows[0].content, f"{job_id} {column}")


def _forget(result: dict[str, Any], voices: dict[str, Any], folded_name: str) -> bool:
    """Takes a person out of what a job found; returns whether the person was in it."""

    def is_it(entry: dict[str, Any]) -> bool:
        return entry["name"] is not None and fold_name(entry["name"]) == folded_name

    named = [speaker for speaker in result["speakers"] if is_it(speaker)]
    for speaker in named:
        speaker |= {"name": None, "score": None, "can_be_enrolled": False}
        voice = voices["voices"][speaker["label"]]
        voice |= {"embedding": None, "audio": None, "defect": "the person was deleted"}
    for turn in filter(is_it, result["turns"]):
        turn["name"] = None
    return bool(named)
