"""Files are whole or absent, whatever happens while they are written."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from utils.files import atomic_path, write_bytes_atomically, write_text_atomically


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_block_writes_a_hidden_file_beside_the_place(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "model.keras"
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.name.startswith(".model.")
        assert temporary.name.endswith(".tmp.keras")
        temporary.write_bytes(b"weights")
        assert not path.exists()
    assert path.read_bytes() == b"weights"
    assert names(path.parent) == ["model.keras"]


def test_path_may_be_a_string(tmp_path: Path) -> None:
    write_text_atomically(str(tmp_path / "a.txt"), "text")
    assert (tmp_path / "a.txt").read_text() == "text"


def test_text_is_utf8_with_its_own_line_ends(tmp_path: Path) -> None:
    write_text_atomically(tmp_path / "a.txt", "张三\t0\r\n李四\t1\n")
    assert (tmp_path / "a.txt").read_bytes() == "张三\t0\r\n李四\t1\n".encode()


def test_file_that_is_there_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    for data in (b"a long first content", b"short", b""):
        write_bytes_atomically(path, data)
        assert path.read_bytes() == data
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_block_that_raises_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def write_half() -> None:
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"half of the n")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_block_that_raises_leaves_no_file_where_there_was_none(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"half")
        raise ZeroDivisionError
    assert names(tmp_path) == []


def test_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.bin"):
        pass


def test_text_that_cannot_be_encoded_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_text_atomically(tmp_path / "a.txt", "\udcff")
    assert (tmp_path / "a.txt").read_text() == "old"


KILLED = """
import os, signal, sys
from pathlib import Path
from utils.files import atomic_path, write_bytes_atomically

path = Path(sys.argv[1])
if sys.argv[2] == "inside":
    with atomic_path(path) as temporary:
        with open(temporary, "wb") as file:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
print("ready", flush=True)
number = 0
while True:
    number += 1
    write_bytes_atomically(path, bytes([number % 256]) * 100_000)
"""


def start(root: Path, path: Path, mode: str) -> subprocess.Popen:
    command = [sys.executable, "-c", KILLED, str(path), mode]
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE)


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_process_killed_while_it_writes_leaves_the_old_file(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    process = start(root, path, "inside")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    left = [name for name in names(tmp_path) if name != "a.bin"]
    assert all(name.startswith(".a.") and name.endswith(".tmp.bin") for name in left)


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
@pytest.mark.parametrize("delay_s", [0.0, 0.013, 0.05])
def test_process_killed_at_any_time_leaves_a_whole_file(
    root: Path, tmp_path: Path, delay_s: float
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old" * 100_000)
    process = start(root, path, "loop")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    try:
        process.wait(delay_s)
    except subprocess.TimeoutExpired:
        process.kill()
    process.communicate(timeout=60)
    data = path.read_bytes()
    assert data == b"old" * 100_000 or (len(data) == 100_000 and len(set(data)) == 1)


NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=255
).filter(lambda name: name not in (".", "..") and len(name.encode()) <= 255)


@pytest.mark.skipif(os.name == "nt", reason="names")
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=NAMES)
def test_any_name_that_a_file_can_have(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_bytes_atomically(path, b"data")
    assert path.read_bytes() == b"data"
    path.unlink()
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["x" * 255, "a." + "s" * 253, "声" * 83 + ".wav"])
def test_longest_names(tmp_path: Path, name: str) -> None:
    test_any_name_that_a_file_can_have.hypothesis.inner_test(tmp_path, name)
