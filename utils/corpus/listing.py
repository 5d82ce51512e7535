"""Data sets to data lists: collect clips, check and convert them, split, number, write.

The lists are deterministic: the same files and options give the same bytes.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from utils.audio.fidelity import Embed
from utils.corpus.conversion import MIN_PARALLEL_TASKS, Rules, Task, examine_all
from utils.corpus.layouts import LAYOUTS, SourceClip
from utils.corpus.lists import SPEAKERS_NAME, Utterance, path_defect, write_data_list
from utils.corpus.shards import write_shards
from utils.corpus.treatment import UNTREATED, Treatment
from utils.engine.choice import open_engine
from utils.errors import DataListError
from utils.files import write_text_atomically
from utils.speaker_names import plain_name, report_spellings

MIN_TRIAL_UTTERANCES = 2
"""A test speaker needs two utterances to form a target trial."""

MIN_TRAIN_SPEAKERS = 2
"""A classifier needs at least two speakers."""

SHARDS_NAME = "shards"
"""Folder of the shards, beside the lists."""


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """A data set to read: the name of its layout and its folder (or its table)."""

    layout: str
    folder: Path

    def __str__(self) -> str:
        return f"{self.layout}:{self.folder.as_posix()}"


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the lists.

    Attributes:
        list_dir: Folder of the lists, of rejected.tsv, speakers.tsv and the journal.
        wav_dir: Folder for converted wavs; None keeps sources in place (zhvoice: wav beside mp3).
        speaker_level: See `utils.corpus.layouts.read_folders`; None is each layout's own.
        min_duration_s: Shorter clips are rejected, in seconds.
        min_utterances: Speakers with fewer usable clips are rejected.
        test_every: 200 puts clips 0, 200, 400, ... into the test list.
        test_speakers: If not 0, the test list holds speakers of its own: their number (int) or
            their share (float).
        seed: Chooses the test speakers.
        delete_source: Remove a source once its wav is verified.
        num_workers: Number of processes of this machine.
        engine: Where clips are checked and converted, as `utils.engine.choice` reads it.
        shards: Tar files to write of the training list, in the folder shards beside it.
        treatment: What is done to the sound of clips that are converted.
        load_model: As in `utils.corpus.conversion.Rules`.
    """

    list_dir: Path = Path("dataset")
    wav_dir: Path | None = None
    speaker_level: int | None = None
    min_duration_s: float = 1.3
    min_utterances: int = 1
    test_every: int = 200
    test_speakers: int | float = 0
    seed: int = 0
    delete_source: bool = False
    num_workers: int = 1
    engine: str = "local"
    shards: int | None = None
    treatment: Treatment = UNTREATED
    load_model: Callable[[], Embed] | None = None


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording on its way into a list; speakers are named `DATASET:NAME`."""

    task: Task
    speaker: str


@dataclass
class Summary:
    """Figures of the finished lists; `reasons` counts the rejected clips by kind."""

    num_train: int = 0
    num_test: int = 0
    num_train_speakers: int = 0
    num_test_speakers: int = 0
    num_strangers: int = 0
    hours: float = 0.0
    num_classes: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def num_rejected(self) -> int:
        """Number of rejected clips."""
        return sum(self.reasons.values())


@dataclass
class _Rejections:
    """Rejected clips with their reasons, in the order of the data sets."""

    rows: list[tuple[str, str]] = field(default_factory=list)

    def add(self, path: str, reason: str) -> None:
        self.rows.append((path, reason))

    def count(self) -> Counter[str]:
        """Counts by kind, the part of a reason before its details."""
        return Counter(reason.split(":")[0].split(",")[0].split(" (")[0] for _, reason in self.rows)

    def write(self, path: Path) -> None:
        lines = ["path\treason\n"]
        for name, reason in self.rows:
            shown = name if path_defect(name) is None else ascii(name)
            lines.append(f"{shown}\t{' '.join(reason.split())}\n")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(path, "".join(lines))


def create_lists(specs: Sequence[DatasetSpec], settings: Settings) -> Summary:
    """Makes train_list.txt, test_list.txt, speakers.tsv and rejected.tsv from data sets.

    Labels are numbered from 0 in order of first appearance. With a split by speaker, the training
    speakers get the first labels without a gap and the test speakers the numbers after them, so a
    label is one person in both lists.

    Args:
        specs: The data sets, joined in this order.
        settings: Settings of the lists.

    Returns:
        The figures of the lists.

    Raises:
        DataListError: If a data set is missing or damaged, no clip is usable, or the split is
            impossible. The old lists then stay as they were.
        VoiceprintError: If a file cannot be written.
    """
    _check_conversion(specs, settings)
    rejections = _Rejections()
    clips = collect_clips(specs, settings, rejections)
    kept, hours_of = _examine(clips, settings, rejections)
    kept = _drop_rare_speakers(kept, settings.min_utterances, rejections)
    rejections.write(settings.list_dir / "rejected.tsv")
    if not kept:
        raise DataListError(
            f"none of the {len(rejections.rows)} clips can be used; the reasons are in "
            f"{(settings.list_dir / 'rejected.tsv').as_posix()}"
        )
    speakers = [clip.speaker for clip in kept]
    if settings.test_speakers:
        strangers = choose_test_speakers(speakers, settings.test_speakers, settings.seed)
        is_test = [speaker in strangers for speaker in speakers]
    else:
        is_test = choose_test_clips(speakers, settings.test_every)
    labels = number_speakers(speakers, is_test, test_last=bool(settings.test_speakers))
    train = [_utterance(clip, labels) for clip, test in zip(kept, is_test, strict=True) if not test]
    test = [_utterance(clip, labels) for clip, test in zip(kept, is_test, strict=True) if test]
    write_data_list(settings.list_dir / "train_list.txt", train)
    write_data_list(settings.list_dir / "test_list.txt", test)
    _write_speakers(settings.list_dir / SPEAKERS_NAME, labels, train, test)
    if settings.shards:
        with closing(open_engine(settings.engine, settings.num_workers)) as engine:
            write_shards(settings.list_dir / SHARDS_NAME, train, settings.shards, engine)
    train_labels = {utterance.label for utterance in train}
    test_labels = {utterance.label for utterance in test}
    return Summary(
        num_train=len(train),
        num_test=len(test),
        num_train_speakers=len(train_labels),
        num_test_speakers=len(test_labels),
        num_strangers=len(test_labels - train_labels),
        hours=sum(hours_of[clip.task.listed] for clip in kept),
        num_classes=max(train_labels) + 1,
        reasons=rejections.count(),
    )


def collect_clips(
    specs: Sequence[DatasetSpec], settings: Settings, rejections: _Rejections
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
                rejections.add(task.source, _twice(first, new, f"{task.listed} is another clip's"))
                continue
            clips.append(new)
    report_spellings("the data sets", spellings)
    return clips


def choose_test_clips(speakers: Sequence[str], test_every: int) -> list[bool]:
    """Keeps every n-th clip for the test, beginning with the first.

    A speaker's last training clip stays in training, so that labels have no gap.

    Args:
        speakers: Speaker of each clip.
        test_every: 200 keeps the clips 0, 200, 400, ...

    Returns:
        Whether each clip goes into the test list.
    """
    left = Counter(speakers)
    is_test = []
    for number, speaker in enumerate(speakers):
        chosen = number % test_every == 0 and left[speaker] > 1
        left[speaker] -= chosen
        is_test.append(chosen)
    return is_test


def choose_test_speakers(
    speakers: Sequence[str], test_speakers: int | float, seed: int
) -> set[str]:
    """Chooses the speakers of the test list among those with two clips or more.

    The choice depends only on names and seed (the smallest hashes win), not on the order or the
    Python version, and changes little when speakers are added.

    Args:
        speakers: Speaker of each clip.
        test_speakers: Their number (int), or their share of all speakers (float below 1).
        seed: Varies the choice.

    Raises:
        DataListError: If there are too few speakers.
    """
    counts = Counter(speakers)
    number = test_speakers
    if isinstance(test_speakers, float):
        number = max(1, round(test_speakers * len(counts)))
    able = [name for name, count in counts.items() if count >= MIN_TRIAL_UTTERANCES]
    most = min(len(able), len(counts) - MIN_TRAIN_SPEAKERS)
    if number > most:
        raise DataListError(
            f"--test_speakers asks for {number} speakers, at most {max(most, 0)} can be kept for "
            f"the test: {len(counts)} speakers, {len(able)} with two clips or more, and "
            f"{MIN_TRAIN_SPEAKERS} must stay for training"
        )

    def rank(name: str) -> str:
        key = f"{seed}/{name}".encode(errors="surrogateescape")
        return hashlib.sha256(key).hexdigest()

    return set(sorted(able, key=rank)[: int(number)])


def number_speakers(
    speakers: Sequence[str], is_test: Sequence[bool], test_last: bool
) -> dict[str, int]:
    """Numbers speakers from 0 by first appearance; with `test_last`, training's come first."""
    order = list(dict.fromkeys(speakers))
    if test_last:
        in_test = {name for name, test in zip(speakers, is_test, strict=True) if test}
        order.sort(key=lambda name: name in in_test)  # stable
    return {name: label for label, name in enumerate(order)}


