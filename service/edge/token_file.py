"""The file of tokens: a line each, with the token's hash, scopes, group and expiry.

    NAME:SHA256 scopes=verify,identify group=shop expires=2027-01-31T00:00:00+00:00

Whatever follows the hash may be missing: all scopes, the default group, no expiry. Two lines of one
name are one token that is being rotated: the old one expires, the new one stays.
"""

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

from service.edge.scopes import SCOPES
from service.settings import ServiceError
from utils.errors import DatabaseError
from utils.files import write_text_atomically
from utils.speaker_names import DEFAULT_GROUP, clean_group

TOKEN_LINE = re.compile(r"([^\s:#][^:]*):([0-9a-f]{64})((?:\s+[a-z]+=\S*)*)")

FINGERPRINT_LENGTH = 12
"""Digits of a hash that tell tokens apart in lists."""


class EmptyTokenFileError(ServiceError):
    """A token file is whole, but has no tokens."""


EVERY_GROUP = "*"
"""What a token's line says instead of a group for all of them."""


@dataclass(frozen=True)
class Grant:
    """What a token allows to whom.

    Attributes:
        name: For logs, limits and the audit log.
        scopes: Some of `SCOPES`.
        group: Whose speakers it reaches.
        reaches_all: Whether a request with it may choose another group.
        expires_at: When it stops, UTC; None for never.
        sha256: Of the token, in hexadecimal; empty where none is needed.
    """

    name: str
    scopes: frozenset[str] = frozenset(SCOPES)
    group: str = DEFAULT_GROUP
    expires_at: datetime | None = None
    sha256: str = ""
    reaches_all: bool = False

    @property
    def fingerprint(self) -> str:
        """The first digits of the hash."""
        return self.sha256[:FINGERPRINT_LENGTH]

    def is_expired(self, now: datetime) -> bool:
        """Tells whether its time is over."""
        return self.expires_at is not None and now >= self.expires_at

    def line(self) -> str:
        """Returns its line for the file."""
        words = [f"{self.name}:{self.sha256}"]
        if self.scopes != frozenset(SCOPES):
            words.append(f"scopes={','.join(scope for scope in SCOPES if scope in self.scopes)}")
        if self.reaches_all:
            words.append(f"group={EVERY_GROUP}")
        elif self.group != DEFAULT_GROUP:
            words.append(f"group={self.group}")
        if self.expires_at is not None:
            words.append(f"expires={self.expires_at.isoformat(timespec='seconds')}")
        return " ".join(words)


def hash_token(token: str) -> str:
    """Returns the SHA-256 of a token, in hexadecimal."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def read_token_file(path: Path) -> list[Grant]:
    """Reads the lines of a token file; empty ones and those that begin with # are skipped.

    Raises:
        ServiceError: If the file cannot be read or a line is something else.
    """
    tokens = [grant for _, grant in _parse(path, _read_text(path)) if grant is not None]
    if not tokens:
        raise EmptyTokenFileError(f"{path}: no tokens in it; python serve.py --new_token makes one")
    return tokens


def create_token(
    name: str,
    path: Path | None,
    *,
    scopes: Iterable[str] = SCOPES,
    group: str = DEFAULT_GROUP,
    expires_at: datetime | None = None,
) -> tuple[str, str]:
    """Makes a token and adds its hash to a file.

    Returns:
        The token, which cannot be recovered later, and its line for the file.

    Raises:
        ServiceError: If the name is unusable or taken, or the file is damaged.
        DatabaseError: If the group's name is unusable.
    """
    if not TOKEN_LINE.fullmatch(f"{name}:{'0' * 64}") or not name.isprintable():
        raise ServiceError(f"received the token name {name!r}, expected one without : and #")
    token = secrets.token_urlsafe(32)
    new = Grant(name, frozenset(scopes), expires_at=expires_at, sha256=hash_token(token))
    new = _in_group(new, group)
    if path is not None:
        lines = _parse(path, _read_text(path) if path.exists() else "")
        if any(grant.name == name for _, grant in lines if grant is not None):
            raise ServiceError(f"{path} has a token named {name}; choose another name")
        _write(path, [*(line for line, _ in lines), new.line()])
    return token, new.line()


def rotate_token(
    name: str, path: Path, grace: timedelta, now: datetime, expires_at: datetime | None = None
) -> tuple[str, datetime]:
    """Makes a new token in the place of one, which stays valid for a while.

    Scopes and group stay the same.

    Args:
        name: Which.
        path: The token file.
        grace: How long the old one stays valid.
        now: The present moment.
        expires_at: When the new one stops, None for never.

    Returns:
        The new token, and when the old one stops.

    Raises:
        ServiceError: If there is no such token, or the file cannot be used.
    """
    lines = _parse(path, _read_text(path))
    old = [grant for _, grant in lines if grant is not None and grant.name == name]
    if not old:
        raise _no_such_token(name, path)
    ends_at = now + grace
    token = secrets.token_urlsafe(32)
    new = replace(old[-1], sha256=hash_token(token), expires_at=expires_at)
    kept = [
        line
        if grant is None or grant.name != name
        else replace(grant, expires_at=min(grant.expires_at or ends_at, ends_at)).line()
        for line, grant in lines
        if grant is None or grant.name != name or not grant.is_expired(now)
    ]
    _write(path, [*kept, new.line()])
    return token, ends_at


def revoke_token(name: str, path: Path) -> int:
    """Removes all lines of a token; returns how many.

    Raises:
        ServiceError: If there is no such token, or the file cannot be used.
    """
    lines = _parse(path, _read_text(path))
    kept = [line for line, grant in lines if grant is None or grant.name != name]
    if len(kept) == len(lines):
        raise _no_such_token(name, path)
    _write(path, kept)
    return len(lines) - len(kept)


def _no_such_token(name: str, path: Path) -> ServiceError:
    return ServiceError(f"{path}: no token named {name}; python manage.py --tokens lists them")


def _read_text(path: Path) -> str:
    """Returns the text of a token file."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ServiceError(f"{path}: token file cannot be read ({reason})") from error


