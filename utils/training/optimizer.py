"""The optimiser: AdamW, with a lower rate for what a training begins with."""

from typing import Any

import keras

NEW = ("classification", "bridge", "learner")
"""First part of the paths of weights that begin anew: those of the classes and of the losses."""


class LayeredAdamW(keras.optimizers.AdamW):
    """AdamW that moves the network before its classification by smaller steps.

    The weight decay keeps the full rate.
    """

    def __init__(self, learning_rate: Any, weight_decay: float, body_rate: float) -> None:
        """Sets the rates.

        Args:
            learning_rate: Of the classification, a number or a schedule.
            weight_decay: As in AdamW.
            body_rate: Share of the rate that all other weights of the network get, in [0, 1].
        """
        super().__init__(learning_rate, weight_decay=weight_decay)
        self.body_rate = body_rate

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Moves one variable."""
        # TensorFlow hands over its own variable, which doesn't know its path.
        path = self._trainable_variables[self._get_variable_index(variable)].path
        is_new = path.split("/")[0] in NEW
        rate = learning_rate if is_new else learning_rate * self.body_rate
        super().update_step(gradient, variable, rate)


def make_optimizer(learning_rate: Any, weight_decay: float, body_rate: float) -> Any:
    """Returns the optimiser of a training.

    Args:
        learning_rate: A number or a schedule.
        weight_decay: Share of a weight that each step takes off, times the rate.
        body_rate: Share of the rate for the network before its classification, in [0, 1].
    """
    if body_rate == 1:
        return keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay)
    return LayeredAdamW(learning_rate, weight_decay, body_rate)
