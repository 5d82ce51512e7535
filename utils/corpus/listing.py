"""Data sets to data lists: collect clips, check and convert them, split, number, write.

The lists are deterministic: the same files and options give the same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from utils.corpus.collection import Clip, Rejections, collect_clips, listed_twice, too_short
from utils.corpus.conversion import MIN_PARALLEL_TASKS, Rules, examine_all
from utils.corpus.layouts import LAYOUTS
from utils.corpus.list_settings import DatasetSpec, Settings
from utils.corpus.lists import SPEAKERS_NAME, Utterance, write_data_list
from utils.corpus.shards import write_shards
from utils.corpus.split import choose_test_clips, choose_test_speakers, number_speakers
from utils.engine.choice import open_engine
from utils.errors import DataListError
from utils.files import write_text_atomically

SHARDS_NAME = "shards"
"""Folder of the shards, beside the lists."""


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
    rejections = Rejections()
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


def _examine(
    clips: Sequence[Clip], settings: Settings, rejections: Rejections
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
            defect = too_short(finding.duration_s, settings.min_duration_s)
        if defect is not None:
            rejections.add(clip.task.source, defect)
            continue
        first = first_of.setdefault(finding.sound or clip.task.source, clip)
        if first.speaker != clip.speaker:
            # One of both names is wrong, and nobody knows which.
            what = f"the same sound as {first.task.source}"
            rejections.add(clip.task.source, listed_twice(first, clip, what))
            continue
        kept.append(clip)
        hours_of[clip.task.listed] = finding.duration_s / 3600
    return kept, hours_of


def _drop_rare_speakers(
    clips: list[Clip], min_utterances: int, rejections: Rejections
) -> list[Clip]:
    counts = Counter(clip.speaker for clip in clips)
    for clip in clips:
        count = counts[clip.speaker]
        if count < min_utterances:
            reason = f"rare speaker: {count} usable clips, expected at least {min_utterances}"
            rejections.add(clip.task.source, reason)
    return [clip for clip in clips if counts[clip.speaker] >= min_utterances]


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