def _examine(
    clips: Sequence[Clip], settings: Settings, rejections: _Rejections
) -> tuple[list[Clip], dict[str, float]]:
    """Returns the usable clips, and the hours of each by its listed path."""
    rules = Rules(
        settings.min_duration_s, settings.delete_source, settings.treatment, settings.load_model
    )
    journal = settings.list_dir / "checked.tsv"
    num_workers = settings.num_workers if len(clips) >= MIN_PARALLEL_TASKS else 1
    kept, hours_of = [], {}
    first_of: dict[str, Clip] = {}
    with closing(open_engine(settings.engine, num_workers)) as engine:
        findings = list(examine_all([clip.task for clip in clips], rules, journal, engine))
    for clip, finding in zip(clips, findings, strict=True):
        defect = finding.defect
        if defect is None and finding.duration_s < settings.min_duration_s:
            defect = _too_short(finding.duration_s, settings.min_duration_s)
        if defect is not None:
            rejections.add(clip.task.source, defect)
            continue
        first = first_of.setdefault(finding.sound or clip.task.source, clip)
        if first.speaker != clip.speaker:
            # One of both names is wrong, and nobody knows which.
            rejections.add(
                clip.task.source, _twice(first, clip, f"the same sound as {first.task.source}")
            )
            continue
        kept.append(clip)
        hours_of[clip.task.listed] = finding.duration_s / 3600
    return kept, hours_of


