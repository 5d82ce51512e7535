"""From checkpoints to a model: averaging, speed classes, whitening, thresholds, one-line errors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.synthetic_voices import write_speech_folder, write_wav
from tests.support.tiny_model import SHAPE, build_tiny_network, write_tiny_model
from tools import finish_model
from utils.corpus.lists import Utterance, write_data_list
from utils.errors import DataListError, ModelError
from utils.model.archive import load_network, read_training_state, write_model
from utils.model.header import read_header


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists of synthetic voices: `dev_list.txt` of 3 speakers, `train_list.txt` of 18."""
    folder = tmp_path_factory.mktemp("finish")
    for name, speakers, first in (("dev", 3, 0), ("train", 18, 20)):
        files = write_speech_folder(folder / name, speakers, 2, 1.6, first_speaker=first)
        utterances = [Utterance(str(path), speaker) for path, speaker in files]
        write_data_list(folder / f"{name}_list.txt", utterances)
    return folder


def checkpoint(path: Path, network: Any, num_classes: int = 3, **metadata: Any) -> str:
    """Writes a checkpoint as train.py does, training state included."""
    shape = {**SHAPE, "num_classes": network.output_shape[0][-1]}
    training = {
        "model_dir": "/home/somebody/models",
        "reader": {
            "teacher": "/home/somebody/teacher.npz",
            "augment": {"noise_dir": "", "gain": 1},
        },
    }
    told = {
        "network": shape,
        "embedding_size": SHAPE["embedding_size"],
        "num_classes": num_classes,
        "training": training,
        "progress": {"epoch": 7},
        **metadata,
    }
    write_model(path, network, told, state={"large": np.zeros(1000)})
    return str(path)


@pytest.fixture(scope="module")
def trained(folder: Path) -> str:
    return checkpoint(folder / "resnet34-7.keras", build_tiny_network())


def options(folder: Path, output: Path) -> list[str]:
    return ["--list_path", str(folder / "dev_list.txt"), "--output", str(output)]


def outputs(network: Any) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    features = random.uniform(0.0, 2.0, (3, *network.input_shape[1:-2], 65, 1))
    return [np.asarray(value) for value in network(features.astype(np.float32))]


