"""Trial lists of several tools: the same pairs, whatever stands where; ambiguous ones refused."""

from pathlib import Path

import pytest

from utils.corpus.trials import Trial, place_trials, read_pair_list, read_trial_list
from utils.errors import DataListError

EXPECTED = [Trial(True, "x/a.wav", "x/b.wav"), Trial(False, "x/a.wav", "y/c.wav")]


def write(folder: Path, text: str) -> Path:
    path = folder / "trials.txt"
    path.write_text(text, encoding="utf-8", newline="")
    return path


FORMS = {
    "VoxCeleb": "1 x/a.wav x/b.wav\n0 x/a.wav y/c.wav\n",
    "label last": "x/a.wav x/b.wav 1\nx/a.wav y/c.wav 0\n",
    "Kaldi": "x/a.wav x/b.wav target\nx/a.wav y/c.wav nontarget\n",
    "Kaldi in capitals": "x/a.wav x/b.wav TARGET\r\nx/a.wav y/c.wav NonTarget\r\n",
    "tgt and imp": "tgt x/a.wav x/b.wav\nimp x/a.wav y/c.wav\n",
    "commas": "x/a.wav,x/b.wav,1\nx/a.wav,y/c.wav,0\n",
    "commas and blanks": "1, x/a.wav, x/b.wav\n0, x/a.wav, y/c.wav\n",
    "a table": "path1,path2,label\nx/a.wav,x/b.wav,1\nx/a.wav,y/c.wav,0\n",
    "tabs": "1\tx/a.wav\tx/b.wav\n0\tx/a.wav\ty/c.wav\n",
    "columns behind": "1 x/a.wav x/b.wav en 3.5\n0 x/a.wav y/c.wav zh 2\n",
    "columns behind the label": "x/a.wav x/b.wav 1 en\nx/a.wav y/c.wav 0 zh\n",
    "a column before": "en x/a.wav x/b.wav target\nzh x/a.wav y/c.wav nontarget\n",
    "a column in some lines": "x/a.wav x/b.wav en target\nx/a.wav y/c.wav nontarget\n",
    "quotes": '1 "x/a.wav" \'x/b.wav\'\n0 x/a.wav "y/c.wav"\n',
    "words beside numbers": "1 x/a.wav x/b.wav target\n0 x/a.wav y/c.wav nontarget\n",
    "Windows": "1 x\\a.wav x\\b.wav\n0 x\\a.wav y\\c.wav\n",
    "a byte order mark": "\ufeff1 x/a.wav x/b.wav\n0 x/a.wav y/c.wav\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(tmp_path: Path, form: str) -> None:
    path = write(tmp_path, FORMS[form])
    assert place_trials(read_trial_list(path), None) == EXPECTED
    assert read_pair_list(path) == [(t.path1, t.path2) for t in EXPECTED]


def test_quotes_and_tabs_hold_blanks(tmp_path: Path) -> None:
    text = "1 \"a 1.wav\" b.wav\n0 'a 1.wav' c.wav\n1\ta 1.wav\td e.wav\n"
    assert [(t.path1, t.path2) for t in read_trial_list(write(tmp_path, text))] == [
        ("a 1.wav", "b.wav"), ("a 1.wav", "c.wav"), ("a 1.wav", "d e.wav"),
    ]  # fmt: skip
    text = 'a 1.wav,"b, 2.wav",1\na 1.wav,c.wav,0\n'
    assert read_trial_list(write(tmp_path, text))[0] == Trial(True, "a 1.wav", "b, 2.wav")


def test_an_apostrophe_is_part_of_a_name(tmp_path: Path) -> None:
    text = "1 O'Brien.wav O'Neill.wav\n"
    assert read_trial_list(write(tmp_path, text)) == [Trial(True, "O'Brien.wav", "O'Neill.wav")]


def test_a_comma_is_part_of_a_path_among_blanks(tmp_path: Path) -> None:
    text = "1 a,b.wav c.wav\n0 a,b.wav d.wav\n"
    assert read_trial_list(write(tmp_path, text))[0] == Trial(True, "a,b.wav", "c.wav")


@pytest.mark.parametrize(
    "text", ["1 a b 1\n", "1 a b 0\n0 c d 1\n", "target a b tgt\n", "0 1 b\n1 0 c\n"]
)
def test_two_columns_of_labels_are_ambiguous(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataListError, match=r"columns .* could both be the label"):
        read_trial_list(write(tmp_path, text))


def test_three_paths_are_ambiguous(tmp_path: Path) -> None:
    with pytest.raises(DataListError, match=r"line 1: .*3 are paths"):
        read_trial_list(write(tmp_path, "1 a.wav b.wav c.wav\n"))


@pytest.mark.parametrize(
    "line", ["2 a b", "a b", "1\ta\t", "yes a b", "a b 0.7", "1", '1 "a b.wav"']
)
def test_bad_trial_is_named(tmp_path: Path, line: str) -> None:
    path = write(tmp_path, f"1 a b\n0 a c\n{line}\n")
    with pytest.raises(DataListError, match=r"line 3: received .*expected 1 \(same speaker\)"):
        read_trial_list(path)


def test_no_label_at_all_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataListError, match=r"line 1: .*expected 1 \(same speaker\)"):
        read_trial_list(write(tmp_path, "a.wav b.wav c\nd.wav e.wav f\n"))


def test_only_a_header(tmp_path: Path) -> None:
    with pytest.raises(DataListError, match="no trial in the list"):
        read_trial_list(write(tmp_path, "path1,path2,label\n"))


@pytest.mark.parametrize(
    "text", ["a.wav b.wav\n", "a.wav,b.wav\n", "a.wav\tb.wav\n", '"a.wav" b.wav\n']
)
def test_pairs_without_labels(tmp_path: Path, text: str) -> None:
    assert read_pair_list(write(tmp_path, text)) == [("a.wav", "b.wav")]


def test_pairs_and_trials_in_one_list(tmp_path: Path) -> None:
    text = "1 a.wav b.wav\nc.wav d.wav\n"
    assert read_pair_list(write(tmp_path, text)) == [("a.wav", "b.wav"), ("c.wav", "d.wav")]


def test_cn_celeb(tmp_path: Path) -> None:
    root = tmp_path / "eval"
    for name in ("enroll/id00800-enroll.flac", "test/id00800-singing-01-001.flac"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    path = write(tmp_path, "id00800-enroll test/id00800-singing-01-001.wav 1\n")
    expected = [
        Trial(
            True,
            f"{root.as_posix()}/enroll/id00800-enroll.flac",
            f"{root.as_posix()}/test/id00800-singing-01-001.flac",
        )
    ]
    assert place_trials(read_trial_list(path), root) == expected
    (root / "lists").mkdir()
    (root / "lists" / "enroll.lst").write_text("id00800-enroll enroll/id00800-enroll.wav\n")
    assert place_trials(read_trial_list(path), root) == expected


def test_kaldi_identifiers(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    (tmp_path / "wav.scp").write_text(f"utt-1 {tmp_path}/a.wav\nutt-2 b.wav\n")
    path = write(tmp_path, "utt-1 utt-2 nontarget\n")
    folder = tmp_path.as_posix()
    assert place_trials(read_trial_list(path), tmp_path) == [
        Trial(False, f"{folder}/a.wav", f"{folder}/b.wav")
    ]


def test_index_with_a_command_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wav.scp").write_text("utt-1 sph2pipe a.sph |\n")
    with pytest.raises(DataListError, match=r"wav.scp, line 1: .*the path of a file"):
        place_trials([Trial(True, "utt-1", "utt-1")], tmp_path)
