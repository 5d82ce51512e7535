"""Small speaker networks in the forms of wespeaker, 3D-Speaker, sherpa-onnx and NeMo."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 12

FORMS = {
    "wespeaker": {"inputs": ["feats"], "outputs": ["embs"], "opset": 14, "texts": {}},
    "3dspeaker": {"inputs": ["feature"], "outputs": ["embedding"], "opset": 11, "texts": {}},
    "sherpa wespeaker": {
        "inputs": ["x"],
        "outputs": ["embedding"],
        "opset": 14,
        "texts": {
            "framework": "wespeaker", "language": "English", "url": "https://example.org/model",
            "comment": "a model", "sample_rate": "16000", "output_dim": str(SIZE),
            "normalize_samples": "0",
        },
    },
    "sherpa 3dspeaker": {
        "inputs": ["x"],
        "outputs": ["embedding"],
        "opset": 13,
        "texts": {
            "framework": "3d-speaker", "sample_rate": "16000", "normalize_samples": "1",
            "feature_normalize_type": "global-mean",
        },
    },
    "nemo": {
        "inputs": ["audio_signal", "length"],
        "outputs": ["logits", "embs"],
        "opset": 17,
        "texts": {
            "framework": "nemo", "sample_rate": "16000", "feature_normalize_type": "per_feature",
            "window_size_ms": "25", "window_stride_ms": "10", "window_type": "hann",
            "feat_dim": "80",
        },
    },
}  # fmt: skip
"""What tells the exports of these projects apart."""


def write_public_model(path: Path, form: str, *, num_bins: int = 80, **changes: Any) -> Path:
    """Writes a network of a convolution over time, its mean over the frames, and a layer.

    Args:
        path: The file.
        form: A key of `FORMS`.
        num_bins: Numbers of a frame.
        **changes: Of the form; `shape` replaces that of the input.
    """
    described: dict[str, Any] = {**FORMS[form], **changes}
    is_nemo = len(described["inputs"]) == 2
    random = np.random.default_rng(7)
    weights = {
        "kernel": random.normal(0, 0.3, (16, num_bins, 3)).astype(np.float32),
        "layer": random.normal(0, 0.3, (16, SIZE)).astype(np.float32),
        "classes": random.normal(0, 0.3, (SIZE, 4)).astype(np.float32),
    }
    first = described["inputs"][0]
    nodes = []
    if not is_nemo:
        nodes.append(helper.make_node("Transpose", [first], ["bins"], perm=[0, 2, 1]))
        first = "bins"
    nodes += [
        helper.make_node("Conv", [first, "kernel"], ["hidden"], kernel_shape=[3], pads=[1, 1]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["pooled"]),
    ]
    pooled = "pooled"
    if is_nemo:
        nodes += [
            helper.make_node("Cast", ["length"], ["count"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["pooled", "count"], ["divided"]),
        ]
        pooled = "divided"
    embedding = described["outputs"][-1]
    nodes.append(helper.make_node("MatMul", [pooled, "layer"], [embedding]))
    if len(described["outputs"]) == 2:
        nodes.append(helper.make_node("MatMul", [embedding, "classes"], [described["outputs"][0]]))
    shape = described.get("shape", ["B", num_bins, "T"] if is_nemo else ["B", "T", num_bins])
    inputs = [helper.make_tensor_value_info(described["inputs"][0], TensorProto.FLOAT, shape)]
    if is_nemo:
        inputs.append(
            helper.make_tensor_value_info(described["inputs"][1], TensorProto.INT64, ["B"])
        )
    sizes = {embedding: SIZE}
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", sizes.get(name, 4)])
        for name in described["outputs"]
    ]
    used = {name for node in nodes for name in node.input}
    constants = [numpy_helper.from_array(v, k) for k, v in weights.items() if k in used]
    graph = helper.make_graph(nodes, "network", inputs, outputs, constants)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", described["opset"])], ir_version=8
    )
    for key, value in described["texts"].items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)
    return path
