"""Recordings embedded as a calibration wants them: whole, and cut to 3 s and 1 s of speech."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from utils.arrays import FloatArray
from utils.audio.activity import remove_silence
from utils.audio.decode import load_audio
from utils.audio.waveform import SAMPLE_RATE
from utils.corpus.embedding_file import Cut
from utils.corpus.lists import LabelledClip
from utils.errors import AudioError, DataListError
from utils.messages import translate
from utils.verification.cohort import Cohort
from utils.verification.embedding import Encoder
from utils.verification.embedding_store import EmbeddingStore
from utils.verification.trial_groups import FULL_LENGTH, Condition, TrialGroup, make_groups

LENGTHS_S = {FULL_LENGTH: None, "3 s": 3.0, "1 s": 1.0}
"""Seconds of speech, from the middle, that each condition leaves."""


@dataclass(frozen=True, eq=False)
class ConditionedClips:
    """The recordings of a list under every condition.

    Attributes:
        clips: The recordings.
        conditions: Their embeddings, in the order of `LENGTHS_S`; NaN for unusable ones.
    """

    clips: Sequence[LabelledClip]
    conditions: Sequence[Condition]

    def groups(self, cohort: Cohort | None = None) -> list[TrialGroup]:
        """Returns the trials: each condition against itself, and whole recordings against 1 s.

        Args:
            cohort: For AS-norm of the scores.
        """
        found = list(self.conditions)
        if cohort is not None:
            found = [replace(c, statistics=cohort.statistics(c.embeddings)) for c in found]
        pairs = [(condition, condition) for condition in found]
        return make_groups(self.clips, [*pairs, (found[0], found[-1])])


def embed_conditions(
    encoder: Encoder,
    clips: Sequence[LabelledClip],
    store: EmbeddingStore | None = None,
) -> ConditionedClips:
    """Embeds each recording under every condition; unusable ones are told on stderr.

    Args:
        encoder: The model.
        clips: The recordings.
        store: Where embeddings are taken from if they are there, and put if they are not.

    Raises:
        DataListError: If there are no two people with usable recordings, one of them with two.
        VoiceprintError: If the store can't be written.
    """
    conditions = _embed(encoder, clips, store)
    is_usable = np.isfinite(conditions[0].embeddings[:, 0])
    check_people([clip.label for clip, usable in zip(clips, is_usable, strict=True) if usable])
    return ConditionedClips(clips, conditions)


def check_people(labels: Sequence[int | str]) -> None:
    """Raises DataListError if recordings of these speakers cannot calibrate anything."""
    if len(set(labels)) < 2 or len(set(labels)) == len(labels):
        raise DataListError(
            f"{len(labels)} usable clips of {len(set(labels))} speakers, expected several clips "
            "of several speakers to calibrate on"
        )


def embed_cuts(encoder: Encoder, path: str) -> dict[str, Cut]:
    """Embeds a recording under every condition.

    Raises:
        AudioError: If it can't be used.
    """
    return embed_waveform_cuts(encoder, load_audio(path), path)


def embed_waveform_cuts(encoder: Encoder, waveform: FloatArray, source: str) -> dict[str, Cut]:
    """Embeds a recording that is held in memory under every condition.

    Args:
        encoder: The model.
        waveform: Shape `(num_samples,)`, 16 kHz mono.
        source: What to call it in an error.

    Raises:
        AudioError: If it can't be used.
    """
    speech = remove_silence(waveform)
    cuts = {}
    for name, length_s in LENGTHS_S.items():
        part = speech if length_s is None else _middle(speech, length_s)
        cuts[name] = (encoder.embed_waveform(part, source=source), len(part) / SAMPLE_RATE)
    return cuts


def condition_recordings(
    speakers: Sequence[str], cuts: Sequence[Mapping[str, Cut]]
) -> ConditionedClips:
    """Returns recordings that were embedded under every condition before.

    Args:
        speakers: Whose each recording is.
        cuts: What `embed_waveform_cuts` returned of each.

    Raises:
        DataListError: If there are no two people, one of them with two recordings.
    """
    check_people(speakers)
    labels = {name: label for label, name in enumerate(dict.fromkeys(speakers))}
    clips = [LabelledClip("", labels[name], speaker=name) for name in speakers]
    conditions = [
        Condition(
            name,
            np.stack([own[name][0] for own in cuts]),
            np.array([own[name][1] for own in cuts]),
        )
        for name in LENGTHS_S
    ]
    return ConditionedClips(clips, conditions)


def _embed(
    encoder: Encoder, clips: Sequence[LabelledClip], store: EmbeddingStore | None
) -> list[Condition]:
    """Returns the embeddings, `(num_clips, size)`, and seconds, `(num_clips,)`, of each."""
    from tqdm import tqdm

    if store is not None and store.is_source and not store.has_cuts:
        raise DataListError(
            f"{store.path}: holds no embeddings of 3 s and 1 s of speech, expected some to "
            "calibrate on; run embed.py with --for_calibration"
        )

    shape = (len(clips), encoder.embedding_size)
    conditions = [
        Condition(name, np.full(shape, np.nan, np.float32), np.zeros(len(clips)))
        for name in LENGTHS_S
    ]
    try:
        for row, clip in enumerate(tqdm(clips, desc="embedding")):
            try:
                cuts = _cuts_of(encoder, clip.path, store)
            except AudioError as error:
                print(translate(f"left out: {error}"), file=sys.stderr)
                continue
            for condition in conditions:
                condition.embeddings[row], condition.speech_s[row] = cuts[condition.name]
    finally:
        if store is not None:
            store.save()
    return conditions


def _cuts_of(encoder: Encoder, path: str, store: EmbeddingStore | None) -> dict[str, Cut]:
    """Returns the embeddings of a recording under every condition, kept or new ones."""
    entry = None if store is None else store.find(path)
    if entry is not None and entry.cuts.keys() >= LENGTHS_S.keys():
        return entry.cuts
    if store is not None and store.is_source:
        raise AudioError(f"{path}: could not be embedded under every condition")
    cuts = embed_cuts(encoder, path)
    if store is not None:
        store.put_cuts(path, cuts)
    return cuts


def _middle(speech: FloatArray, length_s: float) -> FloatArray:
    """Returns the middle of a waveform, all of it if it is shorter."""
    size = round(length_s * SAMPLE_RATE)
    start = max(0, (len(speech) - size) // 2)
    return speech[start : start + size]
