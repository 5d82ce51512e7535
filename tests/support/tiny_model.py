"""The smallest network that has every part of the real one, for tests that need a model."""

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

SHAPE: dict[str, Any] = {"widths": (4, 4, 8, 8), "num_blocks": (1, 1, 1, 1), "embedding_size": 16}

TRAIN_OPTIONS = [
    "--widths", "4", "4", "8", "8", "--num_blocks", "1", "1", "1", "1", "--embedding_size", "16",
    "--batch_size", "4", "--crop_frames", "65", "--num_workers", "0",
]  # fmt: skip
"""Options of train.py for such a network and short crops, read in the process itself."""

CALIBRATION = {
    "threshold": 0.5,
    "strict_threshold": 0.7,
    "calibration": {"slope": 10.0, "offset": -5.0},
}


def _seeded(build: Any, num_classes: int, shape: dict[str, Any]) -> Any:
    """Returns a network with seeded weights; residual branches count, unlike at the start."""
    import keras
    import numpy as np

    keras.utils.set_random_seed(0)
    network = build(num_classes, **shape)
    random = np.random.default_rng(0)
    for weight in network.weights:
        if "norm" in weight.path or "pooling/weight" in weight.path:
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
    return network


def build_tiny_network(num_classes: int = 3, **changes: Any) -> Any:
    """Returns a small ResNet34."""
    from utils.resnet import build_resnet34

    return _seeded(build_resnet34, num_classes, {**SHAPE, **changes})


TINY_ECAPA_TDNN: dict[str, Any] = {
    "channels": 16, "scale": 4, "bottleneck": 8, "aggregated_channels": 24, "embedding_size": 16,
}  # fmt: skip


def build_tiny_ecapa_tdnn(num_classes: int = 3, **changes: Any) -> Any:
    """Returns a small ECAPA-TDNN."""
    from utils.networks.ecapa_tdnn import build_ecapa_tdnn

    return _seeded(build_ecapa_tdnn, num_classes, {**TINY_ECAPA_TDNN, **changes})


TINY_CAMPPLUS: dict[str, Any] = {
    "front_width": 4, "initial_width": 8, "block_layers": (2, 2, 1), "growth": 4,
    "bottleneck": 8, "embedding_size": 16,
}  # fmt: skip


def build_tiny_campplus(num_classes: int = 3, **changes: Any) -> Any:
    """Returns a small CAM++."""
    from utils.networks.campplus import build_campplus

    return _seeded(build_campplus, num_classes, {**TINY_CAMPPLUS, **changes})


def write_tiny_model(
    path: Path, calibrated: bool = True, build: dict[str, Any] | None = None,
    network: Any = None, **changes: Any,
) -> Path:  # fmt: skip
    """Writes such a network, or a given one; `build` changes the network, others its metadata."""
    from utils.model.archive import write_model

    metadata = {"embedding_size": SHAPE["embedding_size"], "num_classes": 3}
    metadata |= {**(CALIBRATION if calibrated else {}), **changes}
    path.parent.mkdir(parents=True, exist_ok=True)
    if network is None:
        path.write_bytes(_tiny_model(json.dumps(build or {}), json.dumps(metadata)))
    else:
        write_model(path, network, metadata)
    return path


@functools.cache
def _tiny_model(build: str, metadata: str) -> bytes:
    """Returns the file of a network with these changes, made once in a process."""
    from utils.model.archive import write_model

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.keras"
        write_model(path, build_tiny_network(**json.loads(build)), json.loads(metadata))
        return path.read_bytes()
