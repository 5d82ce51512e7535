import os
from pathlib import Path

import pytest

from service.encoding.pool import EncodingPool
from utils import processors
from utils.model.encoder import SpeakerEncoder
from utils.model.header import ModelHeader
from utils.processors import num_processors


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 64 processors without control groups."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(processors, "CGROUP_LIST", tmp_path / "cgroup")
    monkeypatch.setattr(processors, "CGROUP_ROOT", tmp_path / "mounted")
    return tmp_path


def write_groups(host: Path, listed: str, **files: str) -> None:
    """Writes the list of groups, and files whose names have __ for / and 0 for a dot."""
    (host / "cgroup").write_text(listed, encoding="utf-8")
    for name, text in files.items():
        path = host / "mounted" / name.replace("__", "/").replace("0", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")


def test_without_a_quota_the_affinity_counts(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert num_processors() == 64
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 9})
    assert num_processors() == 3
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS and Windows
    assert num_processors() == 64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("5000 100000", 1),
        ("max 100000", 64),
        ("9900000 100000", 64),
        ("0 100000", 64),
        ("nonsense", 64),
    ],
)
def test_quota_of_version_2(host: Path, text: str, expected: int) -> None:
    write_groups(host, "0::/\n", cpu0max=text)
    assert num_processors() == expected


def test_the_smallest_quota_of_the_groups_above_holds(host: Path) -> None:
    listed = "0::/user.slice/job\n"
    groups = {"user0slice__cpu0max": "300000 100000", "user0slice__job__cpu0max": "800000 100000"}
    write_groups(host, listed, **groups)
    assert num_processors() == 3


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
def test_quota_of_version_1(host: Path, mount: str) -> None:
    listed = "12:memory:/docker/abc\n5:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n0::/\n"
    # A container sees its own group at the root, while the list has the path of the host.
    files = {f"{mount}__cpu0cfs_quota_us": "400000", f"{mount}__cpu0cfs_period_us": "100000"}
    write_groups(host, listed, **files)
    assert num_processors() == 4
    write_groups(host, listed, **{f"{mount}__cpu0cfs_quota_us": "-1"})
    assert num_processors() == 64


def test_the_model_and_the_pool_of_the_service_take_as_many_threads(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_groups(host, "0::/\n", cpu0max="200000 100000")
    loaded: list[int] = []

    def load(header: ModelHeader, num_threads: int) -> object:
        loaded.append(num_threads)
        return None

    monkeypatch.setattr("utils.model.encoder._load_network", load)
    assert SpeakerEncoder().num_threads == 2
    assert SpeakerEncoder(num_threads=7).num_threads == 7
    assert loaded == [2, 7]
    assert EncodingPool().num_threads == 2
