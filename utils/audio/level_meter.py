"""A level meter in the terminal, so that a speaker sees that the microphone hears something."""

import contextlib
import sys
from collections.abc import Callable, Iterator

import numpy as np

from utils.arrays import FloatArray

WIDTH = 30
"""Characters of the bar."""

LOWEST_DBFS = -60.0
"""dBFS of the peak at which the bar is empty: what is called silent."""


@contextlib.contextmanager
def level_meter() -> Iterator[Callable[[FloatArray], None] | None]:
    """Shows the level of a recording on stderr while it is made, and removes the line at the end.

    Yields:
        A function that is called with samples of any shape in [-1, 1]; None if stderr is no
        terminal: a file gets no moving bars.
    """
    stream = sys.stderr
    if stream is None or not stream.isatty():
        yield None
        return

    def show(samples: FloatArray) -> None:
        peak = float(np.abs(samples).max(initial=0.0))
        level = 20 * np.log10(max(peak, 1e-6))
        length = round(WIDTH * min(max(1 - level / LOWEST_DBFS, 0.0), 1.0))
        stream.write(f"\r[{'#' * length:{WIDTH}}] {max(level, LOWEST_DBFS):4.0f} dBFS")
        stream.flush()

    try:
        yield show
    finally:
        stream.write("\r" + " " * (WIDTH + 15) + "\r")
        stream.flush()
