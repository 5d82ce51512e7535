"""Commands that are killed (kill -9) while they write, and repeated: nothing is lost.

The commands run in processes of their own, forked from one; each dies before another write.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import manage_voices
import move_voices
from tests.support.fake_encoder import FakeEncoder
from tests.support.service_process import ROOT
from tests.support.voice_databases import KEY, OTHER, NewUrl, fill, of
from voices.sql.cipher import KEY_VARIABLE, NEW_KEY_VARIABLE
from voices.sql.snapshot import back_up
from voices.sql.store import SqlVoiceStore

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
]

KILLED = -9

MOMENTS = (1, 4, 12, 25)
"""Before which writes a command dies: the first, one of the first speaker, later ones."""


def kill(commands: list[list[Any]], **environment: str) -> None:
    """Runs commands, each of which has to die."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "support" / "killed_commands.py")],
        input=json.dumps(commands),
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [KILLED] * len(commands), done.stderr


def urls(new_url: NewUrl) -> list[str]:
    """Addresses for each moment: PostgreSQL, which takes longer to make, for one of them."""
    return [*(new_url("sqlite") for _ in MOMENTS[1:]), new_url("postgresql")]


def test_moves(new_url: NewUrl, tmp_path: Path) -> None:
    source = new_url("sqlite")
    before = fill(source)
    targets = urls(new_url)
    for url in targets:  # with its tables, whose making is another test's
        SqlVoiceStore(url, FakeEncoder("new")).close()
    kill([["move_voices", [source, url], n] for url, n in zip(targets, MOMENTS, strict=True)])
    assert of(source) == before
    for url in targets:
        assert move_voices.main([source, url]) == 0
        assert of(url) == before


def test_moves_that_empty_their_source(new_url: NewUrl) -> None:
    sources, targets = urls(new_url), urls(new_url)
    seen = [fill(url) for url in sources]
    for url in targets:
        SqlVoiceStore(url, FakeEncoder("new")).close()
    pairs = list(zip(sources, targets, strict=True))
    kill([
        ["move_voices", [*pair, "--delete_source"], n]
        for pair, n in zip(pairs, (4, 40, 60, 70), strict=True)
    ])  # fmt: skip
    for (source, target), before in zip(pairs, seen, strict=True):
        assert move_voices.main([source, target, "--delete_source"]) == 0
        assert of(target)["speakers"] == before["speakers"]
        emptied = SqlVoiceStore(source)
        assert emptied.groups() == {}
        emptied.close()


def test_new_keys(new_url: NewUrl, monkeypatch: pytest.MonkeyPatch) -> None:
    databases = urls(new_url)
    seen = [fill(url, KEY) for url in databases]
    commands = [
        ["manage_voices", ["rekey", url], n]
        for url, n in zip(databases, (1, 4, 10, 12), strict=True)
    ]
    kill(commands, **{KEY_VARIABLE: KEY.hex(), NEW_KEY_VARIABLE: OTHER.hex()})
    monkeypatch.setenv(KEY_VARIABLE, KEY.hex())
    monkeypatch.setenv(NEW_KEY_VARIABLE, OTHER.hex())
    for url, before in zip(databases, seen, strict=True):
        assert of(url, KEY) == before
        assert manage_voices.main(["rekey", url]) == 0
        assert of(url, OTHER) == before


def test_restoring(new_url: NewUrl, tmp_path: Path) -> None:
    source, backup = new_url("sqlite"), tmp_path / "backup.sqlite3"
    before = fill(source)
    back_up(source, backup)
    targets = urls(new_url)
    others = [fill(url) for url in targets[1:]]
    commands = [
        ["manage_voices", ["restore", url, str(backup), "--replace"], n]
        for url, n in zip(targets, (3, 20, 60, 90), strict=True)
    ]
    kill(commands)
    for url, other in zip(targets[1:], others, strict=True):
        assert of(url) == other  # as it was
    for url in targets:
        assert manage_voices.main(["restore", url, str(backup), "--replace"]) == 0
        assert of(url) == before
