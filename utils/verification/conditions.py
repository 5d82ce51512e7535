"""Recordings embedded as a calibration wants them: whole, and cut to 3 s and 1 s of speech."""

import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from utils.arrays import FloatArray
from utils.audio.activity import remove_silence
from utils.audio.decode import load_audio
from utils.audio.waveform import SAMPLE_RATE
from utils.corpus.clip_lists import LabelledClip
from utils.errors import AudioError, DataListError, VoiceprintError
from utils.files import atomic_path
from utils.messages import translate
from utils.verification.cohort import Cohort
from utils.verification.embedding import Encoder
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
    store_path: str | Path | None = None,
) -> ConditionedClips:
    """Embeds each recording under every condition; unusable ones are told on stderr.

    Args:
        encoder: The model.
        clips: The recordings.
        store_path: An npz file to keep the embeddings in, and to reuse them from if it holds
            those of this model and these recordings.

    Raises:
        DataListError: If there are no two people with usable recordings, one of them with two.
        VoiceprintError: If the npz file is damaged.
    """
    stored = _read_store(store_path, encoder.model_id, clips) if store_path else None
    if stored is None:
        stored = _embed(encoder, clips)
        if store_path:
            key = {"model_id": encoder.model_id, "paths": [clip.path for clip in clips]}
            with atomic_path(store_path) as path, path.open("wb") as file:
                np.savez(file, allow_pickle=False, **stored, **key)
    conditions = [
        Condition(name, stored[f"{name}/embeddings"], stored[f"{name}/speech_s"])
        for name in LENGTHS_S
    ]
    is_usable = np.isfinite(conditions[0].embeddings[:, 0])
    labels = [clip.label for clip, usable in zip(clips, is_usable, strict=True) if usable]
    if len(set(labels)) < 2 or len(set(labels)) == len(labels):
        raise DataListError(
            f"{len(labels)} usable clips of {len(set(labels))} speakers, expected several clips "
            "of several speakers to calibrate on"
        )
    return ConditionedClips(clips, conditions)


def _embed(encoder: Encoder, clips: Sequence[LabelledClip]) -> dict[str, Any]:
    """Returns embeddings `(num_clips, size)` and seconds `(num_clips,)` of each condition."""
    from tqdm import tqdm

    arrays: dict[str, Any] = {}
    for name in LENGTHS_S:
        shape = (len(clips), encoder.embedding_size)
        arrays[f"{name}/embeddings"] = np.full(shape, np.nan, np.float32)
        arrays[f"{name}/speech_s"] = np.zeros(len(clips))
    for row, clip in enumerate(tqdm(clips, desc="embedding")):
        try:
            speech = remove_silence(load_audio(clip.path))
            for name, length_s in LENGTHS_S.items():
                part = speech if length_s is None else _middle(speech, length_s)
                arrays[f"{name}/embeddings"][row] = encoder.embed_waveform(part, source=clip.path)
                arrays[f"{name}/speech_s"][row] = len(part) / SAMPLE_RATE
        except AudioError as error:
            print(translate(f"left out: {error}"), file=sys.stderr)
    return arrays


def _middle(speech: FloatArray, length_s: float) -> FloatArray:
    """Returns the middle of a waveform, all of it if it is shorter."""
    size = round(length_s * SAMPLE_RATE)
    start = max(0, (len(speech) - size) // 2)
    return speech[start : start + size]


def _read_store(
    path: str | Path, model_id: str, clips: Sequence[LabelledClip]
) -> dict[str, Any] | None:
    """Returns the arrays of an npz file, or None if it is missing or of another calibration."""
    if not Path(path).is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            stored = {name: arrays[name] for name in arrays.files}
        same_paths = stored["paths"].tolist() == [clip.path for clip in clips]
        same_model = str(stored["model_id"]) == model_id
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise VoiceprintError(
            f"{path}: no store of embeddings ({error}), expected an npz file that "
            "tools/calibrate.py wrote; name another file"
        ) from error
    if not (same_paths and same_model):
        print(translate(f"{path} is of another model or list and is made anew"), file=sys.stderr)
        return None
    return stored
