"""Data lists (`path<TAB>label`) and trial lists (`1 a.wav b.wav`).

Both are plain UTF-8 text, so lists of other tools work too and lists can be joined by hand.
docs/data_format.md describes them for users.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.errors import DataListError
from utils.files import write_text_atomically

BYTE_ORDER_MARK = "\ufeff"
MAX_QUOTED_CHARS = 80  # of a bad line, to keep the error on one readable line


@dataclass(frozen=True, slots=True)
class Utterance:
    """One line of a data list: an audio file and the label of its speaker."""

    path: str
    label: int


@dataclass(frozen=True, slots=True)
class Trial:
    """One line of a trial list: do the two files hold the same speaker?"""

    is_target: bool
    path1: str
    path2: str


def read_data_list(path: str | Path) -> list[Utterance]:
    """Reads a data list.

    Empty lines are ignored; a byte order mark and Windows line endings are accepted.

    Args:
        path: The list, one `path<TAB>label` per line. Labels are integers from 0.

    Returns:
        The utterances in the order of the file, at least one.

    Raises:
        DataListError: If the file is missing, not UTF-8 or empty, or a line has another format; it
            names the file, the line, and the received and expected content.
    """
    utterances = []
    for number, line in _read_lines(path, "create it with create_data.py"):
        fields = line.split("\t")
        if len(fields) != 2 or not fields[0].strip():
            raise _line_error(path, number, line, "path<TAB>label")
        label = fields[1].strip()
        if not (label.isascii() and label.isdigit()):
            raise _line_error(path, number, line, "an integer label from 0 after the tab")
        utterances.append(Utterance(fields[0], int(label)))
    if not utterances:
        raise DataListError(f"{path}: no utterance in the list, expected lines path<TAB>label")
    return utterances


def write_data_list(path: str | Path, utterances: Iterable[Utterance]) -> None:
    r"""Writes a data list atomically: the old list stays until the new one is complete.

    Args:
        path: The list to write. Its folder is created if it is missing.
        utterances: The lines, in this order; backslashes become forward slashes.

    Raises:
        DataListError: If a list cannot hold a path (see `path_defect`), or a label is negative.
            Nothing is written then.
    """
    lines = []
    for utterance in utterances:
        name = utterance.path.replace("\\", "/")
        defect = path_defect(name)
        if defect is not None:
            raise DataListError(f"{path}: cannot list {_quote(name)}: {defect}")
        if utterance.label < 0:
            raise DataListError(f"{path}: label {utterance.label} of {name}, expected 0 or more")
        lines.append(f"{name}\t{utterance.label}\n")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, "".join(lines))


def path_defect(path: str) -> str | None:
    """Returns why a data list cannot hold a path, or None if it can."""
    if not path.strip():
        return "empty path"
    if any(char in path for char in "\t\n\r"):
        return "tab or line break in the path"
    if path.startswith(BYTE_ORDER_MARK):
        return "path begins with a byte order mark"
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return "path is not valid UTF-8"
    return None


def num_classes(utterances: Sequence[Utterance]) -> int:
    """Returns the number of classes that a list needs: its largest label + 1.

    Raises:
        DataListError: If the list is empty.
    """
    if not utterances:
        raise DataListError("the data list is empty, expected at least one utterance")
    return max(utterance.label for utterance in utterances) + 1


def check_labels(utterances: Sequence[Utterance], num_classes: int) -> None:
    """Checks that every label is smaller than the number of classes.

    Args:
        utterances: The list.
        num_classes: The number of classes of the network.

    Raises:
        DataListError: If a label is too large; it names the first such utterance, its number in
            the list, and the number of classes that the list needs.
    """
    for number, utterance in enumerate(utterances, start=1):
        if not 0 <= utterance.label < num_classes:
            needed = max(item.label for item in utterances) + 1
            raise DataListError(
                f"utterance {number} of the list, {utterance.path}, has label {utterance.label}, "
                f"expected 0 to {num_classes - 1}: num_classes is {num_classes} and must be at "
                f"least {needed}, or leave it out to have it read from the list"
            )


def read_trial_list(path: str | Path) -> list[Trial]:
    """Reads a trial list in the VoxCeleb format.

    Args:
        path: The list, one trial per line: `1` (same speaker) or `0`, then two paths, separated
            by tabs, or by spaces if no path contains one.

    Returns:
        The trials in the order of the file, at least one.

    Raises:
        DataListError: If the file is missing, not UTF-8 or empty, or a line has another format; it
            names the file, the line, and the received and expected content.
    """
    trials = []
    for number, line in _read_lines(path, "expected lines like `1 a.wav b.wav`"):
        fields = _split_fields(line)
        if len(fields) != 3 or fields[0] not in ("0", "1") or not (fields[1] and fields[2]):
            raise _line_error(path, number, line, "1 (same speaker) or 0, and two paths")
        trials.append(Trial(fields[0] == "1", fields[1], fields[2]))
    if not trials:
        raise DataListError(f"{path}: no trial in the list, expected lines like `1 a.wav b.wav`")
    return trials


def read_pair_list(path: str | Path, root: str | Path | None = None) -> list[tuple[str, str]]:
    """Reads pairs of recordings to compare: a trial list, or one without its first column.

    Args:
        path: The list, one pair per line: two paths, after `1` or `0` if it is a trial list.
        root: Folder that the paths are relative to.

    Returns:
        The pairs in the order of the file, at least one.

    Raises:
        DataListError: As `read_trial_list`.
    """
    pairs = []
    for number, line in _read_lines(path, "expected lines like `a.wav b.wav`"):
        fields = _split_fields(line)
        if len(fields) == 3 and fields[0] in ("0", "1"):
            fields = fields[1:]
        if len(fields) != 2 or not (fields[0] and fields[1]):
            raise _line_error(path, number, line, "two paths, or 1 or 0 and two paths")
        first, second = fields if root is None else ((Path(root) / f).as_posix() for f in fields)
        pairs.append((first, second))
    if not pairs:
        raise DataListError(f"{path}: no pair in the list, expected lines like `a.wav b.wav`")
    return pairs


def read_path_list(path: str | Path) -> list[str]:
    """Reads a list of recordings, a path a line.

    Raises:
        DataListError: If it cannot be read or names none.
    """
    paths = [line.strip() for _, line in _read_lines(path, "expected a path a line")]
    if not paths:
        raise DataListError(f"{path}: no recording in the list, expected a path a line")
    return paths


def _read_lines(path: str | Path, advice: str) -> list[tuple[int, str]]:
    """Returns the numbered lines of a UTF-8 file that are not empty."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise DataListError(f"{path}: no such list, {advice}") from error
    except OSError as error:
        raise DataListError(f"{path}: cannot be read ({error.strerror}), {advice}") from error
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise DataListError(
            f"{path}, line {number}: byte 0x{data[error.start]:02x} is not UTF-8, "
            "expected a UTF-8 text file"
        ) from error
    # Not str.splitlines, which also splits at characters that a file name may contain.
    lines = text.removeprefix(BYTE_ORDER_MARK).split("\n")
    numbered = ((number, line.removesuffix("\r")) for number, line in enumerate(lines, start=1))
    return [(number, line) for number, line in numbered if line.strip()]


def _split_fields(line: str) -> list[str]:
    """Splits at tabs if there are any, so that paths may contain spaces."""
    return [field.strip() for field in (line.split("\t") if "\t" in line else line.split())]


def _line_error(path: str | Path, number: int, line: str, expected: str) -> DataListError:
    return DataListError(f"{path}, line {number}: received {_quote(line)}, expected {expected}")


def _quote(text: str) -> str:
    quoted = ascii(text) if not text.isprintable() else repr(text)
    return quoted if len(quoted) <= MAX_QUOTED_CHARS else quoted[:MAX_QUOTED_CHARS] + "..."
