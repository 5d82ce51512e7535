"""Speaker models of other projects: their ONNX files take features, ours take samples.

The front end that a model was trained with is put before its network and unit length behind it, so
that one file holds everything from the waveform to the embedding. Known are the files of wespeaker,
3D-Speaker, NeMo, and the releases of sherpa-onnx, which tell their origin in their metadata.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from utils.audio.waveform import SAMPLE_RATE
from utils.errors import ModelError
from utils.export.public_features import FRONT_ENDS, Features, KaldiFeatures, NemoFeatures
from utils.model.onnx import METADATA_NAME

OLDEST_OPSET = 11
"""The ONNX operator set from which a front end can be written for the file's own one."""

DOMAINS = ("", "ai.onnx")
"""Names of ONNX's own operator set."""

EMBEDDING_NAMES = ("embs", "embedding", "embeddings")
"""Outputs that hold the embedding where there are several, as NeMo's `logits` and `embs`."""

FRAMEWORKS = {"wespeaker": "wespeaker", "3d-speaker": "3dspeaker", "nemo": "nemo"}
"""Front ends by what sherpa-onnx writes into the metadata of its releases."""

INPUT_NAMES = {"feats": "wespeaker", "feature": "3dspeaker", "audio_signal": "nemo"}
"""Front ends by the name of the input that the projects' own exports give it."""


@dataclass(frozen=True, eq=False)
class PublicModel:
    """A speaker network in ONNX and the features that it takes.

    Attributes:
        path: Its file.
        model: The network, a `ModelProto`.
        front_end: Name of the features.
        features: Their settings.
        output: Name of the output that holds the embedding.
    """

    path: str
    model: Any
    front_end: str
    features: Features
    output: str

    @property
    def texts(self) -> dict[str, str]:
        """What the file says of itself."""
        return {pair.key: pair.value for pair in self.model.metadata_props}

    @property
    def opset(self) -> int:
        """Version of its ONNX operators."""
        return _opset(self.model)

    @property
    def inputs(self) -> list[Any]:
        """The inputs that are no weights."""
        return _inputs(self.model)


def read_public_model(
    path: str | Path, front_end: str | None = None, output: str | None = None
) -> PublicModel:
    """Reads an ONNX file and finds out which features it takes.

    Args:
        path: The file; weights that lie beside it are read too.
        front_end: A key of `FRONT_ENDS`, where the file doesn't tell.
        output: Output that holds the embedding, where several do or may.

    Raises:
        ModelError: If it is no such file, or no speaker network of a known form.
    """
    model = _load(path)
    texts = {pair.key: pair.value for pair in model.metadata_props}
    if METADATA_NAME in texts:
        raise ModelError(f"{path}: a model of this toolkit already; use it with --model_path")
    if texts.get("sample_rate", str(SAMPLE_RATE)) != str(SAMPLE_RATE):
        raise ModelError(
            f"{path}: made for {texts['sample_rate']} Hz, expected {SAMPLE_RATE} Hz; take another "
            "model"
        )
    if _opset(model) < OLDEST_OPSET:
        raise ModelError(
            f"{path}: written for the ONNX operators {_opset(model)}, expected {OLDEST_OPSET} or "
            "later; export it again"
        )
    inputs = _inputs(model)
    known = FRAMEWORKS.get(texts.get("framework", "")) or INPUT_NAMES.get(inputs[0].name)
    name = front_end or known
    if name is None:
        raise ModelError(
            f"{path}: neither its metadata nor the name of its input, {inputs[0].name!r}, tells "
            f"which features it takes; give --front_end, one of {', '.join(FRONT_ENDS)}"
        )
    features = _features(path, FRONT_ENDS[name], texts)
    _check_inputs(path, inputs, name, features)
    return PublicModel(str(path), model, name, features, _output(path, model, output))


def _load(path: str | Path) -> Any:
    """Returns the model of an ONNX file, with all its weights."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path)
    except (DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: no ONNX file, expected a speaker model in ONNX") from error
    except (OSError, onnx.checker.ValidationError) as error:
        if not Path(path).is_file():
            raise ModelError(f"{path}: no such file, expected a speaker model in ONNX") from error
        parts = _external_files(path)
        raise ModelError(
            f"{path}: its weights lie in {', '.join(parts)}, which can't be read, expected it in "
            "the same folder; fetch both files"
        ) from error
    if not model.graph.node or not _inputs(model):
        raise ModelError(f"{path}: holds no network, expected a speaker model in ONNX")
    return model


def _external_files(path: str | Path) -> list[str]:
    """Returns the names of the files that hold the weights of an ONNX file."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    entries = [entry for item in model.graph.initializer for entry in item.external_data]
    return sorted({entry.value for entry in entries if entry.key == "location"})


