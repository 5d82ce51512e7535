import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import export
from tests.support.synthetic_voices import synthetic_speech, write_wav
from tests.support.tiny_model import write_tiny_model
from utils.audio.recording import Recording
from utils.errors import ModelError
from utils.export.formats import FORMATS
from utils.export.onnx_int8 import write_quantized_onnx
from utils.model.encoder import SpeakerEncoder
from utils.model.header import read_header
from utils.model.onnx import load_onnx_network

SPEECH = [synthetic_speech(speaker, 0, 3.0) for speaker in range(4)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose last stages are wide enough for 8 bits."""
    path = tmp_path_factory.mktemp("model") / "wide.keras"
    return write_tiny_model(path, build={"widths": (8, 8, 64, 64), "num_blocks": (1, 1, 1, 1)})


@pytest.fixture(scope="module")
def quantized(model: Path) -> Path:
    path = model.with_suffix(".int8.onnx")
    write_quantized_onnx(model, path, SPEECH)
    return path


@pytest.mark.slow
def test_large_convolutions_are_in_8_bits_and_no_others(quantized: Path) -> None:
    graph = onnx.load(quantized).graph
    kernels = [item for item in graph.initializer if len(item.dims) == 4]
    assert {item.data_type for item in kernels if item.dims[1] >= 64} == {onnx.TensorProto.INT8}
    assert {item.data_type for item in kernels if item.dims[1] < 64} == {onnx.TensorProto.FLOAT16}


@pytest.mark.slow
def test_embeddings_are_nearly_the_same(model: Path, quantized: Path) -> None:
    network, encoder = load_onnx_network(quantized, num_threads=1), SpeakerEncoder(model)
    for speaker in range(4, 8):
        waveform = synthetic_speech(speaker, 1, 3.0)
        speech = Recording(waveform).speech
        assert network(speech) @ encoder.embed_waveform(waveform) > 0.97


def test_the_file_says_what_the_model_says(model: Path, quantized: Path) -> None:
    assert read_header(quantized).model_id == read_header(model).model_id
    assert read_header(quantized).calibration == read_header(model).calibration


def test_network_without_large_convolutions(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "tiny.keras")
    with pytest.raises(ModelError, match=r"tiny\.keras: no convolution has 64 input channels"):
        write_quantized_onnx(model, tmp_path / "tiny.int8.onnx", SPEECH)
    assert not (tmp_path / "tiny.int8.onnx").exists()


@pytest.mark.slow
def test_export_takes_the_ranges_from_the_list(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = []
    for number in range(4):
        path = write_wav(Path(f"{number}.wav"), synthetic_speech(number // 2, number, 3.0))
        rows.append(f"{path}\t{number // 2}\n")
    Path("list.txt").write_text("".join(rows))
    # Random weights feel rounding more than trained ones.
    lenient = replace(FORMATS["onnx_int8"], least_cosine=0.8)
    monkeypatch.setitem(FORMATS, "onnx_int8", lenient)
    options = [f"--model_path={model}", "--output_dir=out", "--formats", "onnx_int8"]
    assert export.main([*options, "--list_path=list.txt"]) == 0
    assert re.search(r"out/wide\.int8\.onnx: .*, EER \d", capsys.readouterr().out)
    assert Path("out/wide.int8.onnx").is_file()


@pytest.mark.slow
def test_shipped_file_is_nearly_the_shipped_model(root: Path) -> None:
    paths = [root / "models" / f"resnet34{suffix}" for suffix in (".onnx", ".int8.onnx")]
    assert read_header(paths[0]).model_id == read_header(paths[1]).model_id
    encoders = [SpeakerEncoder(path) for path in paths]
    recordings = sorted((root / "audio").glob("*.wav"))
    exact, fast = (
        np.stack([encoder.embed_file(path) for path in recordings]) for encoder in encoders
    )
    assert (exact * fast).sum(axis=1).min() > 0.99
    np.testing.assert_allclose(fast @ fast.T, exact @ exact.T, atol=0.05)
