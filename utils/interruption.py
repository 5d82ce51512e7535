"""Ctrl-C that waits for a good moment: work in progress is finished and saved before it ends."""

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

from utils.messages import translate


class Interruption:
    """While it is open, the first Ctrl-C is only noted; the second one ends the work at once.

    Attributes:
        is_requested: Whether Ctrl-C was pressed.
    """

    def __init__(self, note: str) -> None:
        """Prepares the wait.

        Args:
            note: What to say on stderr when Ctrl-C is pressed for the first time.
        """
        self.note = note
        self.is_requested = False
        self._previous: Any = None

    def __enter__(self) -> "Interruption":
        # Python hands signals to the main thread only; elsewhere there is nothing to catch.
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._notice)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def _notice(self, number: int, frame: FrameType | None) -> None:
        """Handles the signal."""
        if self.is_requested:
            raise KeyboardInterrupt
        self.is_requested = True
        print("\n" + translate(self.note), file=sys.stderr, flush=True)
