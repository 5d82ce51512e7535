"""Encryption of what is stored of a voice, and its destruction by forgetting a key.

Every voice record (a recording, or a speaker's mean embedding) is sealed with a random key of its
own, kept in a row that is never moved, only overwritten. Destroying those 32 bytes destroys all
copies of the record, wherever the database may have left them while it rearranged its pages. With
a master key, which the database never sees, the record keys themselves are sealed: encryption at
rest.
"""

import base64
import binascii
import os
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from utils.environment import read_variable
from utils.errors import DamagedVoiceError, DatabaseError

KEY_VARIABLE = "VOICEPRINT_KEY"
"""Environment variable of the master key; a command line could be read by others.
`VOICEPRINT_KEY_FILE` names a file of it instead."""

NEW_KEY_VARIABLE = "VOICEPRINT_NEW_KEY"
"""Environment variable of the master key that a database gets."""

KEY_BYTES = 32
"""Length of all keys: AES-256."""

NONCE_BYTES = 12
"""Random bytes before each sealed text, the length that GCM is defined for."""

TAG_BYTES = 16
"""Length that sealing adds behind the text."""

CHECK_TEXT = b"voiceprint"
"""What a database keeps sealed, in order to tell whether a master key is its own."""


def read_key(
    environment: Mapping[str, str] | None = None, variable: str = KEY_VARIABLE
) -> bytes | None:
    """Returns the master key of the environment variable, or None where it is not set.

    Args:
        environment: Where to look, the process's own if None.
        variable: The variable's name.

    Raises:
        DatabaseError: If the variable does not hold 32 bytes, in hexadecimal or base64.
        VoiceprintError: If its file cannot be read.
    """
    text = read_variable(variable, environment)
    if not text:
        return None
    for decode in (bytes.fromhex, lambda value: base64.b64decode(value, validate=True)):
        try:
            key = decode(text)
        except (binascii.Error, ValueError):
            continue
        if len(key) == KEY_BYTES:
            return key
    raise DatabaseError(
        f"{variable} does not hold a key, expected {KEY_BYTES} random bytes as "
        f"{2 * KEY_BYTES} hexadecimal digits or in base64; docs/database.md shows how to make one"
    )


def require_key(variable: str) -> bytes:
    """Returns the master key of an environment variable.

    Raises:
        DatabaseError: If it is not set, or holds no key.
    """
    key = read_key(variable=variable)
    if key is None:
        raise DatabaseError(f"{variable} is not set; docs/database.md shows how to make a key")
    return key


def seal(key: bytes, text: bytes, place: str) -> bytes:
    """Encrypts with AES-GCM.

    Args:
        key: 32 bytes.
        text: What to hide.
        place: Row and column that it belongs to; it cannot be opened as another one's.

    Returns:
        Nonce, ciphertext and tag.
    """
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, text, place.encode())


def unseal(key: bytes, sealed: bytes, place: str) -> bytes:
    """Opens what `seal` made.

    Raises:
        DamagedVoiceError: If the key or the place is another one, or the content was changed.
    """
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place.encode())
    except (InvalidTag, ValueError) as error:
        raise DamagedVoiceError(
            f"{place}: cannot be decrypted, it was changed or copied from elsewhere; "
            "restore a backup"
        ) from error


class KeyRing:
    """Makes and opens the keys of the records.

    Attributes:
        is_encrypted: Whether there is a master key.
        known_check: What the database kept when it was opened with this key; another process
            may give it another key meanwhile.
    """

    known_check: bytes | None = None

    def __init__(self, master_key: bytes | None = None) -> None:
        """Takes the master key, 32 bytes; None leaves the record keys readable.

        Raises:
            DatabaseError: If it has another length.
        """
        if master_key is not None and len(master_key) != KEY_BYTES:
            raise DatabaseError(
                f"received a key of {len(master_key)} bytes, expected {KEY_BYTES} random bytes"
            )
        self._master_key = master_key
        self.is_encrypted = master_key is not None

    def new(self) -> tuple[bytes, bytes]:
        """Returns a new record key, and the form in which it is stored, always of one length."""
        key = os.urandom(KEY_BYTES)
        return key, self.wrap(key)

    def open(self, stored: bytes) -> bytes:
        """Returns the record key from its stored form.

        Raises:
            DamagedVoiceError: If it was changed, or sealed with another master key.
        """
        if self._master_key is None:
            if len(stored) < KEY_BYTES:
                raise DamagedVoiceError(
                    "record key: cannot be decrypted, it was changed; restore a backup"
                )
            return stored[:KEY_BYTES]
        return unseal(self._master_key, stored, "record key")

    def check_text(self) -> bytes | None:
        """Returns what the database keeps, in order to recognise this master key later."""
        return None if self._master_key is None else seal(self._master_key, CHECK_TEXT, "check")

    def check(self, stored: bytes | None, database: str) -> None:
        """Compares the master key with the one that the database was made with.

        Raises:
            DatabaseError: If one has a key and the other has none, or they differ.
        """
        if stored is None and self._master_key is not None:
            raise DatabaseError(
                f"{database} is not encrypted, but a key was given; unset {KEY_VARIABLE}, or "
                "encrypt it with manage_voices.py rekey"
            )
        if stored is not None and self._master_key is None:
            raise DatabaseError(f"{database} is encrypted; give its key in {KEY_VARIABLE}")
        if stored is not None and self._master_key is not None:
            try:
                unseal(self._master_key, stored, "check")
            except DatabaseError as error:
                raise DatabaseError(
                    f"{database} is encrypted with another key than the one in {KEY_VARIABLE}"
                ) from error

    def check_unchanged(self, stored: bytes | None) -> None:
        """Compares what the database keeps now with what it kept when it was opened.

        Raises:
            DatabaseError: If it was given another key meanwhile.
        """
        if stored != self.known_check:
            raise DatabaseError(
                "the database was given another key meanwhile; start again with that key"
            )

    def wrap(self, key: bytes) -> bytes:
        """Returns a record key in its stored form."""
        if self._master_key is None:
            return key.ljust(NONCE_BYTES + KEY_BYTES + TAG_BYTES, b"\0")
        return seal(self._master_key, key, "record key")
