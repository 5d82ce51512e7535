"""A folder of a few people's recordings becomes thresholds in the model's files."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.synthetic_voices import write_speech_folder, write_wav
from tests.support.tiny_model import write_tiny_model
from tools import calibrate
from utils.errors import DataListError, ModelError, VoiceprintError
from utils.export.onnx import write_onnx
from utils.model.header import read_header
from utils.verification.calibration import Calibration, ThresholdRates
from utils.verification.calibration_file import CalibrationFile


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    write_speech_folder(folder, 3, 2, 1.6)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.keras"
    write_tiny_model(path)
    write_onnx(path, path.with_suffix(".onnx"))
    return path


@pytest.mark.slow
def test_both_files_of_a_model_get_thresholds_of_these_people(
    people: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx = model.with_suffix(".onnx")
    made = tmp_path / "calibrated"
    options = ["--output_dir", str(made), "--plot", str(tmp_path / "plot.png")]
    store = tmp_path / "embeddings.npz"
    files = ["--model_path", str(onnx), str(model), "--embeddings", str(store)]
    assert calibrate.main([str(people), *files, *options]) == 0
    shown = capsys.readouterr().out
    assert (
        "3 people (3 pairs of them) are too few to promise 0.1 % false accepts: at most " in shown
    )
    headers = [read_header(made / path.name) for path in (onnx, model)]
    old = read_header(model)
    for header in headers:
        assert header.model_id == old.model_id
        assert header.calibration == headers[0].calibration != old.calibration
        assert header.calibration.rates is not None
        assert f"threshold {header.calibration.threshold:.4f}: " in shown
        assert header.metadata["calibrated_on"]["num_speakers"] == 3
        assert header.metadata["calibrated_on"]["list"] == people.name
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")

    # Kept embeddings are used again, also without the recordings' content.
    with np.load(store) as arrays:
        kept = {name: arrays[name] for name in arrays.files}
    assert kept["cut"].tolist() == ["full length", "3 s", "1 s"]
    for column in (0, 1):
        kept["cut_embedding"][:, column] = np.eye(6, 16, dtype=np.float32)
    np.savez(store, **kept)
    assert calibrate.main([str(people), *files, "--output_dir", str(made)]) == 0
    assert read_header(made / onnx.name).calibration != headers[0].calibration


def test_thresholds_that_the_web_page_saved_are_applied(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = read_header(model)
    found = Calibration(0.31, 0.52, 10.0, -4.0, rates=ThresholdRates(0.01, 0.02, 0.03, "3 s", 90))
    saved, made = tmp_path / "calibration.json", tmp_path / "made"
    onnx = model.with_suffix(".onnx")

    def save(model_id: str) -> None:
        content = CalibrationFile(model_id, "none", found.to_dict()).to_dict()
        saved.write_text(json.dumps(content), encoding="utf-8")

    save(header.model_id)
    options = [str(saved), "--model_path", str(model), str(onnx), "--output_dir", str(made)]
    assert calibrate.main(options) == 0
    assert "threshold 0.3100: 1.00% false accepts, at worst 3.00% (3 s)" in capsys.readouterr().out
    for path in (model, onnx):
        changed = read_header(made / path.name)
        assert (changed.calibration, changed.model_id) == (found, header.model_id)
    with pytest.raises(ModelError, match="holds thresholds, no recordings; leave out --plot"):
        calibrate.main([*options, "--plot", "a.png"])
    save("f" * 64)
    with pytest.raises(ModelError, match=r"for the model ffffffff, .* is .*give the model that"):
        calibrate.main(options)


def test_files_of_two_models(people: Path, model: Path, tmp_path: Path) -> None:
    other = write_tiny_model(tmp_path / "other.keras", note="another")
    options = ["--model_path", str(model), str(other), "--output_dir", str(tmp_path / "made")]
    with pytest.raises(ModelError, match=r"other\.keras: another model than .*calibrate it on its"):
        calibrate.main([str(people), *options])


def test_recordings_that_say_nothing(model: Path, tmp_path: Path) -> None:
    for name in ("ann/1.wav", "bob/1.wav"):
        path = tmp_path / "people" / name
        path.parent.mkdir(parents=True)
        write_wav(path, np.zeros(16_000, np.float32))
    made = tmp_path / "made"
    options = ["--model_path", str(model.with_suffix(".onnx")), "--output_dir", str(made)]
    with pytest.raises(DataListError, match="0 usable clips of 0 speakers, expected several clips"):
        calibrate.main([str(tmp_path / "people"), *options])
    assert list(made.iterdir()) == []
    (tmp_path / "store.npz").write_bytes(b"nothing")
    with pytest.raises(VoiceprintError, match=r"store\.npz: not a file of embeddings"):
        calibrate.main(
            [str(tmp_path / "people"), *options, "--embeddings", str(tmp_path / "store.npz")]
        )
