"""Tokens, stored only as hashes, and the headers that protect the page."""

import hashlib
import hmac
import logging
import re
import secrets
import threading
import time
from pathlib import Path

from service.logs import log_event
from service.settings import ServiceError
from utils.files import write_text_atomically

MIN_TOKEN_LENGTH = 16
"""Characters. Hashing is fast, so a token must be too long to guess; --new_token makes 43."""

RELOAD_S = 1.0
"""Seconds until a changed token file takes effect."""

TOKEN_LINE = re.compile(r"([^\s:#][^:]*):([0-9a-f]{64})")

ENVIRONMENT_ACTOR = "environment"
"""Name of the token in VOICEPRINT_TOKEN, for logs and limits."""

API_POLICY = "default-src 'none'; frame-ancestors 'none'"
PAGE_POLICY = (
    "default-src 'self'; img-src 'self' data:; media-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
DOCS_POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class EmptyTokenFileError(ServiceError):
    """A token file is whole, but has no tokens."""


class Tokens:
    """The valid tokens, known only by their SHA-256.

    Attributes:
        defect: Why a changed token file could not be read, or None.
    """

    def __init__(self, token: str | None = None, path: Path | None = None) -> None:
        """Reads the environment's token and those of a file.

        Raises:
            ServiceError: If the token is short, or the file is unreadable, damaged or empty.
        """
        if token is not None and len(token) < MIN_TOKEN_LENGTH:
            raise ServiceError(
                f"VOICEPRINT_TOKEN has {len(token)} characters, expected at least "
                f"{MIN_TOKEN_LENGTH}; make one with: python serve.py --new_token NAME"
            )
        if token is not None and not (token.isascii() and token.isprintable()):
            raise ServiceError("VOICEPRINT_TOKEN: expected letters, digits and signs of ASCII only")
        self._fixed = [(ENVIRONMENT_ACTOR, hash_token(token))] if token is not None else []
        self._path = path
        self._lock = threading.Lock()
        self.defect: str | None = None
        self._stamp = _stamp(path) if path else None
        self._listed = read_token_file(path) if path else []
        self._checked_at = time.monotonic()

    @property
    def are_required(self) -> bool:
        """Whether requests need a token."""
        return bool(self._fixed) or self._path is not None

    def find_actor(self, presented: str) -> str | None:
        """Returns the name of a token, or None; takes the same time for any wrong token."""
        self._reload()
        digest = hash_token(presented)
        actor = None
        for name, known in self._fixed + self._listed:
            if hmac.compare_digest(digest, known):
                actor = name
        return actor

    def _reload(self) -> None:
        """Reads a changed file again; while it is damaged or away, its last tokens stay valid.

        A slip of the operator's must not lock everybody out. A file that is whole but empty does.
        """
        if self._path is None:
            return
        with self._lock:
            if time.monotonic() - self._checked_at < RELOAD_S:
                return
            self._checked_at = time.monotonic()
            stamp = _stamp(self._path)
            if stamp == self._stamp and stamp is not None:
                return
            self._stamp = stamp
            try:
                self._listed = read_token_file(self._path)
                self.defect = None
            except EmptyTokenFileError as error:
                self._listed, self.defect = [], str(error)
            except ServiceError as error:
                self.defect = f"{error}; the tokens read before stay valid"
        if self.defect is not None:
            log_event("token file", level=logging.ERROR, reason=self.defect)


def hash_token(token: str) -> str:
    """Returns the SHA-256 of a token, in hexadecimal."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def read_token_file(path: Path) -> list[tuple[str, str]]:
    """Reads `name:sha256` lines; empty ones and those that begin with # are skipped.

    Raises:
        ServiceError: If the file cannot be read or a line is something else.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ServiceError(f"{path}: token file cannot be read ({reason})") from error
    tokens = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = TOKEN_LINE.fullmatch(line.strip())
        if match is None:
            # The line itself is not quoted: it may be a token in clear text.
            raise ServiceError(
                f"{path}, line {number}: expected NAME:SHA256 in lower-case hexadecimal; "
                "make one with: python serve.py --new_token NAME --token_file FILE"
            )
        tokens.append((match[1].strip(), match[2]))
    if not tokens:
        raise EmptyTokenFileError(f"{path}: no tokens in it; python serve.py --new_token makes one")
    return tokens


def create_token(name: str, path: Path | None) -> tuple[str, str]:
    """Makes a token and adds its hash to a file.

    Returns:
        The token, which cannot be recovered later, and its line for the file.

    Raises:
        ServiceError: If the name is unusable or taken, or the file is damaged.
    """
    if not TOKEN_LINE.fullmatch(f"{name}:{'0' * 64}") or not name.isprintable():
        raise ServiceError(f"received the token name {name!r}, expected one without : and #")
    token = secrets.token_urlsafe(32)
    line = f"{name}:{hash_token(token)}"
    if path is not None:
        known = read_token_file(path) if path.exists() and path.stat().st_size else []
        if name in {other for other, _ in known}:
            raise ServiceError(f"{path} has a token named {name}; choose another name")
        text = path.read_text(encoding="utf-8-sig") if path.exists() else ""
        text += "" if not text or text.endswith("\n") else "\n"
        try:
            write_text_atomically(path, f"{text}{line}\n")
            path.chmod(0o600)
        except OSError as error:
            raise ServiceError(f"{path}: cannot be written ({error.strerror})") from error
    return token, line


def security_headers(path: str, *, is_page: bool) -> dict[str, str]:
    """Returns the security headers of an answer, of the page or of the API."""
    policy = API_POLICY
    if is_page:
        is_docs = path.startswith(("/docs", "/voiceprint/"))
        policy = DOCS_POLICY if is_docs else PAGE_POLICY
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-cache" if is_page else "no-store",
    }


def _stamp(path: Path) -> tuple[int, int] | None:
    """Returns time and size of a file, or None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
