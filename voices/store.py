"""The store of voices as everything above it sees it, and the addresses by which one is opened."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from utils.arrays import FloatArray
from utils.environment import read_variable
from utils.errors import DatabaseError
from utils.verification.embedding import Encoder
from voices.folder import FolderVoiceStore

DATABASE_VARIABLE = "VOICEPRINT_DATABASE"
"""Environment variable with a database's address: a command line could be read by others."""


class VoiceStore(Protocol):
    """Who is enrolled, with which recordings: `FolderVoiceStore` or `SqlVoiceStore`.

    Names are compared by `utils.speaker_names`; a speaker's embedding is the `mean_embedding` of
    the recordings. A recording is whatever prints its place.
    """

    @property
    def rejected(self) -> Sequence[tuple[object, str]]:
        """`(recording, reason)` of recordings that cannot be used."""

    def load(self) -> list[str]:
        """Makes everything ready for comparison, and returns the speakers."""

    def names(self) -> list[str]:
        """Returns the enrolled speakers in alphabetical order."""

    def all_recordings(self) -> Mapping[str, Sequence[object]]:
        """Returns the recordings of each speaker, in alphabetical order of the names."""

    def recordings(self, name: str) -> Sequence[object]:
        """Returns a speaker's recordings; none if nobody has the name."""

    def enrolled_name(self, name: str) -> str | None:
        """Returns the enrolled spelling of a name, None if nobody has it."""

    def look_alikes(self, name: str) -> list[str]:
        """Returns the enrolled names that look like a name, and are other people's."""

    def add(self, name: str, *waveforms: FloatArray) -> Sequence[object]:
        """Enrols a speaker, or adds recordings."""

    def replace(self, name: str, *waveforms: FloatArray) -> Sequence[object]:
        """Puts new recordings in the place of the old ones."""

    def delete(self, name: str) -> Sequence[object]:
        """Removes a speaker and returns what was removed."""

    def rank(self, embedding: FloatArray) -> list[tuple[str, float]]:
        """Compares an embedding with all speakers, the best first."""


def open_database(
    target: str | Path,
    encoder: Encoder | None = None,
    *,
    keep_audio: bool = False,
    create: bool = True,
    key_variable: str | None = None,
) -> VoiceStore:
    """Opens a store by its address.

    Args:
        target: `sqlite:///PATH`, `postgresql://USER:PASSWORD@HOST/DATABASE`, or a folder of
            recordings. The key of an encrypted database is read from the environment.
        encoder: The speaker model. Without one, listing and deleting work.
        keep_audio: Whether an SQL database stores the sound too; a folder always does.
        key_variable: Environment variable of the key; VOICEPRINT_KEY if None, "" for no key.
        create: Make an SQL database that is missing; a folder is made when it is needed.

    Raises:
        DatabaseError: If an SQL database cannot be opened, or its packages are not installed.
    """
    if "://" not in str(target):
        return FolderVoiceStore(target, encoder)
    # SQLAlchemy takes 0.3 s to import: those who use a folder do not wait for it.
    try:
        from voices.sql.cipher import KEY_VARIABLE, read_key
        from voices.sql.store import SqlVoiceStore
    except ModuleNotFoundError as error:
        raise DatabaseError(
            f"{public_name(str(target))} needs the package {error.name}; "
            "pip install -r requirements-service.txt"
        ) from error
    key = read_key(variable=KEY_VARIABLE if key_variable is None else key_variable)
    options: dict[str, Any] = {"key": key, "keep_audio": keep_audio, "create": create}
    return SqlVoiceStore(str(target), encoder, **options)


def open_with_new_key(target: str, new_key: bool, decrypt: bool) -> VoiceStore:
    """Opens the destination of a move: with the same key, another one, or none.

    Args:
        target: The address of an SQL database.
        new_key: The key is in VOICEPRINT_NEW_KEY.
        decrypt: There is no key.

    Raises:
        DatabaseError: If it cannot be opened, or VOICEPRINT_NEW_KEY holds no key.
    """
    if not new_key:
        return open_database(target, key_variable="" if decrypt else None)
    from voices.sql.cipher import NEW_KEY_VARIABLE, require_key

    require_key(NEW_KEY_VARIABLE)
    return open_database(target, key_variable=NEW_KEY_VARIABLE)


def choose_target(database: str | None, audio_db: str | None) -> tuple[str, str]:
    """Returns the store that the options --database and --audio_db mean.

    Args:
        database: An address or a folder.
        audio_db: A folder; without both the environment is asked, and then "audio_db" is taken.

    Returns:
        The target for `open_database`, and the same without user, password and options.
    """
    target = database or audio_db or read_variable(DATABASE_VARIABLE) or "audio_db"
    return target, public_name(target)


def public_name(target: str) -> str:
    """Returns the address of a database without user, password and options; a folder as it is."""
    if "://" not in target or target.startswith("sqlite"):
        return target
    # By hand: a password may hold @, and / ? # or [, where urlsplit ends the host.
    return re.sub("://([^:/?@]*:.*|[^/?@]*)@", "://", target).partition("?")[0]
