"""export.py as a user runs it."""

import re
from pathlib import Path

import pytest

import export
from tests.support.script_runs import run_here
from tests.support.synthetic_voices import synthetic_speech, write_wav
from tests.support.tiny_model import write_tiny_model

ROOT = Path(__file__).resolve().parents[2]

FIGURES = r"\d+\.\d MB, worst cosine [01]\.\d{6}, 3 s in \d+ ms on 1 thread"


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small model and recordings of two speakers, as the toolkit's is."""
    monkeypatch.chdir(tmp_path)
    for speaker in range(2):
        for clip in range(2):
            speech = synthetic_speech(speaker, clip, 2.0)
            write_wav(tmp_path / "audio" / f"{speaker}_{clip}.wav", speech)
    write_tiny_model(tmp_path / "models" / "resnet34.keras")
    return tmp_path


@pytest.mark.slow
def test_list_adds_error_rates(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    clips = sorted(Path("audio").iterdir())
    lines = "".join(f"{path.as_posix()}\t{path.name[0]}\n" for path in clips)
    Path("list.txt").write_text(lines, encoding="utf-8")
    options = ["--list_path=list.txt", "--formats", "onnx", "onnx", "--output_dir=new/folder"]
    assert export.main(options) == 0
    told = capfd.readouterr().out.splitlines()[-2:]
    assert re.fullmatch(rf"models/resnet34\.keras: {FIGURES}, EER \d+\.\d{{3}} %", told[0])
    assert re.fullmatch(rf"new/folder/resnet34\.onnx: {FIGURES}, EER \d+\.\d{{3}} %", told[1])
    assert told[0].split("EER")[1] == told[1].split("EER")[1]
    assert [path.name for path in Path("new/folder").iterdir()] == ["resnet34.onnx"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--model_path=no.keras"], "no.keras: no such model file"),
        (["--model_path=a.onnx"], "a.onnx: received a .onnx file, expected the .keras file"),
        (["--list_path=none.txt"], "none.txt"),
        (["--output_dir=a.onnx"], "a.onnx: can't be made a folder"),
        (["--formats", "coreml"], "invalid choice: 'coreml'"),
        (["--num_threads=0"], "received '0', expected a whole number from 1 up"),
    ],
)
def test_mistakes_are_told_in_one_line(
    workplace: Path, options: list[str], error: str, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("a.onnx").write_bytes(b"an older export")
    assert run_here(ROOT / "export.py", options) == 2
    err = capfd.readouterr().err
    (last,) = [line for line in err.splitlines() if "error: " in line]
    assert error in last
    assert "Traceback" not in err


@pytest.mark.slow
def test_shipped_model_passes_in_every_format(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(root)
    if not Path("models/resnet34.keras").is_file():
        pytest.skip("models/resnet34.keras is not there")
    assert export.main([f"--output_dir={tmp_path}"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[:6] == [
        "-----------  Configuration Arguments -----------",
        "model_path: models/resnet34.keras",
        f"output_dir: {tmp_path}",
        "------------------------------------------------",
        "==> successfully loading model models/resnet34.keras.",
        "",
    ]
    names = [".onnx", "_float16.tflite", "_int8.tflite", "_savedmodel"]
    places = ["models/resnet34.keras", *(f"{tmp_path}/resnet34{name}" for name in names)]
    assert len(lines) == 6 + len(places)
    for line, place in zip(lines[6:], places, strict=True):
        assert re.fullmatch(rf"{re.escape(place)}: {FIGURES}", line)
        assert Path(place).exists()
    cosine, size = re.findall(r"int8\.tflite: ([\d.]+) MB, worst cosine ([\d.]+),", out)[0][::-1]
    assert float(cosine) >= 0.999
    assert float(size) < 0.6 * Path("models/resnet34.keras").stat().st_size / 1e6
