"""The table of a teacher's vectors: what it finds, and files that it refuses."""

from pathlib import Path

import numpy as np
import pytest

from utils.crops.teacher import TeacherTable
from utils.errors import DataListError

VECTORS = np.array([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]], np.float32)


def save(file: Path, **arrays: object) -> Path:
    with file.open("wb") as stream:
        np.savez(stream, **arrays)
    return file


def table(tmp_path: Path, paths: list[str], **arrays: object) -> TeacherTable:
    arrays = {"embedding": VECTORS[: len(paths)], **arrays}
    return TeacherTable(save(tmp_path / "t.npz", path=np.array(paths), **arrays))


def test_vectors_have_length_one(tmp_path: Path) -> None:
    teacher = table(tmp_path, ["a.wav", "b.wav", "c.wav"])
    assert (len(teacher), teacher.size, teacher.speeds) == (3, 2, [1.0])
    vector = teacher.vector(teacher.find("a.wav")[1.0])
    assert vector.dtype == np.float32
    np.testing.assert_allclose(vector, [0.6, 0.8], atol=1e-3)


def test_vector_of_zeros_stays_zero(tmp_path: Path) -> None:
    teacher = table(tmp_path, ["a.wav"], embedding=np.zeros((1, 2)))
    np.testing.assert_array_equal(teacher.vector(0), [0, 0])


def test_speeds_are_rows_of_one_utterance(tmp_path: Path) -> None:
    teacher = table(tmp_path, ["a.wav"] * 3, speed=np.array([1.0, 0.9, 1.1], np.float32))
    assert teacher.speeds == [0.9, 1.0, 1.1]
    assert len(teacher) == 1
    assert teacher.find("a.wav") == {1.0: 0, 0.9: 1, 1.1: 2}


def test_unchanged_speed_is_always_known(tmp_path: Path) -> None:
    assert table(tmp_path, ["a.wav"], speed=np.array([0.9])).speeds == [0.9, 1.0]


@pytest.mark.parametrize(
    ("stored", "listed", "is_found"),
    [
        ("spk/1.wav", "spk/1.wav", True),
        ("spk/1.mp3", "dataset/wav/spk/1.wav", True),  # a converted copy elsewhere
        ("spk/1.wav", "dataset\\wav\\spk\\1.wav", True),
        ("spk\\1.wav", "/data/spk/1.flac", True),
        ("说话人/录音.wav", "x/说话人/录音.opus", True),
        ("/data/spk/1.wav", "/data/spk/1.wav", True),
        ("spk/1.wav", "other/1.wav", False),
        ("spk/1.wav", "spk/11.wav", False),
        ("spk/1.wav", "1.wav", False),  # less than what is stored
        ("k/1.wav", "spk/1.wav", False),  # whole parts only
    ],
)
def test_path_stands_for_every_path_that_ends_with_it(
    tmp_path: Path, stored: str, listed: str, is_found: bool
) -> None:
    assert bool(table(tmp_path, [stored]).find(listed)) == is_found


def test_longest_match_wins(tmp_path: Path) -> None:
    teacher = table(tmp_path, ["1.wav", "spk/1.wav"])
    assert teacher.find("x/spk/1.wav") == {1.0: 1}
    assert teacher.find("x/y/1.wav") == {1.0: 0}


# Files that are refused.


def refused(path: Path, match: str) -> None:
    with pytest.raises(DataListError, match=match) as error:
        TeacherTable(path)
    assert str(path) in str(error.value)


def test_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "absent.npz", "not a teacher file")


def test_folder(tmp_path: Path) -> None:
    refused(tmp_path, "not a teacher file")


@pytest.mark.parametrize("data", [b"", b"text", b"PK\x03\x04 broken zip", b"\x93NUMPY broken"])
def test_other_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "t.npz"
    path.write_bytes(data)
    refused(path, "not a teacher file")


def test_single_array(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", VECTORS)
    refused(tmp_path / "t.npy", "not a teacher file")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_cut_file(tmp_path: Path, share: float) -> None:
    path = save(
        tmp_path / "t.npz", path=np.array(["a.wav"] * 99), embedding=np.ones((99, 8), np.float32)
    )
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    refused(path, "not a teacher file")


@pytest.mark.parametrize("name", ["path", "embedding"])
def test_array_that_is_absent(tmp_path: Path, name: str) -> None:
    arrays = {"path": np.array(["a.wav"]), "embedding": VECTORS[:1]}
    del arrays[name]
    refused(save(tmp_path / "t.npz", **arrays), name)


def test_pickled_objects_are_not_run(tmp_path: Path) -> None:
    path = save(tmp_path / "t.npz", path=np.array(["a", None], object), embedding=VECTORS[:2])
    refused(path, "not a teacher file")


@pytest.mark.parametrize(
    "changes",
    [
        {"path": np.array(["a.wav"])},
        {"embedding": VECTORS[:1]},
        {"embedding": np.ones(2)},
        {"embedding": np.ones((2, 2, 2))},
        {"speed": np.ones(3)},
        {"speed": np.ones((2, 1))},
    ],
)
def test_arrays_of_different_lengths(tmp_path: Path, changes: dict[str, np.ndarray]) -> None:
    arrays = {"path": np.array(["a.wav", "b.wav"]), "embedding": VECTORS[:2], **changes}
    refused(save(tmp_path / "t.npz", **arrays), "one of each a row")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e9])
def test_vectors_that_are_not_finite(tmp_path: Path, value: float) -> None:
    vectors = VECTORS.copy()
    vectors[1, 0] = value
    arrays = {"path": np.array(["a", "b", "c"]), "embedding": vectors}
    refused(save(tmp_path / "t.npz", **arrays), "not finite")


def test_speeds_that_are_no_numbers(tmp_path: Path) -> None:
    arrays = {"path": np.array(["a"]), "embedding": VECTORS[:1], "speed": np.array(["fast"])}
    refused(save(tmp_path / "t.npz", **arrays), "not a teacher file")


def test_paths_that_are_empty_are_told(tmp_path: Path) -> None:
    refused(save(tmp_path / "t.npz", path=np.array([""]), embedding=VECTORS[:1]), "empty path")


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_damage_inside_is_told(tmp_path: Path, write: object) -> None:
    vectors = np.random.default_rng(0).standard_normal((99, 8)).astype(np.float32)
    with (tmp_path / "t.npz").open("wb") as file:
        write(file, path=np.array(["a.wav"] * 99), embedding=vectors)
    data = bytearray((tmp_path / "t.npz").read_bytes())
    middle = len(data) * 3 // 4
    data[middle : middle + 20] = bytes(20)
    (tmp_path / "t.npz").write_bytes(data)
    refused(tmp_path / "t.npz", "not a teacher file")
