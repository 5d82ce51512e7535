"""What select_devices does before the backend starts, each time in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROBE = """
import sys
from utils.training.devices import select_devices
from utils.errors import VoiceprintError
try:
    strategy = select_devices(sys.argv[1], sys.argv[2])
except VoiceprintError as error:
    print("error:", error)
    raise SystemExit
import keras
print(strategy.num_replicas_in_sync if strategy else 1, keras.config.dtype_policy().name)
"""


def probe(root: Path, gpu: str, precision: str = "float32") -> str:
    result = subprocess.run(
        [sys.executable, "-c", PROBE, gpu, precision],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gpu", "precision", "expected"),
    [
        ("", "float32", "1 float32"),
        ("cpu", "mixed_bfloat16", "1 mixed_bfloat16"),
        ("cpu:3", "float32", "3 float32"),
    ],
)
def test_devices_and_precision(root: Path, gpu: str, precision: str, expected: str) -> None:
    assert probe(root, gpu, precision) == expected


def test_without_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    from utils.errors import VoiceprintError
    from utils.model.backend import start_backend

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(VoiceprintError, match="the package keras is missing"):
        start_backend()
