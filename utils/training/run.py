"""The training workflow: epochs, checkpoints, validation, resuming, logs."""

import contextlib
import itertools
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.corpus.lists import (
    Utterance,
    check_labels,
    check_speakers,
    num_classes,
    speakers_of,
)
from utils.corpus.shards import ShardList
from utils.crops.batches import batch_arrays
from utils.crops.draws import Share
from utils.errors import ModelError, VoiceprintError
from utils.interruption import Interruption
from utils.messages import translate
from utils.model.archive import read_training_state, write_model
from utils.model.header import CALIBRATION_KEYS, LABELS_KEY, ModelHeader, read_header
from utils.reader import TrainingReader
from utils.training.beginning import build_learner, copy_weights, start_classifier
from utils.training.progress import Progress, remove_old_checkpoints
from utils.training.settings import TrainingSettings
from utils.training.validation import Validation

CHUNK_STEPS = 200
"""Steps between two checks of the clock, the places for checkpoints inside an epoch."""


class TrainingRun:
    """One training run, new or resumed.

    Attributes:
        progress: Finished epochs and steps.
        history: The figures of the epochs trained in this run.
        last_checkpoint: The newest file to resume from, if there is one.
    """

    def __init__(
        self,
        train: Sequence[Utterance],
        test: Sequence[Utterance],
        settings: TrainingSettings,
        num_speakers: int | None = None,
        resume: str = "",
        init: str = "",
        strategy: Any = None,
        speakers: Sequence[str] | None = None,
        share: Share | None = None,
        shards: ShardList | None = None,
    ) -> None:
        """Builds the model and starts the reader.

        `resume` is a checkpoint to resume from, `init` a model file with the initial weights.
        `speakers` are the names of the training list's speakers by their labels, else its own.
        `share` is the host among several, `shards` where the training list's recordings lie.

        Raises:
            DataListError: If a label is out of range, the list is unusable, or has one speaker.
            ModelError: If `resume` or `init` is not a matching model.
        """
        self.settings = settings
        self.strategy = strategy
        self.num_speakers = num_speakers or num_classes(train)
        check_labels(train, self.num_speakers)
        self.speakers = list(speakers or speakers_of(train))
        if settings.losses.classification > 0:
            check_speakers(self.speakers)
        self.share = share or Share()
        batch = settings.reader.batch_size * self.share.num_hosts
        self.steps = settings.steps_per_epoch or max(1, len(train) // batch)
        self.progress = Progress(batch=batch)
        self.history: list[dict[str, float]] = []
        self.last_checkpoint: Path | None = None
        self.writer: Any = None
        self._calibration: dict[str, Any] = {}
        self._reported: set[str] = set()
        self._alone: Any = None
        state = read_training_state(resume) if resume else None
        self.reader = TrainingReader(
            train, settings.reader, settings.num_workers, self.share, shards
        )
        try:
            with strategy.scope() if strategy else contextlib.nullcontext():
                self.learner, self.float_network, self.network_shape = build_learner(
                    settings, self.num_speakers, self.steps, self.reader.maker
                )
                network = self.learner.network
                if init:
                    copy_weights(network, init, matching_only=True)
                    num_vectors = self.num_speakers * settings.losses.num_subcenters
                    start_classifier(network, self.reader.maker, num_vectors)
                if state is not None:
                    copy_weights(network, resume, matching_only=False)
                    self._load_state(state, resume)
            speeds = self.reader.maker.num_speed_classes
            self.validation = Validation(test, len(self.speakers), speeds, self.speakers)
            if self._is_writer:
                self.writer = _summary_writer(Path(settings.model_dir) / "logs")
        except BaseException:
            self.close()
            raise

    def _load_state(self, state: dict[str, npt.NDArray[Any]], path: str) -> None:
        """Restores optimiser, bridge, progress and thresholds from a checkpoint."""
        extra = self._extra_variables()
        saved = [state[f"variable_{index}"] for index in range(int(state["num_variables"]))]
        if [value.shape for value in saved] != [tuple(variable.shape) for variable in extra]:
            raise ModelError(
                f"{path}: its optimiser state does not fit this training; resume with the options "
                "that the training began with"
            )
        for variable, value in zip(extra, saved, strict=True):
            variable.assign(value)
        batch = self.progress.batch
        self.progress = Progress(**json.loads(str(state["progress"])))
        share = self.progress.count_in_batches_of(batch, self.steps)
        iterations = self.learner.optimizer.iterations
        iterations.assign(int(int(np.asarray(iterations)) * share))
        header = read_header(path)
        self._check_speakers(header)
        metadata = header.metadata
        self._calibration = {key: metadata[key] for key in CALIBRATION_KEYS if key in metadata}
        self.last_checkpoint = Path(path)

    def _check_speakers(self, header: ModelHeader) -> None:
        """Raises ModelError if a checkpoint's classes are other people than those of the list."""
        if LABELS_KEY not in header.metadata:
            return
        for number, (theirs, ours) in enumerate(zip(header.speakers, self.speakers, strict=False)):
            if theirs != ours:
                raise ModelError(
                    f"{header.path}: its class {number} is the speaker {theirs}, in the training "
                    f"list it is {ours}; resume with the list that the training began with"
                )

    def _extra_variables(self) -> list[Any]:
        """Returns the training's variables outside the network: optimiser, bridge, bias."""
        bridge = self.learner.bridge.weights if self.learner.bridge else []
        bias = [] if self.learner.bias is None else [self.learner.bias]
        return [*self.learner.optimizer.variables, *bridge, *bias]

    def run(self) -> None:
        """Trains to the last epoch; each epoch ends with a checkpoint and its figures.

        Ctrl-C stops after the current step, with a checkpoint; a second Ctrl-C stops at once.

        Raises:
            KeyboardInterrupt: If Ctrl-C was pressed.
            VoiceprintError: If the training diverges.
            DataListError: If too many clips of the list cannot be read.
        """
        note = "stopping with a checkpoint; press Ctrl-C again to stop at once without one"
        with Interruption(note) as interruption:
            while self.progress.epoch < self.settings.num_epochs:
                self._finish_epoch(self._train_epoch(interruption))
                if interruption.is_requested:
                    raise KeyboardInterrupt

    def _train_epoch(self, interruption: Interruption) -> dict[str, float]:
        """Trains the rest of an epoch; returns the means of its loss and other figures."""
        from tqdm import tqdm

        progress, settings = self.progress, self.settings
        epoch, first = progress.epoch + 1, progress.step
        started = last_checkpoint = time.monotonic()
        batches = self.reader.epoch(epoch, self.steps, first)
        title = f"epoch {epoch}/{settings.num_epochs}"
        hidden = not self._is_writer
        with tqdm(total=self.steps, initial=first, desc=title, disable=hidden) as bar:
            while progress.step < self.steps:
                steps = min(CHUNK_STEPS, self.steps - progress.step)
                logs, num_done = self._train_steps(batches, steps, bar, interruption)
                progress.step += num_done
                for name, value in logs.items():
                    progress.sums[name] = progress.sums.get(name, 0.0) + value * num_done
                # Before writing: a diverged state must not replace a good checkpoint.
                self._check_finite(progress.sums["loss"])
                bar.set_postfix({k: f"{v / progress.step:.4f}" for k, v in progress.sums.items()})
                is_due = time.monotonic() - last_checkpoint > 60 * settings.checkpoint_minutes
                if (is_due or interruption.is_requested) and progress.step < self.steps:
                    self._checkpoint(f"{settings.network}-{epoch}-part")
                    last_checkpoint = time.monotonic()
                    if interruption.is_requested:
                        raise KeyboardInterrupt
        figures = {name: value / max(progress.step, 1) for name, value in progress.sums.items()}
        num_samples = (self.steps - first) * progress.batch * settings.reader.num_views
        figures["samples_per_s"] = num_samples / max(time.monotonic() - started, 1e-6)
        return figures

    def _check_finite(self, loss: float) -> None:
        """Raises VoiceprintError if the loss is NaN or infinite."""
        if math.isfinite(loss):
            return
        from_where = (
            f"go on with --resume {self.last_checkpoint}" if self.last_checkpoint else "begin anew"
        )
        raise VoiceprintError(
            f"epoch {self.progress.epoch + 1}, step {self.progress.step}: the loss is not finite, "
            f"the training has diverged; {from_where} and a lower --learning_rate"
        )

    def _train_steps(
        self, batches: Any, num_steps: int, bar: Any, interruption: Interruption
    ) -> tuple[dict[str, float], int]:
        """Trains some steps, fewer if Ctrl-C is pressed; returns mean figures and their number."""
        if self.strategy is None:
            from utils.training.watch import make_watch

            watch = make_watch(bar, interruption)
            history = self.learner.fit(
                self._feed(batches, num_steps),
                steps_per_epoch=num_steps, epochs=1, shuffle=False, verbose=0, callbacks=[watch],
            ).history  # fmt: skip
            return {name: float(values[-1]) for name, values in history.items()}, len(watch.steps)
        # Under a strategy `fit` prefetches batches and then drops them: half of a short epoch.
        sums: dict[str, float] = {}
        num_done = 0
        for arrays in self._feed(batches, num_steps):
            for name, value in self.learner.train_on_batch(*arrays, return_dict=True).items():
                sums[name] = sums.get(name, 0.0) + float(value)
            num_done += 1
            bar.update(1)
            if interruption.is_requested:
                break
        return {name: value / num_done for name, value in sums.items()}, num_done

    def _feed(self, batches: Any, num_steps: int) -> Iterator[Any]:
        """Yields inputs and targets of the next steps; warns once about each unusable clip."""
        for batch in itertools.islice(batches, num_steps):
            for problem in batch.problems:
                if problem not in self._reported:
                    self._reported.add(problem)
                    print("\n" + translate(f"warning: replaced a clip: {problem}"), file=sys.stderr)
            yield batch_arrays(batch)

    def _finish_epoch(self, figures: dict[str, float]) -> None:
        """Validates, writes the checkpoint, the log lines and the summary line of an epoch."""
        progress = self.progress
        result = self.validation.measure(self._predict())
        figures = {**figures, **result.figures}
        self._calibration = result.calibration
        progress.epoch, progress.step, progress.sums = progress.epoch + 1, 0, {}
        value = figures.get("eer", figures["loss"])
        if value <= progress.best_value:
            progress.best_epoch, progress.best_value = progress.epoch, value
        self._checkpoint(f"{self.settings.network}-{progress.epoch}")
        self.history.append(figures)
        if not self._is_writer:
            return
        remove_old_checkpoints(
            Path(self.settings.model_dir), self.settings.network, progress,
            self.settings.keep_checkpoints,
        )  # fmt: skip
        folder = Path(self.settings.model_dir)
        with open(folder / "training_log.jsonl", "a", encoding="utf-8") as log:
            line: dict[str, Any] = {"epoch": progress.epoch, **figures}
            if self._has_names:
                line["mistaken"] = result.mistaken
            log.write(json.dumps(line, ensure_ascii=False) + "\n")
        if self.writer is not None:
            for name, number in figures.items():
                self.writer.add_scalar(name, number, progress.epoch)
            self.writer.flush()
        text = ", ".join(f"{name} {number:.4f}" for name, number in figures.items())
        print(translate(f"epoch {progress.epoch}: {text}"), flush=True)

    @property
    def _is_writer(self) -> bool:
        """Whether this host writes and prints: the first."""
        return self.share.host_id == 0

    def _predict(self) -> Any:
        """Returns the function that a validation asks for outputs."""
        if self.share.num_hosts == 1:
            return self.learner.predict_on_batch
        from utils.training.alone import LearnerAlone

        if self._alone is None:
            self._alone = LearnerAlone(
                self.settings.network, self.network_shape, self.settings.losses
            )
        self._alone.set_weights(self.learner.network.get_weights())
        return self._alone.predict_on_batch

    def _checkpoint(self, name: str) -> None:
        """Writes network and training state as one file."""
        path = Path(self.settings.model_dir) / f"{name}.keras"
        self.last_checkpoint = path
        if not self._is_writer:
            return
        if self.float_network is not self.learner.network:
            self.float_network.set_weights(self.learner.network.get_weights())
        extra = self._extra_variables()
        state: dict[str, npt.NDArray[Any]] = {
            f"variable_{index}": np.asarray(variable) for index, variable in enumerate(extra)
        }
        state["num_variables"] = np.array(len(extra))
        state["progress"] = np.array(json.dumps(asdict(self.progress)))
        metadata = {
            "architecture": self.settings.network,
            "network": self.network_shape,
            "embedding_size": self.settings.embedding_size,
            "num_classes": self.num_speakers,
            "num_speed_classes": self.reader.maker.num_speed_classes,
            "training": asdict(self.settings),
            "progress": asdict(self.progress),
            **({LABELS_KEY: self.speakers} if self._has_names else {}),
            **self._calibration,
        }
        write_model(path, self.float_network, metadata, state)

    @property
    def _has_names(self) -> bool:
        """Whether the speakers are more than the numbers of their classes."""
        return self.speakers != [str(number) for number in range(len(self.speakers))]

    def close(self) -> None:
        """Stops the reader's workers and the log."""
        self.reader.close()
        if self.writer is not None:
            self.writer.close()


def _summary_writer(folder: Path) -> Any:
    """Returns a TensorBoard writer, or `None` if TensorBoard is not installed."""
    try:
        from tensorboard.summary import Writer
    except ImportError:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    return Writer(str(folder))
