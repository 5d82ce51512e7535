"""PyTorch's files without PyTorch: the tensors, and nothing but tensors."""

import pickle

import numpy as np
import pytest

from tests.support.torch_files import write_torch_file
from utils.errors import ModelError
from utils.networks.torch_file import read_torch_file


def test_tensors_of_a_torch_file() -> None:
    tensors = {"a": np.arange(6.0).reshape(2, 3), "b": np.float32(7).reshape(())}
    read = read_torch_file(write_torch_file(tensors), "file")
    assert list(read) == ["a", "b"]
    np.testing.assert_array_equal(read["a"], tensors["a"])
    np.testing.assert_array_equal(read["b"], 7)


@pytest.mark.parametrize(
    "extra",
    [
        b"X\x01\x00\x00\x00xcposix\nsystem\n(X\x04\x00\x00\x00truetR",
        b"X\x01\x00\x00\x00xcbuiltins\neval\n(X\x01\x00\x00\x001tR",
    ],
)
def test_runs_no_code_of_a_torch_file(extra: bytes) -> None:
    with pytest.raises(ModelError, match="it asks for"):
        read_torch_file(write_torch_file({}, extra), "file")


@pytest.mark.parametrize(
    "data", [b"", b"PK", pickle.dumps({"a": 1}), write_torch_file({}, b"K\x01K\x02")]
)
def test_refuses_other_files(data: bytes) -> None:
    with pytest.raises(ModelError, match="expected a dict of tensors"):
        read_torch_file(data, "file")


def test_a_state_dict_inside_a_larger_file() -> None:
    with pytest.raises(ModelError, match="no file of PyTorch weights"):
        read_torch_file(write_torch_file({"a": np.zeros(2)}), "file", key="state_dict")
    # The pickle of {"state_dict": {}, "version": 1}, which by itself is more than tensors.
    inner = write_torch_file({}, b"X\x0a\x00\x00\x00state_dict}X\x07\x00\x00\x00versionK\x01")
    assert read_torch_file(inner, "file", key="state_dict") == {}
    with pytest.raises(ModelError, match="holds more than tensors"):
        read_torch_file(inner, "file")
