"""Carries the public CAM++ weights over into the Keras network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.errors import ModelError
from utils.networks.campplus import BLOCK_LAYERS, build_campplus

Tensors = Mapping[str, npt.NDArray[Any]]

DENSE_EPSILON = 1e-5
"""Added to the variance of the last normalisation, PyTorch's default."""


def campplus_from_tensors(tensors: Tensors, source: str | Path) -> Any:
    """Returns the Keras network with weights of 3D-Speaker's form.

    The normalisation behind the last layer is folded into it; a ReLU that may follow there is
    dropped: embeddings before it tell speakers apart better.

    Args:
        tensors: The state dict by name.
        source: What to call it in an error.

    Returns:
        As `build_campplus` for one class: a `classification` of no use, and the embedding.

    Raises:
        ModelError: If a tensor is missing, left over, or has another shape.
    """
    network = build_campplus(num_classes=1)
    taken: set[str] = set()

    def tensor(name: str) -> npt.NDArray[Any]:
        if name not in tensors:
            raise ModelError(f"{source}: lacks the tensor {name}, expected weights of CAM++")
        taken.add(name)
        return np.asarray(tensors[name], np.float32)

    values: dict[str, npt.NDArray[Any]] = {}
    for ours, theirs in layer_names().items():
        for kind, suffix in (
            ("kernel", "weight"), ("bias", "bias"), ("gamma", "weight"), ("beta", "bias"),
            ("moving_mean", "running_mean"), ("moving_variance", "running_var"),
        ):  # fmt: skip
            is_norm = ours.endswith("_norm")
            if is_norm == (kind in {"kernel", "bias"}):
                continue
            if kind == "bias" and f"{theirs}.bias" not in tensors:
                continue
            value = tensor(f"{theirs}.{suffix}")
            values[f"{ours}/{kind}"] = _kernel(value, ours) if kind == "kernel" else value
    dense = tensor("xvector.dense.linear.weight")[:, :, 0]
    norm = "xvector.dense.nonlinear.batchnorm"
    scale = 1.0 / np.sqrt(tensor(f"{norm}.running_var") + DENSE_EPSILON)
    values["projection/kernel"] = (dense * scale[:, None]).T
    values["projection/bias"] = -tensor(f"{norm}.running_mean") * scale
    left = [n for n in tensors if n not in taken and not n.endswith("num_batches_tracked")]
    if left:
        raise ModelError(f"{source}: has the tensor {left[0]} too many, expected weights of CAM++")
    for weight in network.weights:
        if weight.path.startswith("classification"):
            continue
        value = values.pop(weight.path)
        if value.shape != tuple(weight.shape):
            raise ModelError(
                f"{source}: {weight.path} has shape {value.shape}, expected {tuple(weight.shape)}"
            )
        weight.assign(value)
    return network


def layer_names() -> dict[str, str]:
    """Returns the names of the layers here and in 3D-Speaker's files."""
    names = {"front_conv": "head.conv1", "front_conv_norm": "head.bn1"}
    for stage in (1, 2):
        for block in (1, 2):
            ours, theirs = f"front{stage}_block{block}", f"head.layer{stage}.{block - 1}"
            for number in (1, 2):
                names[f"{ours}_conv{number}"] = f"{theirs}.conv{number}"
                names[f"{ours}_conv{number}_norm"] = f"{theirs}.bn{number}"
            if block == 1:
                names[f"{ours}_shortcut"] = f"{theirs}.shortcut.0"
                names[f"{ours}_shortcut_norm"] = f"{theirs}.shortcut.1"
    names |= {"front_last": "head.conv2", "front_last_norm": "head.bn2"}
    names |= {
        "tdnn": "xvector.tdnn.linear",
        "tdnn_norm": "xvector.tdnn.nonlinear.batchnorm",
        "output_norm": "xvector.out_nonlinear.batchnorm",
    }
    for block, num_layers in enumerate(BLOCK_LAYERS, start=1):
        for number in range(1, num_layers + 1):
            ours, theirs = f"block{block}_layer{number}", f"xvector.block{block}.tdnnd{number}"
            names |= {
                f"{ours}_input_norm": f"{theirs}.nonlinear1.batchnorm",
                f"{ours}_bottleneck": f"{theirs}.linear1",
                f"{ours}_bottleneck_norm": f"{theirs}.nonlinear2.batchnorm",
                f"{ours}_local": f"{theirs}.cam_layer.linear_local",
                f"{ours}_mask1": f"{theirs}.cam_layer.linear1",
                f"{ours}_mask2": f"{theirs}.cam_layer.linear2",
            }
        names[f"transit{block}_norm"] = f"xvector.transit{block}.nonlinear.batchnorm"
        names[f"transit{block}_conv"] = f"xvector.transit{block}.linear"
    return names


def _kernel(value: npt.NDArray[Any], layer: str) -> npt.NDArray[Any]:
    """Turns a kernel's axes: (out, in, [height,] width) into (height, width, in, out)."""
    if value.ndim == 3:
        value = value[:, :, None]
    kernel = value.transpose(2, 3, 1, 0)
    if layer == "tdnn":
        # There the channels of the front come first, here its frequencies.
        _, width, channels, out = kernel.shape
        kernel = kernel.reshape(1, width, -1, 10, out).transpose(0, 1, 3, 2, 4)
        kernel = kernel.reshape(1, width, channels, out)
    return np.ascontiguousarray(kernel)
