"""Data lists: `path<TAB>label`, one line a recording.

They are plain UTF-8 text, so lists of other tools work too and lists can be joined by hand.
docs/data_format.md describes them for users.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from utils.corpus.paths import local_path
from utils.errors import DataListError
from utils.files import write_text_atomically
from utils.messages import translate
from utils.speaker_names import plain_name, report_spellings

BYTE_ORDER_MARK = "\ufeff"
MAX_QUOTED_CHARS = 80  # of a bad line, to keep the error on one readable line


MAX_NUMBER_DIGITS = 18
"""Longer numbers are names: they fit no integer of a file, and Python reads them slowly."""

MAX_CLASSES = 10_000_000
"""More make a classification layer of gigabytes: a telephone number, not a number of speakers."""

HEADERS = {("path", "label"), ("path", "speaker")}
"""First lines that name the columns; they are skipped."""

SPEAKERS_NAME = "speakers.tsv"
"""Beside the lists of create_data.py: who stands behind each label."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """One line of a data list: an audio file and its speaker.

    Attributes:
        path: The audio file.
        label: Number of the speaker, from 0.
        speaker: The speaker's label as the list has it, a name or a number; "" if it isn't known.
    """

    path: str
    label: int
    speaker: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class LabelledClip:
    """A recording and what its list says of it; what it doesn't say is empty.

    Attributes:
        path: The audio file.
        label: The speaker, a number from 0.
        corpus: Where it comes from; recordings of one corpus are alike in kind and language.
        sex: "male" or "female".
        language: As the list writes it.
        seconds: Length of the recording, None if the list doesn't say.
        speaker: The speaker's name in the list; "" if it isn't known.
    """

    path: str
    label: int
    corpus: str = ""
    sex: str = ""
    language: str = ""
    seconds: float | None = None
    speaker: str = field(default="", compare=False)


def read_data_list(path: str | Path) -> list[Utterance]:
    """Reads a data list; its speakers are numbered as `number_labels` says.

    Empty lines are ignored; a byte order mark, Windows line endings and paths of Windows are
    accepted. Labels are names or numbers; they are compared in Unicode normal form C without outer
    blanks, and numbers by their value.

    Args:
        path: The list, one `path<TAB>label` per line.

    Returns:
        The utterances in the order of the file, at least one.

    Raises:
        DataListError: If the file is missing, not UTF-8 or empty, or a line has another format; it
            names the file, the line, and the received and expected content.
    """
    return _numbered([read_rows(path)])[0]


def read_training_lists(
    train_path: str | Path, test_path: str | Path | None
) -> tuple[list[Utterance], list[Utterance]]:
    """Reads a training list and a test list, whose speakers get the same numbers.

    The speakers of the training list come first, without a gap; those of the test list alone
    follow. A file that is listed under two speakers is reported on stderr.

    Args:
        train_path: The training list.
        test_path: The test list, or None.

    Returns:
        Both lists; the second is empty without a test list.

    Raises:
        DataListError: As `read_data_list`.
    """
    return read_training_rows(read_rows(train_path), read_rows(test_path) if test_path else [])


def read_training_rows(
    train_rows: Sequence[tuple[str, str]], test_rows: Sequence[tuple[str, str]]
) -> tuple[list[Utterance], list[Utterance]]:
    """Returns the training and the test list of rows of path and label."""
    train, test = _numbered([train_rows, test_rows])
    _report_shared_files(train, test)
    return train, test


def number_labels(lists: Iterable[Iterable[str]]) -> dict[str, int]:
    """Numbers the speakers of several lists from 0 without a gap.

    Those of a list come before those of the next one; within a list numbers come first, by their
    value, then names, by their characters. A list with the labels 0 to N - 1 keeps them.

    Args:
        lists: The labels of each list.
    """
    numbers: dict[str, int] = {}
    for names in lists:
        for name in sorted(set(names) - numbers.keys(), key=_order):
            numbers[name] = len(numbers)
    return numbers


def speakers_of(utterances: Sequence[Utterance], list_path: str | Path | None = None) -> list[str]:
    """Returns the names of the speakers by their labels, 0 to the largest one.

    Args:
        utterances: A list. A label without an utterance is called by its number.
        list_path: Its file. If it has plain numbers, and speakers.tsv of create_data.py beside it
            counts as many clips for each, the names of that file are taken.
    """
    names = [str(label) for label in range(num_classes(utterances))]
    counts = [0] * len(names)
    for utterance in utterances:
        names[utterance.label] = utterance.speaker or names[utterance.label]
        counts[utterance.label] += 1
    if list_path is not None and names == [str(label) for label in range(len(names))]:
        return _names_beside(Path(list_path).parent / SPEAKERS_NAME, counts) or names
    return names


def _names_beside(path: Path, counts: Sequence[int]) -> list[str] | None:
    """Returns the names in speakers.tsv, None if it is missing or of other lists."""
    try:
        rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
        known = [(row[2], int(row[3])) for row in rows if int(row[3]) > 0]
        labels = [int(row[0]) for row in rows if int(row[3]) > 0]
    except (OSError, UnicodeDecodeError, ValueError, IndexError):
        return None
    if labels != list(range(len(counts))) or [count for _, count in known] != list(counts):
        return None
    return [name for name, _ in known]


def _order(name: str) -> tuple[bool, int, str]:
    """Returns what names are sorted by: numbers by value before names."""
    is_number = _is_number(name)
    return (not is_number, int(name) if is_number else 0, name)


def _is_number(label: str) -> bool:
    return label.isascii() and label.isdigit() and len(label) <= MAX_NUMBER_DIGITS


def read_rows(path: str | Path) -> list[tuple[str, str]]:
    """Reads `(path, speaker)` of a data list."""
    clips = []
    spellings: dict[str, dict[str, None]] = {}
    for number, line in read_lines(path, "create it with create_data.py"):
        fields = line.split("\t")
        if number == 1 and tuple(field.strip().lower() for field in fields) in HEADERS:
            continue
        if len(fields) != 2 or not fields[0].strip():
            raise line_error(path, number, line, "path<TAB>label")
        label = fields[1]
        name = plain_name(label)
        if not name:
            raise line_error(path, number, line, "the speaker's label after the tab")
        name = sys.intern(str(int(name)) if _is_number(name) else name)
        spellings.setdefault(name, {})[label] = None
        clips.append((local_path(fields[0]), name))
    if not clips:
        raise DataListError(f"{path}: no utterance in the list, expected lines path<TAB>label")
    report_spellings(str(path), spellings)
    return clips


def _numbered(lists: Sequence[Sequence[tuple[str, str]]]) -> list[list[Utterance]]:
    """Returns the utterances of lists with one numbering of all speakers."""
    numbers = number_labels([name for _, name in clips] for clips in lists)
    return [[Utterance(path, numbers[name], name) for path, name in clips] for clips in lists]


def _report_shared_files(train: Sequence[Utterance], test: Sequence[Utterance]) -> None:
    """Says on stderr how many files are listed under two speakers, and names the first."""
    first: dict[str, Utterance] = {}
    shared: dict[str, tuple[str, str]] = {}
    for utterance in (*train, *test):
        other = first.setdefault(utterance.path, utterance)
        if other.label != utterance.label:
            shared.setdefault(utterance.path, (other.speaker, utterance.speaker))
    if shared:
        path, (one, other_one) = next(iter(shared.items()))
        note = (
            f"warning: {len(shared)} files are listed under two speakers; "
            f"the first, {path}, under {one} and {other_one}"
        )
        print(translate(note), file=sys.stderr)


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


def check_speakers(speakers: Sequence[str]) -> None:
    """Checks that there is somebody to tell apart.

    Raises:
        DataListError: If there is only one speaker.
    """
    if len(speakers) < 2:
        raise DataListError(
            f"the training list has one speaker, {speakers[0]}, expected two or more: the network "
            "learns to tell speakers apart"
        )


def check_labels(utterances: Sequence[Utterance], num_classes: int) -> None:
    """Checks that every label is smaller than the number of classes.

    Args:
        utterances: The list.
        num_classes: The number of classes of the network.

    Raises:
        DataListError: If a label is too large; it names the first such utterance, its number in
            the list, and the number of classes that the list needs. Also if there are more
            classes than a network can have.
    """
    if num_classes > MAX_CLASSES:
        raise DataListError(
            f"num_classes is {num_classes}, expected at most {MAX_CLASSES}; leave it out to have "
            "it read from the list"
        )
    for number, utterance in enumerate(utterances, start=1):
        if not 0 <= utterance.label < num_classes:
            needed = max(item.label for item in utterances) + 1
            raise DataListError(
                f"utterance {number} of the list, {utterance.path}, has label {utterance.label}, "
                f"expected 0 to {num_classes - 1}: num_classes is {num_classes} and must be at "
                f"least {needed}, or leave it out to have it read from the list"
            )


def read_path_list(path: str | Path) -> list[str]:
    """Reads a list of recordings, a path a line.

    Raises:
        DataListError: If it cannot be read or names none.
    """
    paths = [line.strip() for _, line in read_lines(path, "expected a path a line")]
    if not paths:
        raise DataListError(f"{path}: no recording in the list, expected a path a line")
    return paths


def read_lines(path: str | Path, advice: str) -> list[tuple[int, str]]:
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


def line_error(path: str | Path, number: int, line: str, expected: str) -> DataListError:
    """Returns the error for a line that has another format."""
    return DataListError(f"{path}, line {number}: received {_quote(line)}, expected {expected}")


def _quote(text: str) -> str:
    quoted = ascii(text) if not text.isprintable() else repr(text)
    return quoted if len(quoted) <= MAX_QUOTED_CHARS else quoted[:MAX_QUOTED_CHARS] + "..."
