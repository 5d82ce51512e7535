"""What a worker of a cluster checks before it does a task: that it is of one mind with the driver.

A worker with another version of the code would give other results without a word.
"""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from utils.errors import VoiceprintError

Job = TypeVar("Job")
Result = TypeVar("Result")

ROOT = Path(__file__).resolve().parents[2]
"""The toolkit's folder."""


@dataclass(frozen=True)
class Order:
    """What the driver expects of a worker.

    Attributes:
        code_id: Of the driver's code.
        folder: The driver's working folder, where relative paths start.
    """

    code_id: str
    folder: str

    @classmethod
    def of_this_process(cls) -> Order:
        """Returns the order of a driver."""
        return cls(code_id(), str(Path.cwd()))


@dataclass(frozen=True)
class Done(Generic[Result]):
    """The results of a chunk of jobs, or the one line on which it ended."""

    results: list[Result]
    failure: str = ""


@functools.cache
def code_id() -> str:
    """Returns a text that differs for every version of the code and of Python."""
    digest = hashlib.sha256(f"{sys.version_info[:2]}".encode())
    for path in sorted((ROOT / "utils").rglob("*.py")):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def run_chunk(
    order: Order, function: Callable[[Job], Result], chunk: Sequence[Job]
) -> Done[Result]:
    """Does a chunk of jobs in a worker.

    What a user can mend comes back as a line, not as an exception: engines wrap those in theirs.
    """
    try:
        _check(order)
        return Done([function(job) for job in chunk])
    except VoiceprintError as error:
        return Done([], f"worker on {socket.gethostname()}: {error}")


def _check(order: Order) -> None:
    """Raises VoiceprintError if this worker would do something else than the driver means."""
    if order.code_id != code_id():
        raise VoiceprintError(
            f"has the code {code_id()[:12]} in {ROOT}, expected {order.code_id[:12]} as the driver "
            "has; start the worker with the same version of the toolkit and of Python"
        )
    if order.folder != os.getcwd():  # noqa: PTH109
        try:
            # Workers have one thread: nobody else's paths change.
            os.chdir(order.folder)
        except OSError as error:
            raise VoiceprintError(
                f"can't enter {order.folder} ({error.strerror}), where the driver was started; "
                "share that folder under the same path"
            ) from error
