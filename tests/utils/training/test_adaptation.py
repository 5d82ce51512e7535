"""The last layer alone learns what the teacher says, and the mean embedding goes."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.synthetic_voices import write_speech_folder
from tests.support.tiny_model import build_tiny_campplus, build_tiny_network, write_tiny_model
from tools import adapt_model, make_teacher
from utils.errors import DataListError, ModelError
from utils.model.encoder import SpeakerEncoder
from utils.training.adaptation import PooledCrops, adapt_last_layer, centred


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_crops(network: object, noise: float) -> PooledCrops:
    """Statistics of eight speakers; the first half of the numbers is disturbed."""
    random = np.random.default_rng(0)
    layer = network.get_layer("projection")
    kernel, bias = np.asarray(layer.kernel), np.asarray(layer.bias)
    labels = np.repeat(np.arange(8), 40)
    clean = random.normal(size=(8, len(kernel)))[labels]
    teachers = unit(clean @ kernel + bias).astype(np.float32)
    clean[:, : len(kernel) // 2] += random.normal(0, noise, (len(clean), len(kernel) // 2))
    return PooledCrops(clean.astype(np.float32), labels, teachers)


def cosine(network: object, crops: PooledCrops) -> float:
    layer = network.get_layer("projection")
    outputs = crops.statistics @ np.asarray(layer.kernel) + np.asarray(layer.bias)
    return float(np.mean(np.sum(unit(outputs) * crops.teachers, axis=1)))


@pytest.mark.slow
def test_disturbed_statistics_lose_their_weight() -> None:
    network = build_tiny_campplus()
    crops = make_crops(network, 3.0)
    others = {w.path: np.asarray(w).copy() for w in network.weights if "projection" not in w.path}
    before = cosine(network, crops)
    adapt_last_layer(network, crops, num_steps=200, penalty=1e-3, share=1.0)
    assert cosine(network, crops) > before + 0.1
    for weight in network.weights:
        if weight.path in others:
            np.testing.assert_array_equal(weight, others[weight.path])


def test_no_share_changes_nothing() -> None:
    network = build_tiny_network()
    crops = make_crops(network, 1.0)
    before = network.get_layer("projection").get_weights()
    adapt_last_layer(network, crops, num_steps=2, share=0.0)
    for old, new in zip(before, network.get_layer("projection").get_weights(), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-6)


@pytest.mark.slow
def test_mean_embedding_is_subtracted() -> None:
    network = build_tiny_campplus()
    crops = make_crops(network, 0.0)
    result = centred(network, crops)
    features = np.random.default_rng(0).normal(size=(3, 80, 50, 1)).astype(np.float32)
    layer = network.get_layer("projection")
    pooled = crops.statistics @ np.asarray(layer.kernel) + np.asarray(layer.bias)
    plain = np.asarray(network(features)[1])
    expected = unit(plain - unit(pooled).mean(axis=0))
    np.testing.assert_allclose(result(features)[1], expected, atol=1e-4)
    assert result.inputs[0].name == "filterbank"
    with pytest.raises(ModelError, match="centred already"):
        centred(result, crops)


def test_another_teacher_is_refused() -> None:
    network = build_tiny_campplus()
    crops = make_crops(network, 0.0)
    crops.teachers = crops.teachers[:, :5]
    with pytest.raises(ModelError, match="vectors have 5 numbers, the embedding 16"):
        adapt_last_layer(network, crops)


@pytest.mark.slow
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write_speech_folder(tmp_path / "speech", num_speakers=3, num_utterances=2)
    data_list = tmp_path / "list.txt"
    data_list.write_text("".join(f"{path.as_posix()}\t{label}\n" for path, label in files))
    model = write_tiny_model(
        tmp_path / "tiny.keras", network=build_tiny_campplus(), architecture="campplus"
    )
    teacher, output = tmp_path / "teacher.npz", tmp_path / "adapted.keras"
    make_teacher.main([str(data_list), "--model_path", str(model), "--output", str(teacher)])
    options = ["--train_list_path", str(data_list), "--num_crops", "6", "--num_clean", "3"]
    options += ["--num_steps", "2", "--output", str(output)]
    assert adapt_model.main([str(model), "--teacher", str(teacher), *options]) == 0
    assert "adapted on 9 crops" in capsys.readouterr().out
    encoder = SpeakerEncoder(output)
    assert not encoder.is_calibrated
    assert encoder.embed_file(files[0][0]).shape == (16,)
    data_list.write_text("nowhere.wav\t0\n")
    with pytest.raises(DataListError, match="knows none of 1 utterances"):
        adapt_model.main([str(model), "--teacher", str(teacher), *options])
