"""How wrong a diarization is: diarization error rate (DER) and Jaccard error rate (JER).

Overlaps are scored: where two people speak, both must be found. The names of the speakers don't
matter: each found speaker stands for the true one that makes the fewest errors in all.

Sources: NIST, "Rich Transcription Spring 2006 evaluation plan", section 6.1 (DER and its collar);
N. Ryant et al., "The Second DIHARD Diarization Challenge", Interspeech 2019, section 3 (JER).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from utils.arrays import BoolArray, FloatArray
from utils.diarization.turns import Turn


@dataclass(frozen=True)
class ErrorRates:
    """Seconds of each kind of error; those of several recordings add up.

    Attributes:
        speech_s: Speech of all true speakers: a second in which two speak counts twice.
        missed_s: Speech of somebody that was not found.
        false_alarm_s: Speech found where nobody, or one person fewer, speaks.
        confusion_s: Speech found, but another speaker's.
        jaccard_errors: The Jaccard error of each true speaker, a fraction.
        count_errors: Speakers found too many (positive) or too few, of each recording.
    """

    speech_s: float
    missed_s: float
    false_alarm_s: float
    confusion_s: float
    jaccard_errors: tuple[float, ...]
    count_errors: tuple[int, ...]

    @property
    def der(self) -> float:
        """Diarization error rate, a fraction of `speech_s` that may exceed 1."""
        return self.share(self.missed_s + self.false_alarm_s + self.confusion_s)

    @property
    def jer(self) -> float:
        """Jaccard error rate: the mean over the true speakers, a fraction in [0, 1]."""
        return float(np.mean(self.jaccard_errors)) if self.jaccard_errors else 0.0

    @property
    def right_counts(self) -> int:
        """Recordings whose number of speakers was found."""
        return self.count_errors.count(0)

    def share(self, seconds: float) -> float:
        """Returns seconds as a fraction of the speech; without speech 0 for no errors, else 1."""
        if self.speech_s == 0:
            return float(seconds > 0)
        return seconds / self.speech_s


def total(rates: Iterable[ErrorRates]) -> ErrorRates:
    """Adds up the errors of several recordings."""
    rates = list(rates)
    return ErrorRates(
        sum(r.speech_s for r in rates),
        sum(r.missed_s for r in rates),
        sum(r.false_alarm_s for r in rates),
        sum(r.confusion_s for r in rates),
        tuple(error for r in rates for error in r.jaccard_errors),
        tuple(error for r in rates for error in r.count_errors),
    )


def measure_errors(
    reference: Sequence[Turn], found: Sequence[Turn], collar_s: float = 0.0
) -> ErrorRates:
    """Compares the turns that were found with the true ones.

    Args:
        reference: The true turns. Turns of one speaker that touch or overlap count as one.
        found: The turns that were found.
        collar_s: Seconds on each side of the borders of the true turns that are not scored.
    """
    from scipy.optimize import linear_sum_assignment

    true_turns, found_turns = _merge(reference), _merge(found)
    borders = [time for turns in true_turns.values() for turn in turns for time in turn]
    collars = [time + side for time in borders for side in (-collar_s, collar_s)]
    ends = [time for turns in found_turns.values() for turn in turns for time in turn]
    times = np.unique([*borders, *collars, *ends, 0.0])
    middles, seconds = (times[1:] + times[:-1]) / 2, np.diff(times)
    near = np.zeros(len(middles), bool)
    for border in borders if collar_s > 0 else ():
        near |= np.abs(middles - border) < collar_s
    seconds = seconds * ~near * (middles > 0)
    is_true, is_found = _activity(true_turns, middles), _activity(found_turns, middles)

    num_true, num_found = is_true.sum(axis=0), is_found.sum(axis=0)
    together_s = (is_true * seconds) @ is_found.T.astype(float)
    rows, columns = linear_sum_assignment(together_s, maximize=True)
    correct_s = float(together_s[rows, columns].sum())
    either_s = (
        (is_true @ seconds)[:, None] + (is_found @ seconds)[None, :] - together_s
        if len(is_true)
        else together_s
    )
    jaccard = together_s / np.maximum(either_s, 1e-9)
    jaccard_errors = np.ones(len(is_true))
    rows, columns = linear_sum_assignment(jaccard, maximize=True)
    jaccard_errors[rows] -= jaccard[rows, columns]
    return ErrorRates(
        speech_s=float(seconds @ num_true),
        missed_s=float(seconds @ np.maximum(num_true - num_found, 0)),
        false_alarm_s=float(seconds @ np.maximum(num_found - num_true, 0)),
        confusion_s=max(float(seconds @ np.minimum(num_true, num_found)) - correct_s, 0.0),
        jaccard_errors=tuple(map(float, jaccard_errors)),
        count_errors=(len(is_found) - len(is_true),),
    )


def _merge(turns: Sequence[Turn]) -> dict[str, list[tuple[float, float]]]:
    """Returns the stretches of each speaker, those that touch joined."""
    merged: dict[str, list[tuple[float, float]]] = {}
    for turn in sorted(turns, key=lambda t: t.start_s):
        if turn.end_s <= turn.start_s:
            continue
        stretches = merged.setdefault(turn.speaker, [])
        if stretches and turn.start_s <= stretches[-1][1]:
            stretches[-1] = (stretches[-1][0], max(stretches[-1][1], turn.end_s))
        else:
            stretches.append((turn.start_s, turn.end_s))
    return merged


def _activity(speakers: dict[str, list[tuple[float, float]]], times: FloatArray) -> BoolArray:
    """Returns who speaks at some moments, shape `(num_speakers, num_times)`."""
    active = np.zeros((len(speakers), len(times)), bool)
    for row, stretches in zip(active, speakers.values(), strict=True):
        for start_s, end_s in stretches:
            row[np.searchsorted(times, start_s) : np.searchsorted(times, end_s)] = True
    return active
