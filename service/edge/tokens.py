"""Tokens: several, named, known only by their hashes, with scopes, a group and an expiry.

They are lines of a file, which the service reads again when it changes:

    NAME:SHA256 scopes=verify,identify group=shop expires=2027-01-31T00:00:00+00:00

Whatever follows the hash may be missing: all scopes, the default group, no expiry. group=* reaches
all groups: each request chooses one. Two lines of one name are one token that is being rotated: the
old one expires, the new one stays.
"""

import hmac
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from service.answers.problems import Problem
from service.edge.token_file import EmptyTokenFileError, Grant, hash_token, read_token_file
from service.logs import log_event
from service.settings import ServiceError
from utils.speaker_names import DEFAULT_GROUP

MIN_TOKEN_LENGTH = 16
"""Characters. Hashing is fast, so a token must be too long to guess; --new_token makes 43."""

RELOAD_S = 1.0
"""Seconds until a changed token file takes effect."""

ENVIRONMENT_ACTOR = "environment"
"""Name of the token in VOICEPRINT_TOKEN, for logs and limits."""

LOCAL = Grant("local")
"""Who asks where no token is needed."""


class Tokens:
    """The valid tokens, known only by their SHA-256.

    Attributes:
        defect: Why a changed token file could not be read, or None.
    """

    def __init__(
        self,
        token: str | None = None,
        path: Path | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
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
        self._fixed = (
            [Grant(ENVIRONMENT_ACTOR, sha256=hash_token(token))] if token is not None else []
        )
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._uses: dict[str, datetime] = {}
        self._refusals: Counter[tuple[str, str, str]] = Counter()
        self.defect: str | None = None
        self._stamp = _stamp(path) if path else None
        self._listed = read_token_file(path) if path else []
        self._checked_at = time.monotonic()

    @property
    def are_required(self) -> bool:
        """Whether requests need a token."""
        return bool(self._fixed) or self._path is not None

    @property
    def groups(self) -> set[str]:
        """The groups that tokens were made for, and the default one."""
        return {DEFAULT_GROUP} | {grant.group for grant in self._fixed + self._listed}

    def find(self, presented: str) -> Grant | None:
        """Returns what a token allows, None if there is no such token.

        Takes the same time for any wrong token.

        Raises:
            Problem: 401, if it was valid and has expired.
        """
        self._reload()
        digest = hash_token(presented)
        grant = None
        for known in self._fixed + self._listed:
            if hmac.compare_digest(digest, known.sha256):
                grant = known
        if grant is None:
            return None
        now = self._clock()
        if grant.is_expired(now):
            self.note_refusal(grant, "expired")
            raise Problem(
                "unauthorized",
                f"the token {grant.name} has expired; ask for a new one",
                headers={"WWW-Authenticate": 'Bearer realm="voiceprint", error="invalid_token"'},
            )
        with self._lock:
            self._uses[grant.fingerprint] = now
        return grant

    def take_uses(self) -> dict[str, datetime]:
        """Returns when which token was used last, by its fingerprint, since the last call."""
        with self._lock:
            uses, self._uses = self._uses, {}
        return uses

    def put_back_uses(self, uses: dict[str, datetime]) -> None:
        """Takes back what `take_uses` returned and nobody could write down."""
        with self._lock:
            self._uses = uses | self._uses

    def note_refusal(self, grant: Grant, reason: str) -> None:
        """Counts that a known token was refused."""
        with self._lock:
            self._refusals[grant.name, grant.group, reason] += 1

    def take_refusals(self) -> dict[tuple[str, str, str], int]:
        """Returns how often which token of which group was refused, and why, since the last call.

        Counted, not listed: a client that asks on and on must not fill the audit log.
        """
        with self._lock:
            refusals, self._refusals = self._refusals, Counter()
        return dict(refusals)

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


def _stamp(path: Path) -> tuple[int, int] | None:
    """Returns time and size of a file, or None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
