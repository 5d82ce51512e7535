"""An upload on the disk: read from anywhere, readable for nobody else, gone when it is closed."""

import io
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import soundfile

from service.answers.problems import Problem
from service.diarization.spool import Spool
from tests.support.service_client import speech


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files lie."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_was_written_is_read_from_anywhere(folder: Path) -> None:
    content = os.urandom(5000)
    spool = Spool()
    for start in range(0, 5000, 777):
        spool.write(content[start : start + 777])
    assert spool.size == 5000
    for offset, size in [(0, 5000), (0, 16), (15, 2), (16, 16), (4999, 10), (123, 4000), (5000, 9)]:
        assert spool.read(offset, size) == content[offset : offset + size]
    file = spool.open()
    assert file.seek(-100, io.SEEK_END) == 4900
    assert file.read() == content[4900:]
    assert file.seek(10) == 10
    assert file.seek(5, io.SEEK_CUR) == 15
    assert file.read(1) == content[15:16]
    spool.close()


def test_nothing_of_it_can_be_found(folder: Path) -> None:
    spool = Spool()
    spool.write(b"a secret word " * 1000)
    assert list(folder.iterdir()) == []
    descriptor = spool._file.fileno()
    on_disk = os.pread(descriptor, 14_000, 0)
    assert len(on_disk) == 14_000
    assert b"secret" not in on_disk
    # The same bytes look different at every place and every time.
    assert on_disk[:14] != on_disk[14:28]
    other = Spool()
    other.write(b"a secret word ")
    assert other.read(0, 14) == b"a secret word "
    assert os.pread(other._file.fileno(), 14, 0) != on_disk[:14]
    other.close()
    spool.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    with pytest.raises(ValueError, match="closed"):
        spool.read(0, 1)


def test_a_decoder_reads_it(folder: Path) -> None:
    spool = Spool()
    spool.write(speech(1))
    assert soundfile.info(spool.open()).frames == 32000
    spool.close()


def test_a_full_disk_is_a_problem(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool()

    def fail(*_: object) -> Any:
        raise OSError(28, "No space left on device")

    spool.close()
    monkeypatch.setattr(spool, "_file", type("Full", (), {"write": fail, "seek": fail})())
    with pytest.raises(Problem, match="507") as caught:
        spool.write(b"x")
    assert caught.value.code == "no-space"
    assert "No space left" in caught.value.detail
