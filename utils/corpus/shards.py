"""Shards: a training list as a few large tar files, which any storage reads in sequence.

They have WebDataset's form: each recording as `NAME.flac`, or what it is, followed by `NAME.json`
with its label, speaker and path. Beside them lies `index.tsv`, the list in the order of the shards.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tarfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from utils.corpus.lists import Utterance, read_rows, read_training_rows
from utils.engine.engine import Engine
from utils.errors import DataListError, VoiceprintError
from utils.files import atomic_path, write_text_atomically

INDEX_NAME = "index.tsv"

HEADER = "path\tlabel\tshard"
"""First line of an index."""

SHUFFLE_SEED = 0
"""Speakers are mixed before they are dealt out to the shards, always in the same way."""

NUM_TRIES = 3
"""Times that a shard is opened before it counts as missing: a server may be busy."""

BLOCK_BYTES = 1 << 22
"""Bytes that are asked of a server at once: what comes next is wanted too."""

RETRY_S = 0.5
"""Seconds before the second try, twice as many before the third."""


@dataclass(frozen=True)
class ShardList:
    """A training list that lies in shards.

    Attributes:
        place: Folder or address of the shards.
        names: Their files.
        sizes: How many clips are in each, in the order of the list.
    """

    place: str
    names: Sequence[str]
    sizes: Sequence[int]


@dataclass(frozen=True)
class ShardTask:
    """Writes a shard: a job for a worker."""

    path: str
    clips: Sequence[Utterance]
    first: int


def is_sharded(list_path: str) -> bool:
    """Returns whether a training list is one of shards: an address, an index, or a folder of it."""
    if "://" in list_path or PurePosixPath(list_path).name == INDEX_NAME:
        return True
    return (Path(list_path) / INDEX_NAME).is_file()


def read_training_shards(
    list_path: str, test_path: str | Path | None
) -> tuple[list[Utterance], list[Utterance], ShardList]:
    """Reads the index of shards, and a test list, whose speakers get the same numbers.

    Raises:
        DataListError: If the index is missing or has another form, or the test list's fault.
    """
    place = list_path.removesuffix(INDEX_NAME).rstrip("/") or "."
    address = f"{place}/{INDEX_NAME}"
    try:
        with open_place(address) as file:
            lines = file.read().decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataListError(
            f"{address}: can't be read ({_reason(error)}), expected the index of shards that "
            "create_data.py --shards wrote"
        ) from error
    rows, shards = [], []
    for number, line in enumerate(lines[1:], start=2):
        fields = line.split("\t")
        if len(fields) != 3 or not all(fields):
            raise DataListError(
                f"{address}, line {number}: received {line[:80]!r}, expected path, label and shard"
            )
        rows.append((fields[0], fields[1]))
        shards.append(fields[2])
    if not rows or lines[0] != HEADER:
        raise DataListError(
            f"{address}: not an index of shards, expected one that create_data.py --shards wrote"
        )
    counts = Counter(shards)
    if shards != [name for name, count in counts.items() for _ in range(count)]:
        raise DataListError(f"{address}: the clips of a shard don't stand together; write it anew")
    train, test = read_training_rows(rows, read_rows(test_path) if test_path else [])
    return train, test, ShardList(place, list(counts), list(counts.values()))


def write_shards(
    folder: Path, clips: Sequence[Utterance], num_shards: int, engine: Engine
) -> list[str]:
    """Writes a training list as shards; those that are there already stay.

    Args:
        folder: Where they go; shards of other lists in it are removed when all is written.
        clips: The list.
        num_shards: How many, each with about as many clips.
        engine: Where they are written.

    Returns:
        The names of the shards.

    Raises:
        DataListError: If there are more shards than clips.
        VoiceprintError: If one can't be written, or a recording can't be read.
    """
    if num_shards > len(clips):
        raise DataListError(
            f"--shards {num_shards}: more than the {len(clips)} clips of the training list"
        )
    order = np.random.default_rng(SHUFFLE_SEED).permutation(len(clips))
    bounds = [len(clips) * number // num_shards for number in range(num_shards + 1)]
    tasks = []
    for number, (first, end) in enumerate(pairwise(bounds)):
        own = [clips[index] for index in order[first:end]]
        name = f"train-{number:05d}-of-{num_shards:05d}-{_content_id(own)}.tar"
        tasks.append(ShardTask(str(folder / name), own, first))
    for failure in engine.map(write_shard, tasks, lambda task: f"{task.path}: can't be written"):
        if failure:
            raise VoiceprintError(failure)
    names = [Path(task.path).name for task in tasks]
    lines = [
        f"{clip.path}\t{clip.label}\t{name}\n"
        for name, task in zip(names, tasks, strict=True)
        for clip in task.clips
    ]
    write_text_atomically(folder / INDEX_NAME, f"{HEADER}\n{''.join(lines)}")
    for path in folder.glob("train-*-of-*.tar"):
        if path.name not in names:
            path.unlink()
    return names


def write_shard(task: ShardTask) -> str:
    """Writes a shard, unless it is there; returns in a line why it can't be written, or nothing."""
    path = Path(task.path)
    if path.is_file():
        return ""
    try:
        with atomic_path(path) as temporary, tarfile.open(temporary, "w") as archive:
            for number, clip in enumerate(task.clips, start=task.first):
                name = f"{number:09d}"
                suffix = PurePosixPath(clip.path).suffix.lower() or ".audio"
                _add(archive, name + suffix, Path(clip.path).read_bytes())
                about = {
                    "label": clip.label,
                    "speaker": clip.speaker or str(clip.label),
                    "path": clip.path,
                }
                _add(archive, f"{name}.json", json.dumps(about, ensure_ascii=False).encode())
    except OSError as error:
        return f"{error.filename or path}: {error.strerror}, while {path} was written"
    return ""


