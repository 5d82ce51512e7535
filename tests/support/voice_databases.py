"""Databases as an operator has them, filled with what must not be lost."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.support.fake_encoder import FakeEncoder
from tests.support.synthetic_voices import synthetic_speech
from voices.sql.records import AuditLine, NewRecording
from voices.sql.store import SqlVoiceStore
from voices.sql.uploads import Retention, Upload

PAIRS = list(itertools.product(["sqlite", "postgresql"], repeat=2))

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))

NewUrl = Callable[[str], str]


def vector(seed: int) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=64).astype(np.float32)
    return found / np.linalg.norm(found)


def new(seed: int, **more: Any) -> NewRecording:
    return NewRecording(vector(seed), 1.5, None, 2.0, **more)


def fill(url: str, key: bytes | None = None) -> dict[str, Any]:
    """A database as the service has it: no sound, two models, two groups, a file of the inbox."""
    database = SqlVoiceStore(url, FakeEncoder("old"), key=key)
    database.enrol("Ann", [new(0), new(1, inbox_path="Ann.wav", inbox_sha256="ab" * 32)])
    database.in_group("shop").enrol("Ann", [new(2)])
    database.audit_log.append(AuditLine("app", "enrol", "Ann", "2 recordings"))
    database.close()
    database = SqlVoiceStore(url, FakeEncoder("new"), key=key, keep_audio=True)
    database.enrol("Ann", [new(3)], if_exists="add")
    database.add("Ben", synthetic_speech(1))
    upload = Upload.of(synthetic_speech(1))
    database.uploads.admit(database.speaker_id("Ben"), [upload], None, Retention(9, 90.0))
    database.audit_log.append(AuditLine("app", "verify", "Ann", "accepted", 0.9, group="shop"))
    seen = content(database)
    database.close()
    return seen


def content(database: SqlVoiceStore) -> dict[str, Any]:
    """Everything that is told of a database."""
    groups = {name: database.in_group(name) for name in database.groups()}
    return {
        "speakers": {name: group.speakers() for name, group in groups.items()},
        "scores": {
            name: group.rank(vector(3)) for name, group in groups.items() if group.prepare()
        },
        "files": database.inbox_files.all(),
        "sound": database.original_audio("Ben", database.recordings("Ben")[0].id),
        "uploads": database.uploads.times(database.speaker_id("Ben")),
        "audit": [line for line in database.audit_log.last() if line.action != "take over"],
    }


def of(url: str, key: bytes | None = None) -> dict[str, Any]:
    database = SqlVoiceStore(url, FakeEncoder("new"), key=key)
    try:
        assert database.num_damaged == 0
        return content(database)
    finally:
        database.close()
