"""The sound of recordings that are files in the service's inbox."""

import hashlib
from functools import partial
from pathlib import Path

from utils.arrays import FloatArray
from utils.audio.decode import load_audio
from utils.errors import AudioError
from voices.folder import FolderVoiceStore
from voices.sql.inbox import InboxFiles
from voices.sql.other_models import SoundFiles


def find_sound(folder: str | Path, enrolled: InboxFiles) -> SoundFiles:
    """Returns what reads the files that were enrolled from a folder, by the recordings' ids.

    Args:
        folder: The inbox.
        enrolled: What the database remembers of it.
    """
    return {id_: partial(_read, *file) for id_, file in find_files(folder, enrolled).items()}


def find_files(folder: str | Path, enrolled: InboxFiles) -> dict[str, tuple[Path, str]]:
    """Returns the files that were enrolled from a folder and their hashes, by recordings' ids."""
    files = FolderVoiceStore(folder)
    paths = {
        place_of(files, path): path for some in files.all_recordings().values() for path in some
    }
    return {
        row.recording_id: (paths[row.path], row.sha256)
        for row in enrolled.all()
        if row.path in paths
    }


def place_of(folder: FolderVoiceStore, path: Path) -> str:
    """Returns the place of a file in a folder, as the database can store it."""
    return printable(path.relative_to(folder.folder).as_posix())


def printable(text: str) -> str:
    """Returns the name of a file as text; bytes that are not UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file's content in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(path: Path, sha256: str) -> FloatArray:
    """Returns the sound of a file, shape `(num_samples,)`, unless it is another one by now."""
    try:
        is_same = sha256_of(path) == sha256
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror})") from error
    if not is_same:
        raise AudioError(f"{path}: has changed since it was enrolled; start the service again")
    return load_audio(path)
