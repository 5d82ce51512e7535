"""The commands of docs/scaling.md run, on a cluster that its own commands start."""

import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.test_docs import ROOT, shell_commands
from tests.support.script_runs import run_here
from tests.support.synthetic_voices import write_speech_folder
from tests.support.tiny_model import write_tiny_model

pytestmark = pytest.mark.slow

SCALING = ROOT / "docs" / "scaling.md"

CHECKED_ELSEWHERE = {
    "pip install -r requirements-cluster.txt": "the tests of the engines import what it names",
    "pip install -r requirements-search.txt": "test_milvus.py imports what it names",
    "python manage_voices.py index postgresql://HOST/NAME milvus://HOST:19530/NAME": "test_milvus",
    "python manage_voices.py index postgresql://HOST/NAME none": "test_milvus",
    "PYTHONPATH=. dask scheduler --host HOST --port 8786": "the fixture cluster starts it",
    "PYTHONPATH=. dask worker tcp://HOST:8786 --nworkers 2 --nthreads 1": "likewise",
    "python train.py --hosts HOST0:12355 --num_hosts 2 --host_id 0": "test_hosts.py",
    "python train.py --hosts HOST0:12355 --num_hosts 2 --host_id 1": "test_hosts.py",
    "srun python train.py --hosts auto": "test_hosts.py, with Slurm's variables",
}

QUICK = {
    "python create_data.py": "--test_every 4",
    "python train.py": "--num_epoch 1 --batch_size 4 --num_workers 0 --gpu cpu "
    "--widths 4 4 4 4 --num_blocks 1 1 1 1 --crop_frames 65",
}
"""Added to the commands of a script: little data and a small network, in place of hours."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recordings of 10 people and tiny models."""
    from utils.export.onnx import write_onnx

    folder = tmp_path_factory.mktemp("workspace")
    write_speech_folder(folder / "my_speech", num_speakers=10, num_utterances=3, duration_s=1.5)
    model = write_tiny_model(folder / "models" / "tiny.keras")
    for name in ("campplus", "campplus_public"):
        write_onnx(model, folder / "models" / f"{name}.onnx")
    return folder


@pytest.fixture(scope="module")
def port(workspace: Path) -> Iterator[int]:
    """The port of a cluster that the commands of the document started."""
    pytest.importorskip("distributed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = int(free.getsockname()[1])
    processes = []
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in (c for c in shell_commands(SCALING) if " dask " in c):
        with (workspace / "dask.log").open("ab") as log:
            # In a group of its own: a worker's nanny has children.
            processes.append(
                subprocess.Popen(
                    ["bash", "-c", f"exec env {placed(command, number)}"],
                    cwd=ROOT, env={**os.environ, "PATH": path}, stdout=log, stderr=log,
                )
            )  # fmt: skip
        time.sleep(0.5)
    yield number
    for process in reversed(processes):
        process.terminate()
        process.wait()


def placed(command: str, port: int) -> str:
    return command.replace("HOST", "127.0.0.1").replace("8786", str(port))


def test_table_of_commands_has_no_leftovers() -> None:
    commands = shell_commands(SCALING)
    assert set(CHECKED_ELSEWHERE) <= set(commands)
    assert all(any(c.startswith(start) for c in commands) for start in QUICK)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(
    "command", [c for c in shell_commands(SCALING) if c not in CHECKED_ELSEWHERE]
)
def test_command_runs(
    command: str,
    workspace: Path,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    more = next((QUICK[start] for start in QUICK if command.startswith(start)), "")
    program, script, *arguments = shlex.split(f"{placed(command, port)} {more}")
    assert program == "python", f"{command}: run it here or name its check in the table"
    monkeypatch.chdir(workspace)
    status = run_here(ROOT / script, arguments)
    shown = capfd.readouterr()
    assert status == 0, shown.err
    assert "Traceback" not in shown.err
    assert shown.out
