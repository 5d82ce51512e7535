"""Writes files as torch.save does, without PyTorch."""

import functools
import io
import zipfile
from typing import Any

import numpy as np
import pytest

from utils.networks import campplus, campplus_weights

PUBLIC_LAYERS = campplus.BLOCK_LAYERS


@functools.cache
def public_network(block_layers: tuple[int, ...] = PUBLIC_LAYERS) -> Any:
    """Returns the public network, or one with fewer layers; built once, for it takes 5 s."""
    return campplus.build_campplus(1, block_layers=block_layers)


def shorten_network(monkeypatch: pytest.MonkeyPatch, block_layers: tuple[int, ...]) -> None:
    """Lets files of weights have fewer layers, and the network that they go into be that one."""
    monkeypatch.setattr(campplus_weights, "BLOCK_LAYERS", block_layers)
    network = public_network(block_layers)
    monkeypatch.setattr(campplus_weights, "build_campplus", lambda num_classes: network)


def write_torch_file(tensors: dict[str, np.ndarray], extra: bytes = b"") -> bytes:
    """Returns what torch.save would write: opcodes of pickle protocol 2, and raw numbers."""

    def text(value: str) -> bytes:
        data = value.encode()
        return b"X" + len(data).to_bytes(4, "little") + data

    def number(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little", signed=True)

    def numbers(values: Any) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    stream = b"\x80\x02}("
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for key, (name, value) in enumerate(tensors.items()):
            value = np.ascontiguousarray(value, np.float32)
            strides = [step // 4 for step in value.strides]
            stream += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n("
            stream += b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(str(key))
            stream += text("cpu") + number(value.size) + b"tQ" + number(0)
            stream += numbers(value.shape) + numbers(strides) + b"\x89"
            stream += b"ccollections\nOrderedDict\n)RtR"
            archive.writestr(f"archive/data/{key}", value.tobytes())
        archive.writestr("archive/data.pkl", stream + extra + b"u.")
    return buffer.getvalue()


def torch_tensors() -> dict[str, np.ndarray]:
    """Returns random weights under the names and in the shapes of 3D-Speaker's file."""
    random = np.random.default_rng(0)
    network = public_network(campplus_weights.BLOCK_LAYERS)
    shapes = {weight.path: tuple(weight.shape) for weight in network.weights}
    tensors: dict[str, Any] = {}
    for ours, theirs in campplus_weights.layer_names().items():
        if f"{ours}/kernel" in shapes:
            height, width, channels, out = shapes[f"{ours}/kernel"]
            # Convolutions over time have no height there.
            shape = (height, width) if theirs.startswith("head") else (width,)
            value = random.normal(size=(out, channels, *shape)) / np.sqrt(channels * width * height)
            tensors[f"{theirs}.weight"] = value
            if f"{ours}/bias" in shapes:
                tensors[f"{theirs}.bias"] = random.normal(size=out)
            continue
        size = shapes[f"{ours}/gamma"]
        for name in ("weight", "bias", "running_mean", "running_var"):
            tensors[f"{theirs}.{name}"] = random.uniform(0.5, 1.5, size)
        tensors[f"{theirs}.num_batches_tracked"] = np.float32(1).reshape(())
    pooled_size = shapes["projection/kernel"][0]
    dense = random.normal(size=(192, pooled_size, 1)) / np.sqrt(pooled_size)
    tensors["xvector.dense.linear.weight"] = dense
    tensors["xvector.dense.nonlinear.batchnorm.running_mean"] = random.normal(size=192)
    tensors["xvector.dense.nonlinear.batchnorm.running_var"] = random.uniform(0.5, 1.5, 192)
    return {name: np.asarray(value, np.float32) for name, value in tensors.items()}
