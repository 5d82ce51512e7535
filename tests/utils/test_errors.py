"""How scripts end: one line on stderr and the right exit status."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from utils import errors
from utils.errors import VoiceprintError, run_script

SUBCLASSES = ["AudioError", "DataListError", "DatabaseError", "MicrophoneError", "ModelError"]

SCRIPT = """
import sys
from utils.errors import AudioError, run_script

def main(argv):
    {body}

run_script(main)
"""


def run(root: Path, body: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(body=body)],
        cwd=root, capture_output=True, timeout=60, **options,
    )  # fmt: skip


@pytest.mark.parametrize("name", SUBCLASSES)
def test_every_error_of_a_user_can_be_caught_as_one(name: str) -> None:
    with pytest.raises(VoiceprintError, match="why"):
        raise getattr(errors, name)("why")


@pytest.mark.parametrize("status", [0, 1, 7])
def test_status_of_main_is_the_exit_status(status: int) -> None:
    with pytest.raises(SystemExit) as stop:
        run_script(lambda argv: status)
    assert stop.value.code == status


def test_main_reads_the_command_line_itself() -> None:
    seen = []
    with pytest.raises(SystemExit):
        run_script(lambda argv: seen.append(argv) or 0)
    assert seen == [None]


@pytest.mark.parametrize("name", SUBCLASSES)
def test_error_of_a_user_is_one_line_and_status_2(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(argv: list[str] | None) -> int:
        raise getattr(errors, name)("a.wav: empty\n  record it   again")

    with pytest.raises(SystemExit) as stop:
        run_script(main)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert captured.err == "error: a.wav: empty record it again\n"
    assert captured.out == ""


def test_mistake_of_a_programmer_keeps_its_traceback() -> None:
    def main(argv: list[str] | None) -> int:
        raise ValueError("bug")

    with pytest.raises(ValueError, match="bug"):
        run_script(main)


def test_interrupt_is_status_130(capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: list[str] | None) -> int:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        run_script(main)
    assert stop.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_leaves_no_traceback(root: Path) -> None:
    body = f"import os; os.kill(os.getpid(), {int(signal.SIGINT)}); import time; time.sleep(9)"
    result = run(root, body)
    assert (result.returncode, result.stderr) == (130, b"interrupted\n")


@pytest.mark.parametrize("num_lines", [1, 100_000])
def test_reader_that_closes_the_pipe_ends_the_script_quietly(root: Path, num_lines: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    body = f"for _ in range({num_lines}): print('line')\n    return 0"
    try:
        result = subprocess.run(
            [sys.executable, "-c", SCRIPT.format(body=body)],
            cwd=root, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(writer)
    assert (result.returncode, result.stderr) == (0, b"")


def test_output_survives_a_console_in_another_encoding(root: Path) -> None:
    body = "print('张三'); raise AudioError('李四\\udcff.wav: empty')"
    # The locale is for the program's text, which comes as an argument.
    own = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C.UTF-8"}
    result = run(root, body, env={**os.environ, **own})
    assert (result.returncode, result.stdout) == (2, b"??" + os.linesep.encode())
    assert result.stderr.startswith(b"error: ???.wav: empty")
