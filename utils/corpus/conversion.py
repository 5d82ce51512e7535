"""Checks clips and converts them to 16 kHz mono 16-bit wav, on all cores, resumably.

Every clip is decoded once: the same pass checks it and, if requested, writes the wav. A journal in
the folder of the lists records the finding for each file with its size and time, so a second run
repeats no finished work, however the first one ended.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from utils.arrays import FloatArray
from utils.audio.decode import duration_seconds, load_audio
from utils.audio.fidelity import SUBTYPES, Embed, audible_in_16_bits, encode, loss_of_file
from utils.audio.waveform import SAMPLE_RATE, describe_defect
from utils.corpus.journal import (
    ABSENT,
    Finding,
    file_state,
    journal_line,
    open_journal,
    read_journal,
)
from utils.corpus.treatment import UNTREATED, Treatment
from utils.engine.engine import Engine
from utils.errors import AudioError, VoiceprintError

MIN_PARALLEL_TASKS = 64
"""Fewer clips than this take less time than starting worker processes (about 0.5 s)."""

DURATION_TOLERANCE_S = 0.15
"""Decoders of mp3 differ by the encoder's delay and padding, up to about 0.1 s at 16 kHz."""

MIN_DECLARED_SHARE = 0.5
"""A clip shorter than this share of the duration declared by its data set is truncated. Lenient,
because some data sets declare the duration before cutting silence."""

NOT_VERIFIED = "conversion not verified"
"""Begins the reason of a clip whose source would be lost; without --delete_source it is fine."""


