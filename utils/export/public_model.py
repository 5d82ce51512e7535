"""Speaker models of other projects: their ONNX files take features, ours take samples.

The front end that a model was trained with is put before its network and unit length behind it, so
that one file holds everything from the waveform to the embedding. Known are the files of wespeaker,
3D-Speaker, NeMo, and the releases of sherpa-onnx, which tell their origin in their metadata.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from utils.arrays import FloatArray
from utils.audio.waveform import SAMPLE_RATE
from utils.errors import ModelError
from utils.export.onnx import Graph, fourier_basis
from utils.files import atomic_path
from utils.model.onnx import INPUT_NAME, METADATA_NAME, load_onnx_network
from utils.networks.filterbank import FRAME_LENGTH, FRAME_SHIFT, HIGHEST_HZ, NUM_MEL_BINS

OLDEST_OPSET = 11
"""The ONNX operator set from which a front end can be written for the file's own one."""

DOMAINS = ("", "ai.onnx")
"""Names of ONNX's own operator set."""

TOLERANCE = 0.9999
"""Least cosine between an embedding of the joined file and of the project's own two steps."""

EMBEDDING_NAMES = ("embs", "embedding", "embeddings")
"""Outputs that hold the embedding where there are several, as NeMo's `logits` and `embs`."""

FRAMEWORKS = {"wespeaker": "wespeaker", "3d-speaker": "3dspeaker", "nemo": "nemo"}
"""Front ends by what sherpa-onnx writes into the metadata of its releases."""

INPUT_NAMES = {"feats": "wespeaker", "feature": "3dspeaker", "audio_signal": "nemo"}
"""Front ends by the name of the input that the projects' own exports give it."""

PROBE_S = (0.4, 1.0, 3.0)
"""Seconds of sound that a joined file must take."""


@dataclass(frozen=True)
class KaldiFeatures:
    """Kaldi's filter bank of 80 bins, less its mean over time; no dither.

    Attributes:
        window: "povey" or "hamming".
        sample_scale: What samples in [-1, 1] are multiplied by: 1, or 32768 as for 16-bit numbers.
        highest_hz: Upper edge of the last triangle; the lower edge of the first is 20 Hz.
        snip_edges: Whether frames lie wholly inside the waveform; else it is mirrored at its ends.
    """

    window: str = "povey"
    sample_scale: int = 1
    highest_hz: float = HIGHEST_HZ
    snip_edges: bool = True

    @property
    def num_bins(self) -> int:
        """Size of a frame."""
        return NUM_MEL_BINS

    @property
    def frames_axis(self) -> int:
        """Axis of the network's input along which time goes."""
        return 1

    def add_to(self, graph: Graph, waveform: str) -> list[str]:
        """Adds the features, `(1, num_frames, 80)`, to a graph and returns their name."""
        if not self.snip_edges:
            waveform = self._mirrored(graph, waveform)
        bank = graph.filterbank(waveform, self.window, self.highest_hz, self.sample_scale)
        frames = graph.node("Squeeze", bank, graph.ints(1))
        return [graph.node("Transpose", frames, perm=[0, 2, 1])]

    def _mirrored(self, graph: Graph, waveform: str) -> str:
        """Adds the mirrored samples before and after a waveform that Kaldi's frames reach into."""
        before, after = (FRAME_LENGTH - FRAME_SHIFT) // 2, FRAME_LENGTH // 2
        axis, back = graph.ints(1), graph.ints(-1)
        start = graph.node(
            "Slice", waveform, graph.ints(before - 1), graph.ints(-(2**62)), axis, back
        )
        end = graph.node("Slice", waveform, back, graph.ints(-after - 1), axis, back)
        return graph.node("Concat", start, waveform, end, axis=1)

    def reference(self, waveform: FloatArray) -> list[Any]:
        """Returns the same inputs of the network by kaldi-native-fbank."""
        import kaldi_native_fbank as knf

        options = knf.FbankOptions()
        options.frame_opts.dither = 0.0
        options.frame_opts.window_type = self.window
        options.frame_opts.snip_edges = self.snip_edges
        options.mel_opts.num_bins = NUM_MEL_BINS
        options.mel_opts.high_freq = self.highest_hz
        bank = knf.OnlineFbank(options)
        bank.accept_waveform(SAMPLE_RATE, (waveform * self.sample_scale).tolist())
        bank.input_finished()
        frames = np.array([bank.get_frame(index) for index in range(bank.num_frames_ready)])
        return [(frames - frames.mean(axis=0))[None].astype(np.float32)]


