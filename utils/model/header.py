"""The header of a model file: metadata, identity and thresholds, read once and passed on.

Reading it takes neither Keras nor TensorFlow, and only the few bytes of the metadata; a `.keras`
file is hashed when its identity is first asked for.
"""

import hashlib
import io
import json
import sys
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import ModelError
from utils.messages import translate
from utils.model.onnx import COHORT_NAME, METADATA_NAME, read_onnx_cohort, read_onnx_metadata
from utils.networks.features import FEATURES, front_end_name
from utils.verification.calibration import Calibration
from utils.verification.cohort import TOP, Cohort

DEFAULT_MODELS = ("models/campplus", "models/resnet34")
"""The shipped models, without the suffix; the first one that is there is the default."""

LABELS_KEY = "labels"
"""Metadata: the names of the training speakers by class, where they are more than numbers. Files
for use alone (`export.py`) leave them out."""

CALIBRATION_KEYS = ("threshold", "strict_threshold", "calibration")
"""Metadata that `Calibration.to_dict` writes; a model without calibration has none of them."""

ASNORM = "asnorm"
"""Metadata of AS-norm: how many of the cohort count, thresholds and calibration of its scores."""


@dataclass(frozen=True)
class ModelHeader:
    """What a model file says of itself, without its network.

    Attributes:
        path: The file.
        metadata: Its `voiceprint.json`.
        score_norm: Which scores the thresholds are for, one of
            `utils.verification.cohort.SCORE_NORMS`.
    """

    path: str
    metadata: dict[str, Any]
    score_norm: str = "none"

    def with_score_norm(self, score_norm: str) -> "ModelHeader":
        """Returns the header with the thresholds for other scores.

        Raises:
            ModelError: If the file holds no cohort for AS-norm, or a damaged one.
        """
        header = replace(self, score_norm=score_norm)
        _ = header.cohort
        return header

    @cached_property
    def cohort(self) -> Cohort | None:
        """The cohort of AS-norm, `None` for scores without.

        Raises:
            ModelError: If the file holds none, or a damaged one.
        """
        if self.score_norm == "none":
            return None
        data = read_onnx_cohort(self.path) if self.is_onnx else _read_archived_cohort(self.path)
        if data is None:
            raise ModelError(
                f"{self.path}: holds no cohort, expected one for --score_norm {self.score_norm}; "
                "give it one with tools/build_cohort.py"
            )
        try:
            numbers = np.load(io.BytesIO(data), allow_pickle=False)
            top = int(self._calibrated_metadata.get("top", TOP))
            cohort = Cohort.from_bytes(numbers, top)
            if top < 1 or cohort.embeddings.shape[1] != self.embedding_size:
                raise ValueError(f"the best {top} of {cohort.embeddings.shape}")
        except (ValueError, TypeError, EOFError) as error:
            raise ModelError(
                f"{self.path}: its cohort is damaged ({error}); make it anew with "
                "tools/build_cohort.py"
            ) from error
        return cohort

    @property
    def _calibrated_metadata(self) -> dict[str, Any]:
        """The metadata that hold thresholds and calibration of these scores."""
        metadata = self.metadata if self.score_norm == "none" else self.metadata.get(ASNORM)
        return metadata if isinstance(metadata, dict) else {}

    @property
    def is_onnx(self) -> bool:
        """Whether the file is to be run by ONNX Runtime."""
        return is_onnx(self.path)

    @property
    def embedding_size(self) -> int:
        """Length of an embedding."""
        return int(self.metadata["embedding_size"])

    @property
    def speakers(self) -> list[str]:
        """Names of the training speakers by class; of a list with plain numbers, these."""
        names = self.metadata.get(LABELS_KEY)
        if isinstance(names, list):
            return [str(name) for name in names]
        return [str(number) for number in range(int(self.metadata.get("num_classes", 0)))]

    def name_class(self, output: int) -> str:
        """Returns the name of the speaker whom the network's classification means.

        Args:
            output: Place of its largest value; with changed speeds as classes of their own, several
                places mean one speaker.
        """
        return name_of(output // int(self.metadata.get("num_speed_classes", 1)), self.speakers)

    @cached_property
    def model_id(self) -> str:
        """SHA-256 of the file as it was first written.

        Embeddings of different models cannot be compared. An `.onnx` file has the identity of the
        `.keras` file that it was made from, and a file keeps its own when its thresholds change,
        since they give the same embeddings.
        """
        if self.is_onnx or "model_id" in self.metadata:
            return str(self.metadata.get("model_id", ""))
        digest = hashlib.sha256()
        with open(self.path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    @property
    def is_calibrated(self) -> bool:
        """Whether the file holds thresholds, well-formed or not."""
        return any(key in self._calibrated_metadata for key in CALIBRATION_KEYS)

    @cached_property
    def calibration(self) -> Calibration:
        """The thresholds and the probability scale.

        Raises:
            ModelError: If the file holds none, as a checkpoint of a training without a test list,
                or damaged ones.
        """
        if not self.is_calibrated:
            raise ModelError(
                f"{self.path}: holds no calibrated threshold, expected one; give --threshold, or "
                "calibrate the model with tools/finish_model.py"
            )
        try:
            return Calibration.from_dict(self._calibrated_metadata)
        except ValueError as error:
            raise ModelError(
                f"{self.path}: {error}; calibrate the model with tools/finish_model.py"
            ) from error


def name_of(label: int, speakers: Sequence[str]) -> str:
    """Returns the name of a class; one that no speaker of the list had goes by its number."""
    return speakers[label] if label < len(speakers) else str(label)


def choose_threshold(
    header: ModelHeader, wanted: float | None, *, is_strict: bool = False
) -> float:
    """Returns the threshold to use; for that of the model a line on stderr says what it promises.

    Args:
        header: Of the model.
        wanted: What a user gave, or None.
        is_strict: Whether the model's strict threshold is meant.

    Raises:
        ModelError: If none was given, and the model holds none.
    """
    if wanted is not None:
        return wanted
    stored = header.calibration
    threshold = stored.strict_threshold if is_strict else stored.threshold
    rates = stored.strict_rates if is_strict else stored.rates
    if rates:
        print(translate(f"threshold {threshold}: {rates}"), file=sys.stderr)
    return threshold


def read_header(path: str | Path | None = None) -> ModelHeader:
    """Reads the header of a model file.

    Args:
        path: A `.keras` file of train.py or an `.onnx` file of export.py. `None` is the first of
            `DEFAULT_MODELS` that is there: its `.onnx` file, which answers in a tenth of the time
            that Keras takes to start; where that is missing, or made from another model than the
            `.keras` file beside it, the latter.

    Raises:
        ModelError: If the file is missing, damaged, not a model of this toolkit, or made for
            other features.
    """
    return _read_default() if path is None else _read(Path(path), str(path))


def is_onnx(path: str | Path) -> bool:
    """Returns whether a file is to be run by ONNX Runtime, by its suffix."""
    return Path(path).suffix.lower() == ".onnx"


def _read_default() -> ModelHeader:
    """Returns the header of the default model."""
    for stem in DEFAULT_MODELS:
        keras_path, onnx_path = f"{stem}.keras", f"{stem}.onnx"
        if not Path(onnx_path).is_file():
            if Path(keras_path).is_file():
                return read_header(keras_path)
            continue
        header = read_header(onnx_path)
        if Path(keras_path).is_file():
            keras_header = read_header(keras_path)
            if keras_header.model_id != header.model_id:
                return keras_header
        return header
    return read_header(f"{DEFAULT_MODELS[0]}.onnx")


def _read(path: Path, name: str) -> ModelHeader:
    """Returns the header of a file; its name stays as it was given."""
    if not path.is_file():
        raise ModelError(
            f"{name}: no such model file, expected a .keras file of train.py or an .onnx file of "
            f"export.py; check --model_path or use {DEFAULT_MODELS[0]}.onnx"
        )
    metadata = read_onnx_metadata(path) if is_onnx(path) else _read_archive(path)
    if "embedding_size" not in metadata:
        raise ModelError(
            f"{name}: its {METADATA_NAME} lacks embedding_size, expected a model of this toolkit; "
            "use one that train.py wrote"
        )
    if front_end_name(metadata.get("features")) is None:
        raise ModelError(
            f"{name}: made for the features {metadata.get('features')}, expected one of "
            f"{list(FEATURES.values())}; train it again with this version"
        )
    return ModelHeader(name, metadata)


def _read_archived_cohort(path: str) -> bytes | None:
    """Returns the cohort in a `.keras` archive, None if there is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(COHORT_NAME)
    except KeyError:
        return None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ModelError(f"{path}: its cohort is damaged ({error}); copy it again") from error


def _read_archive(path: Path) -> dict[str, Any]:
    """Returns the metadata in a `.keras` archive, or raises ModelError."""
    try:
        with zipfile.ZipFile(path) as archive:
            metadata: dict[str, Any] = json.loads(archive.read(METADATA_NAME))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        kind = f"a {path.suffix} file" if path.suffix != ".keras" else "damaged or incomplete"
        raise ModelError(
            f"{path}: {kind}, expected a complete .keras file of train.py; copy it again"
        ) from error
    except (KeyError, ValueError, OSError) as error:
        raise ModelError(
            f"{path}: a Keras file without {METADATA_NAME}, expected a model of this toolkit; "
            "use one that train.py wrote"
        ) from error
    return metadata if isinstance(metadata, dict) else {}
