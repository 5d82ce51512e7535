"""What a model file says of itself: the names of its classes."""

import pytest

from utils.model.header import ModelHeader, name_of


def test_names_of_the_classes() -> None:
    header = ModelHeader("a.keras", {"num_classes": 2, "labels": ["Tom", "José"]})
    assert header.speakers == ["Tom", "José"]
    assert header.name_class(1) == "José"


def test_numbers_where_there_are_no_names() -> None:
    header = ModelHeader("a.keras", {"num_classes": 3})
    assert header.speakers == ["0", "1", "2"]
    assert ModelHeader("a.onnx", {}).speakers == []


@pytest.mark.parametrize(("output", "name"), [(0, "Tom"), (2, "Tom"), (3, "Ann"), (7, "2")])
def test_several_speeds_of_a_speaker_are_one_class(output: int, name: str) -> None:
    metadata = {"num_classes": 3, "num_speed_classes": 3, "labels": ["Tom", "Ann"]}
    assert ModelHeader("a.keras", metadata).name_class(output) == name


def test_class_without_a_speaker() -> None:
    assert name_of(1, ["Tom"]) == "1"
