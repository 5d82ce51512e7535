"""Reads the tensors of a PyTorch file with NumPy: no PyTorch, and no code of the file is run.

Such a file is a zip archive: `data.pkl` says by a pickle how names and tensors belong together,
`data/KEY` holds the numbers of a storage. The unpickler here knows the few functions that this
takes and refuses all others.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from utils.errors import ModelError

STORAGE_TYPES = {
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "DoubleStorage": np.dtype("<f8"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}
"""Kinds of numbers that a storage may hold."""


def read_torch_file(data: bytes, source: str | Path, key: str = "") -> dict[str, npt.NDArray[Any]]:
    """Returns the tensors of a state dict by name.

    Args:
        data: Content of a file that `torch.save` wrote (PyTorch 1.6 or later).
        source: What to call it in an error.
        key: Under which key of the file's dict the state dict lies; empty: it is the whole file.

    Raises:
        ModelError: If it is damaged, or holds anything but a dict of tensors.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            (name,) = [n for n in archive.namelist() if n.endswith("/data.pkl")]
            folder = name.removesuffix("data.pkl")
            tensors = _Unpickler(archive, folder).load()
            tensors = tensors[key] if key else tensors
    except (
        zipfile.BadZipFile, pickle.UnpicklingError, KeyError, ValueError, TypeError, EOFError,
        AttributeError, IndexError,
    ) as error:  # fmt: skip
        raise ModelError(
            f"{source}: no file of PyTorch weights ({error}); expected a dict of tensors"
        ) from error
    if not isinstance(tensors, dict) or not all(
        isinstance(key, str) and isinstance(value, np.ndarray) for key, value in tensors.items()
    ):
        raise ModelError(f"{source}: holds more than tensors, expected a dict of tensors")
    return tensors


class _Unpickler(pickle.Unpickler):
    """Builds NumPy arrays where PyTorch would build tensors."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        """Reads the pickle of an opened archive."""
        super().__init__(io.BytesIO(archive.read(f"{folder}data.pkl")))
        self._archive = archive
        self._folder = folder

    def find_class(self, module: str, name: str) -> Any:
        """Returns one of the known functions; refuses all others."""
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in STORAGE_TYPES:
            return STORAGE_TYPES[name]
        return self._refuse(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> npt.NDArray[Any]:
        """Returns the numbers of a storage, one after the other."""
        kind, dtype, key, _, size = pid
        if kind != "storage":
            self._refuse(str(kind))
        numbers = np.frombuffer(self._archive.read(f"{self._folder}data/{key}"), dtype)
        return numbers[:size]

    def _refuse(self, what: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {what}")


def _rebuild_tensor(
    storage: npt.NDArray[Any], offset: int, size: tuple[int, ...], stride: tuple[int, ...],
    *_: Any,
) -> npt.NDArray[Any]:  # fmt: skip
    """Returns a copy of a stretch of a storage in its shape."""
    if stride != _contiguous(size):
        raise ValueError(f"strides {stride} of a tensor of shape {size}")
    return np.array(storage[offset : offset + int(np.prod(size))].reshape(size))


def _contiguous(size: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the strides, in elements, of a tensor whose last axis lies together."""
    strides: list[int] = []
    step = 1
    for length in reversed(size):
        strides.insert(0, step)
        step *= length
    return tuple(strides)
