"""How far a training is, and which of its checkpoints are kept."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from utils.model.header import read_header


@dataclass
class Progress:
    """Progress of a training.

    Attributes:
        epoch: Finished epochs.
        step: Finished steps of the next epoch.
        best_epoch: The epoch with the best figure so far.
        best_value: That figure: the EER, or the loss if there is no EER.
        sums: Sums of loss and other figures over those steps.
        batch: Crops of a step, on all hosts together; 0 in checkpoints of earlier versions.
    """

    epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_value: float = math.inf
    sums: dict[str, float] = field(default_factory=dict)
    batch: int = 0

    def count_in_batches_of(self, batch: int, num_steps: int) -> float:
        """Counts the steps anew for batches of another size: with more hosts there are fewer.

        Args:
            batch: Crops of a step from now on, on all hosts together.
            num_steps: Steps of an epoch from now on.

        Returns:
            How many of the new steps one of the old ones makes.
        """
        old, self.batch = self.batch or batch, batch
        if old == batch:
            return 1.0
        steps = min(self.step * old // batch, num_steps - 1)
        share = steps / max(self.step, 1)
        self.sums = {name: value * share for name, value in self.sums.items()}
        self.step = steps
        return old / batch


def remove_old_checkpoints(folder: Path, network: str, progress: Progress, num_kept: int) -> None:
    """Keeps the newest checkpoints of a training and its best one.

    Args:
        folder: Where they are.
        network: How their names begin.
        progress: Of the training.
        num_kept: How many of the newest stay.
    """
    for path in folder.glob(f"{network}-*.keras"):
        number, _, part = path.stem.removeprefix(f"{network}-").partition("-")
        if not number.isdigit() or int(number) > progress.epoch:
            continue
        is_kept = int(number) > progress.epoch - num_kept
        is_best = int(number) == progress.best_epoch
        if part or not (is_kept or is_best):
            path.unlink()


def describe_checkpoint(path: str) -> str:
    """Returns a line with a checkpoint's epoch and step.

    Raises:
        ModelError: If it is not a model of this toolkit.
    """
    progress = read_header(path).metadata.get("progress", {})
    return f"{path}: epoch {progress.get('epoch', 0)}, step {progress.get('step', 0)}"
