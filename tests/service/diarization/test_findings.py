"""What a job answers and keeps, on two made-up speakers."""

import numpy as np
import pytest

from service.diarization.findings import describe, pack_voices, to_rttm, unpack_voice
from tests.support.fake_workers import findings
from utils.errors import AudioError


def test_the_result_names_speakers_by_the_threshold() -> None:
    def rank(embedding: np.ndarray) -> list[tuple[str, float]]:
        return [("Ann", float(embedding[0]) * 0.9)]

    result, named = describe(findings(4), rank, 0.8, "C:\\talks\\Monday noon.m4a")
    assert named == [("Ann", pytest.approx(0.9)), (None, 0.0)]
    assert (result["recording"], result["overlap_share"]) == ("Monday noon", 0.125)
    assert [speaker["label"] for speaker in result["speakers"]] == ["1", "2"]
    assert [speaker["name"] for speaker in result["speakers"]] == ["Ann", None]
    assert [speaker["speech_s"] for speaker in result["speakers"]] == [2.2, 1.5]
    assert [speaker["num_turns"] for speaker in result["speakers"]] == [2, 1]
    assert [turn["is_overlapped"] for turn in result["turns"]] == [True, True, False]
    assert [turn["score"] for turn in result["turns"]] == [0.9, 0.8, None]
    assert to_rttm(result).splitlines() == [
        "SPEAKER Monday_noon 1 0.000 2.000 <NA> <NA> Ann <NA> <NA>",
        "SPEAKER Monday_noon 1 1.500 1.500 <NA> <NA> speaker_2 <NA> <NA>",
        "SPEAKER Monday_noon 1 4.000 0.200 <NA> <NA> Ann <NA> <NA>",
    ]


def test_two_groups_of_one_person_are_one_speaker() -> None:
    result, named = describe(findings(4), lambda _: [("Ann", 0.9)], 0.8, "")
    assert named == [("Ann", 0.9)]
    assert result["recording"] == "recording"
    (speaker,) = result["speakers"]
    assert speaker["label"] == "1"
    # The first two turns overlap: they are one.
    assert [(turn["start_s"], turn["end_s"]) for turn in result["turns"]] == [(0, 3), (4, 4.2)]
    assert not any(turn["is_overlapped"] for turn in result["turns"])


def test_nobody_is_enrolled() -> None:
    result, named = describe(findings(4, is_alone=False), lambda _: [], 0.8, "x.wav")
    assert named == [(None, None), (None, None)]
    assert [speaker["can_be_enrolled"] for speaker in result["speakers"]] == [True, False]


def test_voices_come_out_as_they_went_in() -> None:
    found = findings(4)
    packed = pack_voices(dict(found.voices), "model")
    voice, model_id = unpack_voice(packed, "2")
    assert voice is not None
    assert model_id == "model"
    assert voice.embedding.tolist() == [0, 1, 0, 0]
    assert (voice.speech_s, voice.duration_s, voice.audio) == (1.0, 1.0, b"fLaC...")
    assert unpack_voice(packed, "3") == (None, "model")
    packed = pack_voices(dict(findings(4, is_alone=False).voices), "model")
    with pytest.raises(AudioError, match="speaker 2: speaks only while others do"):
        unpack_voice(packed, "2")
