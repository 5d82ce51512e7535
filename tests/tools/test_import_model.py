"""A public ONNX model becomes a file that the scripts take."""

from pathlib import Path

import pytest

import infer_contrast
from tests.support.public_models import write_public_model
from tests.support.synthetic_voices import write_speech_folder
from tools import import_model
from utils.errors import DataListError, ModelError
from utils.model.header import read_header


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    write_speech_folder(folder, 3, 2, 1.6)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("form", ["wespeaker", "nemo"])
def test_imported_and_calibrated_it_compares(
    people: Path, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_public_model(tmp_path / "public.onnx", form)
    output = tmp_path / "models" / "ours.onnx"
    options = ["--list_path", str(people), "--output", str(output)]
    assert import_model.main([str(path), *options]) == 0
    shown = capsys.readouterr().out
    assert f"{output}: features of {form}, " in shown
    assert "equal to the two steps on 6 recordings (lowest cosine " in shown
    assert "not calibrated yet" not in shown
    calibration = read_header(output).calibration
    assert f"threshold {calibration.threshold:.4f}: " in shown
    clips = [str(path) for path in sorted(people.rglob("*.wav"))[:2]]
    arguments = [f"--audio_path{number}={clip}" for number, clip in enumerate(clips, start=1)]
    assert infer_contrast.main([*arguments, f"--model_path={output}"]) == 0
    assert f"threshold: {calibration.threshold}" in capsys.readouterr().out


def test_without_a_list_it_says_how_to_calibrate(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    path = write_public_model(tmp_path / "public.onnx", "3dspeaker")
    output = tmp_path / "ours.onnx"
    assert import_model.main([str(path), "--output", str(output)]) == 0
    shown = capsys.readouterr().out
    num_recordings = len(list(Path("audio").glob("*.wav")))
    assert f"equal to the two steps on {num_recordings} recordings" in shown
    assert (
        f"not calibrated yet: python tools/calibrate.py RECORDINGS --model_path {output}" in shown
    )
    with pytest.raises(ModelError, match="no calibrated threshold"):
        _ = read_header(output).calibration


def test_a_bad_list_leaves_an_older_file(tmp_path: Path, people: Path) -> None:
    path = write_public_model(tmp_path / "public.onnx", "wespeaker")
    output = tmp_path / "ours.onnx"
    output.write_bytes(b"older")
    one = people / "speaker_00"
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{clip}\t0\n" for clip in sorted(one.glob("*.wav"))))
    with pytest.raises(DataListError, match="several clips of several speakers"):
        import_model.main([str(path), "--list_path", str(listed), "--output", str(output)])
    assert output.read_bytes() == b"older"
    assert sorted(item.name for item in tmp_path.iterdir()) == [
        "list.txt", "ours.onnx", "public.onnx",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["ours.keras", "public.onnx"])
def test_refuses_other_outputs(tmp_path: Path, name: str) -> None:
    path = write_public_model(tmp_path / "public.onnx", "wespeaker")
    with pytest.raises(ModelError, match="expected"):
        import_model.main([str(path), "--output", str(tmp_path / name)])
    assert path.exists()
