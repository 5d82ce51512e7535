"""Features, a public network and unit length as one file, which is compared with the two steps."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from utils.arrays import FloatArray
from utils.audio.waveform import SAMPLE_RATE
from utils.errors import ModelError
from utils.export.onnx_graph import Graph
from utils.export.public_model import PublicModel
from utils.files import atomic_path
from utils.model.onnx import INPUT_NAME, METADATA_NAME, load_onnx_network
from utils.networks.filterbank import FRAME_LENGTH

TOLERANCE = 0.9999
"""Least cosine between an embedding of the joined file and of the project's own two steps."""

PROBE_S = (0.4, 1.0, 3.0)
"""Seconds of sound that a joined file must take."""


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
