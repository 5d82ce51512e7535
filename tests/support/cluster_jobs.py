"""Jobs for workers of a cluster, and a Dask cluster of processes: a scheduler and workers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


ALLOWED_FAILURES = "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"
"""How many workers a task may kill before it is given up: with few the tests need few."""


def square(number: int) -> int:
    return number * number


def square_or_die(job: tuple[int, str]) -> int:
    """Kills its worker: the first time if the job names a file for a note, else every time."""
    number, note = job
    if number == 20 and not (note and Path(note).exists()):
        if note:
            Path(note).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


class DaskCluster:
    """A scheduler and workers, each a process of its own.

    Attributes:
        address: What --engine is given.
        workers: The processes of the workers.
    """

    def __init__(self, folder: Path, num_workers: int) -> None:
        """Starts them; `folder` is an existing one for their files."""
        self._folder = folder
        self._file = folder / "scheduler.json"
        self._scheduler = self._start("dask_scheduler", "--port", "0", "--no-dashboard")
        self.workers = [self.start_worker() for _ in range(num_workers)]
        deadline = time.monotonic() + 60
        while not self._file.exists() or not self._file.read_text().endswith("}"):
            assert time.monotonic() < deadline, "the scheduler didn't start"
            time.sleep(0.02)
        text = self._file.read_text()
        self.address = "dask://" + text.split('"tcp://')[1].split('"')[0]

    def start_worker(self, code: Path = ROOT) -> "subprocess.Popen[bytes]":
        """Starts a worker of some folder's code."""
        options = ["--nthreads", "1", "--no-nanny", "--no-dashboard"]
        return self._start("dask_worker", *options, "--local-directory", self._folder, code=code)

    def _start(
        self, module: str, *options: str | Path, code: Path = ROOT
    ) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", f"distributed.cli.{module}"]
        with (self._folder / "log.txt").open("ab") as log:
            return subprocess.Popen(
                [*command, "--scheduler-file", self._file, *options],
                cwd=self._folder,
                env={**os.environ, "PYTHONPATH": str(code), ALLOWED_FAILURES: "1"},
                stdout=log,
                stderr=log,
            )

    def stop_workers(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self.workers = []

    def stop(self) -> None:
        self.stop_workers()
        self._scheduler.kill()
        self._scheduler.wait()
