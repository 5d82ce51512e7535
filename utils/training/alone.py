"""A network of this host alone, in a training on several hosts.

What all hosts compute together no single one can read.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from utils.networks.catalogue import NETWORKS
from utils.training.learner import SpeakerLearner
from utils.training.settings import LossSettings


class LearnerAlone:
    """A copy of the learner that computes on this host's devices."""

    def __init__(self, network: str, shape: dict[str, Any], losses: LossSettings) -> None:
        """Builds the network, as the training did."""
        with _on_this_host():
            self._learner = SpeakerLearner(NETWORKS[network](**shape), losses)

    def set_weights(self, weights: Any) -> None:
        """Takes the weights of the training's network, arrays of NumPy."""
        with _on_this_host():
            self._learner.network.set_weights(weights)

    def predict_on_batch(self, inputs: dict[str, Any]) -> Any:
        """Returns the outputs for a batch."""
        with _on_this_host():
            return self._learner.predict_on_batch(inputs)


@contextlib.contextmanager
def _on_this_host() -> Iterator[None]:
    """Computes on this host alone while the block runs."""
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)
