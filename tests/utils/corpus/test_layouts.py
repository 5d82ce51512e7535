"""Every layout on a small tree of its kind, and the errors of trees that are not of that kind."""

import json
import os
from pathlib import Path

import pytest

from utils.corpus.layouts import LAYOUTS, SourceClip, read_folders, read_table, read_zhvoice
from utils.errors import DataListError

# Layout, files in the tree, and the (path, speaker) that are expected, in order.
TREES = {
    "folders": (
        ["b/1.wav", "a/2.OGG", "a/1.flac", "a/notes.txt", "a/.hidden.wav", ".cache/x.wav"],
        [("a/1.flac", "a"), ("a/2.OGG", "a"), ("b/1.wav", "b")],
    ),
    "librispeech": (
        ["train-clean-100/19/198/19-198-0000.flac", "train-clean-100/26/495/26-495-0001.flac"],
        [
            ("train-clean-100/19/198/19-198-0000.flac", "19"),
            ("train-clean-100/26/495/26-495-0001.flac", "26"),
        ],
    ),
    "voxceleb": (
        ["wav/id10001/Y8hIVOBuels/00001.wav", "wav/id10002/0_laIeN-Q44/00001.m4a"],
        [
            ("wav/id10001/Y8hIVOBuels/00001.wav", "id10001"),
            ("wav/id10002/0_laIeN-Q44/00001.m4a", "id10002"),
        ],
    ),
    "cnceleb": (
        ["data/id00001/singing-01-001.flac", "eval/enroll/id00800-enroll.flac"],
        [("data/id00001/singing-01-001.flac", "id00001")],
    ),
    "aishell": (
        ["wav/train/S0002/BAC009S0002W0122.wav", "wav/dev/S0724/BAC009S0724W0121.wav"],
        [
            ("wav/dev/S0724/BAC009S0724W0121.wav", "S0724"),
            ("wav/train/S0002/BAC009S0002W0122.wav", "S0002"),
        ],
    ),
}


def make_tree(folder: Path, files: list[str]) -> Path:
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def found(folder: Path, level: int | None = None) -> list[tuple[str, str | None]]:
    return [(clip.path, clip.speaker) for clip in read_folders(folder, level)]


@pytest.mark.parametrize("layout", TREES)
def test_tree_of_each_layout(tmp_path: Path, layout: str) -> None:
    files, expected = TREES[layout]
    clips = list(LAYOUTS[layout].read(make_tree(tmp_path, files), None))
    assert [(clip.path, clip.speaker) for clip in clips] == expected


def test_every_layout_has_a_test() -> None:
    assert set(LAYOUTS) == {*TREES, "zhvoice", "table", "kaldi"}


@pytest.mark.parametrize("layout", [*TREES, "table"])
def test_missing_folder(tmp_path: Path, layout: str) -> None:
    with pytest.raises(DataListError, match="no such f"):
        list(LAYOUTS[layout].read(tmp_path / "none", None))


@pytest.mark.parametrize("layout", TREES)
def test_folder_without_audio(tmp_path: Path, layout: str) -> None:
    with pytest.raises(DataListError, match=r"no audio file found, expected \.3gp"):
        list(LAYOUTS[layout].read(make_tree(tmp_path, ["a/b/c.txt"]), None))


@pytest.mark.parametrize(
    ("level", "speaker"),
    [
        (None, "cv_en/anna/day 1"),
        (-1, "cv_en/anna/day 1"),
        (-2, "cv_en/anna"),
        (-3, "cv_en"),
        (-4, None),
        (1, "cv_en"),
        (2, "cv_en/anna"),
        (3, "cv_en/anna/day 1"),
        (4, None),
    ],
)
def test_speaker_level(tmp_path: Path, level: int | None, speaker: str | None) -> None:
    folder = make_tree(tmp_path, ["cv_en/anna/day 1/1.wav"])
    assert found(folder, level) == [("cv_en/anna/day 1/1.wav", speaker)]


