"""The public weights find their places in the Keras network, or are refused."""

from typing import Any

import numpy as np
import pytest

from tests.support.torch_files import (
    PUBLIC_LAYERS,
    public_network,
    shorten_network,
    torch_tensors,
    write_torch_file,
)
from utils.errors import ModelError
from utils.networks.campplus_weights import campplus_from_tensors
from utils.networks.torch_file import read_torch_file


@pytest.mark.slow
def test_size_of_the_published_network() -> None:
    # Table 1 of the paper says 7.18 M with 512 numbers in an embedding, here are 192; beside them
    # stands the vector of the one class.
    assert public_network().count_params() == 6_930_528 + 192


@pytest.mark.slow
def test_weights_find_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_network(monkeypatch, PUBLIC_LAYERS)
    tensors = torch_tensors()
    network = campplus_from_tensors(read_torch_file(write_torch_file(tensors), "file"), "file")
    # The first time-delay layer: there channels of the front come first, here frequencies.
    theirs = tensors["xvector.tdnn.linear.weight"].reshape(128, 32, 10, 5)
    ours = np.asarray(network.get_layer("tdnn").kernel).reshape(5, 10, 32, 128)
    np.testing.assert_array_equal(ours, theirs.transpose(3, 2, 1, 0))
    # The last layer with the normalisation behind it.
    pooled = np.random.default_rng(1).normal(size=1024).astype(np.float32)
    layer = network.get_layer("projection")
    found = pooled @ np.asarray(layer.kernel) + np.asarray(layer.bias)
    norm = "xvector.dense.nonlinear.batchnorm.running"
    expected = tensors["xvector.dense.linear.weight"][:, :, 0] @ pooled - tensors[f"{norm}_mean"]
    expected /= np.sqrt(tensors[f"{norm}_var"] + 1e-5)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("head.bn1.weight"), "lacks the tensor head.bn1.weight"),
        (lambda t: t.update({"more": np.zeros(2, np.float32)}), "has the tensor more too many"),
        (
            lambda t: t.update({"head.bn1.bias": np.zeros(2, np.float32)}),
            r"front_conv_norm/beta has shape \(2,\), expected \(32,\)",
        ),
    ],
)
def test_other_weights_are_refused(
    change: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_network(monkeypatch, (1, 1, 1))
    tensors = torch_tensors()
    change(tensors)
    with pytest.raises(ModelError, match=message):
        campplus_from_tensors(tensors, "file")
