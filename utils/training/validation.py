"""Validation: accuracy, EER and calibration on the test list during training."""

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.arrays import FloatArray
from utils.corpus.lists import Utterance
from utils.crops.batches import INT16_SCALE, read_evaluation_crop
from utils.errors import AudioError, DataListError, VoiceprintError
from utils.messages import translate
from utils.processors import num_processors
from utils.verification.calibration import fit_calibration
from utils.verification.metrics import ErrorCurve
from utils.verification.scoring import score_all_pairs

BATCH_SIZE = 64
"""Crops per call of the network."""


@dataclass(frozen=True)
class ValidationResult:
    """The result of a validation.

    Attributes:
        figures: `test_accuracy`, the share of training speakers' crops classified correctly, and
            `eer`, a fraction; each only if the list allows it.
        calibration: Thresholds and probability scale from `Calibration.to_dict`; empty without
            target or non-target trials.
    """

    figures: dict[str, float] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)


class Validation:
    """Holds one clean crop of each clip of the test list in memory."""

    def __init__(self, test: Sequence[Utterance], num_speakers: int, num_speeds: int = 1) -> None:
        """Reads the crops; unusable clips are reported on stderr and left out.

        Args:
            test: The test list; may be empty. Labels from `num_speakers` up are unseen speakers:
                they count for the EER, not for the accuracy.
            num_speakers: Number of training speakers.
            num_speeds: Classes per training speaker in the network's output.

        Raises:
            DataListError: If no clip of a list can be read.
        """
        self.num_speakers, self.num_speeds = num_speakers, num_speeds
        self.crops, self.labels = _read_crops(test)

    def measure(self, predict: Callable[[dict[str, Any]], dict[str, Any]]) -> ValidationResult:
        """Returns accuracy, EER and calibration of a network.

        Args:
            predict: From a batch of inputs to outputs, as `SpeakerLearner.predict_on_batch`.

        Raises:
            VoiceprintError: If an embedding is not finite.
        """
        if len(self.crops) == 0:
            return ValidationResult()
        embeddings, named = [], []
        for start in range(0, len(self.crops), BATCH_SIZE):
            part = self.crops[start : start + BATCH_SIZE]
            # Always one shape, so that the last, smaller part needs no new compilation.
            filled = np.zeros((BATCH_SIZE, part.shape[1]), np.int16)
            filled[: len(part)] = part
            masks = np.zeros((BATCH_SIZE, 1, 4), np.int32)
            outputs = predict({"waveforms": filled, "masks": masks})
            embeddings.append(np.asarray(outputs["embedding"])[: len(part)])
            named.append(np.asarray(outputs["classification"]).argmax(axis=1)[: len(part)])
        figures: dict[str, float] = {}
        is_known = self.labels < self.num_speakers
        if is_known.any():
            right = np.concatenate(named)[is_known] // self.num_speeds == self.labels[is_known]
            figures["test_accuracy"] = float(right.mean())
        matrix = np.concatenate(embeddings).astype(np.float32)
        if not np.isfinite(matrix).all():
            raise VoiceprintError(
                "the network's output is not finite: the training has diverged; resume from an "
                "earlier checkpoint with a lower --learning_rate, or use --precision float32"
            )
        histogram = score_all_pairs(matrix, self.labels)
        if not (histogram.num_target_trials and histogram.num_nontarget_trials):
            return ValidationResult(figures)
        figures["eer"] = ErrorCurve.from_histogram(histogram).equal_error_rate()[0]
        return ValidationResult(figures, fit_calibration(histogram).to_dict())


def _read_crops(
    test: Sequence[Utterance],
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int64]]:
    """Reads one clean crop of each clip: int16 `(num_clips, num_samples)`, and labels."""

    def read(utterance: Utterance) -> FloatArray | None:
        try:
            return read_evaluation_crop(utterance.path)
        except AudioError as error:
            print(translate(f"warning: left out of the test list: {error}"), file=sys.stderr)
            return None

    with ThreadPoolExecutor(num_processors()) as pool:
        crops = list(pool.map(read, test))
    usable = [index for index, crop in enumerate(crops) if crop is not None]
    if test and not usable:
        raise DataListError("no clip of the test list can be read; check it with create_data.py")
    labels = np.array([test[index].label for index in usable], dtype=np.int64)
    if not usable:
        return np.empty((0, 0), np.int16), labels
    scaled = [np.round(np.asarray(crops[index]) * INT16_SCALE) for index in usable]
    return np.stack(scaled).astype(np.int16), labels
