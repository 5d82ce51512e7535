"""How many processors this process may use: not how many the machine has.

A container or a batch system gives a process a few processors of many, by its affinity or by a
quota of its control group. With a thread for each of the others, threads wait for each other.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

CGROUP_LIST = Path("/proc/self/cgroup")
"""The control groups of this process, a line each: `number:controllers:/path`."""

CGROUP_ROOT = Path("/sys/fs/cgroup")
"""Where the control groups are mounted; version 1 has a folder for each controller there."""


def num_processors() -> int:
    """Returns how many threads can run at once, at least 1.

    The least of the affinity's processors and the quota of the control group or of those it lies
    in; a quota of 1.5 processors keeps two threads busy.

    Source: Linux kernel documentation, admin-guide/cgroup-v2.rst, `cpu.max`, and
    scheduler/sched-bwc.rst, `cpu.cfs_quota_us`.
    """
    if hasattr(os, "sched_getaffinity"):
        num_allowed = len(os.sched_getaffinity(0))
    else:
        num_allowed = os.cpu_count() or 1
    return max(1, min([num_allowed, *(math.ceil(quota) for quota in _quotas())]))


def _quotas() -> Iterator[float]:
    """Yields the quotas that hold for this process, in processors."""
    for folder in _groups():
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if not quota:
            quota, period = (_read(folder / f"cpu.cfs_{kind}_us") for kind in ("quota", "period"))
        # Without a limit the quota is "max" (version 2) or -1 (version 1).
        if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):
            yield int(quota) / int(period)


def _groups() -> Iterator[Path]:
    """Yields the folders of the control groups that this process lies in, and of theirs.

    A container may see its own group as the root, and its path as the host does: what is not there
    is passed over.
    """
    for line in _read(CGROUP_LIST).splitlines():
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        if not controllers:  # version 2
            mounts = [CGROUP_ROOT, CGROUP_ROOT / "unified"]
        elif "cpu" in controllers.split(","):
            mounts = [CGROUP_ROOT / name for name in (controllers, "cpu")]
        else:
            continue
        parts = [part for part in group.split("/") if part not in ("", "..")]
        for mount in mounts:
            yield from (mount.joinpath(*parts[:depth]) for depth in range(len(parts) + 1))


def _read(path: Path) -> str:
    """Returns a small file's text, empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
