"""Whose voice a turn has: the rule on vectors with known scores."""

from types import SimpleNamespace

import numpy as np
import pytest

from utils.arrays import FloatArray
from utils.errors import DatabaseError
from utils.verification.calibration import Calibration
from voices.live_voices import MAX_VOICES, Judgement, SessionVoices

SIZE = 12
CALIBRATION = Calibration(
    0.42, 0.55, slope=22.0, offset=-8.0, slope_by_speech=1.35, offset_by_speech=-2.8
)
ENCODER = SimpleNamespace(cohort=None, threshold=0.42, calibration=CALIBRATION)


def axis(number: int) -> FloatArray:
    return np.eye(SIZE, dtype=np.float32)[number]


def near(*scores: float, rest: int = SIZE - 1) -> FloatArray:
    """A unit vector with these cosines to the first axes; `rest` is what else it holds."""
    vector = np.zeros(SIZE, np.float32)
    vector[: len(scores)] = scores
    vector[rest] += np.sqrt(1 - float(vector @ vector))
    return vector


class Session:
    """Judges and remembers turns as a recogniser does; Ann and Bob are the first two axes."""

    def __init__(self, *names: str) -> None:
        self.enrolled = list(names)
        self.voices = SessionVoices(ENCODER, self.rank, 0.55)  # type: ignore[arg-type]
        self.now_s = 0.0

    def rank(self, embedding: FloatArray) -> list[tuple[str, float]]:
        scores = [(name, float(embedding[i])) for i, name in enumerate(self.enrolled) if name]
        return sorted(scores, key=lambda pair: -pair[1])

    def turn(self, embedding: FloatArray, speech_s: float) -> str | int:
        found = self.voices.judge(embedding, speech_s)
        label = self.voices.number_of(found) if found.name is None else found.name
        self.now_s += speech_s
        frames = [np.full(512, len(self.enrolled), np.float32)]
        self.voices.remember(found, label, embedding, frames, speech_s, self.now_s)
        return label


@pytest.mark.parametrize(
    ("score", "speech_s", "is_named"),
    [
        (0.46, 1.0, True),  # with little speech all scores are low
        (0.41, 1.0, False),
        (0.46, 5.0, False),
        (0.53, 5.0, True),
        (0.50, 10.0, False),
        (0.54, 10.0, True),  # just below the strict threshold
    ],
)
def test_less_speech_needs_less_score(score: float, speech_s: float, is_named: bool) -> None:
    found = Session("Ann", "Bob").voices.judge(near(score), speech_s)
    assert found == (Judgement("Ann", found.score, None, True) if is_named else Judgement())
    assert not is_named or found.score == pytest.approx(score)


def test_without_durations_in_the_calibration_the_score_alone_counts() -> None:
    plain = SimpleNamespace(
        cohort=None, threshold=0.42, calibration=Calibration(0.42, 0.55, slope=25.0, offset=-10.0)
    )
    voices = SessionVoices(plain, lambda e: [("Ann", float(e[0]))], 0.55)  # type: ignore[arg-type]
    for speech_s in (1.0, 10.0):
        assert voices.judge(near(0.54), speech_s).name == "Ann"
        assert voices.judge(near(0.52), speech_s).name is None


def test_turns_of_one_voice_together_reveal_a_name() -> None:
    session = Session("Ann", "Bob")
    # Over a bad line: each turn scores 0.45 with Ann, and as much with one another.
    turns = [near(0.45, 0.0, 0.5, rest=place) for place in (4, 5, 6, 7)]
    assert [session.turn(turn, 2.0) for turn in turns] == [1, "Ann", "Ann", "Ann"]
    # It was one voice all the time: the number is not given again.
    assert session.turn(near(0.0, rest=9), 2.0) == 2


def test_a_stranger_with_a_name_gets_it_taken_away() -> None:
    session = Session("Ann", "Bob")
    # The first second resembles Ann by chance, what follows does not.
    assert session.turn(near(0.47, 0.0, 0.6, rest=4), 1.0) == "Ann"
    assert session.turn(near(0.20, 0.0, 0.7, rest=5), 5.0) == 1
    assert session.turn(near(0.40, 0.0, 0.7, rest=6), 5.0) == 1


def test_a_named_voice_learns_from_clear_turns_only() -> None:
    session = Session("Ann", "Bob")
    assert session.turn(near(0.7, 0.0, 0.5), 4.0) == "Ann"
    (voice,) = session.voices._voices
    before = voice.total.copy()
    # Like the session's voice, but not like the enrolled one by itself: shown, not learnt.
    assert session.turn(near(0.40, 0.0, 0.6, rest=4), 2.0) == "Ann"
    np.testing.assert_array_equal(voice.total, before)
    assert session.turn(near(0.6, 0.0, 0.5, rest=4), 2.0) == "Ann"
    assert voice.speech_s == 6.0


def test_who_does_not_resemble_the_enrolled_voice_is_not_drawn_in() -> None:
    session = Session("Ann", "Bob")
    assert session.turn(near(0.6, 0.0, 0.7), 4.0) == "Ann"
    # The same line and room, hardly Ann; a short turn may score so low.
    stranger = near(0.25, 0.0, 0.75, rest=4)
    assert session.voices.judge(stranger, 1.0).name == "Ann"
    assert session.voices.judge(stranger, 2.0).name is None


def test_whoever_is_deleted_is_not_named_any_more() -> None:
    session = Session("Ann", "Bob")
    assert session.turn(near(0.7), 4.0) == "Ann"
    session.enrolled[0] = ""
    assert session.turn(near(0.7), 4.0) == 1


def test_one_voice_is_another_persons_after_all() -> None:
    session = Session("Ann", "Bob")
    assert session.turn(near(0.6, 0.5, 0.4), 4.0) == "Ann"
    assert session.turn(near(0.5, 0.65, 0.4), 4.0) == "Bob"
    assert [voice.name for voice in session.voices._voices] == ["Ann", "Bob"]
    assert session.turn(near(0.5, 0.65, 0.4), 4.0) == "Bob"
    assert len(session.voices._voices) == 2


def test_an_enrolment_gives_the_voice_its_name() -> None:
    session = Session("Ann", "Bob")
    voices = session.voices
    with pytest.raises(DatabaseError, match=r"received the number 1, .*: nobody unknown"):
        voices.speech_of(1, [], None)
    assert session.turn(near(0.0, 0.0, 0.9), 4.0) == 1
    assert len(voices.speech_of(1, [], None)) == 512
    assert len(voices.speech_of(1, [np.zeros(512, np.float32)], 1)) == 1024
    assert voices.scores(axis(2)) == {"Ann": 0, "Bob": 0, 1: pytest.approx(0.9)}
    session.enrolled.append("Eve")
    voices.rename(1, "Eve")
    assert voices.scores(axis(2))["Eve"] == 1
    with pytest.raises(DatabaseError, match=r"received the number 1"):
        voices.speech_of(1, [], 2)


def test_voices_that_were_silent_longest_are_forgotten() -> None:
    session = Session()
    for number in range(MAX_VOICES + 1):
        found = Judgement()
        session.now_s += 1
        session.voices.remember(found, number + 1, axis(0), [], 1.0, session.now_s)
    assert len(session.voices._voices) == MAX_VOICES
    forgotten = Judgement(voice=session.voices._voices[0])
    del session.voices._voices[0]
    session.voices.remember(forgotten, 77, axis(0), [], 1.0, session.now_s)
    assert session.voices._voices[-1] is not forgotten.voice
