"""Evaluation: embeddings of the clips of a list, their trials, and the figures that come out.

eval.py prints what is computed here. Nothing here needs a model of a certain kind: whatever has the
attributes of `Encoder` can be evaluated.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.arrays import FloatArray
from utils.audio.decode import read_blocks
from utils.audio.recording import BLOCK_S, Recording
from utils.corpus.clip_lists import read_clips
from utils.corpus.lists import LabelledClip, Utterance
from utils.corpus.trials import Trial, place_trials, read_trial_list
from utils.errors import AudioError, DataListError
from utils.messages import translate
from utils.processors import num_processors
from utils.verification.calibration import (
    fit_calibration,
)
from utils.verification.cohort import CohortStatistics
from utils.verification.embedding import ClipEncoder, Encoder
from utils.verification.embedding_store import EmbeddingStore
from utils.verification.log_odds import LogOddsHistogram, count_pairs, count_trials
from utils.verification.metrics import C_FALSE_ACCEPT, C_MISS, P_TARGET, ErrorCurve
from utils.verification.scoring import (
    ScoreHistogram,
    histogram_of,
    score_all_pairs,
    score_trials,
)

DURATION_GROUPS_S = ((0.0, 2.0), (2.0, 5.0), (5.0, float("inf")))
"""Lengths of recordings that are told apart."""


@dataclass(frozen=True, eq=False)
class Clips:
    """The clips of a list that could be used, and those that could not.

    Attributes:
        rows: Row of each usable clip's path in `embeddings`.
        embeddings: Shape `(num_usable_clips, embedding_size)`.
        defects: What is wrong with each unusable clip, by path.
        statistics: Of each embedding, for AS-norm of the scores.
        speech_s: Seconds of speech in the clips of which it is known, by path.
    """

    rows: dict[str, int]
    embeddings: FloatArray
    defects: dict[str, str]
    statistics: CohortStatistics | None = None
    speech_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """What a model is measured on: all pairs of the clips of a list, or trials that are listed.

    Attributes:
        paths: The audio files, each once.
        listed: The clips of the list; none if trials are listed.
        trials: The trials; None for all pairs.
    """

    paths: Sequence[str]
    listed: Sequence[LabelledClip]
    trials: Sequence[Trial] | None

    @classmethod
    def read(
        cls, list_path: str, trials_path: str | None = None, trials_root: str | Path | None = None
    ) -> EvaluationSet:
        """Reads a data list, table or folder, or a list of trials instead.

        Args:
            list_path: As `read_clips` takes it; a path that is listed twice counts once.
            trials_path: The list of trials, if that is to be used.
            trials_root: Folder that the paths of the trials start from.

        Raises:
            DataListError: If a list cannot be read, or lists a path with two labels.
        """
        if trials_path is None:
            listed = read_clips(list_path)
            return cls(list(distinct_labels(listed)), listed, None)
        trials = place_trials(read_trial_list(trials_path), trials_root)
        return cls(list(dict.fromkeys(p for t in trials for p in (t.path1, t.path2))), [], trials)

    def num_rounds(self, clips: Clips) -> int:
        """Returns how often `score` reports progress in all."""
        return len(clips.rows) if self.trials is None else len(self.trials)

    def score(
        self, clips: Clips, include_self: bool, progress: Callable[[int], object]
    ) -> ScoreHistogram:
        """Scores the trials; those with a clip that can't be used are left out, and counted."""
        if self.trials is None:
            return score_all_pairs(
                clips.embeddings, self.labels(clips), include_self, progress, clips.statistics
            )
        rows, is_target = self._usable_trials(clips)
        if len(rows) < len(self.trials):
            note = f"left out {len(self.trials) - len(rows)} of {len(self.trials)} trials"
            print(translate(note), file=sys.stderr)
        scores = score_trials(clips.embeddings, rows[:, 0], rows[:, 1], clips.statistics)
        progress(len(self.trials))
        return histogram_of(scores, is_target)

    def log_odds(self, clips: Clips, encoder: Encoder) -> LogOddsHistogram:
        """Counts the log-odds that a calibrated model claims for the trials."""
        calibration = encoder.calibration
        speech_s = None
        if calibration.slope_by_speech or calibration.offset_by_speech:
            speech_s = measure_speech(list(clips.rows), clips.speech_s)
        if self.trials is None:
            return count_pairs(
                clips.embeddings, self.labels(clips), calibration, speech_s, clips.statistics
            )
        rows, is_target = self._usable_trials(clips)
        scores = score_trials(clips.embeddings, rows[:, 0], rows[:, 1], clips.statistics)
        durations = None if speech_s is None else speech_s[rows]
        return count_trials(scores, is_target, calibration, durations)

    def groups(self, clips: Clips, encoder: Encoder) -> dict[str, dict[str, Any]]:
        """Measures the groups that a list tells apart: both clips of a trial are of the group.

        Returns:
            By name of the group: `num_target_trials`, `num_nontarget_trials`, `eer`, and for each
            threshold of the model the rates as in `measure`. Groups without both kinds of trials
            are left out, and kinds of group of which the list knows one only.
        """
        members: dict[str, dict[str, list[LabelledClip]]] = {}
        for clip in {clip.path: clip for clip in self.listed if clip.path in clips.rows}.values():
            kinds = {
                "corpus": clip.corpus,
                "sex": clip.sex,
                "language": clip.language,
                "corpus and sex": f"{clip.corpus}, {clip.sex}" if clip.corpus and clip.sex else "",
                "duration": "" if clip.seconds is None else _duration_group(clip.seconds),
            }
            for kind, value in kinds.items():
                if value:
                    members.setdefault(kind, {}).setdefault(value, []).append(clip)
        found = {}
        for kind, values in members.items():
            for value, group in sorted(values.items()) if len(values) > 1 else ():
                rows = [clips.rows[clip.path] for clip in group]
                statistics = None if clips.statistics is None else clips.statistics[rows]
                histogram = score_all_pairs(
                    clips.embeddings[rows], [clip.label for clip in group], statistics=statistics
                )
                if histogram.num_target_trials and histogram.num_nontarget_trials:
                    found[f"{kind} {value}"] = _rates(histogram, encoder)
        return found

    def labels(self, clips: Clips) -> list[int]:
        """Returns the label of each usable clip of a list."""
        by_path = {clip.path: clip.label for clip in self.listed}
        return [by_path[path] for path in clips.rows]

    def _usable_trials(self, clips: Clips) -> tuple[npt.NDArray[np.intp], list[bool]]:
        """Returns the rows of both clips, `(num_trials, 2)`, and whether they are one speaker's."""
        rows = clips.rows
        usable = [t for t in self.trials or () if t.path1 in rows and t.path2 in rows]
        pairs = [(rows[trial.path1], rows[trial.path2]) for trial in usable]
        return np.array(pairs, np.intp).reshape(-1, 2), [trial.is_target for trial in usable]


