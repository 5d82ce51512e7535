"""Paths as lists write them: of this system, of Windows, and from where a data set lay before."""

import os
import re
from pathlib import Path, PurePosixPath

DRIVE = re.compile(r"([A-Za-z]):/")
"""How a Windows path with a drive begins, once its backslashes are slashes."""


def local_path(text: str, folder: str | Path = ".") -> str:
    r"""Returns where a file that a list names lies on this machine.

    Backslashes become slashes. An absolute path into `folder`, or into a folder of the same name
    on another machine or drive, becomes relative to `folder`, where the file is there; `D:\a.wav`
    becomes `/mnt/d/a.wav` in Windows' Linux subsystem.

    Args:
        text: A path, absolute or relative to `folder`.
        folder: Where relative paths of the list start.

    Returns:
        Relative to `folder` or absolute, with forward slashes.
    """
    path = text.replace("\\", "/")
    drive = DRIVE.match(path)
    if not (drive or path.startswith("/")):
        return path
    inside = _inside(path, Path(folder).resolve())
    if inside is not None:
        return inside
    if drive and os.name != "nt":
        mounted = f"/mnt/{drive[1].lower()}/{path[3:]}"
        return mounted if Path(mounted).exists() else path
    return path


def _inside(path: str, folder: Path) -> str | None:
    """Returns an absolute path relative to a folder, or to its twin elsewhere, else None."""
    pure = PurePosixPath(path)
    if pure.is_relative_to(folder.as_posix()):
        return pure.relative_to(folder.as_posix()).as_posix()
    parts = pure.parts
    for place, part in enumerate(parts[:-1]):
        tail = PurePosixPath(*parts[place + 1 :])
        if part == folder.name and ".." not in tail.parts and (folder / tail).exists():
            return tail.as_posix()
    return None
