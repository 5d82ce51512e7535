"""Workers of a Dask cluster.

`dask scheduler` on one machine, and on each `PYTHONPATH=. dask worker HOST:8786 --nworkers auto
--nthreads 1` in the toolkit's folder. Dask hands the task of a worker that died to another.
"""

from concurrent.futures import CancelledError
from functools import partial

from distributed import Client
from distributed.client import FutureCancelledError
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker

from utils.engine.engine import Cluster
from utils.errors import VoiceprintError

CONNECT_S = 15.0
"""Seconds until a scheduler has to answer, and until a first worker has to be there."""


def connect(address: str) -> Cluster:
    """Connects to the scheduler at `dask://HOST:PORT`.

    Raises:
        VoiceprintError: If nobody answers there, no worker is there, or the versions don't fit.
    """
    place = address.replace("dask://", "tcp://")
    try:
        client = Client(place, timeout=CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise VoiceprintError(
            f"{address}: no Dask scheduler answers there; start one with dask scheduler, or check "
            "host and port"
        ) from error
    try:
        client.wait_for_workers(1, timeout=CONNECT_S)
        client.get_versions(check=True)
    except TimeoutError as error:
        client.close()
        raise VoiceprintError(
            f"{address}: has no workers; start some with dask worker {place} --nthreads 1"
        ) from error
    except ValueError as error:
        client.close()
        raise VoiceprintError(
            f"{address}: has other versions than this machine: {' '.join(str(error).split())}"
        ) from error
    # A task may be done twice, and none is to be left out because another was alike.
    executor = client.get_executor(pure=False)
    return Cluster(
        address,
        executor,
        lambda: len(client.scheduler_info(n_workers=-1).get("workers", {})),
        crashes=(KilledWorker,),
        losses=(CommClosedError, CancelledError, FutureCancelledError),
        is_there=lambda: client.status == "running",
        close=partial(client.close, timeout=2),
    )
