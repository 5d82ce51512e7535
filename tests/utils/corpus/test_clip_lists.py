"""Recordings of lists, tables and folders, with what is known of them."""

from pathlib import Path

import pytest

from utils.corpus.clip_lists import read_clips
from utils.corpus.lists import LabelledClip
from utils.errors import DataListError


def test_a_table_tells_corpus_sex_language_and_length(tmp_path: Path) -> None:
    table = tmp_path / "dev.tsv"
    table.write_text(
        "path\tspeaker\tseconds\tlanguage\tgender\n"
        "a/1.wav\tcv/x\t2.5\tzh\tfemale\n"
        "a/2.wav\tcv/x\t\tzh\tf\n"
        "b/1.wav\ty\t1\ten\tother\n",
        encoding="utf-8",
    )
    folder = tmp_path.as_posix()
    assert read_clips(table) == [
        LabelledClip(f"{folder}/a/1.wav", 0, "cv", "female", "zh", 2.5),
        LabelledClip(f"{folder}/a/2.wav", 0, "cv", "female", "zh", None),
        LabelledClip(f"{folder}/b/1.wav", 1, "", "", "en", 1.0),
    ]


def test_a_data_list_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.wav\t7\nb.wav\t8\n", encoding="utf-8")
    assert read_clips(tmp_path / "list.txt") == [LabelledClip("a.wav", 0), LabelledClip("b.wav", 1)]
    for name in ("office/ann/1.wav", "office/ann/2.wav", "office/bob/1.wav"):
        path = tmp_path / "people" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    found = read_clips(tmp_path / "people")
    assert [(clip.label, clip.corpus) for clip in found] == [
        (0, "office"),
        (0, "office"),
        (1, "office"),
    ]
    assert Path(found[0].path) == tmp_path / "people" / "office" / "ann" / "1.wav"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path\tspeaker\n", "no recording below the header"),
        ("path\tspeaker\na.wav\t\n", "recording 1 has no speaker or no path"),
        ("path\tspeaker\tseconds\na.wav\tx\tlong\n", "received 'long' seconds, expected a number"),
        ("a.wav 1\n", "expected path<TAB>label"),
    ],
)
def test_a_list_that_says_too_little(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "list.tsv").write_text(text, encoding="utf-8")
    with pytest.raises(DataListError, match=message):
        read_clips(tmp_path / "list.tsv")


def test_recordings_outside_a_persons_folder(tmp_path: Path) -> None:
    (tmp_path / "1.wav").write_bytes(b"")
    with pytest.raises(DataListError, match="recordings of each person into a folder"):
        read_clips(tmp_path)
