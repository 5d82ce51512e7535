"""Training on several hosts: who they are, and joining them into one JAX.

Every host runs train.py with the same options. Each makes its rows of every batch; JAX adds up the
gradients, and the first host alone writes and prints.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.crops.draws import Share
from utils.errors import VoiceprintError

NUM_HOSTS_VARIABLES = ("SLURM_NTASKS",)
"""Where a batch system tells how many processes it started."""

HOST_ID_VARIABLES = ("SLURM_PROCID", "JOB_COMPLETION_INDEX")
"""Where Slurm, and an indexed job or JobSet of Kubernetes, tell a process its number."""

AUTO_PORT = 12_355
"""The port of the first host with --hosts auto, plus the job's number modulo 1,000."""

JOIN_S = 300
"""Seconds within which all hosts have to be there."""

WATCHER_VARIABLE = "VOICEPRINT_TRAINING_WATCHER"
"""Environment variable with the number of the process that watches this one."""

EXIT_LOST = 75
"""Exit status of a training that lost another host: EX_TEMPFAIL of sysexits.h."""

HEARTBEAT_S = 30
"""Seconds after which a host that says nothing counts as gone."""


@dataclass(frozen=True)
class Hosts:
    """The hosts of a training.

    Attributes:
        address: HOST:PORT of the first.
        share: Which of them this is.
    """

    address: str
    share: Share

    @property
    def options(self) -> list[str]:
        """The options that mean them."""
        own, number = self.share.host_id, self.share.num_hosts
        return ["--hosts", self.address, "--num_hosts", str(number), "--host_id", str(own)]


def find_hosts(
    address: str,
    num_hosts: int | None,
    host_id: int | None,
    variables: Mapping[str, str] = os.environ,
) -> Hosts | None:
    """Returns the hosts that options and the batch system's variables mean, None for one alone.

    Raises:
        VoiceprintError: If something isn't known, or contradicts.
    """
    if not address:
        if num_hosts is not None or host_id is not None:
            raise VoiceprintError("--num_hosts and --host_id need --hosts HOST0:PORT")
        return None
    if address == "auto":
        if (found := _ray_hosts()) is not None:
            return found
        address = _slurm_address(variables)
    if not re.fullmatch(r"[^:]+:\d+", address):
        raise VoiceprintError(f"--hosts {address}: expected HOST0:PORT or auto")
    number = _known("num_hosts", num_hosts, NUM_HOSTS_VARIABLES, variables)
    own = _known("host_id", host_id, HOST_ID_VARIABLES, variables)
    if not 0 <= own < number:
        raise VoiceprintError(f"--host_id {own}: expected 0 to {number - 1} of {number} hosts")
    return Hosts(address, Share(own, number))


def _known(
    name: str, value: int | None, names: tuple[str, ...], variables: Mapping[str, str]
) -> int:
    """Returns a number that an option or else a variable tells."""
    if value is not None:
        return value
    for variable in names:
        if variables.get(variable, "").isdecimal():
            return int(variables[variable])
    raise VoiceprintError(f"--hosts needs --{name}: none of {', '.join(names)} tells it")


def _slurm_address(variables: Mapping[str, str]) -> str:
    """Returns the address of the first host of a Slurm step."""
    names = variables.get("SLURM_STEP_NODELIST") or variables.get("SLURM_JOB_NODELIST") or ""
    # host[03-07,9],other: the first of them is host03.
    match = re.match(r"([^,\[]+)(?:\[(\d+))?", names)
    if match is None:
        raise VoiceprintError(
            "--hosts auto: SLURM_STEP_NODELIST isn't set, expected to run under srun or Ray Train; "
            "give --hosts HOST0:PORT"
        )
    port = AUTO_PORT + int(variables.get("SLURM_JOB_ID", "0")) % 1000
    return f"{match[1]}{match[2] or ''}:{port}"


def _ray_hosts() -> Hosts | None:
    """Returns the workers of Ray Train, if this process is one; the first one's port is free.

    All of them have to ask: the first tells the others where it is.
    """
    if "ray.train" not in sys.modules:
        return None
    from ray import train, util
    from ray.train.collective import broadcast_from_rank_zero

    try:
        context = train.get_context()
        share = Share(context.get_world_rank(), context.get_world_size())
    except RuntimeError:  # it was only imported
        return None
    address = None
    if share.host_id == 0:
        with socket.socket() as free:
            free.bind(("", 0))
            address = f"{util.get_node_ip_address()}:{free.getsockname()[1]}"
    return Hosts(str(broadcast_from_rank_zero(address)), share)


def join_hosts(hosts: Hosts) -> None:
    """Joins the hosts into one JAX: waits for all of them.

    Raises:
        VoiceprintError: If they aren't there in time.
    """
    import jax

    # On processors; GPUs have their own way.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # It would take SIGTERM for itself, and a batch system could only kill the training.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            hosts.address,
            hosts.share.num_hosts,
            hosts.share.host_id,
            initialization_timeout=JOIN_S,
            heartbeat_timeout_seconds=HEARTBEAT_S,
            shutdown_timeout_seconds=HEARTBEAT_S,
        )
    except Exception as error:  # JAX's own kinds, RuntimeError, ValueError
        raise VoiceprintError(
            f"--hosts {hosts.address}: {hosts.share.num_hosts} hosts didn't come together in "
            f"{JOIN_S} s; start all of them, and check that the first can be reached there"
        ) from error


def is_supervised() -> bool:
    """Returns whether this process is the one that trains; it ends with the one that watches it."""
    parent = int(os.environ.get(WATCHER_VARIABLE, "0"))
    if not parent:
        return False

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    return True


def supervise(script: str, argv: Sequence[str], model_dir: str) -> int:
    """Trains in a process of its own: JAX aborts its process when it loses another host.

    Args:
        script: train.py.
        argv: Its command line.
        model_dir: Where the checkpoints are.

    Returns:
        The exit status of the training.

    Raises:
        VoiceprintError: If it was aborted or killed.
    """
    environment = {**os.environ, WATCHER_VARIABLE: str(os.getpid())}
    child = subprocess.Popen([sys.executable, script, *argv], env=environment)
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # a worker of Ray Train has another
        # Ctrl-C reaches the child as well, which saves and ends.
        handlers[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
        handlers[signal.SIGTERM] = signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    try:
        status = child.wait()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if status not in (EXIT_LOST, *range(-64, 0)):
        return status
    found = sorted(Path(model_dir).glob("[!.]*.keras"), key=lambda path: path.stat().st_mtime)
    advice = (
        f"start all hosts again with --resume {found[-1]}" if found else "start all hosts again"
    )
    raise VoiceprintError(f"the training was cut off: another host is gone, or memory; {advice}")


@contextlib.contextmanager
def noticing_losses(hosts: Hosts | None) -> Iterator[None]:
    """Ends the process at once if JAX says that another host is gone: at the exit it would wait."""
    if hosts is None:
        yield
        return
    import jax

    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        print(" ".join(str(error).split())[:200], file=sys.stderr, flush=True)
        os._exit(EXIT_LOST)
