"""The training workflow: epochs, checkpoints, validation, resuming, logs."""

import json
import math
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.audio import FloatArray
from utils.batches import INT16_SCALE, batch_arrays, read_evaluation_crop
from utils.data_list import Utterance, check_labels, num_classes
from utils.errors import AudioError, DataListError, ModelError, VoiceprintError
from utils.metrics import ErrorCurve
from utils.model_file import (
    load_network,
    read_model_metadata,
    read_training_state,
    write_model,
)
from utils.reader import TrainingReader
from utils.scoring import score_all_pairs
from utils.training_options import TrainingSettings

CHUNK_STEPS = 200
"""Steps between two looks at the clock; a checkpoint inside an epoch falls on such a place."""

VALIDATION_BATCH = 64


@dataclass
class Progress:
    """Where a training stands: epochs and steps that are done, and the best figures so far."""

    epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_value: float = math.inf


def select_devices(gpu: str, precision: str) -> Any:
    """Chooses the devices before the backend starts, and the precision of the computation.

    Args:
        gpu: Empty for all GPUs there are, "0,1" for some, "cpu" for none, "cpu:2" for two logical
            CPU devices, which behave as two GPUs do.
        precision: A Keras dtype policy.

    Returns:
        A `tf.distribute.Strategy` on TensorFlow with several devices, else `None`.

    Raises:
        VoiceprintError: If a named GPU does not exist.
    """
    num_logical = int(gpu[4:]) if gpu.startswith("cpu:") else 1
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1" if gpu.startswith("cpu") else gpu
    num_wanted = 0 if gpu.startswith("cpu") or not gpu else len(gpu.split(","))
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if backend == "jax" and num_logical > 1:
        os.environ["XLA_FLAGS"] = (
            os.environ.get("XLA_FLAGS", "")
            + f" --xla_force_host_platform_device_count={num_logical}"
        )
    strategy = None
    if backend == "tensorflow":
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        import tensorflow as tf

        if num_logical > 1:
            cpu = tf.config.list_physical_devices("CPU")[0]
            parts = [tf.config.LogicalDeviceConfiguration()] * num_logical
            tf.config.set_logical_device_configuration(cpu, parts)
            devices = [device.name for device in tf.config.list_logical_devices("CPU")]
        else:
            for device in tf.config.list_physical_devices("GPU"):
                tf.config.experimental.set_memory_growth(device, True)
            devices = [device.name for device in tf.config.list_logical_devices("GPU")]
        _check_gpus(num_wanted, len(devices), gpu)
        if len(devices) > 1:
            strategy = tf.distribute.MirroredStrategy(devices)
    import keras

    if backend == "jax":
        devices = keras.distribution.list_devices()
        _check_gpus(num_wanted, sum("cpu" not in name for name in devices), gpu)
        if len(devices) > 1:
            keras.distribution.set_distribution(keras.distribution.DataParallel())
    keras.config.set_dtype_policy(precision)
    return strategy


def _check_gpus(num_wanted: int, num_found: int, gpu: str) -> None:
    """Raises VoiceprintError if fewer GPUs are there than were named."""
    if num_wanted > num_found:
        raise VoiceprintError(
            f"--gpu {gpu} names {num_wanted} GPUs, {num_found} can be used; "
            "leave the option out to take what there is, or install the GPU driver"
        )


