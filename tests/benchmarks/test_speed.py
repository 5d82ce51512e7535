"""The benchmarks of speed at a small size: they print their tables, and the ratios are right.

Children that only the baseline's way needs, with TensorFlow, are stood in for: `baseline` itself is
tested in this process.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import (
    baseline,
    comparison,
    create_data,
    embedding,
    input_pipeline,
    measuring,
    memory,
    peers,
    scoring,
    training_step,
)
from benchmarks.measuring import Run
from tests.support.synthetic_voices import synthetic_speech, write_wav
from tests.support.tiny_model import write_tiny_model
from utils.errors import AudioError, ModelError
from utils.export.onnx import write_onnx

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    write_onnx(write_tiny_model(folder / "tiny.keras"), folder / "tiny.onnx")
    return str(folder / "tiny.onnx")


def is_stood_in(command: Sequence[Any]) -> bool:
    words = " ".join(map(str, command))
    return "baseline.py" in words or ".keras" in words or "--side=spectrogram" in words


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children that need TensorFlow take 2 s, 200 MB and 0.2 s a file, and read 10 clips/s."""
    real_run, real_json = measuring.run_command, measuring.run_json

    def run_command(command: Sequence[Any], *rest: Any) -> Run:
        return Run(2.0, 200.0, "") if is_stood_in(command) else real_run(command, *rest)

    def run_json(command: Sequence[Any], *rest: Any) -> Any:
        if not is_stood_in(command):
            return real_json(command, *rest)
        return [0.2, 0.2] if {"embed", "one"} & {str(word) for word in command} else 10.0

    for module in (comparison, embedding, input_pipeline):
        for name, function in (("run_command", run_command), ("run_json", run_json)):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, function)