@pytest.mark.slow
def test_a_checkpoint_becomes_a_calibrated_model(
    folder: Path, trained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "model.keras"
    arguments = [trained, *options(folder, output), "--description", "of voices"]
    assert finish_model.main(arguments) == 0
    calibration = read_header(output).calibration
    assert -1 <= calibration.threshold <= 1
    shown = capsys.readouterr().out
    assert f"threshold {calibration.threshold:.4f}: " in shown
    assert "EER " in shown
    metadata = read_header(output).metadata
    assert metadata["calibrated_on"]["list"] == "dev_list.txt"
    assert metadata["calibrated_on"]["num_speakers"] == 3
    assert metadata["calibrated_on"]["num_target_trials"] == 2 * 3  # whole and 3 s
    assert metadata["calibrated_on"]["num_nontarget_trials"] == 2 * 12
    assert metadata["rates"]["num_trials"] == 2 * 12
    assert metadata["description"] == "of voices"
    assert metadata["progress"] == {"epoch": 7}
    # Files are told by name only.
    assert metadata["training"]["model_dir"] == "models"
    assert metadata["training"]["reader"]["teacher"] == "teacher.npz"
    with pytest.raises(ModelError, match="without training state"):
        read_training_state(output)
    pairs = zip(outputs(load_network(output)), outputs(load_network(trained)), strict=True)
    for made, original in pairs:
        np.testing.assert_allclose(made, original, atol=5e-3)
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.slow
def test_weights_of_several_checkpoints_are_averaged(tmp_path: Path) -> None:
    network = build_tiny_network()
    original = [np.asarray(weight) for weight in network.weights]
    paths = []
    for number, factor in enumerate((1.0, 2.0, 6.0)):
        network.set_weights([factor * value for value in original])
        told = {"progress": {"epoch": number}}
        paths.append(checkpoint(tmp_path / f"{number}.keras", network, **told))
    averaged, metadata = finish_model.average_checkpoints(paths)
    assert metadata["progress"] == {"epoch": 2}
    for weight, value in zip(averaged.weights, original, strict=True):
        np.testing.assert_allclose(np.asarray(weight), 3 * value, rtol=1e-6)


@pytest.mark.slow
def test_classes_of_other_speeds_are_dropped(tmp_path: Path) -> None:
    network = build_tiny_network(num_classes=9)
    path = checkpoint(tmp_path / "c.keras", network, num_classes=3, num_speed_classes=3)
    smaller, metadata = finish_model.without_speed_classes(
        *finish_model.average_checkpoints([path])
    )
    assert metadata["network"]["num_classes"] == 3
    (classes, embeddings), (all_classes, all_embeddings) = outputs(smaller), outputs(network)
    # The unchanged speed is the first class of each speaker, as utils/crops/batches.py has it.
    np.testing.assert_allclose(classes, all_classes[:, ::3], atol=1e-6)
    np.testing.assert_allclose(embeddings, all_embeddings, atol=1e-6)


@pytest.mark.slow
def test_whitening_evens_out_directions_and_keeps_unit_length(
    folder: Path, trained: str, tmp_path: Path
) -> None:
    output = tmp_path / "model.keras"
    train_list = str(folder / "train_list.txt")
    extra = ["--whitening_list", train_list, "--whitening", "1"]
    assert finish_model.main([trained, *options(folder, output), *extra]) == 0
    network = load_network(output)
    classes, embeddings = outputs(network)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    original_classes, original = outputs(load_network(trained))
    np.testing.assert_allclose(classes, original_classes, atol=5e-3)
    assert np.abs(embeddings - original).max() > 0.1

    from utils.model.encoder import SpeakerEncoder

    paths = [utterance.path for utterance in finish_model.read_data_list(train_list)]

    def spread(path: Path | str) -> np.ndarray:
        """Returns the share of the variance in each direction, the largest first."""
        rows = np.stack([row for _, row in SpeakerEncoder(path).embed_files(paths)])
        values = np.linalg.eigvalsh(np.cov(rows.T))[::-1]
        return values / values.sum()

    assert spread(output)[0] < 0.6 * spread(trained)[0]

    again = [str(output), *options(folder, tmp_path / "again.keras"), *extra]
    with pytest.raises(ModelError, match="whitened already"):
        finish_model.main(again)
    assert not (tmp_path / "again.keras").exists()


@pytest.mark.slow
def test_too_few_clips_to_whiten(folder: Path, trained: str, tmp_path: Path) -> None:
    dev_list = str(folder / "dev_list.txt")
    arguments = [trained, *options(folder, tmp_path / "m.keras"), "--whitening_list", dev_list]
    with pytest.raises(DataListError, match=r"^6 clips of at least 1.5 s.* at least 33, .*leave"):
        finish_model.main(arguments)


@pytest.mark.slow
def test_a_list_that_does_not_calibrate_leaves_the_model_that_was_there(
    folder: Path, trained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "model.keras"
    output.write_bytes(b"the model of before")
    silent = write_wav(tmp_path / "silent.wav", np.zeros(32_000, np.float32))
    clips = sorted((folder / "dev").rglob("*.wav"))
    few = [Utterance(str(clips[0]), 0), Utterance(str(clips[2]), 1), Utterance(str(silent), 1)]
    write_data_list(tmp_path / "few.txt", few)
    with pytest.raises(DataListError, match="2 usable clips of 2 speakers, expected several"):
        finish_model.main(
            [trained, "--list_path", str(tmp_path / "few.txt"), "--output", str(output)]
        )
    assert "left out: " in capsys.readouterr().err
    assert output.read_bytes() == b"the model of before"
    assert {path.name for path in tmp_path.iterdir()} == {"model.keras", "silent.wav", "few.txt"}


def test_a_missing_list(folder: Path, trained: str, tmp_path: Path) -> None:
    with pytest.raises(DataListError, match=r"nowhere\.txt"):
        finish_model.main([trained, "--list_path", str(tmp_path / "nowhere.txt")])
    arguments = [trained, *options(folder, tmp_path / "m.keras")]
    with pytest.raises(DataListError, match=r"nowhere\.txt"):
        finish_model.main([*arguments, "--whitening_list", str(tmp_path / "nowhere.txt")])


@pytest.mark.slow
def test_not_a_checkpoint(folder: Path, trained: str, tmp_path: Path) -> None:
    rest = options(folder, tmp_path / "m.keras")
    with pytest.raises(ModelError, match="no such model file"):
        finish_model.main([str(tmp_path / "nothing.keras"), *rest])
    (tmp_path / "text.keras").write_text("no archive")
    for paths in (["text.keras"], ["text.keras", trained]):
        with pytest.raises(ModelError, match=r"text\.keras: damaged or incomplete"):
            finish_model.main([*(str(tmp_path / path) for path in paths), *rest])
    write_tiny_model(tmp_path / "shapeless.keras")
    with pytest.raises(ModelError, match="does not tell the shape of its network"):
        finish_model.main([str(tmp_path / "shapeless.keras"), *rest])
    other = checkpoint(tmp_path / "other.keras", build_tiny_network(num_classes=4), 4)
    with pytest.raises(ModelError, match=r"other\.keras: its network differs in shape"):
        finish_model.main([other, trained, *rest])
    assert not (tmp_path / "m.keras").exists()