def distinct_labels(utterances: Sequence[Utterance | LabelledClip]) -> dict[str, int]:
    """Returns the label of each path of a data list; a path that is listed twice counts once.

    Raises:
        DataListError: If a path is listed with two labels.
    """
    labels: dict[str, int] = {}
    for utterance in utterances:
        if labels.setdefault(utterance.path, utterance.label) != utterance.label:
            raise DataListError(
                f"{utterance.path} is listed with the labels {labels[utterance.path]} and "
                f"{utterance.label}, expected one speaker a clip"
            )
    num_repeated = len(utterances) - len(labels)
    if num_repeated:
        note = f"{num_repeated} lines repeat a clip; each clip counts once"
        print(translate(note), file=sys.stderr)
    return labels


def embed_clips(
    encoder: ClipEncoder,
    paths: Sequence[str],
    store: EmbeddingStore | None = None,
    progress: Callable[[int], object] = lambda num_done: None,
) -> Clips:
    """Computes the embeddings of audio files, each once; what can't be used is left out.

    Args:
        encoder: The model.
        paths: Audio files, all different.
        store: Where embeddings are taken from if they are there, and put if they are not.
        progress: Called with the number of clips done since the last call.

    Returns:
        The usable clips in the order of `paths`, and the defects of the others.

    Raises:
        AudioError: If not one clip can be used.
    """
    if store is not None and store.is_of_other_model:
        print(translate(f"{store.path} is of another model and is made anew"), file=sys.stderr)
    found = {} if store is None else {path: store.find(path) for path in paths}
    known = {path: e for path, e in found.items() if e is not None and e.has_embedding}
    embeddings = {path: entry.embedding for path, entry in known.items()}
    speech_s = {path: e.speech_s for path, e in known.items() if np.isfinite(e.speech_s)}
    defects: dict[str, str] = {}
    progress(len(embeddings))
    todo = [path for path in paths if path not in embeddings]
    try:
        for position, result in encoder.embed_files(todo, on_error="skip") if todo else ():
            path = todo[position]
            if isinstance(result, AudioError):
                defects[path] = str(result)
            else:
                embeddings[path] = result
                if store is not None:
                    store.put(path, result)
            progress(1)
    finally:
        # Ctrl-C after an hour keeps the hour.
        if store is not None:
            store.save()
    usable = [path for path in paths if path in embeddings]
    if not usable:
        first = next(iter(defects.values()), "the list is empty")
        raise AudioError(f"none of the {len(paths)} clips can be used; the first: {first}")
    rows = {path: row for row, path in enumerate(usable)}
    matrix = np.empty((len(usable), len(embeddings[usable[0]])), np.float32)
    for path, row in rows.items():
        matrix[row] = embeddings.pop(path)
    return Clips(rows, matrix, defects, speech_s=speech_s)


