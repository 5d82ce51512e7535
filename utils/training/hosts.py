"""Training on several hosts: who they are, and joining them into one JAX.

Every host runs train.py with the same options. Each makes its rows of every batch; JAX adds up the
gradients, and the first host alone writes and prints.
"""

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from utils.crops.draws import Share
from utils.errors import EXIT_USER_ERROR, VoiceprintError
from utils.messages import translate

NUM_HOSTS_VARIABLES = ("SLURM_NTASKS",)
"""Where a batch system tells how many processes it started."""

HOST_ID_VARIABLES = ("SLURM_PROCID", "JOB_COMPLETION_INDEX")
"""Where Slurm, and an indexed job or JobSet of Kubernetes, tell a process its number."""

AUTO_PORT = 12_355
"""The port of the first host with --hosts auto, plus the job's number modulo 1,000."""

JOIN_S = 300
"""Seconds within which all hosts have to be there."""

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
        address = _slurm_address(variables)
    if not re.fullmatch(r"[^:]+:\d+", address):
        raise VoiceprintError(f"--hosts {address}: expected HOST0:PORT or auto")
    number = _known("num_hosts", num_hosts, NUM_HOSTS_VARIABLES, variables)
    own = _known("host_id", host_id, HOST_ID_VARIABLES, variables)
    if not 0 <= own < number:
        raise VoiceprintError(
            f"--host_id {own}: expected 0 to {number - 1}, --num_hosts is {number}"
        )
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
            "--hosts auto: SLURM_STEP_NODELIST isn't set, expected to run under srun; give "
            "--hosts HOST0:PORT"
        )
    port = AUTO_PORT + int(variables.get("SLURM_JOB_ID", "0")) % 1000
    return f"{match[1]}{match[2] or ''}:{port}"


def join_hosts(hosts: Hosts) -> None:
    """Joins the hosts into one JAX: waits for all of them.

    Raises:
        VoiceprintError: If they aren't there in time.
    """
    import jax

    # On processors; GPUs have their own way.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
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


@contextlib.contextmanager
def telling_losses(hosts: Hosts | None, training: Any) -> Iterator[None]:
    """Turns the loss of another host into one line, and ends this one at once.

    Without the other, JAX would wait for it at the exit.
    """
    if hosts is None:
        yield
        return
    import jax

    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        last = training.last_checkpoint
        advice = f"start all hosts again with --resume {last}" if last else "start all hosts again"
        line = f"another host is gone ({' '.join(str(error).split())[:100]}); {advice}"
        print(translate("error: ") + translate(line), file=sys.stderr, flush=True)
        os._exit(EXIT_USER_ERROR)
