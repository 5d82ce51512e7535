"""Training on JAX: as on TensorFlow, and on two hosts, which are two processes here, as on one."""

import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import train
from tests.support.synthetic_voices import write_speech_folder
from tests.support.tiny_model import TRAIN_OPTIONS, write_tiny_model
from utils.crops.draws import Share
from utils.errors import VoiceprintError
from utils.training import hosts as module
from utils.training.hosts import Hosts, find_hosts, join_hosts, supervise

WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = None  # an import of it raises ImportError
import train
sys.exit(train.main(sys.argv[1:]))
"""

QUICK_COMPILER = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
"""Compiling takes most of the time of the few steps here."""

NUM_EPOCHS, STEPS = 4, 5
"""That one host and two train alike: 20 steps."""

ENDLESS = 10_000
"""Epochs of a training that is killed; the schedule of the learning rate depends on them."""

has_jax = pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="jax is not installed")


def log(folder: str | Path) -> list[dict[str, float]]:
    path = Path(folder, "training_log.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def options(folder: str, *more: str, epochs: int = ENDLESS, batch_size: int = 8) -> list[str]:
    """Options of a training; the log has the mean loss of each epoch's few steps."""
    return [
        *TRAIN_OPTIONS, f"--batch_size={batch_size}", "--train_list_path=train.txt",
        "--test_list_path=test.txt", f"--num_epoch={epochs}", f"--steps_per_epoch={STEPS}",
        f"--model_dir={folder}", "--gpu=cpu", "--keep_checkpoints=100", *more,
    ]  # fmt: skip


