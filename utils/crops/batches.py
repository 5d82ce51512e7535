"""Training batches: random, augmented waveform crops of the listed utterances.

A crop depends only on the seed, the epoch and its place in it, not on earlier ones: a resumed
training sees the same batches as an uninterrupted one, and several hosts the same as one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.arrays import FloatArray
from utils.audio.activity import remove_silence
from utils.audio.decode import duration_seconds, load_audio
from utils.audio.spectrogram import (
    CROP_FRAMES,
    HOP_LENGTH,
    evaluation_waveform,
    training_waveform,
)
from utils.audio.waveform import MIN_DURATION_S, SAMPLE_RATE, describe_defect
from utils.corpus.lists import Utterance
from utils.crops.augment import (
    AugmentContext,
    AugmentSettings,
    augment,
    change_speed,
    spectrogram_mask,
)
from utils.crops.draws import (
    VIEW_MARGIN_FRAMES,
    ListDraw,
    Share,
    draw_views,
    draw_weights,
)
from utils.crops.teacher import TeacherTable, unit_length
from utils.errors import AudioError, DataListError
from utils.settings import option

MAX_READ_S = 12.0
"""Seconds decoded from a random place in a longer clip: bounds time and memory."""

MAX_JOINED = 4
"""Most clips of one speaker that are joined to fill a crop."""

MAX_TRIES = 20
"""Unreadable clips in a row before the list counts as unusable."""

INT16_SCALE = 32767.0


@dataclass(frozen=True)
class ReaderSettings:
    """Settings of the training batches.

    Each changed speed of a speaker is a class of its own. With a teacher, which brings its own
    speeds, crops at a changed speed learn from it alone and belong to no class; the mean of a
    speaker's teacher vectors depends less on the spoken words than a single one.
    """

    batch_size: int = option(64, "positive_int", "crops in a batch", preset=32)
    crop_frames: int = option(CROP_FRAMES, "positive_int", "257 are 2.57 s")
    num_views: int = option(
        1,
        "positive_int",
        "crops cut out of each waveform on the training device; raise it where a GPU waits for "
        "the readers",
    )
    seed: int = option(0, "non_negative_int")
    shuffle_buffer: int = option(
        1000, "positive_int", "clips of shards in memory, among which the next is drawn"
    )
    balance: float = option(
        1.0, "fraction", "1: every utterance equally often; 0: every corpus and speaker"
    )
    remove_silence: bool = option(True, help="do not cut out silence", name="keep_silence")
    join_clips: bool = option(
        True, help="repeat short clips instead of joining others of the speaker", name="no_join"
    )
    speeds: tuple[float, ...] = option(
        (1.0,),
        "positive_float",
        "speeds to play at, each as a speaker of its own; a teacher file brings its own",
        nargs="+",
    )
    speed_change: float = option(
        0.67, "fraction", "how often the speed is changed, where there are several"
    )
    teacher: str = option(
        "",
        help="embeddings of a teacher model to learn from (tools/make_teacher.py)",
        metavar="FILE.npz",
    )
    teacher_centroid: float = option(
        0.5, "fraction", "share of the speaker's mean teacher vector in the target"
    )
    augment: AugmentSettings = field(default_factory=AugmentSettings)

    @property
    def crop_samples(self) -> int:
        """Samples to read for a crop, or for all views together."""
        margin = VIEW_MARGIN_FRAMES if self.num_views > 1 else 0
        return (self.crop_frames + margin - 1) * HOP_LENGTH


@dataclass
class Batch:
    """One training batch, shapes with `b` samples.

    Attributes:
        waveforms: int16, `(b, crop_samples)`.
        labels: Class of each crop, int32, `(b,)`.
        has_class: 0 where the crop has no class to learn, else 1, float32, `(b,)`.
        teachers: float32, `(b, teacher_size)`, zeros where the teacher has no vector.
        has_teacher: float32, `(b,)`.
        masks: SpecAugment ranges, int32, `(b, num_views, 4)`.
        views: From `draw_views`; empty for a single view.
        problems: One line for each unusable clip.
    """

    waveforms: npt.NDArray[np.int16]
    labels: npt.NDArray[np.int32]
    has_class: FloatArray
    teachers: FloatArray
    has_teacher: FloatArray
    masks: npt.NDArray[np.int32]
    views: dict[str, npt.NDArray[Any]]
    problems: list[str]


class BatchMaker:
    """Makes any training batch from the list, the settings and the batch's number."""

    def __init__(
        self, utterances: Sequence[Utterance], settings: ReaderSettings, share: Share | None = None
    ) -> None:
        """Prepares the draw, for one of several hosts or for the only one.

        Raises:
            DataListError: If the list is empty or a folder or teacher file is unusable.
        """
        if not utterances:
            raise DataListError("the training list is empty, expected lines of path<TAB>label")
        self.utterances = utterances
        self.settings = settings
        self.teacher = TeacherTable(settings.teacher) if settings.teacher else None
        self.speeds = tuple(self.teacher.speeds if self.teacher else settings.speeds)
        self.context = AugmentContext.load(settings.augment)
        self.weights = draw_weights(utterances, settings.balance)
        self.num_speed_classes = 1 if self.teacher else len(self.speeds)
        self.share = share or Share()
        self._list = ListDraw(self.weights, settings.balance != 1.0, settings.seed)
        self._held: dict[int, bytes | str] = {}
        self._centroids: dict[tuple[int, float], FloatArray] = {}
        self.by_label: dict[int, list[int]] = {}
        for index, utterance in enumerate(utterances):
            self.by_label.setdefault(utterance.label, []).append(index)

    @property
    def teacher_size(self) -> int:
        """Length of a teacher vector; 1 (filler) without a teacher."""
        return self.teacher.size if self.teacher else 1

    def batch(
        self, epoch: int, number: int, clips: Sequence[tuple[int, bytes | str]] = ()
    ) -> Batch:
        """Returns batch `number` (from 0) of `epoch` (from 1), the host's rows of it.

        Args:
            epoch: From 1.
            number: From 0.
            clips: If the list lies in shards: the utterances of the batch, with the content of
                their files, or why there is none.

        Raises:
            DataListError: If many clips in a row cannot be read.
        """
        settings = self.settings
        size = settings.batch_size
        places = self.share.places(number, size)
        self._held = dict(clips)
        drawn = [index for index, _ in clips] or self._list.draw(epoch, places).tolist()
        rngs = [np.random.default_rng((settings.seed, epoch, 0, int(place))) for place in places]
        problems: list[str] = []
        crops, speakers, labels, has_class, teachers, has_teacher = [], [], [], [], [], []
        for index, rng in zip(drawn, rngs, strict=True):
            crop, speed, label, rows = self._crop(index, rng, problems)
            crops.append(crop)
            speakers.append(label)
            labels.append(label * self.num_speed_classes + self._speed_class(speed))
            has_class.append(float(speed == 1.0 or self.teacher is None))
            teachers.append(self._target(label, speed, rows))
            has_teacher.append(float(bool(rows)))
        waveforms = np.empty((size, settings.crop_samples), dtype=np.int16)
        masks = np.empty((size, settings.num_views, 4), dtype=np.int32)
        for row, (crop, rng) in enumerate(zip(crops, rngs, strict=True)):
            # Babble comes from the batch itself, which costs no reading. A speaker at another
            # speed is another class, but not another voice.
            self.context.others = [c for c, speaker in zip(crops, speakers, strict=True)
                                   if speaker != speakers[row]][:64]  # fmt: skip
            crop = augment(crop, rng, self.context)
            waveforms[row] = np.round(crop * INT16_SCALE)
            for view in range(settings.num_views):
                masks[row, view] = spectrogram_mask(
                    rng, settings.augment.spec_mask, settings.crop_frames
                )
        return Batch(
            waveforms,
            np.array(labels, dtype=np.int32),
            np.array(has_class, dtype=np.float32),
            np.array(teachers, dtype=np.float32),
            np.array(has_teacher, dtype=np.float32),
            masks,
            self._views(epoch, number),
            problems,
        )

    def _speed_class(self, speed: float) -> int:
        """Returns 0 for the unchanged speed, else the place among the changed ones."""
        if self.num_speed_classes == 1 or speed == 1.0:
            return 0
        return 1 + [value for value in self.speeds if value != 1.0].index(speed)

    def _target(self, label: int, speed: float, rows: Sequence[int]) -> FloatArray:
        """Returns the target vector, shape `(teacher_size,)`; zeros without rows."""
        if self.teacher is None or not rows:
            return np.zeros(self.teacher_size, dtype=np.float32)
        own = unit_length(np.sum([self.teacher.vector(row) for row in rows], axis=0))
        share = self.settings.teacher_centroid
        if share == 0 or len(self.by_label[label]) == 1:
            return own
        key = (label, speed)
        if key not in self._centroids:
            self._centroids[key] = unit_length(np.sum(self._vectors(label, speed), axis=0))
        return unit_length((1 - share) * own + share * self._centroids[key])

    def _vectors(self, label: int, speed: float) -> list[FloatArray]:
        """Returns what the teacher says of a speaker's utterances at a speed."""
        assert self.teacher is not None
        known = [self.teacher.find(self.utterances[i].path) for i in self.by_label[label]]
        return [self.teacher.vector(found[speed]) for found in known if speed in found]

    def speaker_vectors(self) -> dict[int, FloatArray]:
        """Returns the mean teacher vector of each label, unit length, where there is any."""
        vectors = {label: self._vectors(label, 1.0) for label in self.by_label}
        return {label: unit_length(np.sum(v, axis=0)) for label, v in vectors.items() if v}

    def _choose_speed(self, known: dict[float, int], rng: np.random.Generator) -> float:
        """Returns a crop's speed, among the teacher's, or the settings' without a teacher."""
        changed = [s for s in (known if self.teacher else self.speeds) if s != 1.0]
        use, place = rng.random(), rng.random()
        if not changed or use >= self.settings.speed_change:
            return 1.0
        return changed[int(place * len(changed))]

    def _views(self, epoch: int, number: int) -> dict[str, npt.NDArray[Any]]:
        """Returns the host's rows of what `draw_views` draws for the batch of all hosts."""
        size, share = self.settings.batch_size, self.share
        rng = np.random.default_rng((self.settings.seed, epoch, 3, number))
        views = draw_views(rng, size * share.num_hosts, self.settings.num_views)
        own = slice(share.host_id * size, (share.host_id + 1) * size)
        return {name: values[own] for name, values in views.items()}

    def _crop(
        self, index: int, rng: np.random.Generator, problems: list[str]
    ) -> tuple[FloatArray, float, int, list[int]]:
        """Returns crop, speed, label and teacher rows for an utterance or, if bad, another one."""
        for _ in range(MAX_TRIES):
            utterance = self.utterances[index]
            try:
                clip = self._read(index, rng)
            except AudioError as error:
                problems.append(str(error))
                index = self._other(rng)
                continue
            known = self.teacher.find(utterance.path) if self.teacher else {}
            speed = self._choose_speed(known, rng)
            need = int(self.settings.crop_samples * speed) + 1
            rows = [known[speed]] if speed in known else []
            if self.settings.join_clips and len(clip) < need:
                clip, rows = self._join(clip, rows, utterance, speed, need, rng)
            crop = training_waveform(clip, rng, need, self.settings.augment.flip)
            return self._fit(change_speed(crop, speed)), speed, utterance.label, rows
        raise DataListError(
            f"{MAX_TRIES} clips in a row cannot be used, the last: {problems[-1]}; "
            "run create_data.py to check the list"
        )

    def _join(
        self, clip: FloatArray, rows: list[int], utterance: Utterance, speed: float, need: int,
        rng: np.random.Generator,
    ) -> tuple[FloatArray, list[int]]:  # fmt: skip
        """Appends other clips of the speaker until they fill a crop."""
        candidates = self.by_label[utterance.label]
        if self._held:
            candidates = [i for i in self._held if self.utterances[i].label == utterance.label]
        if len(candidates) < 2:
            return clip, rows
        picks = rng.permutation(len(candidates))[:MAX_JOINED]
        for pick in picks:
            other = self.utterances[candidates[int(pick)]].path
            known = self.teacher.find(other) if self.teacher else {}
            if other == utterance.path or (rows and speed not in known):
                continue
            try:
                clip = np.concatenate([clip, self._read(candidates[int(pick)], rng)])
            except AudioError:
                continue  # It is reported when drawn itself.
            if rows:
                rows = [*rows, known[speed]]
            if len(clip) >= need:
                break
        return clip, rows

    def _fit(self, crop: FloatArray) -> FloatArray:
        """Fixes the length after a change of speed, which may be off by a sample or two."""
        size = self.settings.crop_samples
        return crop[:size] if len(crop) >= size else np.pad(crop, (0, size - len(crop)), "edge")

    def _other(self, rng: np.random.Generator) -> int:
        """Returns an utterance that takes the place of an unusable one."""
        if self._held:
            return list(self._held)[int(rng.integers(len(self._held)))]
        return int(rng.choice(len(self.utterances), p=self.weights))

    def _read(self, index: int, rng: np.random.Generator) -> FloatArray:
        """Reads a clip, or a random part of a long one, without its silence."""
        path, offset = self.utterances[index].path, rng.random()
        if self._held:
            clip = _part(_decode(self._held[index], path), offset)
        else:
            spare = duration_seconds(path) - MAX_READ_S
            part = {"offset_s": offset * spare, "duration_s": MAX_READ_S} if spare > 0 else {}
            clip = load_audio(path, **part)
        return _checked(remove_silence(clip) if self.settings.remove_silence else clip, path)


