"""Recordings to measure or calibrate on, with what is known of them: corpus, sex, language.

They come from a data list (`path<TAB>label`), a table with a header such as
`path speaker language gender`, a folder with a folder per person, a folder of Kaldi, or a file of
embeddings that embed.py wrote.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from utils.corpus.embedding_file import is_embedding_file, read_embedding_file
from utils.corpus.kaldi import is_kaldi_folder
from utils.corpus.layouts import read_folders, read_kaldi
from utils.corpus.lists import LabelledClip, read_data_list
from utils.corpus.paths import local_path
from utils.errors import DataListError
from utils.speaker_names import plain_name, report_spellings

SEXES = {"m": "male", "male": "male", "f": "female", "female": "female"}
"""Spellings of the column gender; anything else counts as not declared."""


def read_clips(source: str | Path) -> list[LabelledClip]:
    """Reads the recordings of a list, a table, or a folder.

    Args:
        source: A data list; a tab-separated table whose header names path and speaker, whose paths
            start from its own folder; a folder that holds a folder per person; or one with wav.scp
            and utt2spk; or a file of embeddings with speakers. A speaker `a/b` is speaker b of the
            corpus a, unless there is a column corpus.

    Returns:
        The recordings in their order, at least one.

    Raises:
        DataListError: If it is missing, holds no recording, or a line has another form.
    """
    path = Path(source)
    if is_embedding_file(path):
        return _stored_clips(path)
    if path.is_dir():
        found = list(read_kaldi(path) if is_kaldi_folder(path) else read_folders(path))
        _check_speakers(source, [clip.speaker or "" for clip in found])
        labels = _numbered(source, [clip.speaker or "" for clip in found])
        return [
            LabelledClip(
                (path / clip.path).as_posix(), label, _corpus_of(clip.speaker or ""),
                speaker=(clip.speaker or "").rpartition("/")[2],
            )
            for clip, label in zip(found, labels, strict=True)
        ]  # fmt: skip
    if not _is_table(path):
        return [LabelledClip(u.path, u.label, speaker=u.speaker) for u in read_data_list(path)]
    with path.open(encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    if not rows:
        raise DataListError(f"{path}: no recording below the header, expected some")
    speakers = [row["speaker"] or "" for row in rows]
    _check_speakers(source, [row["speaker"] if row["path"] else "" for row in rows])
    return [
        LabelledClip(
            path=(path.parent / local_path(row["path"], path.parent)).as_posix(),
            label=label,
            corpus=row.get("corpus") or _corpus_of(row["speaker"]),
            sex=SEXES.get(row.get("gender") or row.get("sex") or "", ""),
            language=row.get("language") or "",
            seconds=_seconds(source, row.get("seconds")),
            speaker=row["speaker"].rpartition("/")[2],
        )
        for row, label in zip(rows, _numbered(source, speakers), strict=True)
    ]


def _stored_clips(path: Path) -> list[LabelledClip]:
    """Returns the recordings in a file of embeddings."""
    clips = [entry.clip for entry in read_embedding_file(path).entries.values() if entry.clip]
    if not clips:
        raise DataListError(
            f"{path}: its embeddings have no speakers, expected a file that embed.py wrote of a "
            "list; give the list itself"
        )
    return clips


def _is_table(path: Path) -> bool:
    """Returns whether a list begins with a header that names path and speaker."""
    try:
        with path.open(encoding="utf-8-sig") as lines:
            return {"path", "speaker"} <= set(lines.readline().rstrip("\r\n").split("\t"))
    except (OSError, UnicodeDecodeError):
        return False  # `read_data_list` tells what is wrong.


def _check_speakers(source: str | Path, speakers: Sequence[str | None]) -> None:
    """Raises DataListError for the first recording without a speaker or path."""
    for number, speaker in enumerate(speakers, start=1):
        if not speaker:
            raise DataListError(
                f"{source}: recording {number} has no speaker or no path, expected both; in a "
                "folder, put the recordings of each person into a folder of their own"
            )


def _seconds(source: str | Path, text: str | None) -> float | None:
    """Returns a number of seconds, None for an empty field."""
    try:
        return float(text) if text else None
    except ValueError as error:
        raise DataListError(f"{source}: received {text!r} seconds, expected a number") from error


def _corpus_of(speaker: str) -> str:
    """Returns what stands before the last slash of a speaker's name."""
    return speaker.rpartition("/")[0]


def _numbered(source: str | Path, speakers: Sequence[str]) -> list[int]:
    """Numbers speakers in the order in which they first occur."""
    numbers: dict[str, int] = {}
    spellings: dict[str, dict[str, None]] = {}
    for speaker in speakers:
        spellings.setdefault(plain_name(speaker), {})[speaker] = None
    report_spellings(str(source), spellings)
    return [numbers.setdefault(plain_name(speaker), len(numbers)) for speaker in speakers]
