"""The real training loop on synthetic voices, through train.main as a user starts it."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import train
from tests.support.eagerly import never_compiling
from tests.support.script_runs import run_here
from tests.support.synthetic_voices import write_speech_folder
from tests.support.tiny_model import TRAIN_OPTIONS, build_tiny_network, write_tiny_model
from utils.errors import DataListError, ModelError, VoiceprintError
from utils.model.archive import load_network, read_training_state
from utils.model.header import read_header
from utils.reader import TrainingReader
from utils.training import run as training_module
from utils.training.validation import ValidationResult

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def deterministic() -> None:
    tf.config.experimental.enable_op_determinism()


@pytest.fixture(autouse=True)
def workplace(speech_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with lists: 3 speakers to train on, the test list with a stranger of label 3."""
    monkeypatch.chdir(tmp_path)
    files = sorted(speech_folder.glob("*/*.wav"))
    lines = [f"{path}\t{int(path.parent.name[-2:])}\n" for path in files]
    Path("train.txt").write_text("".join(lines))
    strangers = write_speech_folder(tmp_path / "strangers", 1, 2, first_speaker=7)
    Path("test.txt").write_text("".join(lines[::2] + [f"{path}\t3\n" for path, _ in strangers]))


def options(*more: str, epochs: int = 2, folder: str = "m") -> list[str]:
    lists = ["--train_list_path", "train.txt", "--test_list_path", "test.txt"]
    run = ["--num_epoch", str(epochs), "--steps_per_epoch", "3", "--model_dir", folder]
    return [*TRAIN_OPTIONS, *lists, *run, *more]


def names(folder: str = "m") -> list[str]:
    # Hidden files are left out: what a killed process was writing has a hidden name.
    return sorted(path.name for path in Path(folder).glob("[!.]*.keras"))


