"""Shards hold the list's recordings, byte for byte, wherever they lie; what is cut is told."""

import json
import shutil
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import create_data
from tests.support.synthetic_voices import write_speech_folder
from utils.corpus import shards as module
from utils.corpus.lists import Utterance, read_data_list
from utils.corpus.shards import is_sharded, read_shard, read_training_shards, write_shards
from utils.engine.engine import LocalEngine
from utils.errors import DataListError, VoiceprintError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lists and 3 shards of 4 people with 5 recordings each."""
    folder = tmp_path_factory.mktemp("data")
    write_speech_folder(folder / "speech", 4, 5, 1.5)
    options = ["--list_dir", str(folder / "lists"), "--shards", "3", "--test_every", "5"]
    assert create_data.main(["--dataset", f"folders:{folder}/speech", *options]) == 0
    return folder / "lists"


@pytest.fixture
def served(folder: Path) -> Iterator[str]:
    """The address of the shards on an HTTP server."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = partial(Quiet, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/shards"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def bucket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the shards in a bucket of an S3 server."""
    pytest.importorskip("s3fs")
    server_of = pytest.importorskip("moto.server")
    import s3fs

    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "FSSPEC_S3_ENDPOINT_URL": f"http://{host}:{port}", "FSSPEC_S3_KEY": "k",
        "FSSPEC_S3_SECRET": "s", "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    import fsspec.config

    fsspec.config.set_conf_env(fsspec.config.conf)
    files = s3fs.S3FileSystem()
    files.mkdir("speech")
    files.put(str(folder / "shards"), "speech/shards", recursive=True)
    yield "s3://speech/shards"
    server.stop()
    fsspec.config.conf.pop("s3", None)
    s3fs.S3FileSystem.clear_instance_cache()


def contents(place: str) -> dict[str, bytes]:
    """Returns the content of each recording of shards by its path in the index."""
    train, _, shards = read_training_shards(place, None)
    found = [
        content
        for name, size in zip(shards.names, shards.sizes, strict=True)
        for content in read_shard(shards.place, name, size)
    ]
    return {clip.path: content for clip, content in zip(train, found, strict=True)}


def test_shards_hold_the_list(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = read_data_list(folder / "train_list.txt")
    train, test, shards = read_training_shards(str(folder / "shards"), folder / "test_list.txt")
    assert sorted(shards.sizes) == [5, 5, 6]
    assert {(u.path, u.label) for u in train} == {(u.path, u.label) for u in listed}
    assert [u.path for u in train] != [u.path for u in listed], "speakers are not mixed"
    assert [u.label for u in test] == [
        u.label for u in read_data_list(folder / "test_list.txt")
    ] or len(test) == 4
    assert contents(str(folder / "shards")) == {u.path: Path(u.path).read_bytes() for u in listed}
    with tarfile.open(folder / "shards" / shards.names[0]) as archive:
        names = archive.getnames()
        assert names[:2] == ["000000000.wav", "000000000.json"]
        about = json.loads(archive.extractfile(names[1]).read())  # type: ignore[union-attr]
    assert (about["path"], about["label"]) == (train[0].path, train[0].label)


def test_shards_of_http_and_s3(folder: Path, served: str, bucket: str) -> None:
    assert is_sharded(served)
    assert is_sharded(bucket)
    assert is_sharded(str(folder / "shards"))
    assert not is_sharded(str(folder / "train_list.txt"))
    expected = contents(str(folder / "shards" / "index.tsv"))
    assert contents(served) == expected
    assert contents(bucket) == expected


def test_written_shards_stay_and_others_go(folder: Path, tmp_path: Path) -> None:
    clips = read_data_list(folder / "train_list.txt")
    names = write_shards(tmp_path, clips, 3, LocalEngine(1))
    times = {name: (tmp_path / name).stat().st_mtime_ns for name in names}
    (tmp_path / names[1]).unlink()  # a kill came before it
    assert write_shards(tmp_path, clips, 3, LocalEngine(1)) == names
    again = {name: (tmp_path / name).stat().st_mtime_ns for name in names}
    assert [again[name] == times[name] for name in names] == [True, False, True]
    one = (folder / "shards" / names[1]).read_bytes()
    assert (tmp_path / names[1]).read_bytes() == one
    others = write_shards(tmp_path, clips[:-1], 2, LocalEngine(1))
    assert {path.name for path in tmp_path.iterdir()} == {*others, "index.tsv"}


def test_what_cannot_be_written(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DataListError, match="--shards 3: more than the 1 clips"):
        write_shards(tmp_path, [Utterance("a.wav", 0)], 3, LocalEngine(1))
    with pytest.raises(DataListError, match=r"gone\.wav: No such file"):
        write_shards(tmp_path, [Utterance("gone.wav", 0)], 1, LocalEngine(1))
    clips = read_data_list(folder / "train_list.txt")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(VoiceprintError, match=r"while .*was written"):
        write_shards(tmp_path / "file" / "shards", clips, 2, LocalEngine(1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "can't be read .*expected the index of shards"),
        ("path\tlabel\n", "not an index of shards"),
        ("path\tlabel\tshard\na.wav\t0\n", "line 2: received .*expected path, label and shard"),
        (
            "path\tlabel\tshard\na.wav\t0\tx.tar\nb.wav\t0\ty.tar\nc.wav\t0\tx.tar\n",
            "don't stand together",
        ),
    ],
)
def test_an_index_that_says_something_else(text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "index.tsv").write_text(text)
    with pytest.raises(DataListError, match=message):
        read_training_shards(str(tmp_path / "index.tsv"), None)


def test_a_shard_cut_short(folder: Path, tmp_path: Path) -> None:
    _, _, shards = read_training_shards(str(folder / "shards"), None)
    shutil.copy(folder / "shards" / shards.names[0], tmp_path)
    whole = (tmp_path / shards.names[0]).read_bytes()
    for keep in (0, 100, len(whole) // 2, len(whole) // 2 // 512 * 512):
        (tmp_path / shards.names[0]).write_bytes(whole[:keep])
        read = []
        with pytest.raises(DataListError, match=r"\d of \d clips can be read .*copy it again"):
            for content in read_shard(str(tmp_path), shards.names[0], shards.sizes[0]):
                read.append(content)
        expected = read_shard(str(folder / "shards"), shards.names[0], shards.sizes[0])
        assert all(one == other for one, other in zip(read, expected, strict=False))


def test_servers_that_do_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    with pytest.raises(DataListError, match=r"index\.tsv: can't be read"):
        read_training_shards("http://127.0.0.1:1/shards", None)
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(VoiceprintError, match=r"needs the package .*requirements-cluster\.txt"):
        read_training_shards("s3://bucket/shards", None)
