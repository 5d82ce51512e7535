"""Channels: which are mixed, and which hold something of their own.

The products of the channels tell the power of each, that of their mean, and how much two of them
have in common. They are summed up over the recording, so that a pause of one channel does not
change what is mixed.
"""

import numpy as np
import numpy.typing as npt

from utils.arrays import FloatArray
from utils.errors import AudioError

MIN_CHANNEL_SHARE = 1e-4
"""-40 dB. A channel so far below the loudest is silent and not averaged with it."""

MIN_MIX_SHARE = 0.25
"""Power of the mean of N channels, relative to a mean of N that have nothing in common. Below it
they cancel each other out, as when one is inverted."""

MAX_CORRELATION = 0.5
"""Channels of one room have more in common, those of a call by telephone nothing; two microphones
far from each other have little, and hold one voice all the same."""


class Mixer:
    """From channels to one, by what is known of them so far."""

    def __init__(self, num_channels: int, channel: str = "mix", name: str = "recording") -> None:
        """Prepares the mixing.

        Args:
            num_channels: How many there are.
            channel: "left", "right", a number from "1", or "mix": the mean of the channels,
                without silent ones; the loudest alone where they cancel each other out.
            name: What to call the recording in an error.

        Raises:
            AudioError: If there is no such channel.
        """
        self._chosen: int | None = None
        if channel != "mix":
            self._chosen = {"left": 0, "right": 1}.get(channel, -1)
            if self._chosen < 0:
                self._chosen = int(channel) - 1
            if not 0 <= self._chosen < num_channels:
                raise AudioError(
                    f"{name}: channel {channel} was asked for, it has {num_channels}; "
                    "choose one of these, or mix"
                )
        self._num = 0
        self._sum = np.zeros(num_channels)
        self._products = np.zeros((num_channels, num_channels))

    def __call__(self, samples: FloatArray) -> FloatArray:
        """Returns the mono waveform, shape `(n,)`, of samples, shape `(n, channels)`."""
        if samples.shape[1] == 1 or len(samples) == 0:
            return samples[:, 0]
        if self._chosen is not None:
            return np.ascontiguousarray(samples[:, self._chosen])
        self._num += len(samples)
        self._sum += samples.sum(axis=0, dtype=np.float64)
        self._products += samples.T @ samples
        covariance = self._covariance
        is_heard = self._are_heard(covariance)
        heard = np.flatnonzero(is_heard)
        mixed = covariance[np.ix_(heard, heard)].sum()  # len(heard)^2 times that of the mean
        power = np.diagonal(covariance)
        if mixed < MIN_MIX_SHARE * power[heard].sum():
            return np.ascontiguousarray(samples[:, int(power.argmax())])
        chosen = samples if is_heard.all() else samples[:, heard]
        mono: FloatArray = chosen.mean(axis=1, dtype=np.float32)
        return mono

    @property
    def unlike(self) -> tuple[int, ...]:
        """Channels that were mixed though they have little in common, from 1; none, or several."""
        covariance = self._covariance
        if not covariance.any():  # nothing was mixed, or digital silence
            return ()
        power = np.sqrt(np.maximum(np.diagonal(covariance), 1e-30))
        correlation = np.abs(covariance / np.outer(power, power))
        kept: list[int] = []
        for channel in np.flatnonzero(self._are_heard(covariance)):
            if all(correlation[channel, other] < MAX_CORRELATION for other in kept):
                kept.append(int(channel))
        return tuple(channel + 1 for channel in kept) if len(kept) > 1 else ()

    @property
    def _covariance(self) -> npt.NDArray[np.float64]:
        """Sums of products less the means, shape `(channels, channels)`."""
        return self._products - np.outer(self._sum, self._sum) / max(self._num, 1)

    @staticmethod
    def _are_heard(covariance: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Tells which channels are not silent."""
        power = np.diagonal(covariance)
        return np.asarray(power >= MIN_CHANNEL_SHARE * power.max())
