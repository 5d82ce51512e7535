"""Scripts run as `python FILE.py ...` runs them, but in this process: imports take seconds."""

import contextlib
import io
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from utils import messages


def run_here(script: str | Path, arguments: Sequence[str | Path] = (), typed: str = "") -> int:
    """Returns the exit status of a script; what it prints goes where the test's output goes.

    Args:
        script: The file; its `if __name__ == "__main__"` is true.
        arguments: Its command line.
        typed: What it reads from standard input.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(script), *map(str, arguments)])
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr(sys, "stdin", io.StringIO(typed))
        patch.setattr(messages, "_chosen", None)  # the language of what it prints
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


STAND_IN = """#!/usr/bin/env bash
cd "{folder}"
mkfifo "answer.$$"
printf '%s\\n' "answer.$$" "$@" '' > requests
read -r status < "answer.$$"
exit "$status"
"""


class PythonHere:
    """A stand-in for `python` in shell scripts: what it is called with runs in this process.

    Attributes:
        path: The program to call.
    """

    def __init__(self, folder: Path) -> None:
        """Prepares it; `folder` is an existing one for its files."""
        self.path = folder / "python"
        self.path.write_text(STAND_IN.format(folder=folder), encoding="utf-8")
        self.path.chmod(0o755)
        os.mkfifo(folder / "requests")

    def serve(self, process: "subprocess.Popen[str]") -> int:
        """Runs the scripts that a process asks for; returns its exit status once it has ended."""
        folder = self.path.parent
        requests = os.open(folder / "requests", os.O_RDONLY | os.O_NONBLOCK)
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, requests)
            text = b""
            while process.poll() is None:
                with contextlib.suppress(BlockingIOError):  # It is asking, but not yet done.
                    text += os.read(requests, 65536)
                if not text.endswith(b"\n\n"):
                    time.sleep(0.01)
                else:
                    answer, script, *arguments = text.decode().split("\n")[:-2]
                    status = run_here(script, arguments)
                    (folder / answer).write_text(f"{status}\n", encoding="utf-8")
                    text = b""
        return process.wait()
