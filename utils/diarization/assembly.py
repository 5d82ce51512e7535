"""From windows and the speakers of their stretches to turns, overlaps included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from utils.arrays import BoolArray, FloatArray
from utils.diarization.segmentation import NUM_LOCAL_SPEAKERS, frame_time_s
from utils.diarization.stretches import FRAME_S, Stretch, Window
from utils.diarization.turns import Turn

IntArray = npt.NDArray[np.int64]

LONGEST_GAP_S = 0.2
"""Shorter pauses in a turn are part of it."""

LEAST_TURN_S = 0.1
"""Shorter turns are left out."""


def assemble_turns(
    windows: Sequence[Window], labels: IntArray, means: FloatArray, names: Sequence[str]
) -> list[Turn]:
    """Returns the turns of all speakers.

    Args:
        windows: In order of time.
        labels: The speaker of each of their stretches, from 0.
        means: The embedding of each speaker, shape `(num_speakers, embedding_size)`.
        names: What to call each speaker.

    Returns:
        In order of time. A turn's score is the mean of its stretches' scores, None without any.
    """
    active = _speaker_activity(windows, labels, len(names))
    stretches = [stretch for window in windows for stretch in window.stretches]
    starts = np.array([stretch.start for stretch in stretches])
    turns = []
    for number, name in enumerate(names):
        for start, end in _runs(active[:, number]):
            near = range(*np.searchsorted(starts, (start, end)))
            own = [stretches[i] for i in near if labels[i] == number]
            score = _mean_score(own, means[number])
            turns.append(Turn(max(frame_time_s(start), 0.0), frame_time_s(end), name, score))
    return sorted(turns, key=lambda turn: (turn.start_s, turn.end_s))


def overlap_share(windows: Sequence[Window]) -> float:
    """Returns the share of the speech in which several people speak at once, a fraction.

    What the segmentation hears counts, also where no turn came of it: voices that are never alone
    have no embedding, and are given to the others.
    """
    num_speech = num_overlapped = 0
    for window in windows:
        first, last = (frame - window.start for frame in window.middle)
        at_once = window.active[first:last].sum(axis=1)
        num_speech += int(np.count_nonzero(at_once))
        num_overlapped += int(np.count_nonzero(at_once > 1))
    return num_overlapped / max(num_speech, 1)


def _speaker_activity(windows: Sequence[Window], labels: IntArray, num_speakers: int) -> BoolArray:
    """Returns who speaks in each frame of the recording, shape `(num_frames, num_speakers)`.

    Each frame is taken from the window in whose middle it lies. A local speaker of a window is,
    from moment to moment, the speaker of the nearest stretch in which it is heard alone.
    """
    active = np.zeros((max(window.middle[1] for window in windows), num_speakers), bool)
    for window, near in _with_stretches(windows, labels):
        first, last = (frame - window.start for frame in window.middle)
        for local in range(NUM_LOCAL_SPEAKERS):
            frames = np.flatnonzero(window.active[first:last, local]) + window.middle[0]
            own = [(start, end, label) for start, end, label, of in near if of == local]
            if len(frames) and own:
                starts, ends, owners = np.array(own).T
                before, after = starts[:, None] - frames, frames - ends[:, None] + 1
                nearest = np.maximum(np.maximum(before, after), 0).argmin(axis=0)
                active[frames, owners[nearest]] = True
    return active


def _with_stretches(
    windows: Sequence[Window], labels: IntArray
) -> Iterator[tuple[Window, list[tuple[int, int, int, int]]]]:
    """Yields each window with start, end, speaker and local speaker of the stretches in it.

    Those of its neighbours count too: a local speaker may be heard alone outside the middle only.
    """
    ends = np.cumsum([len(window.stretches) for window in windows])
    for number, window in enumerate(windows):
        around = range(max(number - 1, 0), min(number + 2, len(windows)))
        found = []
        for other in around:
            offset = int(ends[other]) - len(windows[other].stretches)
            for index, stretch in enumerate(windows[other].stretches):
                first, last = stretch.start - window.start, stretch.end - window.start
                if first >= 0 and last <= len(window.active):
                    local = int(window.active[first:last].sum(axis=0).argmax())
                    label = int(labels[offset + index])
                    found.append((stretch.start, stretch.end, label, local))
        yield window, found


def _runs(active: BoolArray) -> list[tuple[int, int]]:
    """Returns where a speaker speaks, in frames: short pauses filled, the shortest left out."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]]).astype(np.int8)))
    runs: list[tuple[int, int]] = []
    for start, end in edges.reshape(-1, 2).tolist():
        if runs and (start - runs[-1][1]) * FRAME_S < LONGEST_GAP_S:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    return [(start, end) for start, end in runs if (end - start) * FRAME_S >= LEAST_TURN_S]


def _mean_score(stretches: Sequence[Stretch], mean: FloatArray) -> float | None:
    """Returns the mean cosine of some stretches and a speaker, weighted by their length."""
    if not stretches:
        return None
    weights = [stretch.duration_s for stretch in stretches]
    return float(np.average([stretch.embedding @ mean for stretch in stretches], weights=weights))
