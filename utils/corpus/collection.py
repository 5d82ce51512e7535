"""The clips of all data sets in order, as far as their paths and declarations show them usable."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from utils.corpus.conversion import Task
from utils.corpus.layouts import LAYOUTS, SourceClip
from utils.corpus.list_settings import DatasetSpec, Settings
from utils.corpus.lists import path_defect
from utils.errors import DataListError
from utils.files import write_text_atomically
from utils.speaker_names import plain_name, report_spellings


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording on its way into a list; speakers are named `DATASET:NAME`."""

    task: Task
    speaker: str


@dataclass
class Rejections:
    """Rejected clips with their reasons, in the order of the data sets."""

    rows: list[tuple[str, str]] = field(default_factory=list)

    def add(self, path: str, reason: str) -> None:
        """Notes a clip."""
        self.rows.append((path, reason))

    def count(self) -> Counter[str]:
        """Counts by kind, the part of a reason before its details."""
        return Counter(reason.split(":")[0].split(",")[0].split(" (")[0] for _, reason in self.rows)

    def write(self, path: Path) -> None:
        """Writes rejected.tsv."""
        lines = ["path\treason\n"]
        for name, reason in self.rows:
            shown = name if path_defect(name) is None else ascii(name)
            lines.append(f"{shown}\t{' '.join(reason.split())}\n")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(path, "".join(lines))


def collect_clips(
    specs: Sequence[DatasetSpec], settings: Settings, rejections: Rejections
) -> list[Clip]:
    """Lists the clips of all data sets in order, without opening them.

    Clips are rejected here if they have no speaker or an invalid path, are listed twice, or are too
    short by the data set's own declaration.
    """
    from tqdm import tqdm

    clips: list[Clip] = []
    listed: dict[str, Clip] = {}
    spellings: dict[str, dict[str, None]] = {}
    wav_folders: Counter[str] = Counter()
    for number, spec in enumerate(specs):
        layout = LAYOUTS[spec.layout]
        root = spec.folder.parent if spec.folder.is_file() else spec.folder
        wav_root = None
        if settings.wav_dir is not None:
            _check_outside(settings.wav_dir, root)
            name = root.resolve().name or "root"
            wav_folders[name] += 1
            count = wav_folders[name]
            wav_root = settings.wav_dir / (name if count == 1 else f"{name}_{count}")
        elif layout.makes_wav:
            wav_root = root
        found = layout.read(spec.folder, settings.speaker_level)
        for clip in tqdm(found, desc=f"reading {spec}", unit="clip", delay=1):
            defect = _clip_defect(clip, settings.min_duration_s, layout.reaches_out)
            if defect is not None:
                rejections.add((root / clip.path).as_posix(), defect)
                continue
            task = _make_task(clip, root, wav_root)
            name = "/".join(map(plain_name, (clip.speaker or "").split("/")))
            spellings.setdefault(name, {})[clip.speaker or ""] = None
            new = Clip(task, sys.intern(f"{number}:{name}"))
            if str(settings.treatment) and task.wav is None:
                rejections.add(task.source, "wav in its own place: it is changed only in --wav_dir")
                continue
            first = listed.setdefault(task.listed, new)
            if first is not new:
                what = f"{task.listed} is another clip's"
                rejections.add(task.source, listed_twice(first, new, what))
                continue
            clips.append(new)
    report_spellings("the data sets", spellings)
    return clips


def listed_twice(first: Clip, clip: Clip, what: str) -> str:
    """Returns why a clip is left out that is there already, as another speaker's or not."""
    one, other = (item.speaker.partition(":")[2] for item in (first, clip))
    return f"listed twice: {what}" if one == other else f"two speakers: {what} of {one}"


def _make_task(clip: SourceClip, root: Path, wav_root: Path | None) -> Task:
    source = (root / clip.path).as_posix()
    wav = None
    if wav_root is not None and not (wav_root == root and source.lower().endswith(".wav")):
        path = PurePosixPath(clip.path).with_suffix(".wav")
        wav = (wav_root / (path.relative_to("/") if path.is_absolute() else path)).as_posix()
    return Task(source, wav, clip.declared_s)


def _clip_defect(clip: SourceClip, min_duration_s: float, reaches_out: bool) -> str | None:
    """Returns why a clip is unusable, as far as its path and declaration show, or None."""
    path = PurePosixPath(clip.path)
    is_outside = ".." in path.parts or (path.is_absolute() and not reaches_out)
    if not path.name or is_outside:
        return "path outside of the data set's folder"
    if "\\" in clip.path:
        return "backslash in the path, which lists turn into a slash"
    if clip.speaker is None:
        return "no speaker: too few folders above the file for the speaker level"
    if clip.declared_s is not None and clip.declared_s < min_duration_s:
        return too_short(clip.declared_s, min_duration_s)
    return path_defect(clip.path)


def too_short(duration_s: float, min_duration_s: float) -> str:
    """Returns why a clip of this length is left out."""
    return f"too short: {duration_s:.2f} s, expected at least {min_duration_s:.2f} s"


def _check_outside(wav_dir: Path, root: Path) -> None:
    """Rejects a wav folder inside a data set: the next run would list its wavs as clips."""
    if wav_dir.resolve().is_relative_to(root.resolve()):
        raise DataListError(
            f"--wav_dir {wav_dir.as_posix()} lies inside the data set {root.as_posix()}, expected "
            "a folder outside of it"
        )
