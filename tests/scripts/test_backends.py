"""The same training on JAX, on a machine without TensorFlow, as on TensorFlow."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import train
from tests.support.synthetic_voices import write_speech_folder
from tests.support.tiny_model import TRAIN_OPTIONS, write_tiny_model

WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = None  # an import of it raises ImportError
import keras
import train
status = train.main(sys.argv[1:])
print("backend", keras.backend.backend())
sys.exit(status)
"""


QUICK_COMPILER = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
"""Compiling takes most of the time of the few steps here."""


def log(folder: str) -> list[dict[str, float]]:
    lines = Path(folder, "training_log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def train_on_tensorflow(*options: str) -> list[dict[str, float]]:
    assert keras.backend.backend() == "tensorflow"
    assert train.main([*options, "--model_dir=models_tensorflow"]) == 0
    return log("models_tensorflow")


def train_on_jax(root: Path, *options: str) -> list[dict[str, float]]:
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, *options, "--model_dir=models_jax"],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(root),
             "JAX_PLATFORMS": "cpu", "PYTHONIOENCODING": "utf-8", "XLA_FLAGS": QUICK_COMPILER},
        timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("backend jax\n")
    return log("models_jax")


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="jax is not installed")
def test_jax_without_tensorflow_trains_the_same(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = write_speech_folder(Path("speech"))
    lines = "".join(f"{path.as_posix()}\t{label}\n" for path, label in files)
    Path("list.txt").write_text(lines)
    model = write_tiny_model(tmp_path / "start.keras")
    options = [
        *TRAIN_OPTIONS, "--train_list_path=list.txt", "--test_list_path=list.txt",
        f"--init={model}", "--num_epoch=2", "--steps_per_epoch=2", "--learning_rate=0.0001",
    ]  # fmt: skip
    ours, theirs = train_on_tensorflow(*options), train_on_jax(root, *options)
    assert len(ours) == len(theirs) == 2
    for one, other in zip(ours, theirs, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
        assert one["eer"] == pytest.approx(other["eer"], abs=0.05)
    # What one backend wrote, the other goes on with.
    more = [option for option in options if not option.startswith("--init")]
    checkpoint = "models_jax/resnet34-2.keras"
    last = train_on_tensorflow(*more, f"--resume={checkpoint}", "--num_epoch=3")[-1]
    assert last["epoch"] == 3
