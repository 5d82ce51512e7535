"""Stretches of one voice, and what becomes of them in turns; the networks are stand-ins."""

from collections.abc import Callable

import numpy as np
import pytest

from utils.arrays import BoolArray, FloatArray
from utils.diarization import stretches
from utils.diarization.assembly import assemble_turns
from utils.diarization.segmentation import FRAME_SAMPLES, WINDOW_SAMPLES, frame_time_s, num_frames
from utils.diarization.stretches import FRAME_S, Window, hear_speech, hear_window

Hear = Callable[..., Window]

NUM_FRAMES = num_frames(WINDOW_SAMPLES)


def activity(*spoken: tuple[int, float, float]) -> BoolArray:
    """Local speaker, from second, to second -> who speaks in each frame."""
    active = np.zeros((NUM_FRAMES, 3), bool)
    for local, start_s, end_s in spoken:
        active[round(start_s / FRAME_S) : round(end_s / FRAME_S), local] = True
    return active


def embed(speech: FloatArray) -> FloatArray:
    """The samples are the speaker: all of a stretch must be one value."""
    assert np.ptp(speech[FRAME_SAMPLES:-FRAME_SAMPLES]) == 0
    embedding = np.zeros(8, np.float32)
    embedding[round(float(speech[len(speech) // 2]))] = 1
    return embedding


@pytest.fixture
def hear(monkeypatch: pytest.MonkeyPatch) -> Hear:
    """Hears a window of an activity; each local speaker sounds like its number plus one."""

    def run(
        active: BoolArray, start: int = 0, middle: tuple[int, int | None] = (0, None)
    ) -> Window:
        monkeypatch.setattr(stretches, "local_speakers", lambda samples: active)
        monkeypatch.setattr(
            stretches.SpeechStream, "hear", lambda self, samples: np.ones(len(samples) // 512 + 1)
        )
        monkeypatch.setattr(stretches, "without_rumble", lambda samples: samples)
        samples = np.zeros(WINDOW_SAMPLES, np.float32)
        frames = np.repeat(active.argmax(axis=1) + 1, FRAME_SAMPLES)
        samples[360 : 360 + len(frames)] = frames[: len(samples) - 360]
        return hear_window(samples, start, middle, embed)

    return run


def test_long_stretches_are_cut_and_overlaps_left_out(hear: Hear) -> None:
    window = hear(activity((0, 0, 4.6), (1, 4, 7), (2, 8, 8.1)))
    seconds = [round(s.duration_s, 1) for s in window.stretches]
    # 4 s alone make three stretches; 0.6 s overlap; 2.4 s alone two; 0.1 s is too short.
    assert seconds == [1.3, 1.3, 1.3, 1.2, 1.2]
    assert [int(s.embedding.argmax()) for s in window.stretches] == [1, 1, 1, 2, 2]


def test_only_the_middle_is_embedded(hear: Hear) -> None:
    window = hear(activity((0, 0, 9.9)), start=1000, middle=(1100, 1300))
    assert window.middle == (1100, 1300)
    assert (window.stretches[0].start, window.stretches[-1].end) == (1100, 1300)


def test_the_detector_takes_barks_out(monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities = np.zeros(WINDOW_SAMPLES // 512 + 1)
    probabilities[round(5.5 / 0.032)] = 0.9
    monkeypatch.setattr(stretches.SpeechStream, "hear", lambda self, samples: probabilities)
    active = activity((0, 1, 2), (0, 5, 6), (1, 5.8, 7))
    heard = hear_speech(np.zeros(WINDOW_SAMPLES, np.float32), active)
    np.testing.assert_array_equal(heard, activity((0, 5, 6), (1, 5.8, 7)))


def test_turns_with_overlap_gaps_and_scores(hear: Hear) -> None:
    window = hear(activity((0, 1, 3), (0, 3.1, 4), (1, 3.5, 6), (1, 7, 7.05)))
    labels = np.array([int(s.embedding.argmax()) - 1 for s in window.stretches])
    means = np.eye(8, dtype=np.float32)[1:3]
    turns = assemble_turns([window], labels, means, ["x", "y"])
    assert [turn.speaker for turn in turns] == ["x", "y"]
    # The pause of 0.1 s is filled, the turn of 0.05 s is left out.
    assert turns[0].start_s == pytest.approx(frame_time_s(59), abs=0.02)
    assert (turns[0].end_s, turns[1].start_s) == pytest.approx((4.02, 3.52), abs=0.02)
    assert [turn.score for turn in turns] == pytest.approx([1, 1])


def test_one_local_speaker_may_be_two(hear: Hear) -> None:
    """The stretches decide, even where the network heard one voice."""
    window = hear(activity((0, 0, 6)))
    labels = np.array([0, 0, 1, 1])
    turns = assemble_turns([window], labels, np.eye(8, dtype=np.float32)[:2], ["x", "y"])
    assert [(t.speaker, round(t.start_s), round(t.end_s)) for t in turns] == [
        ("x", 0, 3),
        ("y", 3, 6),
    ]


def test_who_only_overlaps_in_the_middle_is_known_from_the_neighbour(hear: Hear) -> None:
    # Local speaker 1 speaks alone at 1 s, before the middle, and over speaker 0 at 4 s.
    first = hear(activity((1, 1, 2), (0, 3, 6), (1, 4, 5)), middle=(0, 150))
    second = hear(activity((1, 1, 2), (0, 3, 6), (1, 4, 5)), middle=(150, None))
    assert [len(first.stretches), len(second.stretches)] == [1, 2]
    labels = np.array([1, 0, 0])
    turns = assemble_turns([first, second], labels, np.eye(8, dtype=np.float32)[:2], ["x", "y"])
    found = [(t.speaker, round(t.start_s), round(t.end_s)) for t in turns]
    assert found == [("y", 1, 2), ("x", 3, 6), ("y", 4, 5)]
    assert turns[-1].score is None
