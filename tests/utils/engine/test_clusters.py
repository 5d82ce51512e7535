"""The same work on processes, on a Dask cluster of processes and on Ray, and what goes wrong."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

import create_data
import embed
from tests.support.cluster_jobs import DaskCluster, square, square_or_die
from tests.support.synthetic_voices import synthetic_speech, write_speech_folder
from tests.support.tiny_model import write_tiny_model
from tools import make_teacher
from utils.bulk_embedding import EmbeddingTask
from utils.corpus import conversion
from utils.engine import engine as module
from utils.engine import order
from utils.engine.choice import open_engine
from utils.engine.engine import Cluster, ClusterEngine, Engine
from utils.engine.order import Order, code_id, run_chunk
from utils.errors import VoiceprintError
from utils.export.onnx import write_onnx

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """A Dask cluster of two workers; a test that kills one starts another."""
    pytest.importorskip("distributed")
    cluster = DaskCluster(tmp_path_factory.mktemp("dask"), 2)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.keras"
    write_tiny_model(path)
    write_onnx(path, path.with_suffix(".onnx"))
    return path.with_suffix(".onnx")


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 flac files of 8 people, one of them damaged."""
    import soundfile

    folder = tmp_path_factory.mktemp("speech") / "people"
    for number in range(96):
        path = folder / str(number // 12) / f"{number}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, synthetic_speech(number // 12, number, 1.6), 16000)
    path.write_bytes(path.read_bytes()[:2000])
    return folder


def make_lists(folder: Path, speech: Path, address: str) -> dict[str, bytes]:
    """Runs create_data.py in a folder; returns the lists, without the journal."""
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        options = ["--wav_dir", "wav", "--num_workers", "1", "--test_every", "5"]
        assert (
            create_data.main(["--dataset", f"folders:{speech}", *options, "--engine", address]) == 0
        )
    found = {path.name: path.read_bytes() for path in (folder / "dataset").iterdir()}
    found.pop("checked.tsv")
    return found


@pytest.fixture(scope="module")
def local_lists(tmp_path_factory: pytest.TempPathFactory, speech: Path) -> dict[str, bytes]:
    return make_lists(tmp_path_factory.mktemp("local"), speech, "local")


def check_map(engine: Engine, tmp_path: Path) -> None:
    """Jobs in order; one whose worker dies is done again, one that always kills gets a mark."""
    assert list(engine.map(square, range(200), str)) == [n * n for n in range(200)]
    for note in (str(tmp_path / "note"), ""):
        jobs = [(number, note) for number in range(48)]
        expected = [number * number for number in range(48)]
        if not note:
            expected[20] = -20
        assert list(engine.map(square_or_die, jobs, lambda job: -job[0])) == expected


def test_lists_are_those_of_the_local_run(
    cluster: DaskCluster, speech: Path, local_lists: dict[str, bytes], tmp_path: Path
) -> None:
    assert set(local_lists) == {"train_list.txt", "test_list.txt", "rejected.tsv", "speakers.tsv"}
    assert b"95.flac" in local_lists["rejected.tsv"]
    assert make_lists(tmp_path, speech, cluster.address) == local_lists


def test_a_killed_worker_and_a_killed_driver_lose_nothing(
    cluster: DaskCluster, speech: Path, local_lists: dict[str, bytes], tmp_path: Path, root: Path
) -> None:
    journal = tmp_path / "dataset" / "checked.tsv"
    command = [sys.executable, root / "create_data.py", "--dataset", f"folders:{speech}"]
    command += ["--wav_dir", "wav", "--test_every", "5", "--engine", cluster.address]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as driver:
        deadline = time.monotonic() + 60
        while not (journal.exists() and journal.read_bytes().count(b"\n") > 8):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with pytest.raises(VoiceprintError, match="another process is writing it"):
            make_lists(tmp_path, speech, "local")
        cluster.workers[0].kill()
        os.kill(driver.pid, signal.SIGKILL)
    done = {line.split(b"\t")[0] for line in journal.read_bytes().splitlines() if line[-1:] == b"."}
    assert len(done) > 8
    assert make_lists(tmp_path, speech, cluster.address) == local_lists
    names = [line.split(b"\t")[0] for line in journal.read_bytes().splitlines() if line]
    assert len(names) == len(set(names)), "what was in the journal was done again"
    cluster.workers[0].wait()
    cluster.workers[0] = cluster.start_worker()


def test_embeddings_and_teachers_are_those_of_the_local_run(
    cluster: DaskCluster, model: Path, tmp_path: Path
) -> None:
    files = write_speech_folder(tmp_path / "people", 3, 4, 1.2)
    names = [Path(path).relative_to(tmp_path) for path, _ in files]
    (tmp_path / "list.txt").write_text("".join(f"{name}\t0\n" for name in names))
    made: dict[str, list[bytes]] = {}
    for address in ("local", cluster.address):
        output = tmp_path / "out.npz"
        options = ["--model_path", str(model), "--output", str(output), "--engine", address]
        for script, source, more in (
            (embed, tmp_path / "people", ["--for_calibration"]),
            (
                make_teacher,
                tmp_path / "list.txt",
                ["--root", str(tmp_path), "--speeds", "1", "1.1"],
            ),
        ):
            assert script.main([str(source), *options, *more]) == 0
            made.setdefault(script.__name__, []).append(output.read_bytes())
            output.unlink()
    assert all(one == other for one, other in made.values())


def test_dask_maps_through_crashes(cluster: DaskCluster, tmp_path: Path) -> None:
    spare = [cluster.start_worker() for _ in range(4)]  # five are killed
    engine = open_engine(cluster.address, 1)
    try:
        check_map(engine, tmp_path)
    finally:
        engine.close()
        cluster.stop_workers()
        for worker in spare:
            worker.kill()
            worker.wait()
        cluster.workers = [cluster.start_worker() for _ in range(2)]


@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="ray is not installed")
def test_ray_maps_through_crashes(
    tmp_path: Path,
    speech: Path,
    local_lists: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from utils.engine import ray_cluster

    monkeypatch.setattr(ray_cluster, "NUM_RETRIES", 1)  # fewer workers are killed
    engine = open_engine("ray", 1)
    try:
        check_map(engine, tmp_path)
        # On the same Ray, which takes seconds to start; create_data.py shuts it down.
        monkeypatch.setattr(ray_cluster.ray, "init", lambda *address, **options: None)
        assert make_lists(tmp_path / "lists", speech, "ray") == local_lists
        assert not ray_cluster.ray.is_initialized()
    finally:
        engine.close()


def test_a_worker_that_would_do_something_else_is_refused(
    cluster: DaskCluster, model: Path, tmp_path: Path, root: Path
) -> None:
    engine = open_engine(cluster.address, 1)
    task = EmbeddingTask(str(model), "0" * 64)
    with pytest.raises(VoiceprintError, match=r"dask://.*: worker on .*tiny\.onnx is the model "):
        list(engine.map(task, ["a.wav"], str))
    cluster.stop_workers()
    shutil.copytree(root / "utils", tmp_path / "utils")
    shutil.copytree(root / "tests" / "support", tmp_path / "tests" / "support")
    with (tmp_path / "utils" / "version.py").open("a") as file:
        file.write("# changed\n")
    cluster.workers = [cluster.start_worker(tmp_path)]
    with pytest.raises(VoiceprintError, match=r"has the code .*, expected .* as the driver has"):
        list(engine.map(square, [1], str))
    cluster.stop_workers()
    cluster.workers = [cluster.start_worker(tmp_path / "tests")]
    with pytest.raises(VoiceprintError, match="a worker lacks utils"):
        list(engine.map(square, [1], str))
    engine.close()


def test_an_engine_that_is_not_there(cluster: DaskCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    from utils.engine import dask_cluster

    monkeypatch.setattr(dask_cluster, "CONNECT_S", 1.0)
    with pytest.raises(VoiceprintError, match="no Dask scheduler answers there; start one"):
        open_engine("dask://127.0.0.1:1", 1)
    cluster.stop_workers()
    with pytest.raises(VoiceprintError, match="has no workers; start some with dask worker tcp://"):
        open_engine(cluster.address, 1)
    monkeypatch.setitem(sys.modules, "utils.engine.dask_cluster", None)
    with pytest.raises(VoiceprintError, match=r"needs the package .*requirements-cluster\.txt"):
        open_engine(cluster.address, 1)


def test_a_cluster_that_goes_away(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    cluster = DaskCluster(tmp_path, 1)
    engine = open_engine(cluster.address, 1)
    try:
        results = engine.map(square, iter(range(10_000)), str)
        assert next(results) == 0
        cluster.stop()
        with pytest.raises(VoiceprintError, match="the cluster is gone; start it again"):
            list(results)
    finally:
        cluster.stop()
        engine.close()


def test_workers_that_do_not_come_back_are_waited_for_so_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A cluster without work: its task is done when a worker comes, or given up."""
    waiting: list[tuple[Future[bytes], bytes]] = []
    counts = iter([1, 0, 0, 1, *[0] * 50])

    class Pool(Executor):
        def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> "Future[Any]":
            waiting.append((Future(), args[0]))
            return waiting[-1][0]

    cluster = Cluster(
        "dask://a:1", Pool(), lambda: next(counts), (), (), lambda: True, lambda: None
    )
    monkeypatch.setattr(module, "POLL_S", 0.01)
    monkeypatch.setattr(module, "WORKLESS_S", 0.1)
    start = time.monotonic()
    with pytest.raises(VoiceprintError, match="dask://a:1: has had no workers for 0 s; start some"):
        list(ClusterEngine(cluster).map(square, [3], str))
    assert time.monotonic() - start > 0.1
    assert len(waiting) == 1


def test_a_cluster_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    from utils.engine import dask_cluster

    class Client:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def wait_for_workers(self, *_: Any, **__: Any) -> None: ...

        def get_versions(self, check: bool) -> None:
            raise ValueError("Mismatched versions found\n\n| distributed | 2025.1 | 2026.8 |")

        def close(self) -> None: ...

    monkeypatch.setattr(dask_cluster, "Client", Client)
    expected = (
        r"dask://a:1: has other versions than this machine: Mismatched versions found \| dist"
    )
    with pytest.raises(VoiceprintError, match=expected):
        open_engine("dask://a:1", 1)


def test_a_full_disk_of_a_worker_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    here = Order.of_this_process()
    monkeypatch.setattr(Path, "open", full)
    done = run_chunk(
        here, lambda job: conversion._write_file(tmp_path / job, b"", False), ["a.wav"]
    )
    assert done.results == []
    assert done.failure.startswith(
        f"worker on {socket.gethostname()}: cannot write {tmp_path}/a.wav"
    )
    assert done.failure.endswith(": No space left on device")


def test_order_of_another_folder_and_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_chunk(Order(code_id(), str(tmp_path / "gone")), square, [2])
    assert "can't enter" in done.failure
    (tmp_path / "there").mkdir()
    assert run_chunk(Order(code_id(), str(tmp_path / "there")), square, [2]).results == [4]
    assert Path.cwd() == tmp_path / "there"
    assert "has the code" in run_chunk(Order("x", "."), square, [2]).failure
    assert Order.of_this_process() == Order(order.code_id(), str(tmp_path / "there"))
