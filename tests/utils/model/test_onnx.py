import builtins
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.synthetic_voices import synthetic_speech
from tests.support.tiny_model import write_tiny_model
from utils.errors import ModelError
from utils.export.onnx import write_onnx
from utils.model.archive import load_network, read_training_state, update_metadata
from utils.model.encoder import SpeakerEncoder
from utils.model.header import read_header
from utils.model.onnx import load_onnx_network, read_onnx_metadata


@pytest.fixture(scope="module")
def onnx_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_onnx(write_tiny_model(folder / "tiny.keras"), folder / "tiny.onnx")
    return folder / "tiny.onnx"


def test_metadata_is_what_onnx_runtime_reads(onnx_model: Path) -> None:
    import json

    import onnxruntime

    session = onnxruntime.InferenceSession(str(onnx_model), providers=["CPUExecutionProvider"])
    texts = session.get_modelmeta().custom_metadata_map
    assert read_onnx_metadata(onnx_model) == json.loads(texts["voiceprint.json"])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_file(onnx_model: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = onnx_model.read_bytes()
    cut = content[: data.draw(st.integers(0, len(content) - 1))]
    garbage = data.draw(st.binary(max_size=40))
    path = tmp_path / "damaged.onnx"
    path.write_bytes(data.draw(st.sampled_from([cut, garbage, garbage + cut])))
    with pytest.raises(ModelError, match=r"damaged\.onnx: "):
        SpeakerEncoder(path)


def test_onnx_file_of_another_tool(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    node = helper.make_node("Relu", ["x"], ["y"])
    model = helper.make_model(helper.make_graph([node], "other", values[:1], values[1:]))
    (tmp_path / "other.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"other\.onnx: an ONNX file without voiceprint\.json"):
        SpeakerEncoder(tmp_path / "other.onnx")


def test_network_that_cannot_be_run(tmp_path: Path, onnx_model: Path) -> None:
    import onnx

    model = onnx.load(onnx_model)
    model.graph.node[0].op_type = "Shapeless"
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"m\.onnx: the network cannot be loaded"):
        SpeakerEncoder(tmp_path / "m.onnx")


def test_new_thresholds_leave_network_and_identity(onnx_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx_model.read_bytes())
    before = read_header(path)
    waveform = synthetic_speech(0, 0, 1.0)
    embedding = load_onnx_network(path, num_threads=1)(waveform)
    for note in ("低", "x" * 100_000, "short again"):
        update_metadata(path, {"threshold": 0.25, "note": note})
        header = read_header(path)
        assert header.metadata == {**before.metadata, "threshold": 0.25, "note": note}
        assert header.model_id == before.model_id
        np.testing.assert_array_equal(load_onnx_network(path, num_threads=1)(waveform), embedding)
    assert path.stat().st_size == pytest.approx(onnx_model.stat().st_size, abs=100)
    update_metadata(path, before.metadata)
    assert read_onnx_metadata(path) == {**before.metadata, "note": "short again"}
    assert list(tmp_path.iterdir()) == [path]


def test_without_onnx_runtime(onnx_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Mapping[str, Any]) -> Any:
        if name == "onnxruntime":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ModelError, match="the package onnxruntime is missing"):
        load_onnx_network(onnx_model, num_threads=1)


@pytest.mark.parametrize("use", [load_network, read_training_state])
def test_what_only_a_keras_file_can(onnx_model: Path, use: Any) -> None:
    with pytest.raises(ModelError, match=r"an \.onnx file, which can only be run"):
        use(onnx_model)


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_the_same_again_and_with_any_number_of_threads(onnx_model: Path, num_threads: int) -> None:
    waveform = synthetic_speech(0, 0, 3.0)
    network = load_onnx_network(onnx_model, num_threads)
    first = network(waveform)
    for _ in range(3):
        np.testing.assert_array_equal(network(waveform), first)
    # Sums are split differently among other numbers of threads.
    single = load_onnx_network(onnx_model, num_threads=1)(waveform)
    np.testing.assert_allclose(first, single, atol=1e-5)


def test_neither_tensorflow_nor_librosa_is_imported(onnx_model: Path, root: Path) -> None:
    code = (
        "import sys\n"
        "from utils.model.encoder import SpeakerEncoder\n"
        f"SpeakerEncoder({str(onnx_model)!r}).embed_file('audio/a_1.wav')\n"
        "heavy = {'tensorflow', 'keras', 'librosa', 'jax', 'scipy', 'onnx', 'h5py'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


# --- Which file the scripts use -------------------------------------------------------------------


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onnx_model: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def test_missing_default_is_told_by_its_name(models: Path) -> None:
    with pytest.raises(ModelError, match=r"models/campplus\.onnx: no such model file"):
        SpeakerEncoder()


def test_default_is_onnx(models: Path, onnx_model: Path) -> None:
    (models / "resnet34.onnx").write_bytes(onnx_model.read_bytes())
    assert read_header().path == "models/resnet34.onnx"
    (models / "resnet34.keras").write_bytes(onnx_model.with_suffix(".keras").read_bytes())
    assert read_header().path == "models/resnet34.onnx"
    assert SpeakerEncoder().model_path == "models/resnet34.onnx"


def test_default_is_keras_if_the_onnx_file_is_of_another_model(
    models: Path, onnx_model: Path
) -> None:
    (models / "resnet34.onnx").write_bytes(onnx_model.read_bytes())
    write_tiny_model(models / "resnet34.keras", threshold=0.6)
    assert (
        read_header(models / "resnet34.keras").model_id
        != read_header(models / "resnet34.onnx").model_id
    )
    assert read_header().path == "models/resnet34.keras"


def test_a_damaged_default_is_told(models: Path, onnx_model: Path) -> None:
    write_tiny_model(models / "resnet34.keras")
    (models / "resnet34.onnx").write_bytes(onnx_model.read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"resnet34\.onnx: damaged"):
        read_header()
