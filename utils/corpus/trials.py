"""Trial lists: pairs of recordings, each with the answer to "is it the same speaker?".

The forms of VoxCeleb (`1 a.wav b.wav`), Kaldi (`a b target`), CN-Celeb (`id-enroll test/b.wav 1`)
and tables of others are told apart by what is in their columns, over the whole list.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from utils.audio.suffixes import AUDIO_SUFFIXES
from utils.corpus.lists import line_error, read_lines
from utils.corpus.paths import local_path
from utils.errors import DataListError

TARGET_WORDS = {"1", "target", "tgt", "true", "same"}
NONTARGET_WORDS = {"0", "nontarget", "non-target", "imp", "impostor", "imposter", "false", "diff"}
LABEL_WORDS = TARGET_WORDS | NONTARGET_WORDS
"""What a label is, in any case. Kaldi writes target and nontarget, others tgt and imp."""

HEADER_WORDS = {"label", "labels", "key", "is_target"}
"""Names of the label's column in a first line that names the columns."""

FIELD = re.compile(r"""(?:(?<=\s)|^)(?:"([^"]*)"|'([^']*)')(?=\s|$)|(\S+)""")
"""A field among blanks; in quotes it may hold blanks itself."""

EXPECTED = "1 (same speaker) or 0, and two paths"