def _opset(model: Any) -> int:
    """Returns the version of a model's ONNX operators."""
    return max((item.version for item in model.opset_import if item.domain in DOMAINS), default=0)


def _inputs(model: Any) -> list[Any]:
    """Returns the inputs of a graph that are no weights."""
    weights = {item.name for item in model.graph.initializer}
    return [item for item in model.graph.input if item.name not in weights]


def _shape(item: Any) -> list[int | None]:
    """Returns the sizes of an input or output; None where any will do."""
    return [
        axis.dim_value if axis.HasField("dim_value") and axis.dim_value > 0 else None
        for axis in item.type.tensor_type.shape.dim
    ]


def _features(path: str | Path, features: Features, texts: Mapping[str, str]) -> Features:
    """Returns features with what the file's metadata says of them."""
    try:
        if isinstance(features, KaldiFeatures):
            if "normalize_samples" in texts:
                scale = 1 if int(texts["normalize_samples"]) else 32768
                return replace(features, sample_scale=scale)
            return features
        num_bins = int(texts.get("feat_dim", features.num_bins))
        window_ms = int(texts.get("window_size_ms", features.window_ms))
        stride_ms = int(texts.get("window_stride_ms", 10))
    except ValueError as error:
        raise ModelError(
            f"{path}: its metadata is damaged ({error}), expected numbers; fetch it again"
        ) from error
    told = {
        "window_type": texts.get("window_type", "hann"),
        "feature_normalize_type": texts.get("feature_normalize_type", "per_feature"),
        "window_stride_ms": str(stride_ms),
    }
    wanted = {"window_type": "hann", "feature_normalize_type": "per_feature"}
    for key, value in {**wanted, "window_stride_ms": "10"}.items():
        if told[key] != value:
            raise ModelError(f"{path}: its {key} is {told[key]!r}, expected {value!r}")
    return replace(features, num_bins=num_bins, window_ms=window_ms)


def _check_inputs(path: str | Path, inputs: list[Any], name: str, features: Features) -> None:
    """Raises ModelError unless the inputs are those of a network on these features."""
    num_inputs = 2 if isinstance(features, NemoFeatures) else 1
    if len(inputs) != num_inputs:
        names = ", ".join(item.name for item in inputs)
        raise ModelError(
            f"{path}: has {len(inputs)} inputs ({names}), expected {num_inputs} with the features "
            f"of {name}; choose another --front_end"
        )
    shape = _shape(inputs[0])
    is_batch_first = features.frames_axis == 1
    form = (
        f"(1, frames, {features.num_bins})"
        if is_batch_first
        else (f"(1, {features.num_bins}, frames)")
    )
    if len(shape) != 3:
        raise ModelError(
            f"{path}: its input has {len(shape)} axes, expected 3, {form}; it is no speaker model "
            f"on the features of {name}"
        )
    size = shape[3 - features.frames_axis]
    if size not in (None, features.num_bins):
        raise ModelError(
            f"{path}: takes frames of {size} numbers, expected {features.num_bins}, {form}; "
            "choose another --front_end"
        )
    if shape[features.frames_axis] is not None:
        raise ModelError(
            f"{path}: takes {shape[features.frames_axis]} frames and no other number, expected "
            "any; export it with a dynamic axis"
        )
    if shape[0] not in (None, 1):
        raise ModelError(f"{path}: takes {shape[0]} recordings at a time, expected one or any")


def _output(path: str | Path, model: Any, wanted: str | None) -> str:
    """Returns the name of the output that holds the embedding."""
    names = [item.name for item in model.graph.output]
    if wanted is not None and wanted not in names:
        raise ModelError(f"{path}: has no output {wanted!r}, expected one of {', '.join(names)}")
    likely = [name for name in names if name in EMBEDDING_NAMES]
    if wanted is None and len(names) > 1 and len(likely) != 1:
        raise ModelError(
            f"{path}: has {len(names)} outputs ({', '.join(names)}), expected one embedding; "
            "choose it with --output_name"
        )
    return wanted or (names[0] if len(names) == 1 else likely[0])
