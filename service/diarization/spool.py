"""An upload on the disk that nobody can read: a file without a name, encrypted.

An hour of sound is too much for the memory. The file has no name in any folder, so that the system
frees it with the last process that has it open, whatever ends that process. Its key is only in the
memory of this process: what may remain in freed blocks is noise.
"""

import io
import os
import tempfile
import threading
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from service.answers.problems import Problem

BLOCK_BYTES = 16
"""Length of a block of AES."""

BUFFER_BYTES = 1 << 18
"""Bytes that a reader takes at a time."""


class Spool:
    """Bytes that are written once, from the beginning to the end, and read from anywhere.

    Attributes:
        size: Bytes so far.
    """

    def __init__(self) -> None:
        """Makes the file where temporary files lie (`TMPDIR`)."""
        self.size = 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        self._key = AES(os.urandom(32))
        self._lock = threading.Lock()
        self._encrypt = self._cipher(0)

    def write(self, data: bytes) -> None:
        """Adds bytes at the end.

        Raises:
            Problem: 507 if the disk is full.
        """
        with self._lock:
            try:
                self._file.seek(self.size)
                self._file.write(self._encrypt.update(data))
                self._file.flush()
            except OSError as error:
                detail = f"the recording cannot be stored for the moment ({error.strerror})"
                raise Problem("no-space", detail) from error
            self.size += len(data)

    def read(self, offset: int, size: int) -> bytes:
        """Returns bytes from a place; fewer at the end.

        Raises:
            ValueError: If it is closed.
        """
        start = offset // BLOCK_BYTES * BLOCK_BYTES
        with self._lock:
            self._file.seek(start)
            data = self._file.read(offset - start + size)
        opened: bytes = self._cipher(start // BLOCK_BYTES).update(data)
        return opened[offset - start :]

    def open(self) -> io.BufferedReader:
        """Returns a file that reads it."""
        return io.BufferedReader(SpoolReader(self.read, self.size), BUFFER_BYTES)

    def close(self) -> None:
        """Frees the file and forgets the key."""
        with self._lock:
            self._file.close()

    def _cipher(self, block: int) -> Any:
        """Returns what encrypts or decrypts from a block on: the block's number is the counter."""
        return Cipher(self._key, CTR(block.to_bytes(BLOCK_BYTES, "big"))).encryptor()


class SpoolReader(io.RawIOBase):
    """A file whose bytes come from a function of place and size, perhaps of another process."""

    def __init__(self, read_at: Any, size: int) -> None:
        """Begins at the beginning."""
        self._read_at, self._size, self._place = read_at, size, 0

    def readable(self) -> bool:
        """Says yes."""
        return True

    def seekable(self) -> bool:
        """Says yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Goes to a place and returns it."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(origin + offset, 0)
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer, at the end a part of it, and returns how many bytes it got."""
        data: bytes = self._read_at(self._place, len(buffer))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)
