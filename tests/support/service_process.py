"""Real services in processes of their own, for the tests."""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START_S = 60.0


class ServiceProcess:
    """A service that was started; `url` is where it listens, `log` what it has printed so far."""

    def __init__(
        self, folder: Path, *options: str, script: str = "tests/support/fake_service.py", **env: str
    ) -> None:
        self.log_path = folder / f"service-{time.monotonic_ns()}.log"
        command = [sys.executable, str(ROOT / script), "--port", "0", *options]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("VOICEPRINT_")}
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **env},
            )
        deadline = time.monotonic() + START_S
        while "Ctrl-C stops it." not in self.log:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)
        self.url = re.findall(r"Web page:\s+(http\S+)/\n", self.log)[0]
        self.port = int(self.url.rsplit(":", 1)[1])

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8")

    def wait(self) -> int:
        return self.process.wait(timeout=60)


@contextlib.contextmanager
def service_process(
    folder: Path, *options: str, script: str = "tests/support/fake_service.py", **env: str
) -> Iterator[ServiceProcess]:
    """A service that is ended at the end, if it is still there."""
    service = ServiceProcess(folder, *options, script=script, **env)
    try:
        yield service
    finally:
        service.process.kill()
        service.process.wait()
