"""A Milvus on a free port with its files in a temporary folder, stopped at the end."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

START_TIMEOUT_S = 120.0


def find_milvus() -> str | None:
    """Returns the program of VOICEPRINT_MILVUS, or milvus-lite of this environment."""
    own = Path(sys.executable).with_name("milvus-lite")
    named = os.environ.get("VOICEPRINT_MILVUS")
    return named or (str(own) if own.exists() else None)


@dataclass(frozen=True)
class MilvusServer:
    """A running server.

    Attributes:
        address: As the toolkit takes it.
        group: The process group.
    """

    address: str
    group: int

    def megabytes(self) -> float:
        """Returns the memory of its processes, in 10^6 bytes."""
        total = 0
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.getpgid(int(folder.name)) == self.group:
                    pages = int((folder / "statm").read_text().split()[1])
                    total += pages * os.sysconf("SC_PAGE_SIZE")
        return total / 1e6


@contextlib.contextmanager
def running_milvus(program: str) -> Iterator[MilvusServer]:
    """Yields a server: `milvus-lite`, or `milvus-server` of the package milvus."""
    folder = Path(tempfile.mkdtemp(prefix="milvus"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "server", "--data-dir", str(folder), "--port", str(port)]
    if Path(program).name == "milvus-server":
        command = [program, "--data", str(folder), "--proxy-port", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "HOME": str(folder)},
        )  # fmt: skip
    try:
        _wait(port, process, folder / "log")
        yield MilvusServer(f"milvus://127.0.0.1:{port}", process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Waits until a server takes connections."""
    give_up = time.monotonic() + START_TIMEOUT_S
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < give_up, log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