def measure(histogram: ScoreHistogram, encoder: Encoder) -> dict[str, Any]:
    """Computes the figures of the report that come from the scores.

    Returns:
        Figures by name, ready for JSON; rates are fractions.

    Raises:
        DataListError: If there are no target or no non-target trials.
    """
    num_target, num_nontarget = histogram.num_target_trials, histogram.num_nontarget_trials
    if not num_target or not num_nontarget:
        raise DataListError(
            f"{num_target} target and {num_nontarget} non-target trials, expected some of both: "
            "the list needs two speakers or more, one of them with two clips or more"
        )
    curve = ErrorCurve.from_histogram(histogram)
    eer, eer_threshold = curve.equal_error_rate()
    min_dcf, min_dcf_threshold = curve.min_dcf(P_TARGET, C_MISS, C_FALSE_ACCEPT)
    calibration = fit_calibration(histogram)
    report: dict[str, Any] = {
        "eer": eer,
        "eer_threshold": eer_threshold,
        "min_dcf": min_dcf,
        "min_dcf_threshold": min_dcf_threshold,
        "p_target": P_TARGET,
        "c_miss": C_MISS,
        "c_fa": C_FALSE_ACCEPT,
        "always_different_accuracy": num_nontarget / (num_target + num_nontarget),
        "num_target_trials": num_target,
        "num_nontarget_trials": num_nontarget,
        # What this list would give a model as its own.
        **calibration.to_dict(),
    }
    thresholds = {"strict_point": calibration.strict_threshold}
    if encoder.is_calibrated:
        thresholds["model_threshold"] = encoder.threshold
        thresholds["model_strict_threshold"] = encoder.strict_threshold
        told = encoder.calibration.to_dict()
        promised = {key: told[key] for key in ("rates", "strict_rates") if key in told}
        report |= {"promised": promised} if promised else {}
    for name, threshold in thresholds.items():
        report[name] = _rates_at(histogram, threshold)
    return report


def measure_speech(
    paths: Sequence[str], known: Mapping[str, float] | None = None
) -> npt.NDArray[np.float64]:
    """Returns the seconds of speech in audio files that can be read, `(len(paths),)`.

    Args:
        paths: The files.
        known: Seconds of those that need not be read, by path.
    """
    known = known or {}

    def seconds(path: str) -> float:
        if path in known:
            return known[path]
        return sum(Recording(block).speech_s for block in read_blocks(path, BLOCK_S))

    with ThreadPoolExecutor(num_processors()) as pool:
        return np.array(list(pool.map(seconds, paths)))


def _duration_group(seconds: float) -> str:
    """Returns the range of lengths that a recording belongs to."""
    low, high = next(group for group in DURATION_GROUPS_S if seconds < group[1])
    return f"under {high:g} s" if low == 0 else f"{low:g} s to {high:g} s".replace(" to inf s", "+")


def _rates(histogram: ScoreHistogram, encoder: Encoder) -> dict[str, Any]:
    """Returns what `measure_groups` tells of one group."""
    rates: dict[str, Any] = {
        "num_target_trials": histogram.num_target_trials,
        "num_nontarget_trials": histogram.num_nontarget_trials,
        "eer": ErrorCurve.from_histogram(histogram).equal_error_rate()[0],
    }
    if encoder.is_calibrated:
        rates["model_threshold"] = _rates_at(histogram, encoder.threshold)
        rates["model_strict_threshold"] = _rates_at(histogram, encoder.strict_threshold)
    return rates


def _rates_at(histogram: ScoreHistogram, threshold: float) -> dict[str, float]:
    """Returns a threshold and its error rates, fractions."""
    num_false_accepts, num_misses = histogram.errors_at(threshold)
    return {
        "threshold": threshold,
        "false_accept_rate": num_false_accepts / histogram.num_nontarget_trials,
        "miss_rate": num_misses / histogram.num_target_trials,
    }
