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
def only_process(file: IO[Any], name: str | Path) -> Iterator[None]:
    """Keeps an open file to this process while the block runs; the system ends it with a kill.

    Args:
        file: Which processes that do the same work open.
        name: What to call the work in an error.

    Raises:
        VoiceprintError: If another process is at it.
    """
    if fcntl is None:  # Windows
        yield
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise VoiceprintError(
            f"{name}: another process is writing it, expected one at a time; wait for its end"
        ) from error
    yield  # Closing the file frees it.
