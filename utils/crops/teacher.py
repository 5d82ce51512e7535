"""Embeddings of a stronger model, as training targets where labels are few."""

import zipfile
import zlib
from pathlib import Path, PurePosixPath

import numpy as np

from utils.arrays import FloatArray
from utils.errors import DataListError


class TeacherTable:
    """Looks up a teacher model's embedding of an utterance, at its own or a changed speed.

    The file is an `.npz` with `path` (one string per row), `embedding` (one vector per row, any
    length) and, if there are changed speeds, `speed` (one number per row). A path in the file
    matches every listed utterance whose path, without its suffix, ends with it: lists may name
    converted copies in another folder.

    Attributes:
        size: Length of a vector.
        speeds: Speeds in the file, including 1.0.
    """

    def __init__(self, path: str | Path) -> None:
        """Reads the file.

        Raises:
            DataListError: If the file is missing or not a teacher file.
        """
        try:
            _check_archive(path)
            with np.load(path, allow_pickle=False) as file, np.errstate(over="ignore"):
                names = [str(name) for name in file["path"]]
                vectors = np.asarray(file["embedding"], dtype=np.float16)
                speeds = np.asarray(
                    file["speed"] if "speed" in file.files else np.ones(len(names)), np.float32
                )
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise DataListError(
                f"{path}: not a teacher file ({error}); expected an .npz with the arrays path and "
                "embedding, as tools/make_teacher.py writes it"
            ) from error
        if vectors.ndim != 2 or speeds.ndim != 1 or not len(names) == len(vectors) == len(speeds):
            raise DataListError(
                f"{path}: {len(names)} paths, {len(speeds)} speeds and embeddings of shape "
                f"{vectors.shape}; expected one of each a row"
            )
        if "" in names:
            raise DataListError(f"{path}: row {names.index('')} has an empty path")
        if not (np.isfinite(vectors).all() and np.isfinite(speeds).all()):
            raise DataListError(
                f"{path}: embeddings or speeds that are not finite in 16 bits; "
                "make the file again with tools/make_teacher.py"
            )
        self.size = int(vectors.shape[1])
        self.speeds = sorted({round(float(speed), 4) for speed in speeds} | {1.0})
        self._vectors = vectors
        self._rows: dict[tuple[str, ...], dict[float, int]] = {}
        for row, (name, speed) in enumerate(zip(names, speeds, strict=True)):
            self._rows.setdefault(_key(name), {})[round(float(speed), 4)] = row

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, path: str) -> dict[float, int]:
        """Returns `speed -> row` of an utterance; empty if the teacher doesn't know it."""
        key = _key(path)
        for start in range(len(key)):
            rows = self._rows.get(key[start:])
            if rows is not None:
                return rows
        return {}

    def vector(self, row: int) -> FloatArray:
        """Returns the unit-length vector of a row, shape `(size,)`."""
        return unit_length(self._vectors[row].astype(np.float32))


def unit_length(vector: FloatArray) -> FloatArray:
    """Scales a vector to length one."""
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-6), dtype=np.float32)


def _check_archive(path: str | Path) -> None:
    """Raises ValueError for an incomplete archive, which NumPy would leave open."""
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("no complete .npz archive")


def _key(path: str) -> tuple[str, ...]:
    """Splits a path into its parts, without the suffix of the last."""
    return PurePosixPath(path.replace("\\", "/")).with_suffix("").parts
