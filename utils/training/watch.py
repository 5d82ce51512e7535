"""Watches the steps of Keras' `fit`."""

from typing import Any

import keras

from utils.interruption import Interruption


def make_watch(bar: Any, interruption: Interruption) -> Any:
    """Returns a callback that moves a progress bar and ends `fit` after Ctrl-C."""

    class Watch(keras.callbacks.Callback):
        """Counts steps without waiting for the device."""

        async_safe = True

        def __init__(self) -> None:
            super().__init__()
            self.steps: list[int] = []

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.steps.append(batch)
            bar.update(1)
            if interruption.is_requested:
                self.model.stop_training = True

    return Watch()
