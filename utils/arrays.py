"""The types of arrays that cross the borders of modules."""

from typing import Any

import numpy as np
import numpy.typing as npt

RealArray = npt.NDArray[np.floating[Any]]
"""Scores and rates, in 32 or 64 bits."""

FloatArray = npt.NDArray[np.float32]
"""Waveforms, spectrograms and embeddings, in 32 bits."""

BoolArray = npt.NDArray[np.bool_]
"""Masks."""
