"""From data sets to lists: splits, labels, mixing, rejection, determinism."""

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from tests.support.synthetic_voices import synthetic_speech, write_speech_folder, write_wav
from utils.corpus.list_settings import DatasetSpec, Settings
from utils.corpus.listing import Summary, create_lists
from utils.corpus.lists import Utterance, num_classes, read_data_list, read_training_lists
from utils.corpus.options import parse_dataset
from utils.corpus.split import choose_test_clips, choose_test_speakers, number_speakers
from utils.corpus.treatment import Treatment
from utils.errors import DataListError


def run(tmp_path: Path, *datasets: str, **settings: object) -> tuple[Summary, dict[str, list]]:
    """Creates lists in `tmp_path/lists`; returns the summary and both lists."""
    lists = tmp_path / "lists"
    specs = [parse_dataset(text) for text in datasets]
    summary = create_lists(specs, Settings(list_dir=lists, **settings))  # type: ignore[arg-type]
    paths = lists / "train_list.txt", lists / "test_list.txt"
    train, test = read_training_lists(paths[0], paths[1] if paths[1].stat().st_size else None)
    return summary, {"train": train, "test": test}


def rejected(tmp_path: Path) -> dict[str, str]:
    lines = (tmp_path / "lists" / "rejected.tsv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "path\treason"
    return {Path(path).name: reason for path, reason in (line.split("\t") for line in lines[1:])}


def test_parse_dataset() -> None:
    assert parse_dataset("folders:C:/data") == DatasetSpec("folders", Path("C:/data"))
    assert str(parse_dataset("folders:./data/")) == "folders:data"


@pytest.mark.parametrize("text", ["data", "folders:", ":data", "htk:data"])
def test_parse_dataset_names_the_layouts(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="layout of zhvoice, folders, librispeech"):
        parse_dataset(text)


def test_lists_of_a_folder(tmp_path: Path, speech_folder: Path) -> None:
    summary, lists = run(tmp_path, f"folders:{speech_folder.as_posix()}", test_every=5)
    every = sorted(speech_folder.rglob("*.wav"))
    assert [item.path for item in lists["test"]] == [every[n].as_posix() for n in (0, 5, 10)]
    assert len(lists["train"]) == 9
    for item in lists["train"] + lists["test"]:
        assert item.label == int(Path(item.path).parent.name[-2:])
    assert summary == Summary(
        num_train=9,
        num_test=3,
        num_train_speakers=3,
        num_test_speakers=3,
        num_strangers=0,
        hours=pytest.approx(24 / 3600),
        num_classes=3,
        reasons=Counter(),
    )
    speakers = (tmp_path / "lists" / "speakers.tsv").read_text(encoding="utf-8").splitlines()
    assert speakers[1] == "0\t0\tspeaker_00\t3\t1"


def test_lists_are_the_same_each_time(tmp_path: Path, speech_folder: Path) -> None:
    for name in ("first", "second"):
        run(tmp_path / name, f"folders:{speech_folder.as_posix()}", test_speakers=1)
    for name in ("train_list.txt", "test_list.txt", "speakers.tsv", "rejected.tsv"):
        files = [tmp_path / run_name / "lists" / name for run_name in ("first", "second")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_mixed_data_sets_continue_the_labels(tmp_path: Path) -> None:
    write_speech_folder(tmp_path / "one", 2, 2)
    write_speech_folder(tmp_path / "two", 3, 2, first_speaker=5)  # other people
    one, two = (tmp_path / name for name in ("one", "two"))
    summary, lists = run(tmp_path, f"folders:{one.as_posix()}", f"folders:{two.as_posix()}")
    labels = {item.path: item.label for item in lists["train"] + lists["test"]}
    assert {label for path, label in labels.items() if "/one/" in path} == {0, 1}
    assert {label for path, label in labels.items() if "/two/" in path} == {2, 3, 4}
    assert summary.num_classes == num_classes(lists["train"]) == 5


def test_the_same_folder_twice_lists_each_clip_once(tmp_path: Path, speech_folder: Path) -> None:
    name = f"folders:{speech_folder.as_posix()}"
    summary, lists = run(tmp_path, name, name)
    assert len(lists["train"]) + len(lists["test"]) == 12
    assert summary.reasons == {"listed twice": 12}
    assert summary.num_classes == 3


def test_test_speakers_are_strangers_with_the_labels_behind(tmp_path: Path) -> None:
    write_speech_folder(tmp_path / "data", 6, 2)
    name = f"folders:{(tmp_path / 'data').as_posix()}"
    summary, lists = run(tmp_path, name, test_speakers=2)
    train, test = ({item.label for item in lists[key]} for key in ("train", "test"))
    assert train == {0, 1, 2, 3}
    assert test == {4, 5}
    assert summary.num_classes == num_classes(lists["train"]) == 4
    assert summary.num_strangers == summary.num_test_speakers == 2
    people = [{Path(item.path).parent for item in lists[key]} for key in ("train", "test")]
    assert not people[0] & people[1]
    other_seeds = set()
    for seed in range(5):
        _, lists = run(tmp_path, name, test_speakers=2, seed=seed)
        other_seeds.add(frozenset(Path(item.path).parent.name for item in lists["test"]))
    assert len(other_seeds) > 1


def test_share_of_speakers(tmp_path: Path) -> None:
    write_speech_folder(tmp_path / "data", 6, 2)
    summary, _ = run(tmp_path, f"folders:{(tmp_path / 'data').as_posix()}", test_speakers=0.34)
    assert summary.num_strangers == 2


@given(
    st.lists(st.integers(0, 6).map(str), min_size=1, max_size=60),
    st.integers(1, 20),
)
def test_utterance_split_leaves_no_gap_in_training(speakers: list[str], every: int) -> None:
    is_test = choose_test_clips(speakers, every)
    labels = number_speakers(speakers, is_test, test_last=False)
    train = {labels[name] for name, test in zip(speakers, is_test, strict=True) if not test}
    assert train == set(range(len(set(speakers))))
    assert list(labels) == list(dict.fromkeys(speakers))
    assert all(number % every == 0 for number, test in enumerate(is_test) if test)


def test_every_200th_clip_as_the_seed() -> None:
    is_test = choose_test_clips(["a"] * 300 + ["b"] * 300, 200)
    assert [number for number, test in enumerate(is_test) if test] == [0, 200, 400]


@given(
    st.lists(st.integers(0, 12).map(str), min_size=12, max_size=80),
    st.one_of(st.integers(1, 12), st.floats(0.01, 0.99)),
    st.integers(0, 3),
)
def test_speaker_split(speakers: list[str], asked: int | float, seed: int) -> None:
    try:
        chosen = choose_test_speakers(speakers, asked, seed)
    except DataListError as error:
        assert "--test_speakers asks for" in str(error)
        return
    counts = Counter(speakers)
    assert all(counts[name] >= 2 for name in chosen)
    assert len(chosen) == (asked if isinstance(asked, int) else max(1, round(asked * len(counts))))
    assert len(counts) - len(chosen) >= 2
    assert choose_test_speakers(speakers[::-1], asked, seed) == chosen
    is_test = [name in chosen for name in speakers]
    labels = number_speakers(speakers, is_test, test_last=True)
    assert {labels[name] for name in chosen} == set(range(len(counts) - len(chosen), len(counts)))


def test_too_many_test_speakers(tmp_path: Path, speech_folder: Path) -> None:
    with pytest.raises(DataListError, match=r"asks for 2 speakers, at most 1 can be kept.*3 speak"):
        run(tmp_path, f"folders:{speech_folder.as_posix()}", test_speakers=2)


def test_bad_clips_are_rejected_with_their_reasons(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_speech_folder(data, 2, 3)
    write_wav(data / "speaker_00" / "silent.wav", np.zeros(48000))
    write_wav(data / "speaker_00" / "short.wav", synthetic_speech(0, duration_s=0.5))
    write_wav(data / "on_top.wav", synthetic_speech(0))
    (data / "speaker_01" / "text.wav").write_text("hello")
    write_wav(data / "alone" / "only.wav", synthetic_speech(5))
    write_wav(data / "speaker_01" / "tab\tin.wav", synthetic_speech(0))
    summary, lists = run(tmp_path, f"folders:{data.as_posix()}", min_utterances=2)
    reasons = rejected(tmp_path)
    assert reasons.pop("silent.wav").startswith("silent")
    assert reasons.pop("short.wav") == "too short: 0.50 s, expected at least 1.30 s"
    assert reasons.pop("on_top.wav").startswith("no speaker")
    assert reasons.pop("text.wav").startswith("not audio that can be read")
    assert reasons.pop("only.wav") == "rare speaker: 1 usable clips, expected at least 2"
    (name, reason), *rest = reasons.items()
    assert (name, reason, rest) == ("tab\\tin.wav'", "tab or line break in the path", [])
    assert summary.num_rejected == 6
    assert summary.reasons["too short"] == 1
    assert {item.label for item in lists["train"]} == {0, 1}


def test_nothing_usable_keeps_the_old_lists(tmp_path: Path, speech_folder: Path) -> None:
    name = f"folders:{speech_folder.as_posix()}"
    _, before = run(tmp_path, name)
    with pytest.raises(DataListError, match=r"none of the 12 clips can be used.*rejected\.tsv"):
        run(tmp_path, name, min_duration_s=60.0)
    assert read_data_list(tmp_path / "lists" / "train_list.txt") == before["train"]
    assert len(rejected(tmp_path)) == 4  # the same four names in each folder


def test_wav_dir_mirrors_each_data_set(tmp_path: Path) -> None:
    for parent, first_speaker in (("x", 0), ("y", 2)):
        write_speech_folder(tmp_path / parent / "data", 2, 2, first_speaker=first_speaker)
    wavs = tmp_path / "wavs"
    names = [f"folders:{(tmp_path / parent / 'data').as_posix()}" for parent in "xy"]
    _, lists = run(tmp_path, *names, wav_dir=wavs)
    paths = sorted(item.path for item in lists["train"] + lists["test"])
    assert paths[0] == f"{wavs.as_posix()}/data/speaker_00/utterance_00.wav"
    assert paths[-1] == f"{wavs.as_posix()}/data_2/speaker_03/utterance_01.wav"
    assert all(Path(path).is_file() for path in paths)


def test_two_sources_of_one_wav(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_speech_folder(data, 2, 2)
    write_wav(data / "speaker_00" / "utterance_00.aiff", synthetic_speech(0))
    summary, _ = run(tmp_path, f"folders:{data.as_posix()}", wav_dir=tmp_path / "wavs")
    assert summary.reasons == {"listed twice": 1}


def test_wav_dir_inside_the_data_set(tmp_path: Path, speech_folder: Path) -> None:
    with pytest.raises(DataListError, match="lies inside the data set"):
        run(tmp_path, f"folders:{speech_folder.as_posix()}", wav_dir=speech_folder / "wavs")


def test_delete_source_without_conversion(tmp_path: Path, speech_folder: Path) -> None:
    with pytest.raises(DataListError, match="--delete_source needs --wav_dir"):
        run(tmp_path, f"folders:{speech_folder.as_posix()}", delete_source=True)
    assert len(list(speech_folder.rglob("*.wav"))) == 12


@pytest.mark.parametrize("index", ["../a.wav", "/a.wav", "x/../../a.wav", "", "."])
def test_paths_cannot_leave_the_data_set(tmp_path: Path, index: str) -> None:
    folder = tmp_path / "zhvoice"
    (folder / "text").mkdir(parents=True)
    good = {"index": "b.wav", "speaker": "b", "duration_ms": 2000}
    lines = [json.dumps(entry) for entry in (good, {**good, "index": index})]
    (folder / "text" / "infodata.json").write_text("\n".join(lines), encoding="utf-8")
    write_wav(folder / "b.wav", synthetic_speech(0))
    write_wav(tmp_path / "a.wav", synthetic_speech(0))
    summary, lists = run(tmp_path, f"zhvoice:{folder.as_posix()}")
    assert summary.reasons == {"path outside of the data set's folder": 1}
    assert lists["train"] == [Utterance(f"{folder.as_posix()}/b.wav", 0)]
    assert lists["test"] == []


def dataset(path: Path, layout: str = "folders") -> str:
    return f"{layout}:{path.as_posix()}"


def test_the_same_sound_under_two_speakers_is_reported(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_speech_folder(data, 2, 2)
    copy = data / "speaker_01" / "utterance_09.flac"
    soundfile.write(copy, soundfile.read(data / "speaker_00" / "utterance_01.wav")[0], 16000)
    for wav_dir in (None, tmp_path / "wavs"):
        for _ in range(2):  # the second run takes it from the journal
            summary, _ = run(tmp_path, dataset(data), wav_dir=wav_dir)
            assert summary.reasons == {"two speakers": 1}
            reason = rejected(tmp_path)["utterance_09.flac"]
            first = (data / "speaker_00" / "utterance_01.wav").as_posix()
            assert reason == f"two speakers: the same sound as {first} of speaker_00"


def test_the_same_path_under_two_speakers_is_reported(tmp_path: Path) -> None:
    write_speech_folder(tmp_path / "data", 2, 2)
    table = tmp_path / "data" / "table.tsv"
    files = [f"speaker_0{n // 2}/utterance_0{n % 2}.wav" for n in range(4)]
    rows = [f"{path}\t{path[:10]}" for path in files] + [f"{files[0]}\tspeaker_01"]
    table.write_text("\n".join(["path\tspeaker", *rows]) + "\n", encoding="utf-8")
    summary, _ = run(tmp_path, dataset(table, "table"))
    assert summary.reasons == {"two speakers": 1}
    assert summary.num_train + summary.num_test == 4


def test_names_in_two_spellings_are_one_person(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    for number, name in enumerate(["Tom", "Tom ", "Jos\u00e9", "Jose\u0301"]):
        write_wav(data / name / f"{number}.wav", synthetic_speech(number // 2, number))
    summary, _ = run(tmp_path, dataset(data))
    assert summary.num_classes == 2
    speakers = (tmp_path / "lists" / "speakers.tsv").read_text(encoding="utf-8").splitlines()
    assert {line.split("\t")[2] for line in speakers[1:]} == {"Tom", "José"}
    assert "2 speakers are written in several ways" in capsys.readouterr().err


def test_folders_of_kaldi_may_name_files_anywhere(tmp_path: Path) -> None:
    write_speech_folder(tmp_path / "speech", 2, 2)
    folder = tmp_path / "train"
    folder.mkdir()
    paths = sorted((tmp_path / "speech").rglob("*.wav"))
    folder.joinpath("wav.scp").write_text("".join(f"u{n} {p}\n" for n, p in enumerate(paths)))
    folder.joinpath("utt2spk").write_text("".join(f"u{n} s{n // 2}\n" for n in range(4)))
    _, lists = run(tmp_path, dataset(folder, "kaldi"))
    assert {item.path for item in lists["train"] + lists["test"]} == {p.as_posix() for p in paths}
    wavs = tmp_path / "wavs"
    _, lists = run(tmp_path, dataset(folder, "kaldi"), wav_dir=wavs)
    expected = {f"{wavs.as_posix()}/train{p.as_posix()}" for p in paths}
    assert {item.path for item in lists["train"] + lists["test"]} == expected


def test_absolute_paths_inside_the_folder_of_a_table(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_speech_folder(data, 2, 1)
    paths = [f"{data}/speaker_00/utterance_00.wav", "D:\\old\\data\\speaker_01\\utterance_00.wav"]
    rows = [f"{path}\t{number}" for number, path in enumerate([*paths, "/etc/hosts"])]
    (data / "t.tsv").write_text("\n".join(["path\tspeaker", *rows]) + "\n", encoding="utf-8")
    summary, lists = run(tmp_path, dataset(data / "t.tsv", "table"))
    assert len(lists["train"] + lists["test"]) == 2
    assert summary.reasons == {"path outside of the data set's folder": 1}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"treatment": Treatment(denoise=True)}, "denoise: changes what is converted, expected"),
        ({"treatment": Treatment(channel="left")}, "channel left: changes what is converted"),
        (
            {"treatment": Treatment(channel="2"), "wav_dir": Path("w"), "delete_source": True},
            "--delete_source with channel 2: the changed files are not what was heard",
        ),
        (
            {"treatment": Treatment(denoise=True), "wav_dir": Path("w"), "delete_source": True},
            "--delete_source with denoise",
        ),
    ],
)
def test_treatments_that_cannot_be(
    tmp_path: Path, speech_folder: Path, settings: dict[str, object], reason: str
) -> None:
    with pytest.raises(DataListError, match=reason):
        run(tmp_path, dataset(speech_folder), **settings)


def test_zhvoice_wavs_in_place_are_not_changed(tmp_path: Path) -> None:
    write_speech_folder(tmp_path / "zhvoice", 2, 2)
    lines = [
        json.dumps({"index": f"speaker_0{n // 2}/utterance_0{n % 2}.wav", "speaker": str(n // 2)})
        for n in range(4)
    ]
    (tmp_path / "zhvoice" / "text").mkdir()
    (tmp_path / "zhvoice" / "text" / "infodata.json").write_text("\n".join(lines))
    with pytest.raises(DataListError, match="none of the 4 clips can be used"):
        run(tmp_path, dataset(tmp_path / "zhvoice", "zhvoice"), treatment=Treatment(denoise=True))
    assert all(reason.startswith("wav in its own place") for reason in rejected(tmp_path).values())