@contextlib.contextmanager
def running(root: Path, *commands: list[str]) -> Iterator[list["subprocess.Popen[str]"]]:
    """Runs Python on JAX several times at once; none is left in the end."""
    environment = {
        **os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONIOENCODING": "utf-8",
        "XLA_FLAGS": QUICK_COMPILER, "PYTHONPATH": str(root),
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        for command in commands
    ]  # fmt: skip
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def wait_for(is_done: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    """Waits while a process runs."""
    deadline = time.monotonic() + 300
    while not is_done():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def two_hosts(*command: str) -> list[list[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    hosts = ["--hosts", address, "--num_hosts", "2", "--host_id"]
    return [[*command, *hosts, str(number)] for number in range(2)]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """A folder with lists, and what a training on JAX without TensorFlow left in `alone`."""
    folder = tmp_path_factory.mktemp("hosts")
    files = write_speech_folder(folder / "speech", 4, 5, 1.2)
    lines = [f"{path}\t{label}\n" for path, label in files]
    (folder / "train.txt").write_text("".join(lines))
    (folder / "test.txt").write_text("".join(lines[::2]))
    write_tiny_model(folder / "start.keras", build={"num_classes": 4})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        command = ["-c", WITHOUT_TENSORFLOW, *options("alone", "--init=start.keras")]
        with running(root, command) as (alone,):
            wait_for(lambda: len(log("alone")) >= 1 + NUM_EPOCHS, alone)
    return folder


@has_jax
@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_jax_without_tensorflow_trains_as_tensorflow(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from utils.training.run import TrainingRun

    monkeypatch.chdir(workplace)
    finish = TrainingRun._finish_epoch

    def finish_and_stop(training: Any, figures: dict[str, float]) -> None:
        finish(training, figures)
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingRun, "_finish_epoch", finish_and_stop)
    with pytest.raises(KeyboardInterrupt):
        train.main(options("tensorflow", "--init=start.keras"))
    (one,), other = log("tensorflow"), log("alone")[0]
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
    assert one["eer"] == pytest.approx(other["eer"], abs=0.05)


@has_jax
@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_two_hosts_train_as_one_and_outlive_a_kill(
    workplace: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two hosts go on where one was, and one of them is killed.
    monkeypatch.chdir(workplace)
    more = options("both", "--resume", "alone/resnet34-1.keras", batch_size=4)
    with running(root, *two_hosts(str(root / "train.py"), *more)) as hosts:
        wait_for(lambda: len(log("both")) >= NUM_EPOCHS, hosts[0])
        hosts[1].kill()
        shown = hosts[0].communicate(timeout=200)
        assert hosts[0].returncode == 2, shown
    line = shown[1].strip().splitlines()[-1]
    assert line.startswith("error: the training was cut off: another host is gone, or memory; ")
    assert "start all hosts again with --resume both/resnet34-" in line
    assert f"epoch {1 + NUM_EPOCHS}: " in shown[0]
    steps = zip(log("alone")[1:], log("both"), strict=False)
    for number, (step, other) in zip(range(NUM_EPOCHS), steps, strict=False):
        assert step["epoch"] == other["epoch"] == 2 + number
        assert other["loss"] == pytest.approx(step["loss"], abs=1e-4)
        assert 0 <= other["eer"] <= 1

    # On one host, of another backend: steps are counted anew, since they are of half the size.
    checkpoints = {int(path.stem.split("-")[1]) for path in Path("both").glob("[!.]*.keras")}
    reached = max(checkpoints)
    assert reached >= 1 + NUM_EPOCHS
    resume = ["--resume", f"both/resnet34-{reached}.keras", "--steps_per_epoch=1"]
    assert train.main(options("both", *resume, epochs=reached + 1, batch_size=4)) == 0
    assert log("both")[-1]["epoch"] == reached + 1


def test_hosts_are_found_from_options_and_variables() -> None:
    assert find_hosts("", None, None, {"SLURM_NTASKS": "4", "SLURM_PROCID": "1"}) is None
    assert find_hosts("a:1", 3, 2, {}) == Hosts("a:1", Share(2, 3))
    slurm = {
        "SLURM_NTASKS": "4", "SLURM_PROCID": "1", "SLURM_JOB_ID": "77002",
        "SLURM_STEP_NODELIST": "gpu[03-06],other",
    }  # fmt: skip
    assert find_hosts("auto", None, None, slurm) == Hosts("gpu03:12357", Share(1, 4))
    slurm["SLURM_STEP_NODELIST"] = "one,two"
    assert find_hosts("auto", None, None, slurm) == Hosts("one:12357", Share(1, 4))
    job = {"JOB_COMPLETION_INDEX": "2"}
    assert find_hosts("train-0.svc:9", 4, None, job) == Hosts("train-0.svc:9", Share(2, 4))


def test_hosts_are_found_under_ray_train(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's part is played here: what it tells its workers, and how they tell each other."""
    told: list[str | None] = []

    class Context:
        def __init__(self, rank: int | None) -> None:
            self._rank = rank

        def get_world_rank(self) -> int:
            if self._rank is None:
                raise RuntimeError("not a worker")
            return self._rank

        def get_world_size(self) -> int:
            return 3

    def broadcast(data: str | None) -> str | None:
        told.append(data)
        return told[0]

    ray, ray_train = ModuleType("ray"), ModuleType("ray.train")
    collective = ModuleType("ray.train.collective")
    monkeypatch.setattr(collective, "broadcast_from_rank_zero", broadcast, raising=False)
    monkeypatch.setattr(ray, "train", ray_train, raising=False)
    util = SimpleNamespace(get_node_ip_address=lambda: "10.0.0.7")
    monkeypatch.setattr(ray, "util", util, raising=False)
    for module_ in (ray, ray_train, collective):
        monkeypatch.setitem(sys.modules, module_.__name__, module_)
    found = []
    for rank in range(2):
        monkeypatch.setattr(ray_train, "get_context", lambda r=rank: Context(r), raising=False)
        found.append(find_hosts("auto", None, None, {}))
    assert found[0] is not None and found[0].address.startswith("10.0.0.7:")
    assert told == [found[0].address, None]
    assert found == [Hosts(found[0].address, Share(number, 3)) for number in range(2)]
    assert find_hosts(*_read(found[1].options)) == found[1]
    monkeypatch.setattr(ray_train, "get_context", lambda: Context(None))
    with pytest.raises(VoiceprintError, match="expected to run under srun or Ray Train"):
        find_hosts("auto", None, None, {})


def _read(options: list[str]) -> tuple[str, int, int]:
    assert options[::2] == ["--hosts", "--num_hosts", "--host_id"]
    return options[1], int(options[3]), int(options[5])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("", 2, None), "need --hosts HOST0:PORT"),
        (("", None, 0), "need --hosts HOST0:PORT"),
        (("auto", 2, 0), "SLURM_STEP_NODELIST isn't set"),
        (("host", 2, 0), "--hosts host: expected HOST0:PORT or auto"),
        (("host:1", None, 0), "needs --num_hosts: none of SLURM_NTASKS tells it"),
        (("host:1", 2, None), "needs --host_id: none of SLURM_PROCID, JOB_COMPLETION_INDEX"),
        (("host:1", 2, 2), "--host_id 2: expected 0 to 1 of 2 hosts"),
    ],
)
def test_hosts_that_are_not_known(given: tuple[str, int | None, int | None], message: str) -> None:
    with pytest.raises(VoiceprintError, match=message):
        find_hosts(*given, {})


def test_hosts_that_do_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    jax = pytest.importorskip("jax")

    def initialize(*args: object, **more: object) -> None:
        raise RuntimeError("DEADLINE_EXCEEDED")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(VoiceprintError, match="2 hosts didn't come together in 300 s; start all"):
        join_hosts(Hosts("127.0.0.1:1", Share(0, 2)))
    assert module.JOIN_S == 300


def test_a_training_that_is_watched(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("import os, sys\nos.environ[sys.argv[2]]\nsys.exit(int(sys.argv[1]))\n")
    for status in (0, 2, 130):
        assert supervise(str(script), [str(status), module.WATCHER_VARIABLE], "m") == status
    with pytest.raises(VoiceprintError, match=r"cut off: .*; start all hosts again$"):
        supervise(str(script), [str(module.EXIT_LOST), module.WATCHER_VARIABLE], str(tmp_path))
    script.write_text("import os\nos.abort()\n")
    (tmp_path / "resnet34-3.keras").touch()
    with pytest.raises(VoiceprintError, match=r"--resume .*resnet34-3\.keras$"):
        supervise(str(script), [], str(tmp_path))


def test_another_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from utils.training.devices import select_devices

    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    with pytest.raises(VoiceprintError, match="KERAS_BACKEND=tensorflow: several hosts train on"):
        select_devices("cpu", "float32", Hosts("127.0.0.1:1", Share(0, 2)))