class Training:
    """One training run, new or resumed."""

    def __init__(
        self,
        train: Sequence[Utterance],
        test: Sequence[Utterance],
        settings: TrainingSettings,
        num_speakers: int | None = None,
        resume: str = "",
        init: str = "",
        strategy: Any = None,
    ) -> None:
        """Builds the model and starts the reader.

        Args:
            train: Training list.
            test: List on which each epoch is validated; may be empty.
            settings: The run.
            num_speakers: Number of classes, or `None` to read it from the list.
            resume: Checkpoint to go on from, or empty.
            init: Model file whose weights to begin with, or empty.
            strategy: From `select_devices`.

        Raises:
            DataListError: If a label is out of range or the list unusable.
            ModelError: If `resume` or `init` is no fitting model.
        """
        self.settings = settings
        self.strategy = strategy
        self.num_speakers = num_speakers or num_classes(train)
        check_labels(train, self.num_speakers)
        self.steps = settings.steps_per_epoch or max(1, len(train) // settings.reader.batch_size)
        self.progress = Progress()
        self.history: list[dict[str, float]] = []
        state = read_training_state(resume) if resume else None
        self.reader = TrainingReader(train, settings.reader, settings.num_workers)
        try:
            with strategy.scope() if strategy else _no_scope():
                self._build(resume, init, state)
        except BaseException:
            self.reader.close()
            raise
        self.validation = _read_validation(test)
        self.writer = _summary_writer(Path(settings.model_dir) / "logs")

    def _build(self, resume: str, init: str, state: dict[str, npt.NDArray[Any]] | None) -> None:
        """Makes network, trainer and optimiser, with the weights of a checkpoint if given."""
        import keras

        from utils.resnet import build_resnet34
        from utils.trainer import SpeakerTrainer

        settings = self.settings
        keras.utils.set_random_seed(settings.reader.seed + 1)
        shape = {
            "num_classes": self.num_speakers * self.reader.maker.num_speed_classes,
            "widths": settings.widths,
            "embedding_size": settings.embedding_size,
            "cosine_classifier": settings.losses.name != "softmax",
            "num_blocks": settings.num_blocks,
        }
        network = build_resnet34(**shape)
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy("float32")
        self.float_network = build_resnet34(**shape) if policy.name != "float32" else network
        keras.config.set_dtype_policy(policy)
        self.network_shape = shape
        self.trainer = SpeakerTrainer(
            network, settings.losses, self.reader.maker.teacher_size, settings.reader.num_views
        )
        total = settings.num_epochs * self.steps
        warmup = min(settings.warmup_steps, total // 10)
        schedule = keras.optimizers.schedules.CosineDecay(
            settings.learning_rate / 100 if warmup else settings.learning_rate,
            max(total - warmup, 1), alpha=1e-3, warmup_steps=warmup,
            warmup_target=settings.learning_rate if warmup else None,
        )  # fmt: skip
        optimizer = keras.optimizers.AdamW(schedule, weight_decay=settings.weight_decay)
        optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
        self.trainer.compile(optimizer=optimizer, jit_compile="auto")
        frames = settings.reader.crop_samples
        self.trainer.build({"waveforms": (None, frames), "masks": (None, 1, 4)})
        optimizer.build(self.trainer.trainable_variables)
        if init:
            self._load_weights(load_network(init), init, matching_only=True)
        if resume and state is not None:
            self._load_weights(load_network(resume), resume, matching_only=False)
            self._load_state(state, resume)

    def _load_weights(self, source: Any, path: str, matching_only: bool) -> None:
        """Copies weights by name; all must fit, or with `matching_only` all but the classifier."""
        values = {weight.path: weight for weight in source.weights}
        for weight in self.trainer.network.weights:
            value = values.get(weight.path)
            if value is not None and tuple(value.shape) == tuple(weight.shape):
                weight.assign(np.asarray(value))
            elif not (matching_only and weight.path.startswith("classification")):
                found = None if value is None else tuple(value.shape)
                raise ModelError(
                    f"{path}: weight {weight.path} has shape {found}, this training expects "
                    f"{tuple(weight.shape)}; resume with the options and the list that the "
                    "training began with"
                )

    def _load_state(self, state: dict[str, npt.NDArray[Any]], path: str) -> None:
        """Brings back optimiser, bridge and progress from a checkpoint."""
        extra = self._extra_variables()
        saved = [state[f"variable_{index}"] for index in range(int(state["num_variables"]))]
        if [value.shape for value in saved] != [tuple(variable.shape) for variable in extra]:
            raise ModelError(
                f"{path}: its optimiser state does not fit this training; resume with the options "
                "that the training began with"
            )
        for variable, value in zip(extra, saved, strict=True):
            variable.assign(value)
        for name, value in json.loads(str(state["progress"])).items():
            setattr(self.progress, name, value)

    def _extra_variables(self) -> list[Any]:
        """Returns what a training needs beside the network: optimiser and bridge."""
        bridge = self.trainer.bridge.weights if self.trainer.bridge else []
        return [*self.trainer.optimizer.variables, *bridge]

    def run(self) -> None:
        """Trains to the last epoch; each epoch ends with a checkpoint and its figures."""
        import keras
        from tqdm import tqdm

        class Bar(keras.callbacks.Callback):
            """Moves a progress bar without waiting for the device."""

            async_safe = True

            def __init__(self, bar: Any) -> None:
                super().__init__()
                self.bar = bar

            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                self.bar.update(1)

        reported: set[str] = set()
        last_checkpoint = time.monotonic()
        progress, settings = self.progress, self.settings
        while progress.epoch < settings.num_epochs:
            epoch, first = progress.epoch + 1, progress.step
            started, sums, total = time.monotonic(), {}, 0
            batches = self.reader.epoch(epoch, self.steps, first)
            with tqdm(
                total=self.steps, initial=first, desc=f"epoch {epoch}/{settings.num_epochs}"
            ) as bar:
                callback = Bar(bar)
                while progress.step < self.steps:
                    steps = min(CHUNK_STEPS, self.steps - progress.step)
                    feed = _feed(batches, steps, reported, self.strategy is not None)
                    logs = self.trainer.fit(
                        feed, steps_per_epoch=steps, epochs=1, verbose=0, callbacks=[callback]
                    ).history
                    total += steps
                    for name, values in logs.items():
                        sums[name] = sums.get(name, 0.0) + float(values[-1]) * steps
                    progress.step += steps
                    bar.set_postfix({k: f"{v / total:.4f}" for k, v in sums.items()})
                    is_due = time.monotonic() - last_checkpoint > 60 * settings.checkpoint_minutes
                    if is_due and progress.step < self.steps:
                        self._checkpoint(f"resnet34-{epoch}-part")
                        last_checkpoint = time.monotonic()
            figures = {name: value / max(total, 1) for name, value in sums.items()}
            if not math.isfinite(figures.get("loss", 0.0)):
                raise VoiceprintError(
                    f"epoch {epoch}: the loss is not finite; resume from the last checkpoint with "
                    "a lower --learning_rate"
                )
            figures["samples_per_s"] = (
                total * settings.reader.batch_size * settings.reader.num_views / max(time.monotonic() - started, 1e-6)
            )
            progress.epoch, progress.step = epoch, 0
            self._finish_epoch(figures)
            last_checkpoint = time.monotonic()

    def _finish_epoch(self, figures: dict[str, float]) -> None:
        """Validates, writes the checkpoint, the log lines and the summary line of an epoch."""
        epoch = self.progress.epoch
        figures.update(self._validate())
        value = figures.get("eer", figures["loss"])
        if value <= self.progress.best_value:
            self.progress.best_epoch, self.progress.best_value = epoch, value
        self._checkpoint(f"resnet34-{epoch}")
        self._remove_old_checkpoints()
        self.history.append(figures)
        folder = Path(self.settings.model_dir)
        with open(folder / "training_log.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps({"epoch": epoch, **figures}) + "\n")
        if self.writer is not None:
            for name, number in figures.items():
                self.writer.add_scalar(name, number, epoch)
            self.writer.flush()
        text = ", ".join(f"{name} {number:.4f}" for name, number in figures.items())
        print(f"epoch {epoch}: {text}", flush=True)

    def _validate(self) -> dict[str, float]:
        """Returns EER and accuracy on the clean crops of the test list."""
        crops, labels = self.validation
        if len(crops) == 0:
            return {}
        embeddings, named = [], []
        for start in range(0, len(crops), VALIDATION_BATCH):
            part = crops[start : start + VALIDATION_BATCH]
            # One shape only: compiled code is not made anew for the last, smaller part.
            filled = np.zeros((VALIDATION_BATCH, part.shape[1]), np.int16)
            filled[: len(part)] = part
            masks = np.zeros((VALIDATION_BATCH, 1, 4), np.int32)
            outputs = self.trainer.predict_on_batch({"waveforms": filled, "masks": masks})
            embeddings.append(np.asarray(outputs["embedding"])[: len(part)])
            named.append(np.asarray(outputs["classification"]).argmax(axis=1)[: len(part)])
        figures = {}
        num_speeds = self.reader.maker.num_speed_classes
        is_known = labels < self.num_speakers
        if is_known.any():
            right = np.concatenate(named)[is_known] // num_speeds == labels[is_known]
            figures["test_accuracy"] = float(right.mean())
        histogram = score_all_pairs(np.concatenate(embeddings).astype(np.float32), labels)
        if histogram.num_target_trials and histogram.num_nontarget_trials:
            curve = ErrorCurve.from_histogram(histogram)
            figures["eer"] = curve.equal_error_rate()[0]
        return figures

    def _checkpoint(self, name: str) -> None:
        """Writes network and training state as one file."""
        if self.float_network is not self.trainer.network:
            self.float_network.set_weights(self.trainer.network.get_weights())
        extra = self._extra_variables()
        state: dict[str, npt.NDArray[Any]] = {
            f"variable_{index}": np.asarray(variable) for index, variable in enumerate(extra)
        }
        state["num_variables"] = np.array(len(extra))
        state["progress"] = np.array(json.dumps(asdict(self.progress)))
        metadata = {
            "network": self.network_shape,
            "embedding_size": self.settings.embedding_size,
            "num_classes": self.num_speakers,
            "num_speed_classes": self.reader.maker.num_speed_classes,
            "training": asdict(self.settings),
            "progress": asdict(self.progress),
        }
        path = Path(self.settings.model_dir) / f"{name}.keras"
        write_model(path, self.float_network, metadata, state)

    def _remove_old_checkpoints(self) -> None:
        """Keeps the newest checkpoints and the best one of this training."""
        folder, epoch = Path(self.settings.model_dir), self.progress.epoch
        for path in folder.glob("resnet34-*.keras"):
            number, _, part = path.stem.removeprefix("resnet34-").partition("-")
            if not number.isdigit() or int(number) > epoch:
                continue
            is_kept = int(number) > epoch - self.settings.keep_checkpoints
            is_best = int(number) == self.progress.best_epoch
            if part or not (is_kept or is_best):
                path.unlink()

    def close(self) -> None:
        """Stops the reader's workers."""
        self.reader.close()
        if self.writer is not None:
            self.writer.close()


def _no_scope() -> Any:
    """Stands for a strategy's scope where there is none."""
    import contextlib

    return contextlib.nullcontext()


def _feed(batches: Any, num_steps: int, reported: set[str], repeat_first: bool) -> Any:
    """Yields inputs and targets of the next steps; tells each unusable clip once.

    Under a distribution strategy Keras takes one batch of every `fit` to look at its shapes:
    `repeat_first` gives it one that is not lost.
    """
    for step in range(num_steps):
        batch = next(batches)
        for problem in batch.problems:
            if problem not in reported:
                reported.add(problem)
                print(f"\nwarning: replaced a clip: {problem}", file=sys.stderr)
        if step == 0 and repeat_first:
            yield batch_arrays(batch)
        yield batch_arrays(batch)


def _read_validation(
    test: Sequence[Utterance],
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int64]]:
    """Reads one clean crop of each test clip: int16 `(num_clips, num_samples)`, and labels."""

    def read(utterance: Utterance) -> FloatArray | None:
        try:
            return read_evaluation_crop(utterance.path)
        except AudioError as error:
            print(f"warning: left out of the test list: {error}", file=sys.stderr)
            return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        crops = list(pool.map(read, test))
    usable = [index for index, crop in enumerate(crops) if crop is not None]
    if test and not usable:
        raise DataListError("no clip of the test list can be read; check it with create_data.py")
    stacked = [np.round(np.asarray(crops[index]) * INT16_SCALE).astype(np.int16)
               for index in usable]  # fmt: skip
    labels = np.array([test[index].label for index in usable], dtype=np.int64)
    return (np.stack(stacked) if stacked else np.empty((0, 0), np.int16)), labels


def _summary_writer(folder: Path) -> Any:
    """Returns a TensorBoard writer, or `None` where TensorBoard is not installed."""
    try:
        from tensorboard.summary import Writer
    except ImportError:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    return Writer(str(folder))


def describe_checkpoint(path: str) -> str:
    """Returns one line on where a checkpoint stands.

    Raises:
        ModelError: If it is no model of this toolkit.
    """
    progress = read_model_metadata(path).get("progress", {})
    return f"{path}: epoch {progress.get('epoch', 0)}, step {progress.get('step', 0)}"
