"""Writing files so that a killed process leaves the old file or the new one, never a half."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path` that becomes `path` when the block ends.

    The temporary file is hidden and keeps the suffix, since many writers choose the format by it.
    It is flushed to the disk before the rename. If the block raises, it is removed and `path` is
    left as it was. The folder is made if it is missing.

    Args:
        path: Where the file shall be in the end.

    Yields:
        The path to write to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Stem and suffix are cut: a name close to the file system's limit of 255 bytes must still fit.
    name = f".{path.stem[:40]}.{secrets.token_hex(4)}.tmp{path.suffix[:16]}"
    temporary = path.with_name(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes_atomically(path: str | Path, data: bytes) -> None:
    """Replaces the content of `path` by `data` in one step."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text_atomically(path: str | Path, text: str) -> None:
    """Replaces the content of `path` by `text` in one step: UTF-8, lines end as in `text`."""
    write_bytes_atomically(path, text.encode("utf-8"))


def _sync_folder(folder: Path) -> None:
    """Makes a rename survive a power cut where the system lets a folder be opened (not Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