def _decode(content: bytes | str, path: str) -> FloatArray:
    """Returns the waveform of a file's content, or raises AudioError."""
    if isinstance(content, str):
        raise AudioError(content)
    return load_audio(content, name=path)


def _part(clip: FloatArray, offset: float) -> FloatArray:
    """Returns a random part of a long clip."""
    size = round(MAX_READ_S * SAMPLE_RATE)
    start = int(offset * max(0, len(clip) - size))
    return clip[start : start + size]


def read_evaluation_crop(path: str, crop_frames: int = CROP_FRAMES) -> FloatArray:
    """Returns the clean crop of a clip for validation, shape `(crop_samples,)`.

    Raises:
        AudioError: If the clip cannot be read or holds too little speech.
    """
    clip = _checked(remove_silence(load_audio(path, duration_s=MAX_READ_S)), path)
    return evaluation_waveform(clip, (crop_frames - 1) * HOP_LENGTH)


def batch_arrays(batch: Batch) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns a batch as the trainer's inputs and targets."""
    inputs = {"waveforms": batch.waveforms, "masks": batch.masks, **batch.views}
    targets = {
        "labels": batch.labels, "has_class": batch.has_class,
        "teachers": batch.teachers, "has_teacher": batch.has_teacher,
    }  # fmt: skip
    return inputs, targets


def _checked(clip: FloatArray, path: str) -> FloatArray:
    """Returns a clip that is fit for use, or raises AudioError."""
    defect = describe_defect(clip, MIN_DURATION_S)
    if defect is not None:
        raise AudioError(f"{path}: {defect}")
    return clip
