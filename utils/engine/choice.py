"""The engine that an address means."""

import argparse
import re

from utils.engine.engine import ClusterEngine, Engine, LocalEngine
from utils.errors import VoiceprintError

HELP = "where tasks run: local (processes), ray, ray://HOST:PORT or dask://HOST:PORT"
"""What `--help` says of the option --engine."""


def engine_address(text: str) -> str:
    """Reads where tasks run, as an argparse type."""
    if not re.fullmatch(r"local|ray|(ray|dask)://[^/:]+:\d+", text):
        raise argparse.ArgumentTypeError(
            f"received {text!r}, expected local, ray, ray://HOST:PORT or dask://HOST:PORT"
        )
    return text


def open_engine(address: str, num_workers: int) -> Engine:
    """Opens an engine.

    Args:
        address: As `engine_address` takes it.
        num_workers: Processes of the local engine; a cluster has its own.

    Raises:
        VoiceprintError: If its packages are missing, or nobody answers there.
    """
    if address == "local":
        return LocalEngine(num_workers)
    kind = address.partition(":")[0]
    try:
        if kind == "dask":
            from utils.engine.dask_cluster import connect
        else:
            from utils.engine.ray_cluster import connect
        return ClusterEngine(connect(address))
    except ModuleNotFoundError as error:
        raise VoiceprintError(
            f"--engine {address} needs the package {error.name}; "
            "pip install -r requirements-cluster.txt"
        ) from error