@dataclass(frozen=True, slots=True)
class Task:
    """A clip to check, and to convert if `wav` is given.

    Attributes:
        source: The file of the data set.
        wav: Path of the 16 kHz wav to write; None keeps the source in place.
        declared_s: Duration in seconds declared by the data set, or None.
    """

    source: str
    wav: str | None = None
    declared_s: float | None = None

    @property
    def listed(self) -> str:
        """The file that goes into the data list."""
        return self.source if self.wav is None else self.wav


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings of the conversion.

    Attributes:
        min_duration_s: Shorter clips are not converted, in seconds.
        delete_source: Remove the source once its wav has been read back, matches, and gives the
            same embedding.
        treatment: What is done to the sound of clips that are converted.
        load_model: Returns the speaker model that compares source and wav before the source is
            removed; a function that can be imported, since worker processes call it.
    """

    min_duration_s: float
    delete_source: bool = False
    treatment: Treatment = UNTREATED
    load_model: Callable[[], Embed] | None = None

    def __post_init__(self) -> None:
        """Checks that nothing is removed uncompared."""
        if self.delete_source and self.load_model is None:
            raise ValueError("expected a speaker model that compares what is removed")


def examine(task: Task, known: Finding | None, rules: Rules) -> Finding:
    """Checks one clip and, if requested, converts it.

    Args:
        task: The clip.
        known: The journal's finding, returned as is while the files are unchanged.
        rules: Settings of the conversion.

    Returns:
        The finding; an unusable clip has `defect` set and is not an error.

    Raises:
        VoiceprintError: If the wav cannot be written (disk full, no permission).
    """
    if known is not None and _still_holds(task, known, rules):
        return known
    try:
        found = (
            _convert(task, Path(task.wav), rules) if task.wav else _check(Path(task.source), task)
        )
    except AudioError as error:
        found = _Judgement(0.0, _short_reason(task, error))
    states = file_state(task.listed), file_state(task.source)
    mark = str(rules.treatment) if task.wav else ""
    return Finding(task.listed, found.duration_s, found.defect, *states, mark, found.sound)


def examine_all(
    tasks: Sequence[Task], rules: Rules, journal_path: Path, engine: Engine
) -> Iterator[Finding]:
    """Examines clips by an engine, with a progress bar on stderr and a journal.

    Args:
        tasks: The clips.
        rules: Settings of the conversion.
        journal_path: Keeps the findings from run to run.
        engine: Where the clips are examined.

    Yields:
        One finding per task, in the same order.

    Raises:
        VoiceprintError: If a wav or the journal cannot be written, or another process is at it.
    """
    from tqdm import tqdm

    with open_journal(journal_path) as journal:
        known = read_journal(journal_path)
        jobs = ((task, known.get(task.listed)) for task in tasks)
        examine_job = functools.partial(_examine_job, rules=rules)
        findings = engine.map(examine_job, jobs, _crash_finding)
        for finding in tqdm(findings, total=len(tasks), desc="checking", unit="clip"):
            if _is_news(finding, known):
                journal.write(journal_line(finding))
            yield finding


def _examine_job(job: tuple[Task, Finding | None], rules: Rules) -> Finding:
    return examine(job[0], job[1], rules)


def _is_news(finding: Finding, known: dict[str, Finding]) -> bool:
    exists = (finding.listed_state, finding.source_state) != (ABSENT, ABSENT)
    return exists and finding != known.get(finding.listed)


def _crash_finding(job: tuple[Task, Finding | None]) -> Finding:
    task = job[0]
    defect = "damaged audio: the decoder crashed"
    return Finding(task.listed, 0.0, defect, file_state(task.listed), file_state(task.source))


def _still_holds(task: Task, known: Finding, rules: Rules) -> bool:
    """Whether an earlier finding is still valid for the files."""
    source_state = file_state(task.source)
    if known.treatment != (str(rules.treatment) if task.wav else ""):
        return False
    if task.wav is None:
        return source_state != ABSENT and source_state == known.source_state
    same_source = source_state != ABSENT and source_state == known.source_state
    if known.defect is not None:
        is_kept = known.defect.startswith(NOT_VERIFIED) and not rules.delete_source
        return same_source and not is_kept
    if known.listed_state == ABSENT:  # was too short to be converted
        return same_source and known.duration_s < rules.min_duration_s
    same_wav = file_state(task.wav) == known.listed_state
    if rules.delete_source and source_state != ABSENT:
        return False
    return same_wav and (same_source or source_state == ABSENT)


@dataclass(frozen=True, slots=True)
class _Judgement:
    """What a decoded clip is like: the fields of `Finding` that its sound decides."""

    duration_s: float
    defect: str | None
    sound: str = ""


def _check(path: Path, task: Task) -> _Judgement:
    """Decodes a file that stays where it is."""
    waveform = load_audio(path)
    return _judge(waveform, task)


def _convert(task: Task, wav: Path, rules: Rules) -> _Judgement:
    """Writes the wav of a task, unless a complete one exists."""
    source, mark = Path(task.source), str(rules.treatment)
    if not source.is_file() and wav.is_file():
        return _check(wav, task)  # converted by an earlier run, its source was deleted
    if not rules.delete_source and _is_finished(source, wav, rules.treatment):
        return _check(wav, task)
    waveform = rules.treatment.load(source)
    judgement = _judge(waveform, task, is_whole=not rules.treatment.trim_silence)
    if judgement.defect is not None or judgement.duration_s < rules.min_duration_s:
        return judgement
    if wav.is_file() and wav.samefile(source):
        raise AudioError(f"{source}: source and wav are one file, choose another --wav_dir")
    waveform = audible_in_16_bits(waveform)
    held = [subtype for subtype in SUBTYPES if _holds(wav, waveform, mark, subtype)]
    if not held:
        _store(wav, waveform, mark, SUBTYPES[0], rules.delete_source)
    if rules.delete_source and rules.load_model is not None:
        embed = _model(rules.load_model)
        loss = loss_of_file(source, load_audio(wav), embed)
        if loss is not None and SUBTYPES[-1] not in held:
            _store(wav, waveform, mark, SUBTYPES[-1], is_durable=True)
            loss = loss_of_file(source, load_audio(wav), embed)
        if loss is not None:
            wav.unlink()
            return replace(judgement, defect=f"{NOT_VERIFIED}: {' '.join(loss.split())}")
        source.unlink()
    return replace(judgement, sound=_sound(load_audio(wav)))


def _store(wav: Path, waveform: FloatArray, mark: str, subtype: str, is_durable: bool) -> None:
    """Writes a wav and reads it back."""
    _write_file(wav, encode(waveform, subtype, comment=mark), is_durable)
    if not _holds(wav, waveform, mark, subtype):
        raise VoiceprintError(f"{wav}: differs from what was written, check the disk")


@functools.lru_cache(maxsize=1)
def _model(load: Callable[[], Embed]) -> Embed:
    """Returns the speaker model of this process."""
    return load()


def _is_finished(source: Path, wav: Path, treatment: Treatment) -> bool:
    """Whether `wav` is a complete conversion of `source` by an earlier run."""
    try:
        is_older = wav.stat().st_mtime_ns < source.stat().st_mtime_ns
        if is_older or not any(_has_format(wav, str(treatment), subtype) for subtype in SUBTYPES):
            return False
        if treatment.trim_silence:  # how long it has to be isn't known: what is there is whole
            return True
        difference_s = abs(duration_seconds(wav) - duration_seconds(source))
        return difference_s <= DURATION_TOLERANCE_S
    except (OSError, AudioError):
        return False


def _holds(wav: Path, waveform: FloatArray, mark: str, subtype: str) -> bool:
    """Whether a wav holds a waveform, up to 16-bit rounding."""
    import soundfile

    if not _has_format(wav, mark, subtype):
        return False
    try:
        # As any other program would read it.
        written, _ = soundfile.read(wav, dtype="float32")
    except (soundfile.LibsndfileError, OSError, RuntimeError):
        return False
    return len(written) == len(waveform) and bool(np.abs(written - waveform).max() < 2 / 2**15)


def _has_format(wav: Path, mark: str, subtype: str) -> bool:
    """Whether a file is a wav as they are written here, with this mark of a treatment."""
    import soundfile

    try:
        with soundfile.SoundFile(wav) as file:
            kind = (file.samplerate, file.channels, file.format, file.subtype)
            return kind == (SAMPLE_RATE, 1, "WAV", subtype) and file.comment == mark
    except (soundfile.LibsndfileError, OSError, RuntimeError):
        return False


def _write_file(path: Path, content: bytes, is_durable: bool) -> None:
    """Writes a file under a temporary name and renames it.

    Unlike `utils.files.write_bytes_atomically` it syncs to disk only if `is_durable`: a wav damaged
    by a power cut is made again, and a million syncs would take hours.
    """
    # The same name in each run, so the next run overwrites the leftovers of a killed one.
    checksum = zlib.crc32(path.name.encode(errors="surrogateescape"))
    temporary = path.with_name(f".{path.stem[:40]}.{checksum:08x}.tmp.wav")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            if is_durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise VoiceprintError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _judge(waveform: FloatArray, task: Task, is_whole: bool = True) -> _Judgement:
    """Returns duration, defect and checksum of a waveform, ignoring its length."""
    duration_s = len(waveform) / SAMPLE_RATE
    defect = describe_defect(waveform, 0.0)
    declared_s = task.declared_s
    is_cut = declared_s and is_whole and duration_s < MIN_DECLARED_SHARE * declared_s
    if defect is None and is_cut:
        defect = f"truncated: {duration_s:.2f} s of {declared_s:.2f} s declared by the data set"
    return _Judgement(duration_s, defect, _sound(waveform) if defect is None else "")


def _sound(waveform: FloatArray) -> str:
    """Returns a checksum of a waveform in 16 bits: the same for copies without loss."""
    samples = np.round(waveform * 2**15).astype("<i4")
    return hashlib.blake2b(samples.tobytes(), digest_size=12).hexdigest()


def _short_reason(task: Task, error: AudioError) -> str:
    """Returns an error on one line, without the path, which rejected.tsv has in its own column."""
    text = " ".join(str(error).split())
    for path in (str(Path(task.source)), str(Path(task.listed))):
        text = text.removeprefix(f"{path}: ").replace(f"Error opening {path!r}: ", "")
    return text
