"""What is known of clips that were checked: a journal that outlives a kill.

Each line records the finding for a file with its size and time; it holds as long as both stay.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from utils.errors import VoiceprintError
from utils.locks import only_process

ABSENT = "-"
"""State of a file that does not exist."""

LINE_END = "."
"""Last field of a journal line; a line without it was cut off by a kill and is ignored."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of checking one clip.

    Attributes:
        listed: The file that goes into the data list.
        duration_s: Its duration in seconds, 0 if it could not be decoded.
        defect: Why it is unusable, or None. The caller rejects short clips by `duration_s`.
        listed_state: Size and time of `listed` when checked.
        source_state: Size and time of the source when checked.
        treatment: What was done to the sound, "" for nothing.
        sound: Checksum of the samples in 16 bits, "" if it is not known.
    """

    listed: str
    duration_s: float
    defect: str | None
    listed_state: str
    source_state: str
    treatment: str = ""
    sound: str = ""


def read_journal(path: Path) -> dict[str, Finding]:
    """Reads the findings of earlier runs; a file's last one counts, damaged lines are ignored."""
    known: dict[str, Finding] = {}
    if not path.is_file():
        return known
    with path.open(encoding="utf-8", errors="replace", newline="\n") as lines:
        for line in lines:
            fields = line.rstrip("\n").split("\t")
            if len(fields) not in (6, 8) or fields[-1] != LINE_END:
                continue
            try:
                duration_s = float(fields[3])
            except ValueError:
                continue
            # Lines of six fields are of an earlier version.
            known[fields[0]] = Finding(
                fields[0], duration_s, fields[4] or None, fields[1], fields[2], *fields[5:-1]
            )
    return known


def file_state(path: str) -> str:
    """Returns size and time of a file, which change whenever its content does."""
    try:
        status = Path(path).stat()
    except OSError:
        return ABSENT
    return f"{status.st_size}:{status.st_mtime_ns}"


@contextlib.contextmanager
def open_journal(path: Path) -> Iterator[TextIO]:
    """Opens the journal for appending; each line is flushed at once."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            path.open("a", encoding="utf-8", newline="\n", buffering=1) as journal,
            only_process(journal, path),
        ):
            if journal.tell():
                journal.write("\n")  # ends a line cut off by a kill
            yield journal
    except OSError as error:
        raise VoiceprintError(f"cannot write {path}: {error.strerror}") from error


def journal_line(finding: Finding) -> str:
    """Returns a finding as `read_journal` reads it."""
    fields: Iterable[str] = (
        finding.listed,
        finding.listed_state,
        finding.source_state,
        repr(finding.duration_s) if math.isfinite(finding.duration_s) else "0.0",
        finding.defect or "",
        finding.treatment,
        finding.sound,
        LINE_END,
    )
    return "\t".join(fields) + "\n"
