"""Data lists and trial lists: round trips, foreign files, and errors that name the line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.corpus.lists import (
    Trial,
    Utterance,
    check_labels,
    num_classes,
    path_defect,
    read_data_list,
    read_trial_list,
    write_data_list,
)
from utils.errors import DataListError


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_round_trip(tmp_path: Path) -> None:
    utterances = [Utterance("dataset/李达康/1 a.wav", 0), Utterance("b.ogg", 3238)]
    path = tmp_path / "new" / "list.txt"
    write_data_list(path, utterances)
    assert path.read_bytes().decode() == "dataset/李达康/1 a.wav\t0\nb.ogg\t3238\n"
    assert read_data_list(path) == utterances


paths = st.text(st.characters(blacklist_characters="\\"), min_size=1, max_size=60).filter(
    lambda text: path_defect(text) is None
)


@given(st.lists(st.builds(Utterance, paths, st.integers(0, 10**9)), min_size=1, max_size=5))
def test_any_list_that_is_written_reads_the_same(
    tmp_path_factory: pytest.TempPathFactory, utterances: list[Utterance]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any_list.txt"
    write_data_list(path, utterances)
    assert read_data_list(path) == utterances


@given(st.binary(max_size=60))
def test_any_bytes_give_a_list_or_a_data_list_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = write(tmp_path_factory.getbasetemp() / "any_bytes.txt", data)
    for read in (read_data_list, read_trial_list):
        try:
            assert read(path)
        except DataListError as error:
            assert str(path) in str(error)


def test_byte_order_mark_windows_line_ends_and_empty_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "list.txt", b"\xef\xbb\xbfa.wav\t0\r\n\r\nb.wav\t1\r\n \r\n")
    assert read_data_list(path) == [Utterance("a.wav", 0), Utterance("b.wav", 1)]


def test_backslashes_are_written_as_slashes(tmp_path: Path) -> None:
    write_data_list(tmp_path / "list.txt", [Utterance("dataset\\a.wav", 0)])
    assert read_data_list(tmp_path / "list.txt") == [Utterance("dataset/a.wav", 0)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"b.wav 1", "path<TAB>label"),
        (b"b.wav\t1\t2", "path<TAB>label"),
        (b"\t1", "path<TAB>label"),
        (b"b.wav\t-1", "integer label"),
        (b"b.wav\tone", "integer label"),
        (b"b.wav\t1.0", "integer label"),
        (b"b.wav\t", "integer label"),
        ("b.wav\t²".encode(), "integer label"),
        (b"b.wav\xff\t1", "UTF-8"),
        (b"b" * 500, "path<TAB>label"),
    ],
)
def test_bad_line_is_named(tmp_path: Path, line: bytes, expected: str) -> None:
    path = write(tmp_path / "list.txt", b"a.wav\t0\n\n" + line + b"\nc.wav\t2\n")
    with pytest.raises(DataListError) as caught:
        read_data_list(path)
    message = str(caught.value)
    assert f"{path}, line 3" in message
    assert expected in message
    assert len(message) < len(str(path)) + 250


def test_missing_list_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(DataListError, match=r"no such list, create it with create_data\.py"):
        read_data_list(tmp_path / "none.txt")


def test_folder_instead_of_a_list(tmp_path: Path) -> None:
    with pytest.raises(DataListError, match="cannot be read"):
        read_data_list(tmp_path)


@pytest.mark.parametrize("read", [read_data_list, read_trial_list])
def test_empty_list_is_an_error(tmp_path: Path, read: type) -> None:
    with pytest.raises(DataListError, match="in the list, expected lines"):
        read(write(tmp_path / "list.txt", b"\n\n"))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "empty"),
        (" ", "empty"),
        ("a\tb", "tab"),
        ("a\nb", "line break"),
        ("a\rb", "line break"),
        ("\ufeffa", "byte order mark"),
        ("\udcff", "UTF-8"),
    ],
)
def test_impossible_path_is_refused_and_the_old_list_kept(
    tmp_path: Path, path: str, reason: str
) -> None:
    old = write(tmp_path / "list.txt", b"old\t0\n")
    with pytest.raises(DataListError, match=reason):
        write_data_list(old, [Utterance("a.wav", 0), Utterance(path, 1)])
    assert old.read_bytes() == b"old\t0\n"
    assert reason in str(path_defect(path))


def test_negative_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataListError, match=r"label -1 of a\.wav"):
        write_data_list(tmp_path / "list.txt", [Utterance("a.wav", -1)])


def test_num_classes_is_the_largest_label_plus_one() -> None:
    assert num_classes([Utterance("a", 0), Utterance("b", 3241), Utterance("c", 7)]) == 3242
    with pytest.raises(DataListError, match="empty"):
        num_classes([])


def test_first_label_that_is_too_large_is_named() -> None:
    utterances = [Utterance("a", 0), Utterance("b", 5), Utterance("c", 9)]
    check_labels(utterances, 10)
    with pytest.raises(DataListError, match=r"utterance 2 of the list, b, has label 5.*least 10"):
        check_labels(utterances, 5)


def test_trials_with_spaces_or_tabs(tmp_path: Path) -> None:
    path = write(tmp_path / "trials.txt", b"1 a.wav  b.wav\n0\ta 1.wav\tb 2.wav\r\n")
    assert read_trial_list(path) == [
        Trial(True, "a.wav", "b.wav"),
        Trial(False, "a 1.wav", "b 2.wav"),
    ]


@pytest.mark.parametrize("line", [b"2 a b", b"a b", b"1 a b c", b"1\ta\t", b"yes a b"])
def test_bad_trial_is_named(tmp_path: Path, line: bytes) -> None:
    path = write(tmp_path / "trials.txt", b"1 a b\n" + line + b"\n")
    with pytest.raises(DataListError, match=r"line 2: received .*expected 1 \(same speaker\)"):
        read_trial_list(path)
