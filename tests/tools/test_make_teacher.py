"""The teacher's vectors: which utterances, at which speeds, and the file that is written."""

import numpy as np
import pytest

from tests.support.synthetic_voices import synthetic_speech, write_wav
from tests.support.tiny_model import write_tiny_model
from tools import make_teacher
from utils.audio.decode import load_audio
from utils.errors import AudioError, DataListError, VoiceprintError
from utils.model.encoder import SpeakerEncoder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.keras")


def write_voices(folder, durations_s):
    """Writes one utterance of each length and returns their names."""
    names = [f"{index}.wav" for index in range(len(durations_s))]
    for index, (name, duration_s) in enumerate(zip(names, durations_s, strict=True)):
        write_wav(folder / name, synthetic_speech(index, 0, duration_s))
    return names


def write_list(path, names):
    path.write_text("".join(f"{name}\t{label}\n" for label, name in enumerate(names)))
    return path


def run(*arguments):
    return make_teacher.main([str(argument) for argument in arguments])


def test_lists_of_both_kinds(tmp_path):
    data_list = tmp_path / "list.txt"
    data_list.write_bytes("\ufeffa/声.wav\t0\r\nb/2.wav\t1\r\n\r\n".encode())
    assert make_teacher.read_paths(str(data_list)) == ["a/声.wav", "b/2.wav"]
    table = tmp_path / "table.tsv"
    table.write_text("path\tspeaker\tseconds\nx.ogg\ts1\t1.0\n", encoding="utf-8")
    assert make_teacher.read_paths(str(table)) == ["x.ogg"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"a.wav 1\n", b"\tlabel\n"])
def test_a_broken_list_is_refused(tmp_path, content):
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataListError, match=r"list\.txt"):
        make_teacher.read_paths(str(path))


@pytest.mark.slow
def test_the_file_holds_every_utterance_at_every_speed(tmp_path, model, capsys):
    names = write_voices(tmp_path, [2.5, 1.5, 0.3])
    data_list = write_list(tmp_path / "list.txt", names)
    output = tmp_path / "out/teacher.npz"
    options = ["--root", tmp_path, "--model_path", model, "--output", output, "--num_workers", 2]
    assert run(data_list, *options, "--speeds", 1.1, 1.0) == 0
    captured = capsys.readouterr()
    assert "4 embeddings of 3 utterances, 1 skipped" in captured.out
    assert "2.wav: 0.3" in captured.err
    with np.load(output) as teacher:
        assert teacher["path"].tolist() == ["0.wav", "0.wav", "1.wav", "1.wav"]
        np.testing.assert_allclose(teacher["speed"], [1.0, 1.1, 1.0, 1.1])
        assert (teacher["speed"].dtype, teacher["embedding"].dtype) == ("float32", "float16")
        embeddings = teacher["embedding"].astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=2e-3)
    expected = SpeakerEncoder(model).embed_waveform(load_audio(tmp_path / "0.wav"))
    assert embeddings[0] @ expected > 0.999


@pytest.mark.slow
def test_centred_file_has_the_mean_of_the_first_list_removed(tmp_path, model):
    names = write_voices(tmp_path, [1.5] * 4)
    lists = [write_list(tmp_path / "a.txt", names[:3]), write_list(tmp_path / "b.txt", names[3:])]
    options = ["--root", tmp_path, "--model_path", model, "--num_workers", 1, "--speeds", 1.0, 1.1]
    rows = []
    for name, more in (("plain.npz", []), ("centred.npz", ["--centre"])):
        assert run(*lists, *options, "--output", tmp_path / name, *more) == 0
        with np.load(tmp_path / name) as teacher:
            rows.append(teacher["embedding"].astype(np.float32))
    expected = rows[0] - rows[0][[0, 2, 4]].mean(axis=0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    # 16-bit rounding, magnified by what the mean takes away.
    np.testing.assert_allclose(rows[1], expected, atol=5e-2)


def test_centring_needs_rows_at_speed_one():
    with pytest.raises(VoiceprintError, match=r"needs speed 1\.0"):
        run("list.txt", "--centre", "--speeds", "0.9")
    with pytest.raises(AudioError, match="first list"):
        make_teacher.centre(np.ones((2, 3), np.float32), np.array([False, False]))


def test_no_usable_utterance_is_an_error(tmp_path, model):
    data_list = write_list(tmp_path / "list.txt", ["gone.wav"])
    with pytest.raises(AudioError, match="no utterance of 1 could be embedded"):
        run(data_list, "--root", tmp_path, "--model_path", model, "--num_workers", 1)
