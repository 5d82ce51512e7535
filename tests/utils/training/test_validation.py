from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.synthetic_voices import write_speech_folder
from utils.audio.spectrogram import CROP_SAMPLES
from utils.corpus.lists import Utterance
from utils.errors import DataListError, VoiceprintError
from utils.training.validation import BATCH_SIZE, Validation


@pytest.fixture
def test_list(speech_folder: Path) -> list[Utterance]:
    files = sorted(speech_folder.glob("*/*.wav"))
    return [Utterance(str(path), int(path.parent.name[-2:])) for path in files]


class Oracle:
    """Predicts what it is told to, crop by crop in the order of the list."""

    def __init__(self, embeddings: np.ndarray, named: list[int], num_classes: int = 3) -> None:
        self.embeddings, self.named, self.num_classes = embeddings, named, num_classes
        self.num_seen = 0

    def __call__(self, inputs: dict[str, Any]) -> dict[str, Any]:
        assert inputs["waveforms"].shape == (BATCH_SIZE, CROP_SAMPLES)
        assert inputs["waveforms"].dtype == np.int16
        assert not inputs["masks"].any()
        rows = range(self.num_seen, min(self.num_seen + BATCH_SIZE, len(self.named)))
        self.num_seen += BATCH_SIZE
        embedding = np.full((BATCH_SIZE, self.embeddings.shape[1]), np.nan, np.float32)
        embedding[: len(rows)] = self.embeddings[list(rows)]
        classification = np.zeros((BATCH_SIZE, self.num_classes), np.float32)
        for row, number in enumerate(rows):
            classification[row, self.named[number]] = 1.0
        return {"embedding": embedding, "classification": classification}


def test_right_answers(test_list: list[Utterance]) -> None:
    labels = [utterance.label for utterance in test_list]
    validation = Validation(test_list, 3)
    assert validation.crops.shape == (12, CROP_SAMPLES)
    result = validation.measure(Oracle(np.eye(3, dtype=np.float32)[labels], labels))
    assert result.figures == {"test_accuracy": 1.0, "eer": 0.0}
    assert 0 < result.calibration["threshold"] <= result.calibration["strict_threshold"] < 1
    assert result.calibration["calibration"].keys() == {"slope", "offset"}


def test_wrong_answers(test_list: list[Utterance]) -> None:
    labels = [utterance.label for utterance in test_list]
    result = Validation(test_list, 3).measure(
        Oracle(np.ones((12, 3), np.float32), [(label + 1) % 3 for label in labels])
    )
    assert result.figures == {"test_accuracy": 0.0, "eer": pytest.approx(0.5)}


def test_mistakes_are_named(test_list: list[Utterance]) -> None:
    labels = [utterance.label for utterance in test_list]
    guesses = [2, 2, 2, 0, *labels[4:]]
    embeddings = np.eye(3, dtype=np.float32)[labels]
    names = ["Ann", "Bob"]  # The third class has no name.
    result = Validation(test_list, 3, speakers=names).measure(Oracle(embeddings, guesses))
    assert result.mistaken == [("Ann", "2", 3)]
    assert result.figures["test_accuracy"] == 0.75


def test_classes_of_changed_speeds_are_the_same_speaker(test_list: list[Utterance]) -> None:
    labels = [utterance.label for utterance in test_list]
    oracle = Oracle(np.eye(3, dtype=np.float32)[labels], [2 * label + 1 for label in labels], 6)
    assert Validation(test_list, 3, 2).measure(oracle).figures["test_accuracy"] == 1.0


def test_strangers_count_for_the_eer_alone(test_list: list[Utterance]) -> None:
    labels = [utterance.label for utterance in test_list]
    strangers = [Utterance(utterance.path, utterance.label + 2) for utterance in test_list]
    oracle = Oracle(np.eye(3, dtype=np.float32)[labels], [2] * 12)
    assert Validation(strangers, 3).measure(oracle).figures == {"test_accuracy": 1.0, "eer": 0.0}
    oracle = Oracle(np.eye(3, dtype=np.float32)[labels], [0] * 12)
    assert Validation(strangers, 2).measure(oracle).figures == {"eer": 0.0}


def test_one_speaker_gives_no_eer_and_no_thresholds(test_list: list[Utterance]) -> None:
    result = Validation(test_list[:4], 3).measure(Oracle(np.ones((4, 3), np.float32), [0] * 4))
    assert result.figures == {"test_accuracy": 1.0}
    assert result.calibration == {}


def test_more_clips_than_a_batch(tmp_path: Path) -> None:
    files = write_speech_folder(tmp_path, 2, 2, duration_s=1.0)
    clips = [Utterance(str(path), label) for path, label in files] * 20
    labels = [clip.label for clip in clips]
    oracle = Oracle(np.eye(2, dtype=np.float32)[labels], labels)
    assert Validation(clips, 2).measure(oracle).figures["test_accuracy"] == 1.0


def test_no_list() -> None:
    result = Validation([], 3).measure(lambda inputs: inputs)
    assert (result.figures, result.calibration) == ({}, {})


def test_unreadable_clips_are_left_out(
    test_list: list[Utterance], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Utterance(str(tmp_path / "none.wav"), 0)
    validation = Validation([broken, *test_list], 3)
    assert len(validation.crops) == len(validation.labels) == 12
    assert "warning: left out of the test list: " in capsys.readouterr().err
    with pytest.raises(DataListError, match="no clip of the test list can be read"):
        Validation([broken], 3)


def test_diverged_network(test_list: list[Utterance]) -> None:
    oracle = Oracle(np.full((12, 3), np.nan, np.float32), [0] * 12)
    with pytest.raises(VoiceprintError, match=r"not finite: the training has diverged; resume"):
        Validation(test_list, 3).measure(oracle)