def _parse(path: Path, text: str) -> list[tuple[str, Grant | None]]:
    """Returns each line with the token on it, None for comments and empty lines."""
    found: list[tuple[str, Grant | None]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            found.append((line, None))
            continue
        match = TOKEN_LINE.fullmatch(line.strip())
        where = f"{path}, line {number}"
        if match is None:
            # The line itself is not quoted: it may be a token in clear text.
            raise ServiceError(
                f"{where}: expected NAME:SHA256 in lower-case hexadecimal; "
                "make one with: python serve.py --new_token NAME --token_file FILE"
            )
        grant = Grant(match[1].strip(), sha256=match[2])
        for word in match[3].split():
            grant = _with(grant, where, *word.split("=", 1))
        found.append((line, grant))
    return found


def _with(grant: Grant, where: str, key: str, value: str) -> Grant:
    """Returns a token with one of the words behind its hash."""
    if key == "scopes":
        return replace(grant, scopes=read_scopes(value, where))
    if key == "group":
        try:
            return _in_group(grant, value)
        except DatabaseError as error:
            raise ServiceError(f"{where}: {error}") from error
    if key == "expires":
        return replace(grant, expires_at=read_moment(value, where))
    raise ServiceError(f"{where}: received {key}=, expected scopes=, group= or expires=")


def _in_group(grant: Grant, group: str) -> Grant:
    """Returns a token for a group, or for all of them.

    Raises:
        DatabaseError: If that cannot be the name of a group.
    """
    if group == EVERY_GROUP:
        return replace(grant, group=DEFAULT_GROUP, reaches_all=True)
    return replace(grant, group=clean_group(group))


def read_scopes(text: str, where: str) -> frozenset[str]:
    """Reads scopes separated by commas.

    Raises:
        ServiceError: If one is unknown.
    """
    scopes = frozenset(text.split(","))
    if not scopes <= frozenset(SCOPES):
        unknown = sorted(scopes - frozenset(SCOPES))[0]
        raise ServiceError(f"{where}: received the scope {unknown!r}, expected {', '.join(SCOPES)}")
    return scopes


def read_moment(text: str, where: str) -> datetime:
    """Reads a date or a time of ISO 8601; UTC if it names no zone.

    Raises:
        ServiceError: If it is something else.
    """
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise ServiceError(
            f"{where}: received the time {text!r}, expected one as 2027-01-31 or "
            "2027-01-31T12:00:00+00:00"
        ) from error
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)


def _write(path: Path, lines: list[str]) -> None:
    """Puts lines into a token file that only its owner may read."""
    try:
        write_text_atomically(path, "".join(f"{line}\n" for line in lines))
        path.chmod(0o600)
    except OSError as error:
        raise ServiceError(f"{path}: cannot be written ({error.strerror})") from error
