"""The networks that can be trained, by the name that `train.py --network` takes."""

from collections.abc import Callable
from typing import Any

from utils.networks.campplus import build_campplus
from utils.networks.ecapa_tdnn import build_ecapa_tdnn
from utils.resnet import build_resnet34

NETWORKS: dict[str, Callable[..., Any]] = {
    "resnet34": build_resnet34,
    "campplus": build_campplus,
    "ecapa_tdnn": build_ecapa_tdnn,
}
"""Functions that build a network with the outputs classification and embedding."""
