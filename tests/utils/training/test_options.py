import argparse
import dataclasses
import json
from typing import Any

import pytest

from utils.crops.augment import AUGMENTATIONS
from utils.training.options import (
    BASELINE_OPTIONS,
    add_options,
    check_options,
    to_settings,
)
from utils.training.settings import LossSettings, TrainingSettings


def read(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser)
    args = parser.parse_args(options)
    check_options(parser, args)
    return args


def test_options_of_the_baseline_are_there() -> None:
    args = vars(read())
    assert set(BASELINE_OPTIONS) <= args.keys()
    assert args["train_list_path"] == "dataset/train_list.txt"
    assert args["test_list_path"] == "dataset/test_list.txt"
    assert (args["model_dir"], args["resume"], args["num_classes"]) == ("models", "", None)


def test_defaults_are_those_of_the_settings() -> None:
    ours = dataclasses.asdict(to_settings(read("--num_workers=1", "--batch_size=64")))
    assert ours == dataclasses.asdict(TrainingSettings())


def test_every_option_reaches_the_settings() -> None:
    options = """
        --model_dir m --num_epoch 7 --steps_per_epoch 9 --learning_rate 0.5
        --weight_decay 0.25 --warmup_steps 3 --precision mixed_bfloat16
        --widths 1 2 3 4 --num_blocks 5 6 7 8 --embedding_size 9
        --checkpoint_minutes 2 --keep_checkpoints 3 --num_workers 0
        --batch_size 5 --crop_frames 65 --num_views 2 --seed 11 --balance 0.5
        --keep_silence --no_join --speeds 1.1 1.0 0.9 --speed_change 0.5
        --snr_db 1 2 --babble_snr_db 3 4 --noise_dir n --rir_dir r --flip 0.125
        --margin_steps 4 --num_subcenters 3 --inter_topk_penalty 0.0625 --inter_topk 6
        --body_rate 0.5
    """
    settings = to_settings(read(*options.split()))
    assert (settings.model_dir, settings.num_epochs, settings.steps_per_epoch) == ("m", 7, 9)
    assert (settings.learning_rate, settings.weight_decay) == (0.5, 0.25)
    assert (settings.warmup_steps, settings.precision) == (3, "mixed_bfloat16")
    assert (settings.widths, settings.num_blocks) == ((1, 2, 3, 4), (5, 6, 7, 8))
    assert (settings.embedding_size, settings.checkpoint_minutes) == (9, 2.0)
    assert (settings.keep_checkpoints, settings.num_workers) == (3, 0)
    losses = settings.losses
    assert (losses.margin_steps, losses.num_subcenters) == (4, 3)
    assert (losses.nearest_penalty, losses.num_nearest) == (0.0625, 6)
    assert settings.body_rate == 0.5
    reader = settings.reader
    assert (reader.batch_size, reader.crop_frames, reader.num_views) == (5, 65, 2)
    assert (reader.seed, reader.balance) == (11, 0.5)
    assert (reader.remove_silence, reader.join_clips) == (False, False)
    assert (reader.speeds, reader.speed_change) == ((0.9, 1.0, 1.1), 0.5)
    assert (reader.augment.snr_db, reader.augment.babble_snr_db) == ((1.0, 2.0), (3.0, 4.0))
    assert (reader.augment.noise_dir, reader.augment.rir_dir) == ("n", "r")
    assert reader.augment.flip == 0.125


@pytest.mark.parametrize("name", [*AUGMENTATIONS, "flip", "spec_mask"])
def test_every_augmentation_has_its_option(name: str) -> None:
    assert getattr(to_settings(read(f"--{name}", "0.375")).reader.augment, name) == 0.375


@pytest.mark.parametrize(
    ("options", "margin"),
    [
        ([], 0.2),
        (["--loss", "softmax"], 0.0),
        (["--loss", "am_softmax"], 0.2),
        (["--loss", "am_softmax", "--margin", "0.35"], 0.35),
        (["--margin", "0"], 0.0),
    ],
)
def test_margin_is_the_losss_own_unless_given(options: list[str], margin: float) -> None:
    assert to_settings(read(*options)).losses.margin == margin


def test_teacher_losses_count_only_with_a_teacher() -> None:
    options = ["--distance_weight", "2", "--contrast_weight", "0.5", "--temperature", "0.1"]
    without = to_settings(read(*options)).losses
    assert (without.distance, without.contrast) == (0.0, 0.0)
    options += ["--teacher", "t.npz", "--teacher_centroid", "0.25", "--classification_weight", "0"]
    settings = to_settings(read(*options))
    expected = LossSettings(
        classification=0.0, distance=2.0, contrast=0.5, temperature=0.1
    )  # fmt: skip
    assert settings.losses == expected
    assert (settings.reader.teacher, settings.reader.teacher_centroid) == ("t.npz", 0.25)


def test_settings_can_be_kept_as_json() -> None:
    settings = dataclasses.asdict(to_settings(read("--speeds", "0.9", "1.0")))
    assert json.loads(json.dumps(settings))["reader"]["speeds"] == [0.9, 1.0]


@pytest.mark.parametrize("gpu", ["", "0", "0,1", "cpu", "cpu:2"])
def test_devices_that_can_be_named(gpu: str) -> None:
    assert read("--gpu", gpu).gpu == gpu


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--resume", "a", "--init", "b"], "--resume goes on with a training"),
        (["--speeds", "0.9", "1.1"], "lacks 1.0"),
        (["--snr_db", "20", "0"], "--snr_db 20.0 0.0: expected the lower figure first"),
        (["--babble_snr_db", "9", "3"], "--babble_snr_db"),
        (["--classification_weight", "0"], "needs a --teacher"),
        (["--loss", "softmax", "--num_subcenters", "3"], "needs a loss on cosines"),
        (["--loss", "sphereface2", "--inter_topk_penalty", "0.1"], "needs --loss am_softmax or"),
        (["--gpu", "gpu0"], "expected 0 or 0,1 or cpu or cpu:2"),
        (["--gpu", "cpu:0"], "expected 0 or 0,1"),
        (["--loss", "triplet"], "invalid choice"),
        (["--precision", "float64"], "invalid choice"),
        (["--batch_size", "0"], "whole number from 1 up"),
        (["--learning_rate", "nan"], "number above 0"),
        (["--widths", "1", "2"], "expected 4 arguments"),
        (["--flip", "1.5"], "from 0 to 1"),
    ],
)
def test_wrong_options_exit_with_2(options: list[str], text: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        read(*options)
    assert stop.value.code == 2
    assert text in capsys.readouterr().err