INDEX_NAMES = ("wav.scp", "lists/enroll.lst", "enroll.lst")
"""Below --trials_root: lines `ID PATH`, of Kaldi and of CN-Celeb."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One line of a trial list: do the two files hold the same speaker?"""

    is_target: bool
    path1: str
    path2: str


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of a list, cut into its fields."""

    number: int
    line: str
    fields: tuple[str, ...]


def read_trial_list(path: str | Path) -> list[Trial]:
    """Reads a trial list.

    A line has a label, 1 or 0, target or nontarget, tgt or imp, in the same column of every line,
    and two recordings; other columns are ignored. Fields are separated by tabs, commas or blanks;
    a path with blanks stands in quotes where blanks separate.

    Args:
        path: The list, one trial per line.

    Returns:
        The trials in the order of the file, at least one.

    Raises:
        DataListError: If the file is missing, not UTF-8 or empty, a line has another form, or two
            columns could be the label; it says what was received and expected.
    """
    rows = _read_rows(path)
    named = [place for place, name in enumerate(rows[0].fields) if _is_header(name)] if rows else []
    rows = rows[1:] if named else rows
    if not rows:
        raise DataListError(f"{path}: no trial in the list, expected lines like `1 a.wav b.wav`")
    column = named[0] if named else _label_column(path, rows)
    for row in rows:
        if not (2 < len(row.fields) > column) or row.fields[column].lower() not in LABEL_WORDS:
            raise line_error(path, row.number, row.line, EXPECTED)
    pairs = _pairs(path, rows, [_without(row.fields, column) for row in rows], EXPECTED)
    answers = (row.fields[column].lower() in TARGET_WORDS for row in rows)
    return [Trial(answer, *pair) for answer, pair in zip(answers, pairs, strict=True)]


def read_pair_list(path: str | Path, root: str | Path | None = None) -> list[tuple[str, str]]:
    """Reads pairs of recordings to compare: a trial list, or one without its labels.

    Args:
        path: The list, one pair per line: two paths, or a trial.
        root: As in `place_trials`.

    Returns:
        The pairs in the order of the file, at least one.

    Raises:
        DataListError: As `read_trial_list`.
    """
    rows = _read_rows(path)
    rows = rows[1:] if rows and any(map(_is_header, rows[0].fields)) else rows
    if not rows:
        raise DataListError(f"{path}: no pair in the list, expected lines like `a.wav b.wav`")
    expected = "two paths, or 1 or 0 and two paths"
    labelled = [row for row in rows if len(row.fields) > 2]
    column = _label_column(path, labelled)
    fields = []
    for row in rows:
        if len(row.fields) > 2 and row.fields[column].lower() not in LABEL_WORDS:
            raise line_error(path, row.number, row.line, expected)
        fields.append(_without(row.fields, column) if len(row.fields) > 2 else row.fields)
    place = _placer(root)
    return [(place(one), place(two)) for one, two in _pairs(path, rows, fields, expected)]


def place_trials(trials: Sequence[Trial], root: str | Path | None) -> list[Trial]:
    """Returns the trials with the paths of their recordings.

    Args:
        trials: The trials of a list.
        root: Folder that the paths start from, or None for the working directory. Where it holds
            a wav.scp, or CN-Celeb's lists/enroll.lst, that says which file an identifier is.
    """
    place = _placer(root)
    return [Trial(trial.is_target, place(trial.path1), place(trial.path2)) for trial in trials]


def _read_rows(path: str | Path) -> list[_Row]:
    """Cuts the lines of a list into fields, all by the same separator but those with tabs."""
    lines = read_lines(path, "expected lines like `1 a.wav b.wav`")
    split = _split_at_blanks
    if any("," in line for _, line in lines):
        by_comma = [_split_at_commas(line) for _, line in lines if "\t" not in line]
        is_labelled = by_comma and any(
            all(
                len(fields) > 2 and fields[place].lower() in LABEL_WORDS | HEADER_WORDS
                for fields in by_comma
            )
            for place in (0, 2, -1)
        )
        by_blank = [_split_at_blanks(line) for _, line in lines if "\t" not in line]
        is_alone = all(len(fields) >= 2 for fields in by_comma) and any(
            len(fields) < 2 for fields in by_blank
        )
        if is_labelled or is_alone:
            split = _split_at_commas
    return [
        _Row(number, line, _split_at_tabs(line) if "\t" in line else split(line))
        for number, line in lines
    ]


def _split_at_tabs(line: str) -> tuple[str, ...]:
    fields = (field.strip() for field in line.split("\t"))
    return tuple(f[1:-1] if len(f) > 1 and f[0] == f[-1] == '"' else f for f in fields)


def _split_at_commas(line: str) -> tuple[str, ...]:
    return tuple(field.strip() for field in next(csv.reader([line], skipinitialspace=True)))


def _split_at_blanks(line: str) -> tuple[str, ...]:
    return tuple("".join(parts) for parts in FIELD.findall(line))


def _label_column(path: str | Path, rows: Sequence[_Row]) -> int:
    """Finds the column of the labels: the one that holds nothing else.

    Returns:
        Its place, -1 for the last one in lists whose lines differ in length.

    Raises:
        DataListError: If there are two.
    """
    if not rows:
        return 0
    width = min(len(row.fields) for row in rows)
    places = list(range(width))
    if any(len(row.fields) > width for row in rows):
        places.append(-1)
    counts = {
        place: sum(row.fields[place].lower() in LABEL_WORDS for row in rows) for place in places
    }
    most = max(counts.values())
    best = [place for place in places if counts[place] == most]
    if len(best) > 1 and most:
        worded = [place for place in best if any(len(row.fields[place]) > 1 for row in rows)]
        best = worded if len(worded) == 1 else best
    if len(best) > 1 and most:
        names = " and ".join("the last" if place < 0 else str(place + 1) for place in best)
        raise DataListError(
            f"{path}: columns {names} could both be the label, expected one with 1 and 0 or target "
            "and nontarget; leave out the others"
        )
    return best[0]


def _pairs(
    path: str | Path, rows: Sequence[_Row], fields: Sequence[tuple[str, ...]], expected: str
) -> list[tuple[str, str]]:
    """Returns the two recordings of each line: the columns that look like files, else the first."""
    for row, parts in zip(rows, fields, strict=True):
        if len(parts) < 2 or not (parts[0] and parts[1]):
            raise line_error(path, row.number, row.line, expected)
    width = min(len(parts) for parts in fields)
    files = [place for place in range(width) if all(_looks_like_file(f[place]) for f in fields)]
    if len(files) > 2:
        raise line_error(path, rows[0].number, rows[0].line, f"{expected}; {len(files)} are paths")
    first, second = files if len(files) == 2 else (0, 1)
    return [(parts[first], parts[second]) for parts in fields]


def _looks_like_file(text: str) -> bool:
    return "/" in text or "\\" in text or Path(text).suffix.lower() in AUDIO_SUFFIXES


def _is_header(text: str) -> bool:
    return text.lower() in HEADER_WORDS


def _without(fields: tuple[str, ...], column: int) -> tuple[str, ...]:
    return tuple(field for place, field in enumerate(fields) if place != column % len(fields))


def _placer(root: str | Path | None) -> Callable[[str], str]:
    """Returns a function from what a list says to the path of the recording."""
    if root is None:
        return local_path
    folder = Path(root)
    index = _read_index(folder)

    @cache
    def place(text: str) -> str:
        return _place(text, folder, index)

    return place


def _place(text: str, folder: Path, index: dict[str, str]) -> str:
    """Returns where a recording lies: as it is named, by the index, or with another suffix."""
    path = folder / local_path(index.get(text, text), folder)
    if path.is_file():
        return path.as_posix()
    # CN-Celeb names .wav what it distributes as .flac, and enrolments without folder and suffix.
    stems = [path.with_suffix("")] if path.suffix.lower() in AUDIO_SUFFIXES else [path]
    if not path.suffix and path.parent == folder:
        stems.append(folder / "enroll" / path.name)
    for stem in stems:
        for suffix in sorted(AUDIO_SUFFIXES):
            found = stem.with_name(stem.name + suffix)
            if found.is_file():
                return found.as_posix()
    return path.as_posix()


def _read_index(folder: Path) -> dict[str, str]:
    """Returns the file of each identifier, by the first index that is there; {} without one."""
    for name in INDEX_NAMES:
        path = folder / name
        if path.is_file():
            rows = [(number, line, line.split(maxsplit=1)) for number, line in read_lines(path, "")]
            for number, line, fields in rows:
                if len(fields) != 2 or fields[1].endswith("|"):
                    raise line_error(path, number, line, "an identifier and the path of a file")
            return {fields[0]: fields[1].split()[0] for _, _, fields in rows}
    return {}
