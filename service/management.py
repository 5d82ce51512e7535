"""What an operator does beside the running service: tokens, groups, the audit log."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from service.edge.scopes import SCOPES
from service.edge.token_file import (
    EVERY_GROUP,
    Grant,
    create_token,
    read_scopes,
    read_token_file,
    revoke_token,
    rotate_token,
)
from service.settings import ServiceError
from utils.files import atomic_path
from utils.messages import translate
from utils.speaker_names import DEFAULT_GROUP
from voices.sql.cipher import read_key
from voices.sql.records import AuditLine
from voices.sql.store import SqlVoiceStore

OPERATOR = "operator"
"""The actor in the audit log of what was done by a command."""


def print_new_token(
    name: str,
    path: Path | None,
    scopes: str | None = None,
    group: str | None = None,
    days: float | None = None,
) -> None:
    """Makes a token and prints it, once.

    Args:
        name: For logs, limits and the audit log.
        path: The token file; None prints the line for one.
        scopes: What it allows, separated by commas; None for everything.
        group: Whose speakers it reaches, "*" for all; None for the default group's.
        days: Until it expires; None for never.
    """
    token, line = create_token(
        name,
        path,
        scopes=SCOPES if scopes is None else read_scopes(scopes, "--scopes"),
        group=group or DEFAULT_GROUP,
        expires_at=_in_days(days),
    )
    _print_once(name, token)
    print(translate(f"added to {path}" if path else f"line for a --token_file: {line}"))


def print_tokens(path: Path, database: SqlVoiceStore | None) -> None:
    """Prints the tokens of a file, one in a line, columns separated by tabs.

    Args:
        path: The token file.
        database: Knows when they were used; None if it cannot be asked.
    """
    now = datetime.now(timezone.utc)
    uses = None if database is None else database.token_uses.all()
    heads = ("name", "hash", "group", "scopes", "expires", "last use")
    print("\t".join(map(translate, heads)))
    for grant in read_token_file(path):
        last = translate("unknown")
        if uses is not None:
            used_at = uses.get(grant.fingerprint)
            last = translate("never") if used_at is None else _shown(used_at)
        print("\t".join([*_columns(grant, now), last]))


def print_rotated_token(name: str, path: Path, grace_h: float, days: float | None) -> None:
    """Makes a new token in the place of an old one and prints it, once."""
    now = datetime.now(timezone.utc)
    token, ends_at = rotate_token(name, path, timedelta(hours=grace_h), now, _in_days(days))
    _print_once(name, token)
    print(translate(f"The old one stays valid until {_shown(ends_at)}."))


def print_revoked_token(name: str, path: Path) -> None:
    """Removes a token."""
    revoke_token(name, path)
    print(translate(f"The token {name} is revoked; a running service refuses it within a second."))


@contextlib.contextmanager
def opened_database(url: str, environment: Mapping[str, str]) -> Iterator[SqlVoiceStore]:
    """Yields the database of the service, which must be there.

    Raises:
        DatabaseError: If it cannot be opened.
    """
    database = SqlVoiceStore(url, key=read_key(environment), create=False)
    try:
        yield database
    finally:
        database.close()


def print_groups(database: SqlVoiceStore) -> None:
    """Prints the groups and how many speakers each has, columns separated by tabs."""
    print("\t".join(translate(word) for word in ("group", "speakers")))
    for name, number in database.groups().items():
        print(f"{name}\t{number}")


def delete_group(database: SqlVoiceStore, group: str, path: Path | None) -> None:
    """Removes all speakers of a group, and its tokens before, so that nobody enrols meanwhile.

    Raises:
        ServiceError: If it has no speakers.
        DatabaseError: If it is the default group, or cannot be removed.
    """
    num_tokens = 0
    voices = database.in_group(group)
    if group not in database.groups():
        raise ServiceError(f"there are no speakers of the group {group}")
    if path is not None and group != DEFAULT_GROUP:
        theirs = {grant.name for grant in read_token_file(path) if grant.group == group}
        num_tokens = sum(revoke_token(name, path) for name in theirs)
    num_speakers = voices.remove_group()
    outcome = f"{num_speakers} speakers"
    database.audit_log.append(AuditLine(OPERATOR, "delete group", "", outcome, group=group))
    print(translate(f"{group}: {num_speakers} speakers and {num_tokens} tokens removed"))


def trim_audit(database: SqlVoiceStore, older_than_days: float, archive: Path | None) -> None:
    """Removes old lines of the audit log, after they were written to a file.

    Raises:
        ServiceError: If there is a file of that name, or it cannot be written.
    """
    log = database.audit_log
    last = log.last_to_go(datetime.now(timezone.utc) - timedelta(days=older_than_days))
    if archive is not None:
        if archive.exists():
            raise ServiceError(f"{archive}: is there already; choose another name")
        try:
            with atomic_path(archive) as temporary:
                temporary.touch(mode=0o600)
                _write_lines(temporary, log.until(last))
        except OSError as error:
            raise ServiceError(f"{archive}: cannot be written ({error.strerror})") from error
    num_lines = log.trim(last, OPERATOR) if last else 0
    print(translate(f"{num_lines} lines of the audit log removed"))


def _write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Writes each line as JSON."""
    with open(path, "w", encoding="utf-8") as file:
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _print_once(name: str, token: str) -> None:
    """Prints a new token."""
    print(translate(f"token of {name}: {token}"))
    print(translate("It is shown this once; the service keeps its SHA-256 only."))


def _columns(grant: Grant, now: datetime) -> list[str]:
    """Returns what the list shows of a token."""
    expires = translate("never") if grant.expires_at is None else _shown(grant.expires_at)
    if grant.is_expired(now):
        expires = translate(f"expired {expires}")
    scopes = ",".join(scope for scope in SCOPES if scope in grant.scopes)
    group = EVERY_GROUP if grant.reaches_all else grant.group
    return [grant.name, grant.fingerprint, group, scopes, expires]


def _in_days(days: float | None) -> datetime | None:
    """Returns the moment after some days from now."""
    return None if days is None else datetime.now(timezone.utc) + timedelta(days=days)


def _shown(moment: datetime) -> str:
    """Returns a moment as it is printed, UTC."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