@dataclass(frozen=True)
class NemoFeatures:
    """NeMo's log mel spectrogram: every bin gets mean 0 and deviation 1 over time.

    Attributes:
        num_bins: Slaney's triangles from 0 to 8000 Hz.
        window_ms: Length of the symmetric Hann window.

    Source: NVIDIA NeMo, AudioToMelSpectrogramPreprocessor: pre-emphasis of the whole waveform,
    frames centred on every tenth millisecond, zeros up to a multiple of 16 frames.
    """

    num_bins: int = 80
    window_ms: int = 25

    PRE_EMPHASIS = 0.97
    ZERO_GUARD = 2.0**-24
    DEVIATION_GUARD = 1e-5
    MULTIPLE = 16

    @property
    def frames_axis(self) -> int:
        """Axis of the network's input along which time goes."""
        return 2

    def _window(self) -> FloatArray:
        return np.asarray(np.hanning(self.window_ms * SAMPLE_RATE // 1000), np.float32)

    def _filters(self) -> FloatArray:
        """Returns the triangles, shape `(num_bins, 257)`."""
        from librosa.filters import mel

        filters: FloatArray = mel(sr=SAMPLE_RATE, n_fft=512, n_mels=self.num_bins)
        return filters

    def add_to(self, graph: Graph, waveform: str) -> list[str]:
        """Adds the features, `(1, num_bins, num_frames)`, and the number of frames, `(1,)`."""
        window = self._window()
        samples = graph.node("Unsqueeze", waveform, graph.ints(1))
        difference = graph.constant([[[-self.PRE_EMPHASIS, 1.0]]])
        samples = graph.node("Conv", samples, difference, kernel_shape=[2], pads=[1, 0])
        transform = graph.node(
            "Conv", samples, graph.constant(fourier_basis(window)),
            kernel_shape=[len(window)], strides=[FRAME_SHIFT], pads=[len(window) // 2] * 2,
        )  # fmt: skip
        square = graph.node("Mul", transform, transform)
        parts = graph.node("Reshape", square, graph.ints(1, 2, 257, -1))
        power = graph.node("ReduceSum", parts, graph.ints(1), keepdims=0)
        energies = graph.node("MatMul", graph.constant(self._filters()), power)
        levels = graph.node("Log", graph.node("Add", energies, graph.constant(self.ZERO_GUARD)))
        length = graph.node("Gather", graph.node("Shape", waveform), graph.ints(1), axis=0)
        count = graph.node("Div", length, graph.ints(FRAME_SHIFT))
        levels = graph.node("Slice", levels, graph.ints(0), count, graph.ints(2))
        centred = graph.node("Sub", levels, graph.node("ReduceMean", levels, axes=[2]))
        sums = graph.node("ReduceSum", graph.node("Mul", centred, centred), graph.ints(2))
        less_one = graph.node("Cast", graph.node("Sub", count, graph.ints(1)), to=1)
        deviation = graph.node("Sqrt", graph.node("Div", sums, less_one))
        guarded = graph.node("Add", deviation, graph.constant(self.DEVIATION_GUARD))
        features = graph.node("Div", centred, guarded)
        wanted = graph.node("Add", count, graph.ints(self.MULTIPLE - 1))
        wanted = graph.node("Div", wanted, graph.ints(self.MULTIPLE))
        missing = graph.node("Sub", graph.node("Mul", wanted, graph.ints(self.MULTIPLE)), count)
        pads = graph.node("Concat", graph.ints(0, 0, 0, 0, 0), missing, axis=0)
        return [graph.node("Pad", features, pads), count]

    def reference(self, waveform: FloatArray) -> list[Any]:
        """Returns the same inputs of the network by librosa."""
        import librosa

        count = len(waveform) // FRAME_SHIFT
        sharpened = np.append(waveform[0], waveform[1:] - self.PRE_EMPHASIS * waveform[:-1])
        transform = librosa.stft(
            sharpened, n_fft=512, hop_length=FRAME_SHIFT, win_length=len(self._window()),
            window=self._window(), pad_mode="constant",
        )  # fmt: skip
        power = np.abs(transform[:, :count]) ** 2
        levels = np.log(self._filters() @ power + self.ZERO_GUARD)
        deviation = levels.std(axis=1, ddof=1, keepdims=True) + self.DEVIATION_GUARD
        features = (levels - levels.mean(axis=1, keepdims=True)) / deviation
        padded = np.pad(features, [(0, 0), (0, -count % self.MULTIPLE)])
        return [padded[None].astype(np.float32), np.array([count])]


Features = KaldiFeatures | NemoFeatures

FRONT_ENDS: dict[str, Features] = {
    "wespeaker": KaldiFeatures("hamming", 32768),
    "3dspeaker": KaldiFeatures(),
    "sherpa": KaldiFeatures(highest_hz=7600.0, snip_edges=False),
    "nemo": NemoFeatures(),
}
"""The features of each project, by the choices of `--front_end`. "sherpa" are those that
sherpa-onnx computes for models of wespeaker and 3D-Speaker, which were trained on their own."""


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


def write_public_model(public: PublicModel, output_path: str | Path, description: str = "") -> None:
    """Writes the joined file in the form of export.py: samples in, embedding of unit length out.

    Args:
        public: The network and its features.
        output_path: The `.onnx` file to write.
        description: What the file shall say of its origin beside its name.

    Raises:
        ModelError: If both can't be joined, or the joined network fails on short or long sounds.
    """
    joined = _joined(public)
    with atomic_path(output_path) as temporary:
        temporary.write_bytes(joined.SerializeToString())
        size = _probe(public.path, temporary)
        entry = joined.metadata_props.add()
        entry.key = METADATA_NAME
        entry.value = json.dumps(_metadata(public, size, description), ensure_ascii=False)
        temporary.write_bytes(joined.SerializeToString())


def _joined(public: PublicModel) -> Any:
    """Returns features, network and unit length as one model."""
    from onnx import checker, compose, shape_inference

    head, tail = Graph(half_precision=False), Graph(half_precision=False)
    names = public.features.add_to(head, head.repeated(INPUT_NAME, FRAME_LENGTH))
    flat = tail.node("Reshape", "raw", tail.ints(1, -1))
    square = tail.node("MatMul", flat, tail.node("Transpose", flat, perm=[1, 0]))
    floor = tail.node("Max", square, tail.constant(1e-12))
    tail.node("Div", flat, tail.node("Sqrt", floor), output="unit")
    waveform, raw = _tensor(INPUT_NAME, [1, "num_samples"]), _tensor("raw", [None, None])
    # NeMo's networks take the number of frames beside them.
    given = [_tensor(names[0], [1, None, None]), *(_tensor(n, [1], "INT64") for n in names[1:])]
    try:
        network = compose.add_prefix(public.model, "network/")
        inputs = [f"network/{item.name}" for item in public.inputs]
        model = compose.merge_models(
            _as_model(head, waveform, given, public),
            network,
            list(zip(names, inputs, strict=True)),
            outputs=[f"network/{public.output}"],
        )
        return compose.merge_models(
            model,
            compose.add_prefix(_as_model(tail, raw, [_tensor("unit", [1, None])], public), "unit/"),
            [(f"network/{public.output}", "unit/raw")],
        )
    except (ValueError, checker.ValidationError, shape_inference.InferenceError) as error:
        reason = str(error).strip().splitlines()[0][:160]
        raise ModelError(
            f"{public.path}: its features can't be joined to it ({reason}); export it again"
        ) from error


def _tensor(name: str, shape: Sequence[int | str | None], kind: str = "FLOAT") -> Any:
    """Returns the description of an input or output."""
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, getattr(TensorProto, kind), shape)


def _as_model(graph: Graph, given: Any, outputs: Sequence[Any], public: PublicModel) -> Any:
    """Returns a graph of ours as a model in the operator set and the format of the network."""
    from onnx import helper

    nodes = _in_form_of(public.opset, graph)
    made = helper.make_graph(nodes, "part", [given], outputs, graph.constants)
    return helper.make_model(
        made, opset_imports=public.model.opset_import, ir_version=public.model.ir_version
    )


def _in_form_of(opset: int, graph: Graph) -> list[Any]:
    """Returns a graph's nodes as an operator set wants them: axes as an attribute, or as an input.

    Source: ONNX, Operators.md: ReduceSum, Squeeze and Unsqueeze take axes as an input from 13 on,
    ReduceMean from 18 on.
    """
    from onnx import helper, numpy_helper

    values = {item.name: numpy_helper.to_array(item) for item in graph.constants}
    nodes = []
    for node in graph.nodes:
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        inputs = list(node.input)
        if node.op_type in ("ReduceSum", "Squeeze", "Unsqueeze") and opset < 13:
            attributes["axes"] = values[inputs.pop()].tolist()
        if node.op_type == "ReduceMean" and opset >= 18:
            inputs.append(graph.ints(*attributes.pop("axes")))
        nodes.append(
            helper.make_node(node.op_type, inputs, node.output, name=node.name, **attributes)
        )
    return nodes


def _probe(source: str, path: Path) -> int:
    """Runs a joined file on sounds of several lengths and returns the size of its embeddings."""
    embed = load_onnx_network(path, 1)
    noise = np.random.default_rng(0).normal(0, 0.1, round(max(PROBE_S) * SAMPLE_RATE))
    sizes = set()
    for seconds in PROBE_S:
        try:
            embedding = embed(noise[: round(seconds * SAMPLE_RATE)].astype(np.float32))
        except Exception as error:  # those of ONNX Runtime have no base of their own
            reason = str(error).strip().splitlines()[0][:160]
            raise ModelError(
                f"{source}: fails on {seconds:g} s of sound ({reason}); choose another --front_end"
            ) from error
        if not np.isfinite(embedding).all():
            raise ModelError(f"{source}: an embedding of {seconds:g} s is not finite")
        sizes.add(len(embedding))
    if len(sizes) > 1:
        raise ModelError(
            f"{source}: gives {', '.join(map(str, sorted(sizes)))} numbers for sounds of different "
            "lengths, expected one embedding; choose it with --output_name"
        )
    return sizes.pop()


def _metadata(public: PublicModel, size: int, description: str) -> dict[str, Any]:
    """Returns our metadata of a joined file."""
    features = {
        "sample_rate": SAMPLE_RATE, "front_end": public.front_end, **asdict(public.features)
    }  # fmt: skip
    digest = hashlib.sha256(public.model.SerializeToString(deterministic=True))
    digest.update(json.dumps([features, public.output], sort_keys=True).encode())
    told = [public.texts[key] for key in ("comment", "url") if public.texts.get(key)]
    return {
        "architecture": public.front_end,
        "embedding_size": size,
        "features": features,
        "description": "; ".join([description or f"imported {Path(public.path).name}", *told]),
        "model_id": digest.hexdigest(),
    }


def check_joined(public: PublicModel, path: str | Path, waveforms: Iterable[FloatArray]) -> float:
    """Compares a joined file with the project's own two steps: features, then the network.

    Args:
        public: The network and its features.
        path: The joined file.
        waveforms: Speech, 16 kHz, shape `(num_samples,)` each.

    Returns:
        The lowest cosine of two embeddings.

    Raises:
        ModelError: If it is too low.
        ImportError: If kaldi-native-fbank, which computes the features, is missing.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(
        public.model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [item.name for item in public.inputs]
    embed = load_onnx_network(path, 1)
    cosines = []
    for waveform in waveforms:
        inputs = public.features.reference(waveform)
        (expected,) = session.run([public.output], dict(zip(names, inputs, strict=True)))
        expected = expected.ravel()
        cosines.append(float(embed(waveform) @ expected / np.linalg.norm(expected)))
    lowest = min(cosines)
    if not lowest >= TOLERANCE:
        raise ModelError(
            f"{public.path}: the joined file gives other embeddings than the two steps one after "
            f"the other (cosine {lowest:.6f}, expected {TOLERANCE} at least)"
        )
    return lowest