def log(folder: str = "m") -> list[dict[str, float]]:
    lines = Path(folder, "training_log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def assert_equal_checkpoints(one: Path, other: Path) -> None:
    first, second = load_network(one).get_weights(), load_network(other).get_weights()
    for ours, theirs in zip(first, second, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    states = read_training_state(one), read_training_state(other)
    assert states[0].keys() == states[1].keys()
    for name in states[0]:
        if name.startswith("variable"):
            np.testing.assert_allclose(states[0][name], states[1][name], atol=1e-6)
    progress = [json.loads(str(state["progress"])) for state in states]
    assert progress[0].pop("sums") == pytest.approx(progress[1].pop("sums"))
    assert progress[0] == pytest.approx(progress[1])


def interrupt_at(monkeypatch: pytest.MonkeyPatch, number: int, times: int = 1) -> None:
    """Presses Ctrl-C while the batch of this number, from 0, is made."""
    make = TrainingReader.epoch
    count = [0]

    def epoch(*args: Any) -> Iterator[Any]:
        for batch in make(*args):
            if count[0] == number:
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)
            count[0] += 1
            yield batch

    monkeypatch.setattr(TrainingReader, "epoch", epoch)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, speech_folder: Path) -> Path:
    """A finished training of 3 epochs. Shared: only read it."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    files = sorted(speech_folder.glob("*/*.wav"))
    lines = [f"{path}\t{int(path.parent.name[-2:])}\n" for path in files]
    strangers = write_speech_folder(folder / "strangers", 1, 2, first_speaker=7)
    (folder / "train.txt").write_text("".join(lines))
    (folder / "test.txt").write_text(
        "".join(lines[::2] + [f"{path}\t3\n" for path, _ in strangers])
    )
    with never_compiling(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert train.main(options("--keep_checkpoints", "9", epochs=3)) == 0
    return folder / "m"


# --- What a training leaves -----------------------------------------------------------------------


def test_every_epoch_leaves_a_checkpoint_and_its_figures(uninterrupted: Path) -> None:
    assert names(str(uninterrupted)) == [f"resnet34-{epoch}.keras" for epoch in (1, 2, 3)]
    lines = log(str(uninterrupted))
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    for line in lines:
        assert line.keys() == {
            "epoch", "accuracy", "loss", "samples_per_s", "test_accuracy", "eer",
        }  # fmt: skip
        assert 0 <= line["eer"] <= 1
        assert np.isfinite(line["loss"])
    assert list((uninterrupted / "logs").iterdir())  # for TensorBoard
    assert not list(uninterrupted.glob(".*"))


def test_checkpoints_can_be_used_at_once(uninterrupted: Path) -> None:
    path = uninterrupted / "resnet34-3.keras"
    calibration = read_header(path).calibration
    assert -1 <= calibration.threshold <= calibration.strict_threshold <= 1.001
    metadata = read_header(path).metadata
    assert (metadata["num_classes"], metadata["embedding_size"]) == (3, 16)
    assert metadata["progress"]["epoch"] == 3
    assert metadata["training"]["reader"]["crop_frames"] == 65


@pytest.mark.usefixtures("eager")
def test_prints_arguments_and_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    train.main(options(epochs=1))
    out, err = capsys.readouterr()
    assert out.startswith("-----------  Configuration Arguments -----------\nbatch_size: 4\n")
    assert "num_epoch: 1\n" in out
    assert "\nepoch 1: accuracy " in out
    assert "epoch 1/1: 100%" in err


@pytest.mark.usefixtures("eager")
def test_without_test_list_the_loss_decides(capsys: pytest.CaptureFixture[str]) -> None:
    train.main(options("--test_list_path", "", "--steps_per_epoch", "1", epochs=1))
    assert log()[0].keys() == {"epoch", "accuracy", "loss", "samples_per_s"}
    with pytest.raises(ModelError, match="no calibrated threshold"):
        _ = read_header("m/resnet34-1.keras").calibration


@pytest.mark.usefixtures("eager")
def test_newest_and_best_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    eers = iter([0.4, 0.1, 0.3, 0.2])
    monkeypatch.setattr(
        training_module.Validation,
        "measure",
        lambda *_: ValidationResult({"eer": next(eers)}),
    )
    Path("m").mkdir()
    Path("m/resnet34-x.keras").write_text("somebody else's")
    Path("m/resnet34-99.keras").write_text("somebody else's")
    train.main(options("--steps_per_epoch", "1", epochs=4))
    assert names() == [f"resnet34-{name}.keras" for name in ("2", "4", "99", "x")]


# --- Going on -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("eager")
def test_resumed_equals_uninterrupted(
    uninterrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = uninterrupted / "resnet34-1.keras"
    train.main(options("--resume", str(checkpoint), epochs=3))
    assert f"==> resuming from {checkpoint}: epoch 1, step 0\n" in capsys.readouterr().out
    assert_equal_checkpoints(Path("m/resnet34-3.keras"), uninterrupted / "resnet34-3.keras")
    assert [line["loss"] for line in log()] == pytest.approx(
        [line["loss"] for line in log(str(uninterrupted))[1:]], rel=1e-6
    )


@pytest.mark.usefixtures("eager")
def test_ctrl_c_inside_an_epoch_loses_nothing(
    uninterrupted: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            train.main(options(epochs=3))
    err = capsys.readouterr().err
    assert "stopping with a checkpoint; press Ctrl-C again" in err
    path = read_stopped_path(err)
    progress = read_header(path).metadata["progress"]
    assert (progress["epoch"], progress["step"]) in [(1, 1), (1, 2), (2, 0)]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    train.main(options("--resume", path, epochs=3))
    assert_equal_checkpoints(Path("m/resnet34-3.keras"), uninterrupted / "resnet34-3.keras")
    assert log()[-1]["loss"] == pytest.approx(log(str(uninterrupted))[-1]["loss"], rel=1e-6)
    assert not [name for name in names() if "part" in name]


def read_stopped_path(err: str) -> str:
    return err.split("stopped; go on with --resume ")[1].split("\n")[0]


@pytest.mark.usefixtures("eager")
def test_second_ctrl_c_ends_at_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_at(monkeypatch, 1, times=2)
    with pytest.raises(KeyboardInterrupt):
        train.main(options())
    assert "stopped; nothing was saved yet" in capsys.readouterr().err
    assert names() == []


@pytest.mark.usefixtures("eager")
def test_checkpoints_inside_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_module, "CHUNK_STEPS", 1)
    written: list[str] = []
    write = training_module.write_model

    def watched(path: Path, *args: Any) -> None:
        written.append(path.name)
        write(path, *args)

    monkeypatch.setattr(training_module, "write_model", watched)
    train.main(options("--checkpoint_minutes", "0.000001", epochs=1))
    assert written == ["resnet34-1-part.keras"] * 2 + ["resnet34-1.keras"]
    assert names() == ["resnet34-1.keras"]


def test_resume_with_other_options(uninterrupted: Path) -> None:
    checkpoint = str(uninterrupted / "resnet34-1.keras")
    with pytest.raises(ModelError, match=r"expects .*; resume with the options"):
        train.main(options("--resume", checkpoint, "--embedding_size", "8"))


def test_resume_from_what_is_no_checkpoint(tmp_path: Path) -> None:
    finished = write_tiny_model(tmp_path / "finished.keras")
    with pytest.raises(ModelError, match="a finished model without training state"):
        train.main(options("--resume", str(finished)))
    with pytest.raises(ModelError, match=r"none\.keras: no such model file"):
        train.main(options("--resume", "none.keras"))


def test_wrong_resume_file_is_told_in_one_line(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("list.keras").write_text("no model")
    assert run_here(root / "train.py", options("--resume", "list.keras")) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: list.keras: damaged or incomplete")


def test_init_begins_with_the_weights_of_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiny_model(tmp_path / "start.keras")
    started: list[Any] = []

    def keep(training: training_module.TrainingRun) -> None:
        started.append(training.learner.network)

    monkeypatch.setattr(training_module.TrainingRun, "run", keep)
    train.main(options("--init", str(path), "--num_classes", "5"))
    ours = {weight.path: np.asarray(weight) for weight in started[0].weights}
    for weight in build_tiny_network().weights:
        if weight.path.startswith("classification"):
            assert ours[weight.path].shape == (16, 5)  # more classes, another classifier
        else:
            np.testing.assert_array_equal(ours[weight.path], np.asarray(weight))
    with pytest.raises(ModelError, match="give --widths, --num_blocks and --embedding_size"):
        train.main(options("--init", str(path), "--embedding_size", "8"))


# --- What goes wrong ------------------------------------------------------------------------------


def test_too_few_classes_name_the_first_bad_line() -> None:
    with pytest.raises(
        DataListError, match=r"utterance 9 of the list, .* has label 2, expected 0 to 1"
    ):
        train.main(options("--num_classes", "2"))


def rename(**names: str) -> None:
    """Gives the speakers of both lists other labels."""
    for path in (Path("train.txt"), Path("test.txt")):
        text = path.read_text()
        for label, name in names.items():
            text = text.replace(f"\t{label[1:]}\n", f"\t{name}\n")
        path.write_text(text, encoding="utf-8")


@pytest.mark.usefixtures("eager")
def test_names_and_numbers_with_gaps_are_the_names_of_the_classes() -> None:
    rename(_0="夜雨飘零", _1="10270", _2="10001", _3="13800138000")
    train.main(options(epochs=1))
    header = read_header("m/resnet34-1.keras")
    assert header.metadata["num_classes"] == 3
    assert header.speakers == ["10001", "10270", "夜雨飘零"]
    assert header.name_class(2) == "夜雨飘零"
    (line,) = log()
    assert line["test_accuracy"] == 1.0 or line["mistaken"][0][0] in header.speakers
    rename(_10001="Ann")
    with pytest.raises(ModelError, match=r"its class 0 is the speaker 10001, .* it is 10270"):
        train.main(options("--resume", "m/resnet34-1.keras"))


def test_one_speaker_alone_is_an_error() -> None:
    rename(_0="Ann", _1="Ann", _2="Ann ")
    with pytest.raises(DataListError, match="has one speaker, Ann, expected two or more"):
        train.main(options())


def test_a_telephone_number_of_classes_is_an_error() -> None:
    with pytest.raises(DataListError, match="num_classes is 13800138000, expected at most"):
        train.main(options("--num_classes", "13800138000"))


@pytest.mark.usefixtures("eager")
def test_more_classes_than_the_list_has_are_allowed() -> None:
    train.main(options("--num_classes", "5", "--steps_per_epoch", "1", epochs=1))
    assert read_header("m/resnet34-1.keras").metadata["num_classes"] == 5


@pytest.mark.usefixtures("eager")
def test_unreadable_clip_is_told_once_and_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.wav").write_bytes(b"no audio")
    for name in ("train.txt", "test.txt"):
        with open(name, "a") as file:
            file.write("broken.wav\t0\n")
    train.main(options("--steps_per_epoch", "7", epochs=1))  # twice through the list
    err = capsys.readouterr().err
    assert err.count("warning: replaced a clip: broken.wav") == 1
    assert err.count("warning: left out of the test list: broken.wav") == 1
    assert names()


@pytest.mark.usefixtures("eager")
def test_diverged_training_says_so_and_spares_the_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(VoiceprintError, match=r"diverged.*lower --learning_rate"):
        train.main(options("--learning_rate", "1e30", "--warmup_steps", "0", epochs=3))
    for name in names():
        for weight in load_network(Path("m", name)).get_weights():
            assert np.isfinite(weight).all()


@pytest.mark.usefixtures("eager")
def test_teacher_file_is_learnt_from() -> None:
    listed = [line.split("\t")[0] for line in Path("train.txt").read_text().splitlines()]
    vectors = np.random.default_rng(0).normal(size=(len(listed), 24)).astype(np.float32)
    np.savez("teacher.npz", path=np.array(listed), embedding=vectors)
    more = ["--teacher", "teacher.npz", "--classification_weight", "0.1", "--steps_per_epoch", "1"]
    train.main(options(*more, epochs=1))
    assert -1 <= log()[0]["teacher_cosine"] <= 1
    train.main(options(*more, "--resume", "m/resnet34-1.keras"))
    assert [line["epoch"] for line in log()] == [1, 2]


def test_speeds_views_and_16_bits_together() -> None:
    more = ["--speeds", "0.9", "1.0", "1.1", "--num_views", "2", "--precision", "mixed_bfloat16"]
    train.main(options(*more, "--num_workers", "1", epochs=1))
    import keras

    keras.config.set_dtype_policy("float32")
    metadata = read_header("m/resnet34-1.keras").metadata
    assert (metadata["num_classes"], metadata["num_speed_classes"]) == (3, 3)
    assert load_network("m/resnet34-1.keras").output_shape[0] == (None, 9)
    assert load_network("m/resnet34-1.keras").get_layer("stem").compute_dtype == "float32"


def test_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    told = "--gpu 97,98 names 2 GPUs, 0 can be used; leave the option out"
    with pytest.raises(VoiceprintError, match=told):
        train.main(options("--gpu", "97,98"))


def test_a_kill_leaves_whole_checkpoints(root: Path) -> None:
    command = [sys.executable, root / "train.py", *options("--steps_per_epoch", "1", epochs=500)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch 3"):
                break
        time.sleep(0.13)
        process.kill()
    assert names()
    for name in names():
        assert load_network(Path("m", name)).output_shape[1] == (None, 16)
        assert int(read_training_state(Path("m", name))["num_variables"]) > 0


@pytest.mark.usefixtures("eager")
def test_fine_tuning_options_train_and_resume() -> None:
    more = ["--loss", "sphereface2", "--num_subcenters", "2", "--body_rate", "0.5"]
    assert train.main(options(*more, epochs=1)) == 0
    last = "m/resnet34-1.keras"
    assert read_header(last).metadata["network"]["num_subcenters"] == 2
    state = read_training_state(last)
    bias = state[f"variable_{int(state['num_variables']) - 1}"]
    assert bias.shape == () and bias != 0
    assert train.main(options(*more, "--resume", last, epochs=2)) == 0
    assert [math.isfinite(figures["loss"]) for figures in log()] == [True, True]
    # New classes and a margin loss on top of its weights.
    margin = ["--margin_steps", "2", "--inter_topk_penalty", "0.06", "--init", f"m/{names()[-1]}"]
    assert train.main(options(*margin, epochs=1, folder="tuned")) == 0
