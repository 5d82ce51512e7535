import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.support.synthetic_voices import synthetic_speech, write_wav
from tests.support.tiny_model import write_tiny_model
from utils.audio.spectrogram import CROP_SAMPLES
from utils.errors import AudioError, DataListError, ModelError, VoiceprintError
from utils.export import formats as export_formats
from utils.export.formats import (
    DEFAULT_FORMATS,
    FORMATS,
    Comparison,
    check_model_path,
    describe,
    find_recordings,
)
from utils.model.archive import METADATA_NAME
from utils.model.header import read_header
from utils.model.keras import load_keras_network

pytestmark = pytest.mark.slow

LENGTHS = [1, 161, 16000, CROP_SAMPLES - 1, CROP_SAMPLES, CROP_SAMPLES + 1, 50321, 160000]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(
        tmp_path_factory.mktemp("model") / "tiny.keras", training={"secret": "folder"}
    )


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two clips of each of two speakers."""
    folder = tmp_path_factory.mktemp("recordings")
    return [
        str(write_wav(folder / f"{speaker}_{clip}.wav", synthetic_speech(speaker, clip, 3.0)))
        for speaker in range(2)
        for clip in range(2)
    ]


@pytest.fixture(scope="module")
def comparison(model: Path, recordings: list[str]) -> Comparison:
    labels = {path: int(Path(path).name[0]) for path in recordings}
    return Comparison(str(model), recordings, labels)


@pytest.fixture(scope="module")
def exported(
    comparison: Comparison, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, export_formats.Result]:
    folder = tmp_path_factory.mktemp("exported")
    return {name: comparison.export(name, folder) for name in DEFAULT_FORMATS}


@pytest.fixture
def replaced(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replaces the writer or the loader of ONNX."""

    def replace(**changes: Any) -> None:
        form = export_formats.replace(FORMATS["onnx"], **changes)
        monkeypatch.setitem(FORMATS, "onnx", form)

    return replace


def read_metadata(name: str, path: Path) -> Any:
    """Reads it as docs/deploy.md says."""
    if name == "onnx":
        (entry,) = onnx.load(path).metadata_props
        assert entry.key == METADATA_NAME
        return json.loads(entry.value)
    if name == "savedmodel":
        return json.loads((path / METADATA_NAME).read_text(encoding="utf-8"))
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(METADATA_NAME))


def tflite_model(path: Path) -> Any:
    from tensorflow.lite.tools import flatbuffer_utils

    return flatbuffer_utils.convert_bytearray_to_object(path.read_bytes())


def quantised_weights(path: Path) -> int:
    from tensorflow.lite.python import schema_py_generated as schema

    tensors = tflite_model(path).subgraphs[0].tensors
    return sum(tensor.type == schema.TensorType.INT8 for tensor in tensors)


# --- What is written ------------------------------------------------------------------------------


def test_files_are_named_after_the_model(exported: dict[str, export_formats.Result]) -> None:
    (folder,) = {result.path.parent for result in exported.values()}
    names = {name: result.path.name for name, result in exported.items()}
    assert names == {
        "onnx": "tiny.onnx",
        "tflite_float16": "tiny_float16.tflite",
        "tflite_int8": "tiny_int8.tflite",
        "savedmodel": "tiny_savedmodel",
    }
    assert sorted(path.name for path in folder.iterdir()) == sorted(names.values())


@pytest.mark.parametrize("name", DEFAULT_FORMATS)
def test_format_gives_the_embedding_of_the_original(
    name: str, model: Path, exported: dict[str, export_formats.Result]
) -> None:
    result = exported[name]
    assert result.cosine >= FORMATS[name].least_cosine
    embed, original = FORMATS[name].load(result.path, 1), load_keras_network(model, 1)
    noise = np.random.default_rng(0).normal(0, 0.1, max(LENGTHS)).astype(np.float32)
    for length in LENGTHS:
        embedding = embed(noise[:length])
        assert embedding.shape == (16,) and embedding.dtype == np.float32
        assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-4)
        assert float(embedding @ original(noise[:length])) >= 0.9999, length


@pytest.mark.parametrize("name", DEFAULT_FORMATS)
def test_weak_frequencies_beside_strong_ones_survive(
    name: str, model: Path, exported: dict[str, export_formats.Result]
) -> None:
    # A window rounded to 16 bits leaks 66 dB below the tone, far above this noise.
    time_s = np.arange(CROP_SAMPLES) / 16000
    noise = np.random.default_rng(0).normal(0, 1e-5, CROP_SAMPLES)
    waveform = (0.5 * np.sin(2 * np.pi * 440 * time_s) + noise).astype(np.float32)
    embed, original = (
        FORMATS[name].load(exported[name].path, 1),
        load_keras_network(model, 1),
    )
    assert float(embed(waveform) @ original(waveform)) >= 0.99995