def _twice(first: Clip, clip: Clip, what: str) -> str:
    """Returns why a clip is left out that is there already, as another speaker's or not."""
    one, other = (item.speaker.partition(":")[2] for item in (first, clip))
    return f"listed twice: {what}" if one == other else f"two speakers: {what} of {one}"


def _drop_rare_speakers(
    clips: list[Clip], min_utterances: int, rejections: _Rejections
) -> list[Clip]:
    counts = Counter(clip.speaker for clip in clips)
    for clip in clips:
        count = counts[clip.speaker]
        if count < min_utterances:
            reason = f"rare speaker: {count} usable clips, expected at least {min_utterances}"
            rejections.add(clip.task.source, reason)
    return [clip for clip in clips if counts[clip.speaker] >= min_utterances]


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
        return _too_short(clip.declared_s, min_duration_s)
    return path_defect(clip.path)


def _too_short(duration_s: float, min_duration_s: float) -> str:
    return f"too short: {duration_s:.2f} s, expected at least {min_duration_s:.2f} s"


def _check_conversion(specs: Sequence[DatasetSpec], settings: Settings) -> None:
    """Raises DataListError if sound is to be changed that isn't converted, or lost."""
    makes_wav = [settings.wav_dir or LAYOUTS[spec.layout].makes_wav for spec in specs]
    if settings.delete_source and not any(makes_wav):
        raise DataListError("--delete_source needs --wav_dir: nothing is converted without it")
    treatment = settings.treatment
    if str(treatment) and not all(makes_wav):
        raise DataListError(
            f"{treatment}: changes what is converted, expected --wav_dir DIR for the changed files"
        )
    if settings.delete_source and (treatment.denoise or treatment.channel != "mix"):
        raise DataListError(
            f"--delete_source with {treatment}: the changed files are not what was heard; leave "
            "one of both out"
        )


def _check_outside(wav_dir: Path, root: Path) -> None:
    """Rejects a wav folder inside a data set: the next run would list its wavs as clips."""
    if wav_dir.resolve().is_relative_to(root.resolve()):
        raise DataListError(
            f"--wav_dir {wav_dir.as_posix()} lies inside the data set {root.as_posix()}, expected "
            "a folder outside of it"
        )


def _utterance(clip: Clip, labels: dict[str, int]) -> Utterance:
    return Utterance(clip.task.listed, labels[clip.speaker])


def _write_speakers(
    path: Path, labels: dict[str, int], train: list[Utterance], test: list[Utterance]
) -> None:
    """Writes the speaker of each label: label, data set's index, name, clips in each list."""
    num_train = Counter(utterance.label for utterance in train)
    num_test = Counter(utterance.label for utterance in test)
    lines = ["label\tdataset\tspeaker\tnum_train\tnum_test\n"]
    for speaker, label in labels.items():
        dataset, _, name = speaker.partition(":")
        shown = " ".join(name.encode(errors="backslashreplace").decode().split())
        lines.append(f"{label}\t{dataset}\t{shown}\t{num_train[label]}\t{num_test[label]}\n")
    write_text_atomically(path, "".join(lines))
