"""The model file: a Keras archive that also carries everything needed to use the model.

A `.keras` file is a zip archive. Beside what Keras writes, ours holds `voiceprint.json` (feature
settings, embedding size, thresholds, calibration, versions) and, in checkpoints of a training,
`training_state.npz`. `utils.model.header` reads the metadata, without Keras and TensorFlow.
"""

import io
import json
import platform
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.errors import ModelError
from utils.files import atomic_path
from utils.model.backend import start_backend
from utils.model.header import ModelHeader, is_onnx, read_header
from utils.model.onnx import COHORT_NAME, METADATA_NAME, write_onnx_metadata
from utils.networks.features import FEATURES
from utils.verification.cohort import Cohort

STATE_NAME = "training_state.npz"
WEIGHTS_NAME = "model.weights.h5"
CONFIG_NAME = "config.json"
FORMAT = 1

NEW_KEYS: dict[str, Any] = {
    "input_axes": None,
    "output_axes": None,
    "quantization_config": None,
    "renorm": False,
    "renorm_clipping": None,
    "renorm_momentum": 0.99,
}
"""Settings of layers that Keras 3.12 doesn't know, with the values that change nothing."""

DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError)
"""What reading a zip archive with wrong bytes may raise."""

Arrays = Mapping[str, npt.NDArray[Any]]


def _read_keras_header(path: str | Path) -> ModelHeader:
    """Returns the header of a `.keras` file; an `.onnx` file is a ModelError here."""
    if is_onnx(path):
        raise ModelError(
            f"{path}: an .onnx file, which can only be run; expected the .keras file that it was "
            "made from"
        )
    return read_header(path)


def load_network(path: str | Path) -> Any:
    """Returns the Keras model of a model file.

    Raises:
        ModelError: As `read_header`, or if Keras cannot load the network.
    """
    _read_keras_header(path)
    start_backend()
    import keras

    import utils.networks.catalogue  # noqa: F401  registers the layers

    try:
        return keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError, KeyError, *DAMAGED) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[0][:160]
        raise ModelError(
            f"{path}: the network cannot be loaded ({reason}); expected a file of train.py "
            "written by this version; copy it again or train anew"
        ) from error


def read_training_state(path: str | Path) -> dict[str, npt.NDArray[Any]]:
    """Returns the arrays from which a training goes on.

    Raises:
        ModelError: If the file is damaged or no checkpoint of a training.
    """
    _read_keras_header(path)
    with zipfile.ZipFile(path) as archive:
        try:
            data = archive.read(STATE_NAME)
        except KeyError as error:
            raise ModelError(
                f"{path}: a finished model without training state, expected a checkpoint such as "
                "models/resnet34-51.keras to resume; use --init to begin from its weights"
            ) from error
        except DAMAGED as error:
            raise ModelError(
                f"{path}: its training state is damaged ({error}), expected a complete "
                "checkpoint; copy it again or resume from an earlier one"
            ) from error
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def write_model(
    path: str | Path,
    network: Any,
    metadata: Mapping[str, Any],
    state: Arrays | None = None,
    half_precision: bool = False,
) -> None:
    """Writes a model file in one step: a reader finds the old one or the new one.

    Args:
        path: Ends in `.keras`.
        network: Keras model with the outputs classification and embedding.
        metadata: What the file shall say of itself beside the features and versions.
        state: Training state, for checkpoints.
        half_precision: Whether to store weights in 16 bits: half the size; scores differ by less
            than 1e-3.
    """
    with atomic_path(path) as temporary:
        network.save(temporary)
        _make_portable(temporary)
        if half_precision:
            _halve_weights(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            features = FEATURES[network.inputs[0].name]
            archive.writestr(METADATA_NAME, _to_json({**metadata, "features": features}))
            if state is not None:
                buffer = io.BytesIO()
                np.savez(buffer, allow_pickle=False, **dict(state))
                archive.writestr(STATE_NAME, buffer.getvalue())


def update_metadata(
    path: str | Path, changes: Mapping[str, Any], cohort: Cohort | None = None
) -> None:
    """Changes entries of a model file's metadata, such as its thresholds, in one step.

    The model keeps its identity: voiceprints enrolled with it stay valid.

    Args:
        path: A `.keras` or an `.onnx` file.
        changes: The entries that become different.
        cohort: The cohort of AS-norm, if the file shall hold this one from now on.

    Raises:
        ModelError: As `read_header`.
    """
    header = read_header(path)
    metadata = {**header.metadata, "model_id": header.model_id, **changes}
    numbers = None
    if cohort is not None:
        buffer = io.BytesIO()
        np.save(buffer, cohort.to_bytes(), allow_pickle=False)
        numbers = buffer.getvalue()
    if header.is_onnx:
        write_onnx_metadata(path, metadata, numbers)
        return
    text = json.dumps(metadata, ensure_ascii=False, indent=1)
    replaced = {METADATA_NAME: text.encode()}
    if numbers is not None:
        replaced[COHORT_NAME] = numbers
    with atomic_path(path) as temporary:
        _copy_archive(Path(path), temporary, replaced)


def _to_json(metadata: Mapping[str, Any]) -> str:
    """Returns the metadata as JSON text, with format and versions filled in."""
    import keras

    filled = {
        "versions": {"keras": keras.__version__, "python": platform.python_version()},
        **metadata,
        "format": FORMAT,
    }
    return json.dumps(filled, ensure_ascii=False, indent=1)


def _make_portable(path: Path) -> None:
    """Takes out of an archive what only the newest Keras knows and what says nothing here.

    A model written with Keras 3.15 must load with 3.12, the newest one for Python 3.10.
    """

    def without_new_keys(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: without_new_keys(item)
                for key, item in value.items()
                if not (key in NEW_KEYS and item == NEW_KEYS[key])
            }
        return [without_new_keys(item) for item in value] if isinstance(value, list) else value

    with zipfile.ZipFile(path) as archive:
        config = without_new_keys(json.loads(archive.read(CONFIG_NAME)))
    with atomic_path(path) as temporary:
        _copy_archive(path, temporary, {CONFIG_NAME: json.dumps(config).encode()})


def _halve_weights(path: Path) -> None:
    """Rewrites the weights in an archive as 16-bit floats."""
    import h5py

    with zipfile.ZipFile(path) as archive:
        source = h5py.File(io.BytesIO(archive.read(WEIGHTS_NAME)), "r")
    buffer = io.BytesIO()
    with source, h5py.File(buffer, "w") as target:
        target.attrs.update(source.attrs)

        def copy(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                data = item[()]
                if data.dtype == np.float32:
                    data = data.astype(np.float16)
                made: Any = target.create_dataset(name, data=data)
            else:
                made = target.require_group(name)
            made.attrs.update(item.attrs)

        source.visititems(copy)
    with atomic_path(path) as temporary:
        _copy_archive(path, temporary, {WEIGHTS_NAME: buffer.getvalue()})


def _copy_archive(source: Path, target: Path, replaced: Mapping[str, bytes]) -> None:
    """Copies a zip archive member by member, with some contents replaced."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for item in old.infolist():
            if item.filename not in replaced:
                new.writestr(item, old.read(item.filename))
        for name, data in replaced.items():
            new.writestr(name, data, compress_type=zipfile.ZIP_DEFLATED)