def read_shard(place: str, name: str, size: int) -> Iterator[bytes]:
    """Yields the content of each recording of a shard, in its order.

    Args:
        place: Folder or address of the shards.
        name: Of the shard.
        size: How many recordings it has.

    Raises:
        DataListError: If it is missing or cut short; what was yielded before is whole.
    """
    num_read = 0
    try:
        with (
            open_place(f"{place}/{name}") as file,
            tarfile.open(fileobj=file, mode="r|") as archive,
        ):
            for member in archive:
                content = archive.extractfile(member)
                if content is None or member.name.endswith(".json"):
                    continue
                data = content.read()
                if len(data) < member.size:
                    break
                yield data
                num_read += 1
        reason = "cut short"
    except (OSError, tarfile.TarError, EOFError) as error:
        reason = _reason(error)
    if num_read < size:
        raise DataListError(
            f"{place}/{name}: {num_read} of {size} clips can be read ({reason}); copy it again"
        )


@contextlib.contextmanager
def open_place(address: str) -> Iterator[IO[bytes]]:
    """Opens a file, or what lies at an http, https or s3 address, for reading in sequence.

    Raises:
        OSError: If it isn't there, or nobody answers.
        VoiceprintError: If a package for the address is missing.
    """
    if "://" not in address:
        with open(address, "rb") as file:
            yield file
        return
    with _open_remote(address) as file:
        yield file


def _open_remote(address: str) -> IO[bytes]:
    """Opens an address by fsspec; a server that is busy is asked again."""
    try:
        from fsspec.core import url_to_fs

        for attempt in range(NUM_TRIES):
            try:
                files, path = url_to_fs(address)
                file: IO[bytes] = files.open(path, "rb", block_size=BLOCK_BYTES)
                return file
            except (FileNotFoundError, ImportError):
                raise
            except Exception as error:  # Each kind of server has its own.
                if attempt == NUM_TRIES - 1:
                    raise OSError(_reason(error)) from error
                time.sleep(RETRY_S * 2**attempt)
    except ImportError as error:
        raise VoiceprintError(
            f"{address} needs the package {error.name or 's3fs'}; "
            "pip install -r requirements-cluster.txt"
        ) from error
    raise AssertionError


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Adds a member; the same content gives the same bytes."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def _content_id(clips: Sequence[Utterance]) -> str:
    """Returns what differs when the clips of a shard do: paths, labels, sizes and times."""
    digest = hashlib.sha256()
    for clip in clips:
        status = _status(clip.path)
        digest.update(f"{clip.path}\t{clip.label}\t{status}\n".encode())
    return digest.hexdigest()[:12]


def _status(path: str) -> str:
    try:
        status = Path(path).stat()
    except OSError as error:
        raise DataListError(f"{path}: {error.strerror}; run create_data.py again") from error
    return f"{status.st_size} {status.st_mtime_ns}"


def _reason(error: BaseException) -> str:
    """Returns what went wrong in a few words."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:120]
