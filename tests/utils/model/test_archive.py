import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.synthetic_voices import synthetic_speech
from tests.support.tiny_model import CALIBRATION, build_tiny_network, write_tiny_model
from utils.audio.spectrogram import spectrogram
from utils.errors import ModelError
from utils.model.archive import (
    FEATURES,
    METADATA_NAME,
    NEW_KEYS,
    STATE_NAME,
    load_network,
    read_training_state,
    update_metadata,
    write_model,
)
from utils.model.header import read_header


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny calibrated model. Shared: only read it."""
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.keras")


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    path = tmp_path / "copy.keras"
    path.write_bytes(model.read_bytes())
    return path


def embed(path: Path, speaker: int = 0) -> np.ndarray:
    features = spectrogram(synthetic_speech(speaker, 0, 3.0))[None, ..., None]
    return np.asarray(load_network(path)(features)[1])[0]


def replace_member(path: Path, name: str, data: bytes | None) -> None:
    """Writes an archive anew with one member changed, or without it."""
    with zipfile.ZipFile(path) as archive:
        members = {item: archive.read(item) for item in archive.namelist()}
    members.pop(name, None)
    if data is not None:
        members[name] = data
    with zipfile.ZipFile(path, "w") as archive:
        for item, content in members.items():
            archive.writestr(item, content)


def test_metadata_tell_all_that_is_needed(model: Path) -> None:
    metadata = read_header(model).metadata
    assert metadata["features"] == FEATURES["spectrogram"]
    assert metadata["features"]["sample_rate"] == 16000
    assert metadata["embedding_size"] == 16
    assert metadata["num_classes"] == 3
    assert metadata["versions"].keys() == {"keras", "python"}
    assert metadata["format"] == 1
    assert read_header(model).calibration.to_dict() == CALIBRATION


def test_metadata_are_read_without_any_framework(model: Path, root: Path) -> None:
    code = (
        "import sys; from utils.model.header import read_header; "
        "assert read_header(sys.argv[1]).calibration; "
        "assert not {'keras', 'tensorflow', 'h5py'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, model], cwd=root, check=True, timeout=60)


@pytest.mark.slow
def test_network_comes_back(model: Path) -> None:
    features = spectrogram(synthetic_speech(0, 0, 3.0))[None, ..., None]
    expected = np.asarray(build_tiny_network()(features)[1])[0]
    np.testing.assert_allclose(embed(model), expected, atol=1e-6)


@pytest.mark.slow
def test_half_precision_halves_the_file_and_hardly_moves_scores(
    model: Path, tmp_path: Path
) -> None:
    half = tmp_path / "half.keras"
    write_model(half, build_tiny_network(), {"embedding_size": 16}, half_precision=True)
    sizes = []
    for path in (model, half):
        with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as file:
            import h5py

            sizes.append(0)
            with h5py.File(io.BytesIO(file.read())) as weights:

                def add(name: str, item: Any) -> None:
                    sizes[-1] += getattr(item, "nbytes", 0)

                weights.visititems(add)
    assert sizes[1] < 0.51 * sizes[0]
    exact = embed(model), embed(model, 1)
    rounded = embed(half), embed(half, 1)
    assert rounded[0] @ rounded[1] == pytest.approx(exact[0] @ exact[1], abs=1e-3)
    np.testing.assert_allclose(rounded, exact, atol=2e-3)


def test_training_state_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.keras"
    state = {"variable_0": np.arange(3.0), "progress": np.array("{}")}
    write_model(path, build_tiny_network(), {"embedding_size": 16}, state)
    found = read_training_state(path)
    assert found.keys() == state.keys()
    np.testing.assert_array_equal(found["variable_0"], state["variable_0"])
    assert str(found["progress"]) == "{}"


def test_model_id_is_the_content_s_and_survives_new_metadata(copy: Path, model: Path) -> None:
    assert read_header(copy).model_id == read_header(model).model_id
    update_metadata(copy, {"note": "changed"})
    # Voiceprints that were enrolled with the model stay valid.
    assert read_header(copy).metadata["note"] == "changed"
    assert read_header(copy).model_id == read_header(model).model_id
    write_tiny_model(copy, note="changed")
    assert read_header(copy).model_id != read_header(model).model_id


# --- What is refused, and how it is told ----------------------------------------------------------


@pytest.mark.parametrize("read", [read_header, load_network, read_training_state])
def test_missing_file(read: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.keras: no such model file.*--model_path"):
        read(tmp_path / "none.keras")


def test_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model file"):
        read_header(tmp_path)


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("old.h5", b"\x89HDF\r\n\x1a\n" + bytes(500), r"a \.h5 file, expected a complete \.keras"),
        ("weights.pt", b"anything", r"a \.pt file"),
        ("model.keras", b"", "damaged or incomplete"),
        ("model.keras", b"PK\x03\x04 and no more", "damaged or incomplete"),
    ],
)
def test_other_files(name: str, data: bytes, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ModelError, match=text):
        read_header(path)


def test_half_a_file(copy: Path) -> None:
    data = copy.read_bytes()
    copy.write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match=r"damaged or incomplete.*copy it again"):
        load_network(copy)


def test_other_zip(copy: Path) -> None:
    replace_member(copy, METADATA_NAME, None)
    with pytest.raises(ModelError, match=r"without voiceprint.json, expected a model of this"):
        read_header(copy)


@pytest.mark.parametrize("data", [b"{", b"\xff\xfe", b"[]", b"{}"])
def test_metadata_of_others(copy: Path, data: bytes) -> None:
    replace_member(copy, METADATA_NAME, data)
    with pytest.raises(ModelError, match=r"use one that train.py wrote"):
        read_header(copy)


def test_other_features(copy: Path) -> None:
    metadata = read_header(copy).metadata
    metadata["features"]["hop_length"] = 200
    replace_member(copy, METADATA_NAME, json.dumps(metadata).encode())
    with pytest.raises(ModelError, match=r"made for the features .*200.*train it again"):
        read_header(copy)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("model.weights.h5", None),
        ("model.weights.h5", b"no weights"),
        ("config.json", b"{}"),
        ("config.json", b'{"module": "keras", "class_name": "Nothing", "config": {}}'),
    ],
)
def test_network_that_cannot_be_loaded(copy: Path, name: str, data: bytes | None) -> None:
    replace_member(copy, name, data)
    with pytest.raises(ModelError, match="the network cannot be loaded"):
        load_network(copy)


@pytest.mark.slow
def test_flipped_bytes_never_end_in_a_traceback(copy: Path) -> None:
    data = copy.read_bytes()
    random = np.random.default_rng(0)
    for place in random.integers(0, len(data), 25):
        damaged = bytearray(data)
        damaged[place : place + 64] = random.bytes(64)
        copy.write_bytes(bytes(damaged[: len(data)]))
        # Some bytes change nothing that is read; whatever does is told as a ModelError.
        with contextlib.suppress(ModelError):
            load_network(copy)


def test_finished_model_has_no_training_state(model: Path) -> None:
    with pytest.raises(ModelError, match=r"a finished model without training state.*use --init"):
        read_training_state(model)


def test_damaged_training_state(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.keras"
    state = {"variable_0": np.arange(1000.0)}
    write_model(path, build_tiny_network(), {"embedding_size": 16}, state)
    data = bytearray(path.read_bytes())
    place = data.find(b"variable_0.npy", data.find(STATE_NAME.encode())) + 2000
    data[place : place + 8] = b"\xff" * 8
    path.write_bytes(bytes(data))
    with pytest.raises(ModelError, match="its training state is damaged"):
        read_training_state(path)


def test_model_without_thresholds(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "plain.keras", calibrated=False)
    with pytest.raises(ModelError, match=r"no calibrated threshold.*give --threshold"):
        _ = read_header(path).calibration


def test_damaged_thresholds(copy: Path) -> None:
    update_metadata(copy, {"strict_threshold": "high"})
    with pytest.raises(ModelError, match="'strict_threshold' is 'high', expected a number"):
        _ = read_header(copy).calibration


# --- Files are whole or absent --------------------------------------------------------------------


def test_update_metadata_changes_nothing_else(copy: Path) -> None:
    before, identity = embed(copy), read_header(copy).model_id
    update_metadata(copy, {"threshold": 0.25, "note": "低"})
    assert read_header(copy).model_id == identity  # what was enrolled stays valid
    assert read_header(copy).calibration.threshold == 0.25
    assert read_header(copy).metadata["note"] == "低"
    assert read_header(copy).metadata["num_classes"] == 3
    np.testing.assert_array_equal(embed(copy), before)
    with zipfile.ZipFile(copy) as archive:
        assert archive.testzip() is None
        assert archive.namelist().count(METADATA_NAME) == 1
    assert os.listdir(copy.parent) == [copy.name]  # noqa: PTH208


def test_failed_update_leaves_the_old_file(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = copy.read_bytes()

    def fail(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        update_metadata(copy, {"threshold": 0.25})
    assert copy.read_bytes() == before
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


ENDLESS_WRITER = """
import sys
sys.path.insert(0, ".")
from tests.support.tiny_model import CALIBRATION, build_tiny_network
from utils.model.archive import write_model
network = build_tiny_network()
number = 0
while True:
    number += 1
    metadata = {"embedding_size": 16, "number": number, **CALIBRATION}
    write_model(sys.argv[1], network, metadata, {"number": network.layers[3].get_weights()[0]})
    print(number, flush=True)
"""


@pytest.mark.slow
def test_a_kill_while_writing_leaves_a_whole_file(tmp_path: Path, root: Path) -> None:
    path = tmp_path / "checkpoint.keras"
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS_WRITER, path], cwd=root, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        written = int(process.stdout.readline())
        seen = 0
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            # A reader never meets a half-written file either.
            seen = read_header(path).metadata["number"]
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
    last_told = int(rest[-1]) if rest else written
    assert read_header(path).metadata["number"] in (last_told, last_told + 1)
    assert read_header(path).metadata["number"] >= seen
    assert load_network(path).output_shape[1] == (None, 16)
    assert read_training_state(path).keys() == {"number"}


@pytest.mark.parametrize("shipped", [False, True])
def test_older_keras_knows_every_setting_of_a_layer(shipped: bool, model: Path, root: Path) -> None:
    with zipfile.ZipFile(root / "models" / "resnet34.keras" if shipped else model) as archive:
        config = archive.read("config.json").decode()
    assert [name for name in NEW_KEYS if f'"{name}"' in config] == []
