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


def build_tiny_network(num_classes: int = 3, **changes: Any) -> Any:
    """Returns a network with seeded weights; residual branches count, unlike at the start."""
    import keras
    import numpy as np

    from utils.resnet import build_resnet34

    keras.utils.set_random_seed(0)
    network = build_resnet34(num_classes, **{**SHAPE, **changes})
    random = np.random.default_rng(0)
    for weight in network.weights:
        if "norm" in weight.path or "pooling/weight" in weight.path:
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
    return network


TINY_CAMPPLUS: dict[str, Any] = {
    "front_width": 4, "initial_width": 8, "block_layers": (2, 2, 1), "growth": 4,
    "bottleneck": 8, "embedding_size": 16,
}  # fmt: skip


def build_tiny_campplus(num_classes: int = 3, **changes: Any) -> Any:
    """Returns a small CAM++ with seeded weights."""
    import keras
    import numpy as np

    from utils.networks.campplus import build_campplus

    keras.utils.set_random_seed(0)
    network = build_campplus(num_classes, **{**TINY_CAMPPLUS, **changes})
    random = np.random.default_rng(0)
    for weight in network.weights:
        if "norm" in weight.path:
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
    return network


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
