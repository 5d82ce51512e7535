"""Work that two processes must not do at once."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from utils.errors import VoiceprintError

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def only_process(file: IO[Any], name: str | Path, refusal: str = "") -> Iterator[None]:
    """Keeps an open file to this process while the block runs; the system ends it with a kill.

    Nothing is kept where the system (Windows) or the file system has no such locks.

    Args:
        file: Which processes that do the same work open.
        name: What to call the work in an error.
        refusal: The error, if it is not that the file is being written.

    Raises:
        VoiceprintError: If another process is at it.
    """
    if fcntl is not None:
        with contextlib.suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise VoiceprintError(
                    refusal
                    or f"{name}: another process is writing it, expected one at a time; wait for "
                    "its end"
                ) from error
    yield  # Closing the file frees it.
