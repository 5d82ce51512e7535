"""Data lists: round trips, names and numbers, foreign files, and errors that name the line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.corpus.lists import (
    Utterance,
    check_labels,
    check_speakers,
    num_classes,
    number_labels,
    path_defect,
    read_data_list,
    read_training_lists,
    speakers_of,
    write_data_list,
)
from utils.corpus.trials import read_pair_list, read_trial_list
from utils.errors import DataListError


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_round_trip(tmp_path: Path) -> None:
    utterances = [Utterance("dataset/李达康/1 a.wav", 0), Utterance("b.ogg", 3238)]
    path = tmp_path / "new" / "list.txt"
    write_data_list(path, utterances)
    assert path.read_bytes().decode() == "dataset/李达康/1 a.wav\t0\nb.ogg\t3238\n"
    assert read_data_list(path) == [Utterance(utterances[0].path, 0), Utterance("b.ogg", 1)]
    assert speakers_of(read_data_list(path)) == ["0", "3238"]


paths = st.text(st.characters(blacklist_characters="\\"), min_size=1, max_size=60).filter(
    lambda text: path_defect(text) is None
)


@pytest.mark.slow
@given(st.lists(st.builds(Utterance, paths, st.integers(0, 10**9)), min_size=1, max_size=5))
def test_any_list_that_is_written_reads_the_same(
    tmp_path_factory: pytest.TempPathFactory, utterances: list[Utterance]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any_list.txt"
    write_data_list(path, utterances)
    found = read_data_list(path)
    assert [u.path for u in found] == [u.path for u in utterances]
    assert [u.speaker for u in found] == [str(u.label) for u in utterances]
    labels = sorted({u.label for u in utterances})
    assert [u.label for u in found] == [labels.index(u.label) for u in utterances]


@given(st.binary(max_size=60))
def test_any_bytes_give_a_list_or_a_data_list_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = write(tmp_path_factory.getbasetemp() / "any_bytes.txt", data)
    for read in (read_data_list, read_trial_list, read_pair_list):
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
        (b"b.wav\t", "the speaker's label"),
        (b"b.wav\t  ", "the speaker's label"),
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


def test_classes_no_network_can_have() -> None:
    with pytest.raises(DataListError, match="num_classes is 13800138000, expected at most"):
        check_labels([Utterance("a", 0)], 13800138000)


def read_text(folder: Path, text: str) -> list[Utterance]:
    return read_data_list(write(folder / "list.txt", text.encode()))


def test_labels_with_gaps_are_numbered_without(tmp_path: Path) -> None:
    found = read_text(tmp_path, "a.wav\t10270\nb.wav\t10001\nc.wav\t10270\n")
    assert found == [Utterance("a.wav", 1), Utterance("b.wav", 0), Utterance("c.wav", 1)]
    assert num_classes(found) == 2
    assert speakers_of(found) == ["10001", "10270"]


def test_labels_without_gaps_stay(tmp_path: Path) -> None:
    found = read_text(tmp_path, "".join(f"{n}.wav\t{n}\n" for n in (11, 2, 0, *range(1, 11))))
    assert [u.label for u in found] == [11, 2, 0, *range(1, 11)]


def test_names_are_labels_too(tmp_path: Path) -> None:
    found = read_text(tmp_path, "a.wav\t夜雨飘零\nb.wav\tAnn\nc.wav\t13800138000\nd.wav\t-1\n")
    assert speakers_of(found) == ["13800138000", "-1", "Ann", "夜雨飘零"]
    assert [u.label for u in found] == [3, 2, 0, 1]


@pytest.mark.parametrize("digits", [11, 19, 5000])
def test_numbers_of_any_length(tmp_path: Path, digits: int) -> None:
    assert speakers_of(read_text(tmp_path, f"a.wav\t{'9' * digits}\nb.wav\t7\n"))[0] == "7"


@pytest.mark.parametrize(
    ("one", "other"),
    [("Tom", "Tom "), ("Jos\u00e9", "Jose\u0301"), ("7", "007"), ("\u3000李", "李\xa0")],
)
def test_one_person_in_two_spellings(
    tmp_path: Path, one: str, other: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = read_text(tmp_path, f"a.wav\t{one}\nb.wav\t{other}\nc.wav\tBob\nd.wav\t{one}\n")
    assert len(speakers_of(found)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "1 speakers are written in several ways" in error
    assert ascii(other) in error


def test_a_first_line_that_names_the_columns_is_no_clip(tmp_path: Path) -> None:
    assert read_text(tmp_path, "path\tlabel\na.wav\t0\n") == [Utterance("a.wav", 0)]


def test_paths_of_windows_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project" / "dataset").mkdir(parents=True)
    (tmp_path / "project" / "dataset" / "a.wav").touch()
    monkeypatch.chdir(tmp_path / "project")
    text = "D:\\work\\project\\dataset\\a.wav\t0\ndataset\\b.wav\t1\nE:\\c.wav\t1\n"
    assert [u.path for u in read_text(tmp_path, text)] == [
        "dataset/a.wav", "dataset/b.wav", "E:/c.wav",
    ]  # fmt: skip


def test_training_and_test_list_share_their_numbers(tmp_path: Path) -> None:
    train = write(tmp_path / "train.txt", b"a.wav\tTom\nb.wav\tZoe\n")
    test = write(tmp_path / "test.txt", b"c.wav\tBob\nd.wav\tZoe\ne.wav\tAda\n")
    first, second = read_training_lists(train, test)
    assert [u.label for u in first] == [0, 1]
    assert [u.label for u in second] == [3, 1, 2]
    assert speakers_of(first) == ["Tom", "Zoe"]
    assert read_training_lists(train, "") == (first, [])


def test_a_file_under_two_speakers_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = write(tmp_path / "train.txt", b"a.wav\tTom\nb.wav\tZoe\na.wav\tTom\n")
    test = write(tmp_path / "test.txt", b"b.wav\tTom\na.wav\tTom\n")
    read_training_lists(train, test)
    error = capsys.readouterr().err
    assert "1 files are listed under two speakers; the first, b.wav, under Zoe and Tom" in error


def test_names_come_from_create_data_where_they_fit(tmp_path: Path) -> None:
    path = write(tmp_path / "train_list.txt", b"a.wav\t0\nb.wav\t1\nc.wav\t1\n")
    header = "label\tdataset\tspeaker\tnum_train\tnum_test\n"
    names = tmp_path / "speakers.tsv"
    found = read_data_list(path)
    assert speakers_of(found, path) == ["0", "1"]
    rows = "0\t0\tTom\t1\t1\n1\t0\tJosé\t2\t0\n2\t0\tZoe\t0\t2\n"
    names.write_text(header + rows, "utf-8")
    assert speakers_of(found, path) == ["Tom", "José"]
    for other in ("0\t0\tTom\t2\t1\n1\t0\tZoe\t2\t0\n", "0\t0\tTom\t1\t0\n", "damaged\n"):
        names.write_text(header + other, "utf-8")
        assert speakers_of(found, path) == ["0", "1"]


def test_one_speaker_is_nobody_to_tell_apart() -> None:
    check_speakers(["Tom", "Zoe"])
    with pytest.raises(DataListError, match="has one speaker, Tom, expected two or more"):
        check_speakers(["Tom"])


@given(st.lists(st.lists(st.text(max_size=3), max_size=6), max_size=3))
def test_numbers_have_no_gaps(lists: list[list[str]]) -> None:
    numbers = number_labels(lists)
    assert sorted(numbers.values()) == list(range(len({n for names in lists for n in names})))