def results(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def number(text: str) -> float:
    return float(text.split(":")[-1].split()[0].replace(",", "").rstrip("x"))


def check_ratios(path: Path, tolerance: float = 0.15) -> list[list[str]]:
    """Checks every row whose ratio is "12x" against its two figures; returns the rows."""
    rows: list[list[str]] = results(path)["overview"]
    assert rows
    for what, theirs, ours, ratio, target in rows:
        assert what
        assert target or "one embedding" in what
        if ratio.endswith("x"):
            left, right = number(theirs), number(ours)
            assert right > 0, (what, ours)
            assert min(
                abs(left / right / number(ratio) - 1), abs(right / left / number(ratio) - 1)
            ) < (tolerance), (what, theirs, ours, ratio)
    return rows


def test_comparison(
    tiny_onnx: str, tmp_path: Path, stand_in: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    options = ["--repeats", "1", "--model_path", tiny_onnx, "--peers", "/no/python"]
    options += ["--campplus", str(tmp_path / "none.onnx")]
    assert comparison.main([*options, "--json", str(out)]) == 0
    text = capsys.readouterr().out
    assert "| the baseline's way | 2.00 | 1.0 | 200 |" in text
    assert "Resemblyzer 0.1.4 (PyTorch) is left out: /no/python cannot be started" in text
    rows = check_ratios(out)
    assert [row[0] for row in rows] == [
        "comparison of two files, shell start to answer", "peak memory of it",
    ]  # fmt: skip
    assert len(results(out)["missing"]) == len(peers.TITLES)


def test_embedding(
    tiny_onnx: str, tmp_path: Path, stand_in: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    options = ["--num_files", "6", "--baseline_files", "2", "--one_files", "4", "--rounds", "1"]
    options += ["--model_path", tiny_onnx, "--peers", "/no/python", "--json", str(out)]
    options += ["--campplus", str(tmp_path / "none.onnx")]
    assert embedding.main([*options, "--int8_model", "none.onnx"]) == 0
    text = capsys.readouterr().out
    assert "| the baseline's way | 200.0 | 1.0 |" in text
    assert "| the baseline's way | 5.0 | 1.0 |" in text
    rows = check_ratios(out)
    assert rows[0][:2] == ["one embedding of 3 s, one core", "the baseline's way: 200 ms"]
    assert rows[-1][1] == "the baseline's way: 5.0 files/s"
    assert embedding.main([*options, "--int8_model", tiny_onnx]) == 0
    assert "| embed_files, in 8 bits |" in capsys.readouterr().out
    rows = check_ratios(out)
    assert [row[0].split(",")[0] for row in rows[-2:]] == [
        "one embedding of 3 s in 8 bits", "many files in 8 bits",
    ]  # fmt: skip


def test_embedding_of_own_recordings(tmp_path: Path) -> None:
    for name, seconds in (("a/1.wav", 4.0), ("b/2.wav", 2.0), ("c/3.wav", 3.0)):
        write_wav(tmp_path / "speech" / name, synthetic_speech(0, 0, seconds))
    args = argparse.Namespace(audio_dir=str(tmp_path / "speech"), num_files=2)
    embedding.make_clips(tmp_path / "clips", args)
    assert len(list((tmp_path / "clips").iterdir())) == 2
    args.num_files = 3
    with pytest.raises(AudioError, match="2 recordings of 3 s found, expected 3"):
        embedding.make_clips(tmp_path / "more", args)


def test_input_pipeline(tmp_path: Path, stand_in: None, capsys: pytest.CaptureFixture[str]) -> None:
    write_wav(tmp_path / "speech" / "1.wav", synthetic_speech(0, 0, 3.0))
    write_wav(tmp_path / "speech" / "2.wav", synthetic_speech(1, 0, 5.0))
    out = tmp_path / "out.json"
    options = ["--audio_dir", str(tmp_path / "speech"), "--num_clips", "4", "--batch_size", "2"]
    options += ["--num_batches", "2", "--num_workers", "1", "--json", str(out)]
    assert input_pipeline.main(options) == 0
    assert "| the baseline's way | flac | 10 | 1.0 |" in capsys.readouterr().out
    rows = check_ratios(out, 0.3)
    assert [row[0].split(",")[1] for row in rows] == [" wav", " flac"]
    assert "An H100 trains on 13,000" in results(out)["details"]
    with pytest.raises(AudioError, match="no recordings found"):
        input_pipeline.main(["--audio_dir", str(out.parent / "speech" / "none")])


def test_spectrogram_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 1.0, 3.0, 4.0])
    monkeypatch.setattr(input_pipeline.time, "perf_counter", lambda: next(ticks))
    args = argparse.Namespace(batch_size=2)
    assert input_pipeline.measure_spectrogram(args) == 2 / 4.0


def test_training_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    curves: list[training_step.Curve] = []
    measure = training_step.measure

    def remember(name: str, args: argparse.Namespace) -> Any:
        curves.extend(measure(name, args))
        return tuple(curves)

    monkeypatch.setattr(training_step, "measure", remember)
    monkeypatch.setattr(training_step, "PEAK_SIZE", 64)
    out = tmp_path / "out.json"
    options = ["--networks", "ours", "--widths", "4", "4", "4", "4", "--num_blocks", "1", "1", "1"]
    options += ["1", "--batch_size", "4", "--crop_frames", "33", "--steps", "4"]
    assert training_step.main([*options, "--json", str(out)]) == 0
    rows = results(out)["overview"]
    assert rows[0][0] == "training step, this project's network, batch of 4"
    text = capsys.readouterr().out
    assert "Losses of this project's network over 4 steps" in text
    assert "GFLOP/s in float32" in text
    assert "our fastest step is" in text
    stock, ours = curves
    assert number(rows[0][3]) == round(stock.step_s / ours.step_s, 1)
    assert len(stock.losses) == len(ours.losses) == len(ours.seconds) == 4
    assert np.max(np.abs(np.subtract(stock.losses, ours.losses))) < 0.2
    # Another batch has another loss: the sides do not agree by standing still.
    assert np.ptp(stock.losses) > 0.01


def test_stages_are_those_of_the_network() -> None:
    import keras

    from utils.resnet import build_resnet34

    args = training_step.parse_args(["--widths", "1", "2", "3", "4"])
    found: dict[tuple[int, int], int] = {}
    for layer in build_resnet34(2, (1, 2, 3, 4)).layers:
        if not isinstance(layer, keras.layers.Conv2D):
            continue
        if layer.kernel_size == (3, 3) and layer.strides == (1, 1):
            key = layer.output.shape[1], layer.filters
            found[key] = found.get(key, 0) + 1
    stages = training_step.stages(args)
    assert {(height, channels): count for height, _, channels, count in stages} == found
    assert [width for _, width, _, _ in stages] == [65, 33, 17, 17]


def test_seed_batch_is_the_same_batch() -> None:
    waveforms, speakers = training_step.make_voices()
    rng = np.random.default_rng(0)
    inputs, targets = training_step.make_batch(waveforms, speakers, 3, 5120, rng)
    features, labels = training_step.baseline_batch(inputs, targets)
    assert features.shape == (3, 257, 33, 1)
    np.testing.assert_array_equal(labels, targets["labels"])


def test_memory(tiny_onnx: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    options = ["--minutes", "2", "--num_files", "20", "--model_path", tiny_onnx]
    assert memory.main([*options, "--json", str(out)]) == 0
    text = capsys.readouterr().out
    assert "| 1 min |" in text
    assert "| 2 min |" in text
    assert "20 files one after the other" in text
    assert [row[0] for row in results(out)["overview"]] == [
        "memory of a recording of 2 min", "memory after 20 files",
    ]  # fmt: skip


def test_thousands_of_files_leave_no_growth(tiny_onnx: str, tmp_path: Path) -> None:
    memory.write_many(tmp_path)
    command = [sys.executable, memory.__file__, "--side=many", "--path", tmp_path]
    command += ["--num_files=1000", "--model_path", tiny_onnx]
    begin, end = measuring.run_json(command)
    # The waveforms of the 900 files in between are 58 MB.
    assert end - begin < 20


def test_large_list_is_scored(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    options = ["--only_large", "--large_clips=300", "--dimensions=16", "--json", str(out)]
    assert scoring.main(options) == 0
    assert "300 clips x 16: 44,850 pairs in" in capsys.readouterr().out
    assert results(out)["overview"][0][0] == "pairs, sweep and EER of 300 embeddings"


def test_create_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    assert create_data.main(["--num_clips", "4", "--num_workers", "1", "--json", str(out)]) == 0
    assert "| create_data.py |" in capsys.readouterr().out
    check_ratios(out, 0.5)


def test_the_seeds_network_is_of_the_seeds_size() -> None:
    network = baseline.build_network()
    assert network.count_params() == pytest.approx(7.5e6, rel=0.01)
    assert network.input_shape == (None, 257, None, 1)
    assert [shape[-1] for shape in network.output_shape] == [3242, 512]


def test_the_seeds_features_are_ours(root: Path) -> None:
    from utils.audio.decode import load_audio
    from utils.audio.spectrogram import evaluation_waveform, spectrogram

    path = root / "audio" / "a_1.wav"
    expected = spectrogram(evaluation_waveform(load_audio(path), 80000))[:, :257]
    features = baseline.load_audio(str(path))
    assert features.shape == (257, 257)
    # But for the last frame, where ours has the crop's end within its window.
    np.testing.assert_allclose(features[:, :255], expected[:, :255], atol=2e-3)
    assert baseline.load_audio(str(path), "train").shape == (257, 257)


def test_the_seeds_scripts_run(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        baseline, "STAGES", ((4, 8, 1, 1), (4, 8, 1, 2), (4, 8, 1, 2), (4, 8, 1, 2))
    )
    model = str(tmp_path / "baseline.keras")
    files = [str(root / "audio" / name) for name in ("a_1.wav", "b_2.wav")]
    assert baseline.main(["make", model]) == 0
    assert baseline.main(["compare", model, *files]) == 0
    assert "相似度为：" in capsys.readouterr().out
    assert baseline.main(["embed", model, *files]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2
    assert baseline.main(["read", *files, "--batch_size", "2", "--num_batches", "2"]) == 0
    assert json.loads(capsys.readouterr().out) > 0


def test_peers_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    assert peers.main(["compare", "resemblyzer", "a.wav", "b.wav"]) == 2
    assert capsys.readouterr().err == "the package torch is not installed\n"
    missing = str(tmp_path / "x.onnx")
    assert peers.main(["embed", "campplus_onnx", "a.wav", "--campplus", missing]) == 2
    assert capsys.readouterr().err == f"{missing} is missing: run tools/fetch_campplus.py\n"


def test_peers_read_16_khz_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.model.onnx.load_onnx_network", lambda path, threads: None)
    (tmp_path / "x.onnx").touch()
    path = write_wav(tmp_path / "a.wav", synthetic_speech(0, 0, 1.0), 8000)
    with pytest.raises(ModelError, match="expected 16 kHz mono"):
        peers.load("campplus_onnx", str(tmp_path / "x.onnx"))(str(path))