@pytest.mark.parametrize("name", DEFAULT_FORMATS)
def test_metadata_travel_along(
    name: str, model: Path, exported: dict[str, export_formats.Result]
) -> None:
    metadata = read_metadata(name, exported[name].path)
    assert metadata["model_id"] == read_header(model).model_id
    assert (metadata["threshold"], metadata["strict_threshold"]) == (0.5, 0.7)
    assert metadata["calibration"] == {"slope": 10.0, "offset": -5.0}
    assert metadata["embedding_size"] == 16
    assert "training" not in metadata


@pytest.mark.parametrize("name", ["tflite_float16", "tflite_int8"])
def test_tflite_has_built_in_operators_only(
    name: str, exported: dict[str, export_formats.Result]
) -> None:
    codes = tflite_model(exported[name].path).operatorCodes
    assert len(codes) > 10
    assert [code.customCode for code in codes if code.customCode] == []


def test_int8_quantises_large_layers_only(
    model: Path,
    exported: dict[str, export_formats.Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from utils.export import tensorflow as export_tensorflow

    path = tmp_path / "model.tflite"
    assert quantised_weights(exported["tflite_int8"].path) == 0  # nothing is large in this one
    monkeypatch.setitem(export_tensorflow.EXACT_WEIGHTS, "FULLY_CONNECTED", 0)
    export_tensorflow.write_tflite(model, path, "int8")
    assert quantised_weights(path) == 3  # two layers of the attention, and the projection


def test_kind_of_tflite_is_checked(model: Path, tmp_path: Path) -> None:
    from utils.export.tensorflow import write_tflite

    with pytest.raises(ValueError, match="kind is 'int4', expected one of float16, int8"):
        write_tflite(model, tmp_path / "model.tflite", "int4")


def test_other_backend_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    from utils.export.tensorflow import write_saved_model

    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ModelError, match=r"Keras runs on jax, expected TensorFlow.*KERAS_BACKEND"):
        write_saved_model(model, tmp_path / "model")


# --- The comparison -------------------------------------------------------------------------------


def test_result_is_told_in_a_line(exported: dict[str, export_formats.Result]) -> None:
    result = exported["onnx"]
    assert result.num_bytes == result.path.stat().st_size
    assert exported["savedmodel"].num_bytes > 1e5
    line = describe(
        export_formats.Result(Path("a/m.onnx"), 13_931_451, 0.99999, 0.0384, 0.0385), num_threads=1
    )
    assert line == (
        "a/m.onnx: 13.9 MB, worst cosine 0.999990, 3 s in 38 ms on 1 thread, EER 3.850 %"
    )
    line = describe(export_formats.Result(Path("m"), 0, 1.0, 1.0, None), num_threads=2)
    assert line == "m: 0.0 MB, worst cosine 1.000000, 3 s in 1000 ms on 2 threads"


def test_formats_have_the_error_rate_of_the_original(
    comparison: Comparison, exported: dict[str, export_formats.Result]
) -> None:
    assert comparison.result.cosine == pytest.approx(1)
    eers = {name: result.eer for name, result in exported.items()}
    assert comparison.result.eer is not None
    assert eers == pytest.approx(dict.fromkeys(DEFAULT_FORMATS, comparison.result.eer), abs=1e-3)


def test_file_that_differs_is_not_kept(
    comparison: Comparison, tmp_path: Path, replaced: Callable[..., None]
) -> None:
    other = write_tiny_model(tmp_path / "other.keras")
    _spoil(other)
    replaced(write=lambda model_path, path, paths: export_formats.write_onnx(other, path))
    (tmp_path / "tiny.onnx").write_bytes(b"the older one")
    with pytest.raises(ModelError, match=r"onnx: .* cosine of -?0\.\d+ to .*at least 0\.9999"):
        comparison.export("onnx", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.keras", "tiny.onnx"]
    assert (tmp_path / "tiny.onnx").read_bytes() == b"the older one"


def _spoil(path: Path) -> None:
    """Turns the last weights of a model file about."""
    from utils.model.archive import load_network, write_model
    from utils.model.header import read_header

    network = load_network(path)
    projection = network.get_layer("projection")
    kernel, bias = projection.get_weights()
    projection.set_weights([kernel[:, ::-1], bias])
    write_model(path, network, read_header(path).metadata)


def test_embedding_that_is_no_number_is_not_kept(
    comparison: Comparison, tmp_path: Path, replaced: Callable[..., None]
) -> None:
    replaced(load=lambda path, num_threads: lambda waveform: np.full(16, np.nan, np.float32))
    with pytest.raises(ModelError, match="cosine of nan"):
        comparison.export("onnx", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_missing_package_is_named(
    comparison: Comparison, tmp_path: Path, replaced: Callable[..., None]
) -> None:
    def write(model_path: str, path: Path, paths: list[str]) -> None:
        raise ImportError("No module named 'onnx'", name="onnx")

    replaced(write=write)
    with pytest.raises(VoiceprintError, match="package onnx is missing, expected it for onnx"):
        comparison.export("onnx", tmp_path)


def test_full_disk_is_told(
    comparison: Comparison, tmp_path: Path, replaced: Callable[..., None]
) -> None:
    def write(model_path: str, path: Path, paths: list[str]) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    replaced(write=write)
    with pytest.raises(VoiceprintError, match=r"tiny\.onnx: can't be written \(No space left"):
        comparison.export("onnx", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unusable_recordings_are_named_and_left_out(
    model: Path, recordings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    speech = np.pad(synthetic_speech(0, 0, 0.1), 16000)
    brief = str(write_wav(tmp_path / "brief.wav", speech))
    missing = str(tmp_path / "missing.wav")
    Comparison(str(model), [brief, recordings[0], missing])
    errors = capsys.readouterr().err
    assert "left out 2 of 3 clips" in errors
    assert re.search(r"brief\.wav: 0\.[1-3]\d s of speech found, expected at least 0\.40 s", errors)
    with pytest.raises(AudioError, match="none of the 2 clips can be used"):
        Comparison(str(model), [brief, missing])


def test_usable_recordings_must_make_trials(
    model: Path, recordings: list[str], tmp_path: Path
) -> None:
    missing = str(tmp_path / "missing.wav")
    labels = {recordings[0]: 0, recordings[1]: 0, missing: 1}
    with pytest.raises(DataListError, match="2 clips of 1 speakers, expected two speakers or more"):
        Comparison(str(model), list(labels), labels)


# --- The folder of a SavedModel -------------------------------------------------------------------


def test_older_saved_model_is_replaced_whole(comparison: Comparison, tmp_path: Path) -> None:
    path = comparison.export("savedmodel", tmp_path).path
    (path / "left over").write_text("of the older one")
    comparison.export("savedmodel", tmp_path)
    assert not (path / "left over").exists()
    assert [item.name for item in tmp_path.iterdir()] == ["tiny_savedmodel"]


def test_folder_of_something_else_is_not_replaced(comparison: Comparison, tmp_path: Path) -> None:
    mine = tmp_path / "tiny_savedmodel" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("text")
    with pytest.raises(VoiceprintError, match="is there already and not a SavedModel of export"):
        comparison.export("savedmodel", tmp_path)
    assert mine.read_text() == "text"


def test_failure_leaves_the_older_saved_model(tmp_path: Path) -> None:
    path = tmp_path / "model"

    def write(text: str, fails: bool = False) -> None:
        with export_formats._atomic_folder(path) as folder:
            for name in (export_formats.SAVED_MODEL_FILE, METADATA_NAME):
                (folder / name).write_text(text)
            if fails:
                raise OSError("disk full")

    write("old")
    with pytest.raises(OSError, match="disk full"):
        write("new", fails=True)
    assert (path / METADATA_NAME).read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# --- What is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["onnx", "tflite_int8", "savedmodel"])
def test_exported_model_is_not_exported_again(
    name: str, exported: dict[str, export_formats.Result]
) -> None:
    with pytest.raises(ModelError, match=r"received a .* file, expected the \.keras file"):
        check_model_path(str(exported[name].path))


def test_missing_and_damaged_models_are_told(model: Path, tmp_path: Path) -> None:
    check_model_path(str(model))
    with pytest.raises(ModelError, match="no such model file"):
        check_model_path(str(tmp_path / "missing.keras"))
    damaged = tmp_path / "damaged.keras"
    damaged.write_bytes(model.read_bytes()[:2000])
    with pytest.raises(ModelError, match="damaged or incomplete"):
        check_model_path(str(damaged))


def test_recordings_are_those_of_the_folder_or_of_the_list(tmp_path: Path) -> None:
    for name in ("b.wav", "a.wav", "README.md"):
        (tmp_path / name).write_text("")
    paths, labels = find_recordings(None, str(tmp_path))
    assert [Path(path).name for path in paths] == ["a.wav", "b.wav"]
    assert labels is None
    data_list = tmp_path / "list.txt"
    data_list.write_text("x.wav\t0\ny.wav\t0\nz.wav\t1\n")
    paths, labels = find_recordings(str(data_list))
    assert paths == ["x.wav", "y.wav", "z.wav"]
    assert labels == {"x.wav": 0, "y.wav": 0, "z.wav": 1}


def test_folder_without_recordings_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataListError, match=r"no \.wav files to compare with"):
        find_recordings(None, str(tmp_path))


@pytest.mark.parametrize("lines", ["x.wav\t0\ny.wav\t0\n", "x.wav\t0\ny.wav\t1\n"])
def test_list_without_trials_is_told(lines: str, tmp_path: Path) -> None:
    data_list = tmp_path / "list.txt"
    data_list.write_text(lines)
    with pytest.raises(DataListError, match="expected two speakers or more"):
        find_recordings(str(data_list))