@pytest.mark.parametrize("layout", ["librispeech", "voxceleb", "aishell", "cnceleb"])
def test_speaker_level_overrides_the_layout(tmp_path: Path, layout: str) -> None:
    folder = make_tree(tmp_path, ["anna/b/c/1.wav"])
    assert [clip.speaker for clip in LAYOUTS[layout].read(folder, 1)] == ["anna"]
    if layout != "cnceleb":
        shallow = make_tree(tmp_path / "shallow", ["1.wav"])
        assert [clip.speaker for clip in LAYOUTS[layout].read(shallow, None)] == [None]


def test_equal_names_in_two_corpora_are_two_speakers(tmp_path: Path) -> None:
    folder = make_tree(tmp_path, ["one/01/a.wav", "two/01/a.wav"])
    assert [speaker for _, speaker in found(folder)] == ["one/01", "two/01"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_are_followed_but_not_in_a_circle(tmp_path: Path) -> None:
    folder = make_tree(tmp_path / "data", ["a/1.wav"])
    elsewhere = make_tree(tmp_path / "elsewhere", ["2.wav"])
    (folder / "b").symlink_to(elsewhere)
    (folder / "a" / "up").symlink_to(folder)
    assert found(folder) == [("a/1.wav", "a"), ("b/2.wav", "b")]


def write_info(folder: Path, *lines: object) -> Path:
    info = folder / "text" / "infodata.json"
    info.parent.mkdir(parents=True)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    info.write_text("\n".join(texts), encoding="utf-8")
    return folder


def test_zhvoice(tmp_path: Path) -> None:
    folder = write_info(
        tmp_path,
        {"index": "zhaidatatang/G1/1.mp3", "speaker": "李", "duration_ms": 2500, "text": "你好"},
        "",
        {"index": "zhaidatatang\\G1\\2.mp3", "speaker": 7, "duration_ms": None},
        {"index": "3.mp3", "speaker": "b"},
    )
    assert list(read_zhvoice(folder)) == [
        SourceClip("zhaidatatang/G1/1.mp3", "李", 2.5),
        SourceClip("zhaidatatang/G1/2.mp3", "7", None),
        SourceClip("3.mp3", "b", None),
    ]


def test_missing_zhvoice_says_what_where_and_what_else(tmp_path: Path) -> None:
    with pytest.raises(DataListError) as caught:
        list(read_zhvoice(tmp_path / "zhvoice"))
    message = str(caught.value)
    assert "zhvoice/text/infodata.json not found" in message
    assert "https://github.com/KuangDD/zhvoice" in message
    assert "--dataset folders:FOLDER" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "7",
        '{"index": "a.mp3"}',
        '{"speaker": "a"}',
        '{"index": "a.mp3", "speaker": "a", "duration_ms": "long"}',
    ],
)
def test_bad_line_of_zhvoice_is_named(tmp_path: Path, line: str) -> None:
    folder = write_info(tmp_path, {"index": "a.mp3", "speaker": "a"}, line)
    with pytest.raises(DataListError, match=r"infodata\.json, line 2: received .* expected a JSON"):
        list(read_zhvoice(folder))


def test_table_of_tabs_and_of_commas(tmp_path: Path) -> None:
    tabs = tmp_path / "a.tsv"
    tabs.write_text('path\tspeaker\tseconds\nx/1.ogg\tx\t1.5\nx/2 "q".ogg\tx\t\n', encoding="utf-8")
    assert list(read_table(tabs)) == [
        SourceClip("x/1.ogg", "x", 1.5),
        SourceClip('x/2 "q".ogg', "x", None),
    ]
    commas = tmp_path / "a.csv"
    commas.write_text('\ufeffspeaker,path\nx,"1,2.ogg"\n', encoding="utf-8")
    assert list(read_table(commas)) == [SourceClip("1,2.ogg", "x", None)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"path\tspeaker\na.wav\tx\nb.wav\t\n", "line 3: no path or no speaker"),
        (b"file\tname\na.wav\tx\n", "line 2: no path or no speaker"),
        (b"path\tspeaker\tseconds\na.wav\tx\tlong\n", "line 2: received 'long' seconds"),
        (b"path\tspeaker\n\xff.wav\tx\n", "not a UTF-8 table"),
    ],
)
def test_bad_table(tmp_path: Path, data: bytes, expected: str) -> None:
    table = tmp_path / "a.tsv"
    table.write_bytes(data)
    with pytest.raises(DataListError, match=expected):
        list(read_table(table))
