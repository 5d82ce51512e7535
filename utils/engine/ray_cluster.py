"""Workers of a Ray cluster, or of a Ray of this machine alone.

Ray starts the workers of a task on the machines of its cluster, and does the task of one that died
again.
"""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import ray
from ray.exceptions import NodeDiedError, RayError, WorkerCrashedError

from utils.engine.engine import Cluster
from utils.engine.order import ROOT
from utils.errors import VoiceprintError
from utils.processors import num_processors

NUM_RETRIES = 3
"""Times that a task is done again whose worker died."""


class RayExecutor(Executor):
    """Tasks of Ray as an executor."""

    def __init__(self) -> None:
        """Uses the Ray that this process is connected to."""
        self._tasks: dict[Callable[..., Any], Any] = {}

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Runs a function in a worker."""
        if function not in self._tasks:
            self._tasks[function] = ray.remote(max_retries=NUM_RETRIES)(function)
        future: Future[Any] = self._tasks[function].remote(*args, **kwargs).future()
        return future


def connect(address: str) -> Cluster:
    """Connects to `ray://HOST:PORT`, or starts Ray for `ray`.

    Raises:
        VoiceprintError: If nobody answers there, or Ray is of another version.
    """
    # Ray would take the processors of the machine for those of this process.
    options = {"num_cpus": num_processors(), "include_dashboard": False}
    try:
        ray.init(
            "local" if address == "ray" else address,
            runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
            log_to_driver=False,
            **(options if address == "ray" else {}),
        )
    except (ConnectionError, RuntimeError, RayError, ValueError) as error:
        raise VoiceprintError(
            f"{address}: Ray doesn't answer there ({' '.join(str(error).split())[:200]}); start it "
            "with ray start --head, or check host, port and version"
        ) from error
    return Cluster(
        address,
        RayExecutor(),
        lambda: int(ray.cluster_resources().get("CPU", 1)),
        crashes=(WorkerCrashedError, NodeDiedError),
        losses=(ConnectionError, RayError),
        is_there=ray.is_initialized,
        close=ray.shutdown,
    )
