"""Writes files as torch.save does, without PyTorch."""

import io
import zipfile
from typing import Any

import numpy as np

from utils.networks.campplus import build_campplus
from utils.networks.campplus_weights import layer_names


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
    shapes = {weight.path: tuple(weight.shape) for weight in build_campplus(1).weights}
    tensors: dict[str, Any] = {}
    for ours, theirs in layer_names().items():
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
    tensors["xvector.dense.linear.weight"] = random.normal(size=(192, 1024, 1)) / 32
    tensors["xvector.dense.nonlinear.batchnorm.running_mean"] = random.normal(size=192)
    tensors["xvector.dense.nonlinear.batchnorm.running_var"] = random.uniform(0.5, 1.5, 192)
    return {name: np.asarray(value, np.float32) for name, value in tensors.items()}
