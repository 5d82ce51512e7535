"""Layouts of speech data sets: the audio files and the speaker of each.

To add a layout, write a function `read_mine(folder, speaker_level)` that yields one `SourceClip`
per recording, add a line to `LAYOUTS`, and a row to tests/utils/corpus/test_layouts.py.
`create_data.py --dataset mine:FOLDER` then works and its `--help` lists it. docs/data_format.md has
an example.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from utils.audio.suffixes import AUDIO_SUFFIXES
from utils.corpus.kaldi import read_recordings
from utils.corpus.paths import local_path
from utils.errors import DataListError

ZHVOICE_URL = "https://github.com/KuangDD/zhvoice"


@dataclass(frozen=True, slots=True)
class SourceClip:
    """One recording of a data set.

    Attributes:
        path: Relative to the data set's folder, or absolute, with forward slashes.
        speaker: Name of the speaker, unique in the data set; None if unknown.
        declared_s: Duration in seconds declared by the data set, or None.
    """

    path: str
    speaker: str | None
    declared_s: float | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """How to read a data set.

    Attributes:
        read: Takes the data set's folder and the speaker level (None: the layout's own) and
            yields its clips, always in the same order.
        makes_wav: Whether clips become a wav beside the source, unless another place is given.
        reaches_out: Whether recordings may lie outside of the folder.
    """

    read: Callable[[Path, int | None], Iterator[SourceClip]]
    makes_wav: bool = False
    reaches_out: bool = False


def read_zhvoice(folder: Path, speaker_level: int | None = None) -> Iterator[SourceClip]:
    """Reads `text/infodata.json` of zhvoice: one JSON object per line.

    Raises:
        DataListError: If the file is missing, or a line lacks `index` or `speaker`.
    """
    info = folder / "text" / "infodata.json"
    if not info.is_file():
        raise DataListError(
            f"{info.as_posix()} not found: get the data set zhvoice from {ZHVOICE_URL} and put "
            f"its content into {folder.as_posix()}, or name a data set of your own with --dataset "
            f"LAYOUT:FOLDER, such as --dataset folders:FOLDER for a folder per speaker "
            f"(layouts: {', '.join(LAYOUTS)})"
        )
    with info.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            text = line.removeprefix(b"\xef\xbb\xbf").strip()
            if not text:
                continue
            try:
                entry = json.loads(text)
                index, speaker = str(entry["index"]), str(entry["speaker"])
                duration_ms = entry.get("duration_ms")
                declared_s = None if duration_ms is None else float(duration_ms) / 1000
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DataListError(
                    f"{info.as_posix()}, line {number}: received {text[:60]!a}, expected a "
                    f"JSON object with index, speaker and duration_ms ({type(error).__name__})"
                ) from error
            yield SourceClip(index.replace("\\", "/"), speaker, declared_s)


def read_folders(folder: Path, speaker_level: int | None = None) -> Iterator[SourceClip]:
    """Reads any tree of folders; every audio file under it is a clip.

    Args:
        folder: Top of the tree.
        speaker_level: The folder between `folder` and the file that names the speaker. 1 is the
            first one below `folder`, 2 the second; -1 (the default) is the one that holds the file,
            -2 the one above it. The name is the path from `folder` down to that level, so equal
            names under different parents stay different speakers.

    Raises:
        DataListError: If the folder is missing or holds no audio file.
    """
    level = -1 if speaker_level is None else speaker_level
    for path in _audio_files(folder):
        parents = path.parts[:-1]
        depth = level if level > 0 else len(parents) + level + 1
        is_deep_enough = 1 <= depth <= len(parents)
        speaker = "/".join(parents[:depth]) if is_deep_enough else None
        yield SourceClip(path.as_posix(), speaker)


def read_speaker_sessions(folder: Path, speaker_level: int | None = None) -> Iterator[SourceClip]:
    """Reads SPEAKER/SESSION/FILE at any depth: LibriSpeech and VoxCeleb."""
    return _read_unique_names(folder, speaker_level, own_level=-2)


def read_speaker_files(folder: Path, speaker_level: int | None = None) -> Iterator[SourceClip]:
    """Reads SPEAKER/FILE at any depth: AISHELL."""
    return _read_unique_names(folder, speaker_level, own_level=-1)


def read_cnceleb(folder: Path, speaker_level: int | None = None) -> Iterator[SourceClip]:
    """Reads data/SPEAKER/FILE of CN-Celeb; its eval/ holds copies and is left out."""
    if not (folder / "data").is_dir():
        yield from read_speaker_files(folder, speaker_level)
        return
    for clip in read_speaker_files(folder / "data", speaker_level):
        yield SourceClip(f"data/{clip.path}", clip.speaker)


def read_table(table: Path, speaker_level: int | None = None) -> Iterator[SourceClip]:
    """Reads a tsv or csv file with the columns path and speaker, and seconds if known.

    Paths are relative to the file's folder, or absolute and inside of it.

    Raises:
        DataListError: If the file is missing or not UTF-8, or a line lacks a column.
    """
    if not table.is_file():
        raise DataListError(f"{table.as_posix()}: no such file, expected a tsv or csv table")
    delimiter = "," if table.suffix.lower() == ".csv" else "\t"
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
    try:
        with table.open(encoding="utf-8-sig", newline="") as lines:
            rows = csv.DictReader(lines, delimiter=delimiter, quoting=quoting)
            for row in rows:
                path, speaker, seconds = (row.get(key) for key in ("path", "speaker", "seconds"))
                if not path or not speaker:
                    raise DataListError(
                        f"{table.as_posix()}, line {rows.line_num}: no path or no speaker, "
                        f"expected a header with the columns path and speaker, and both filled in"
                    )
                try:
                    declared_s = float(seconds) if seconds else None
                except ValueError as error:
                    raise DataListError(
                        f"{table.as_posix()}, line {rows.line_num}: received {seconds!r} seconds, "
                        "expected a number"
                    ) from error
                yield SourceClip(local_path(path, table.parent), speaker, declared_s)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataListError(f"{table.as_posix()}: not a UTF-8 table ({error})") from error


def read_kaldi(folder: Path, speaker_level: int | None = None) -> Iterator[SourceClip]:
    """Reads wav.scp and utt2spk of Kaldi; recordings may lie anywhere.

    Raises:
        DataListError: As `utils.corpus.kaldi.read_recordings`.
    """
    for _, path, speaker in read_recordings(folder):
        yield SourceClip(path, speaker)


LAYOUTS: dict[str, Layout] = {
    "zhvoice": Layout(read_zhvoice, makes_wav=True),
    "folders": Layout(read_folders),
    "librispeech": Layout(read_speaker_sessions),
    "voxceleb": Layout(read_speaker_sessions),
    "cnceleb": Layout(read_cnceleb),
    "aishell": Layout(read_speaker_files),
    "table": Layout(read_table),
    "kaldi": Layout(read_kaldi, reaches_out=True),
}
"""Layout names of `create_data.py --dataset LAYOUT:FOLDER`."""


def _read_unique_names(
    folder: Path, speaker_level: int | None, own_level: int
) -> Iterator[SourceClip]:
    """Reads a tree where a folder name means one person everywhere: only that name counts."""
    if speaker_level is not None:
        yield from read_folders(folder, speaker_level)
        return
    for clip in read_folders(folder, own_level):
        name = clip.speaker.rpartition("/")[2] if clip.speaker else None
        yield SourceClip(clip.path, name)


def _audio_files(folder: Path) -> Iterator[PurePosixPath]:
    """Yields the audio files under a folder, sorted, relative to it, without hidden ones."""
    if not folder.is_dir():
        raise DataListError(f"{folder.as_posix()}: no such folder, expected a data set")
    seen = set()
    num_files = 0
    for parent, folders, files in os.walk(folder, followlinks=True):
        status = Path(parent).stat()
        identity = (status.st_dev, status.st_ino)
        if identity in seen and status.st_ino:  # a link that leads back up
            folders.clear()
            continue
        seen.add(identity)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 (a million times)
            if suffix in AUDIO_SUFFIXES and not name.startswith("."):
                num_files += 1
                yield PurePosixPath((Path(parent) / name).relative_to(folder).as_posix())
    if not num_files:
        raise DataListError(
            f"{folder.as_posix()}: no audio file found, expected {' '.join(sorted(AUDIO_SUFFIXES))}"
        )
