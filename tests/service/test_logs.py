"""--json_logs: whatever goes to stderr is a line of JSON, and none is lost at the end."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.support.service_process import ROOT

BEGIN = """
import asyncio, ctypes, os, signal, sys, threading
from service.logs import configure_logs, log_event
configure_logs(as_json=True)
"""


def run(script: str) -> tuple[int, list[dict[str, Any]]]:
    """Runs a script; returns its exit status and the lines of its stderr."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + script],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        timeout=60,
    )
    return done.returncode, [json.loads(line) for line in done.stderr.splitlines()]


ENDS = {
    "by itself": ("", 0),
    "by an error": ("raise SystemExit('error: no such model')", 1),
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", -9),
    "by a fault": ("ctypes.string_at(0)", -11),
}


@pytest.mark.skipif(sys.platform == "win32", reason="needs posix_spawn")
@pytest.mark.parametrize("end", ENDS)
def test_raw_lines_become_json_however_it_ends(end: str) -> None:
    """As libmpg123 writes them: to the descriptor, half a line at a time."""
    last, expected = ENDS[end]
    status, lines = run(
        "log_event('hello', name='李雷')\n"
        "os.write(2, b'[src/libmpg123/layer3.c] error: '); os.write(2, b'missing bits\\n\\n')\n"
        f"os.write(2, b'\\xff no newline'); {last or 'pass'}"
    )
    assert status == expected
    assert lines[0]["message"] == "hello" and lines[0]["name"] == "李雷"
    raw = [line for line in lines if line.get("source") == "stderr"]
    assert raw[0]["message"] == "[src/libmpg123/layer3.c] error: missing bits"
    assert raw[0]["level"] == "warning" and raw[0]["time"].endswith("Z")
    assert raw[1]["message"].startswith("\ufffd no newline")
    if end == "by an error":
        assert raw[1]["message"].endswith("error: no such model")


@pytest.mark.skipif(sys.platform == "win32", reason="needs posix_spawn")
def test_uncaught_errors_are_one_line_each() -> None:
    status, lines = run(
        "class Gone:\n"
        "    def __del__(self): raise ValueError('in a destructor')\n"
        "Gone()\n"
        "def fail(): raise ValueError('in a thread')\n"
        "thread = threading.Thread(target=fail); thread.start(); thread.join()\n"
        "async def main():\n"
        "    asyncio.get_running_loop().call_soon(fail)\n"
        "    await asyncio.sleep(0.01)\n"
        "asyncio.run(main())\n"
    )
    assert status == 0
    assert [line["level"] for line in lines] == ["error"] * 3
    for line, told in zip(lines, ["in a destructor", "in a thread", "in a thread"], strict=True):
        assert line["error"].splitlines()[0].startswith("Traceback")
        assert line["error"].endswith(told)
