"""One file of embeddings in place of the recordings: evaluation, calibration, cohort, enrolment."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import embed
import eval as evaluation_script
from tests.support.synthetic_voices import write_speech_folder, write_wav
from tests.support.tiny_model import write_tiny_model
from tools import build_cohort, calibrate
from utils.bulk_embedding import journal_path
from utils.corpus.embedding_file import read_embedding_file
from utils.errors import AudioError, DataListError, VoiceprintError
from utils.export.onnx import write_onnx
from utils.model.encoder import SpeakerEncoder
from voices.store import DATABASE_VARIABLE, open_database


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.keras"
    write_tiny_model(path)
    write_onnx(path, path.with_suffix(".onnx"))
    return path.with_suffix(".onnx")


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, model: Path) -> tuple[Path, Path]:
    """A file of embeddings of 4 people, whose recordings are gone, and what they were."""
    folder = tmp_path_factory.mktemp("embedded")
    write_speech_folder(folder / "people", 4, 3, 1.6)
    output = folder / "people.npz"
    options = ["--output", str(output), "--model_path", str(model), "--for_calibration"]
    assert embed.main([str(folder / "people"), *options]) == 0
    shutil.copytree(folder / "people", folder / "copy")
    shutil.rmtree(folder / "people")
    return output, folder / "copy"


def figures(capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines = capsys.readouterr().out.splitlines()
    kept = ("EER", "minDCF", "Speakers", "Cllr", "threshold", "strict", "full length", "3 s")
    return [line for line in lines if line.startswith(kept)]


def test_the_file_holds_what_the_one_encoder_says(embedded: tuple[Path, Path], model: Path) -> None:
    output, recordings = embedded
    encoder = SpeakerEncoder(model, 1)
    with np.load(output) as arrays:
        assert arrays["model_id"] == encoder.model_id
        assert arrays["label"].tolist() == sorted(arrays["label"].tolist())
        for path, embedding in zip(arrays["path"], arrays["embedding"], strict=True):
            recording = recordings / Path(str(path)).relative_to(output.with_suffix(""))
            np.testing.assert_array_equal(embedding, encoder.embed_file(recording))
        assert (arrays["speech_s"] > 0.5).all()
    assert not journal_path(output).exists()


def test_evaluation_without_recordings_finds_the_same(
    embedded: tuple[Path, Path], model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, recordings = embedded
    shown = []
    for source in (output, recordings):
        options = ["--list_path", str(source), "--model_path", str(model)]
        assert evaluation_script.main(options) == 0
        shown.append(figures(capsys))
    assert shown[0] == shown[1]
    assert len(shown[0]) >= 4


def test_calibration_without_recordings_finds_the_same(
    embedded: tuple[Path, Path], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, recordings = embedded
    shown = []
    for source in (output, recordings):
        options = ["--model_path", str(model), "--output_dir", str(tmp_path / "made")]
        assert calibrate.main([str(source), *options]) == 0
        shown.append(figures(capsys))
    assert shown[0] == shown[1]
    assert shown[0]


def test_parquet_holds_the_same_and_serves_the_same(
    embedded: tuple[Path, Path], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pyarrow = pytest.importorskip("pyarrow.parquet")
    source, recordings = embedded
    output = tmp_path / "people.parquet"
    options = ["--output", str(output), "--model_path", str(model), "--for_calibration"]
    assert embed.main([str(recordings), *options]) == 0
    written = output.read_bytes()
    content, expected = read_embedding_file(output), read_embedding_file(source)
    assert content.model_id == expected.model_id
    assert len(content.entries) == len(expected.entries) == 12
    for entry, other in zip(content.entries.values(), expected.entries.values(), strict=True):
        np.testing.assert_array_equal(entry.embedding, other.embedding)
        assert (entry.sha256, entry.speech_s) == (other.sha256, other.speech_s)
        assert entry.clip is not None and other.clip is not None
        assert entry.clip.speaker == other.clip.speaker
        assert list(entry.cuts) == list(other.cuts)
        for name, (cut, speech_s) in entry.cuts.items():
            np.testing.assert_array_equal(cut, other.cuts[name][0])
            assert speech_s == other.cuts[name][1]
    # Other programs see a row for each recording.
    row = pyarrow.read_table(output).to_pylist()[0]
    assert row["embedding"] == next(iter(content.entries.values())).embedding.tolist()
    assert row["speaker"] and row["path"].endswith(".wav")
    capsys.readouterr()
    shown = []
    for path in (source, output):
        options = ["--list_path", str(path), "--model_path", str(model)]
        assert evaluation_script.main(options) == 0
        made = ["--model_path", str(model), "--output_dir", str(tmp_path / "made")]
        assert calibrate.main([str(path), *made]) == 0
        shown.append(figures(capsys))
    assert shown[0] == shown[1]
    # What is there is taken over, and the same content is the same bytes.
    again = [str(recordings), "--output", str(output), "--model_path", str(model)]
    assert embed.main(again) == 0
    assert output.read_bytes() == written
    with pytest.raises(DataListError, match=r"not a file of embeddings that embed\.py wrote"):
        (tmp_path / "broken.parquet").write_bytes(written[:-40])
        read_embedding_file(tmp_path / "broken.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for call in (lambda: read_embedding_file(output), lambda: embed.main(again)):
        with pytest.raises(VoiceprintError, match="Parquet needs the package pyarrow; pip install"):
            call()


def test_a_cohort_is_built_without_recordings(
    embedded: tuple[Path, Path], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, recordings = embedded
    monkeypatch.setattr(build_cohort, "FEWEST_PEOPLE", 3)
    written = []
    for number, source in enumerate((output, recordings)):
        made = tmp_path / str(number)
        options = ["--list_path", str(source), "--model_path", str(model)]
        assert build_cohort.main([str(source), *options, "--output_dir", str(made)]) == 0
        written.append(SpeakerEncoder(made / model.name).header.with_score_norm("asnorm"))
    one, other = written
    assert one.cohort is not None
    assert other.cohort is not None
    assert len(one.cohort.embeddings) == 4
    np.testing.assert_allclose(
        np.sort(one.cohort.embeddings, axis=0), np.sort(other.cohort.embeddings, axis=0), atol=0.01
    )


def test_speakers_are_enrolled_once(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_speech_folder(tmp_path / "people", 3, 2, 1.6)
    people = sorted(folder.name for folder in (tmp_path / "people").iterdir())
    address = f"sqlite:///{tmp_path}/voices.sqlite3"
    monkeypatch.setenv(DATABASE_VARIABLE, address)
    monkeypatch.chdir(tmp_path)
    options = ["people", "--model_path", str(model), "--enrol", "env"]
    assert embed.main(options) == 0
    assert "3 speakers enrolled, 0 were there already" in capsys.readouterr().out
    assert embed.main(options) == 0
    assert "0 speakers enrolled, 3 were there already" in capsys.readouterr().out
    encoder = SpeakerEncoder(model)
    database = open_database(address, encoder)
    assert database.load() == people
    recording = next((tmp_path / "people" / people[1]).iterdir())
    assert database.rank(encoder.embed_file(recording))[0][0] == people[1]
    database.close()  # type: ignore[attr-defined]


def test_two_people_of_one_name_are_not_enrolled_as_one(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_speech_folder(tmp_path / "speech", 2, 1, 1.6)
    recordings = sorted((tmp_path / "speech").rglob("*.wav"))
    for corpus, recording in zip(("home", "office"), recordings, strict=True):
        (tmp_path / "people" / corpus / "ann").mkdir(parents=True)
        shutil.copy(recording, tmp_path / "people" / corpus / "ann" / "1.wav")
    address = f"sqlite:///{tmp_path}/voices.sqlite3"
    options = ["--model_path", str(model), "--output", str(tmp_path / "e.npz"), "--enrol", address]
    assert embed.main([str(tmp_path / "people"), *options]) == 2
    shown = capsys.readouterr()
    assert "not enrolled: ann: two people of the list have this name" in shown.err
    assert "1 speakers enrolled, 0 were there already, 1 not enrolled" in shown.out


def test_a_file_of_another_use(embedded: tuple[Path, Path], model: Path, tmp_path: Path) -> None:
    output, _ = embedded
    other = write_tiny_model(tmp_path / "other.keras", note="another")
    with pytest.raises(DataListError, match="embeddings of another model, expected those of"):
        evaluation_script.main(["--list_path", str(output), "--model_path", str(other)])
    with pytest.raises(DataListError, match=r"not a file of embeddings that embed\.py wrote"):
        (tmp_path / "broken.npz").write_bytes(output.read_bytes()[:-40])
        calibrate.main([str(tmp_path / "broken.npz"), "--model_path", str(model)])
    with pytest.raises(DataListError, match="no such file of embeddings"):
        evaluation_script.main(["--list_path", str(tmp_path / "gone.npz")])
    with np.load(output) as arrays:
        kept = {name: arrays[name] for name in arrays.files}
    cuts = [name for name in kept if name.startswith("cut")]
    np.savez(tmp_path / "whole.npz", **{k: v for k, v in kept.items() if k not in cuts})
    with pytest.raises(DataListError, match=r"run embed\.py with --for_calibration"):
        calibrate.main(
            [str(tmp_path / "whole.npz"), "--model_path", str(model), "--output_dir", str(tmp_path)]
        )
    np.savez(tmp_path / "nobody.npz", **{k: v for k, v in kept.items() if k != "label"})
    with pytest.raises(DataListError, match="its embeddings have no speakers"):
        calibrate.main([str(tmp_path / "nobody.npz"), "--model_path", str(model)])


def test_recordings_that_say_nothing(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_speech_folder(tmp_path / "people", 2, 1, 1.6)
    write_wav(tmp_path / "people" / "silent" / "1.wav", np.zeros(16_000, np.float32))
    output = tmp_path / "people.npz"
    options = ["--output", str(output), "--model_path", str(model)]
    assert embed.main([str(tmp_path / "people"), *options]) == 0
    shown = capsys.readouterr()
    assert f"{output}: 2 embeddings of 3 recordings, 1 left out" in shown.out
    assert "silent/1.wav: " in shown.err
    (tmp_path / "list.txt").write_text(f"{tmp_path}/people/silent/1.wav\t0\n")
    with pytest.raises(AudioError, match="none of the 1 clips can be used"):
        embed.main([str(tmp_path / "list.txt"), *options])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "list.txt"], "expected a name that ends with .npz or .parquet"),
        (["--enrol", "voices"], "expected the address of a database"),
        (["--engine", "spark://x"], "expected local, ray, ray://HOST:PORT or dask://HOST:PORT"),
    ],
)
def test_options_that_make_no_sense(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        embed.main(["list.txt", *options])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_run_repeats_its_tasks_alone(tmp_path: Path, root: Path, model: Path) -> None:
    """Killed after some tasks; the second run takes them from the journal, and writes the same."""
    write_speech_folder(tmp_path / "people", 12, 8, 1.2)
    options = [str(tmp_path / "people"), "--model_path", str(model), "--num_workers", "1"]
    output = tmp_path / "killed.npz"
    command = [sys.executable, str(root / "embed.py"), *options, "--output", str(output)]
    process = subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL, stdout=-3)
    journal = journal_path(output)
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.005)
    # Another driver is refused while this one is at work.
    with pytest.raises(VoiceprintError, match="another process is writing it"):
        embed.main([*options, "--output", str(output)])
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not output.exists()
    done = journal.read_bytes()
    journal.write_bytes(done + done[:100])  # cut off in the middle of a record
    embedded: list[str] = []
    embed_and_measure = SpeakerEncoder.embed_and_measure
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            SpeakerEncoder,
            "embed_and_measure",
            lambda self, path: embedded.append(path) or embed_and_measure(self, path),  # type: ignore[func-returns-value]
        )
        assert embed.main([*options, "--output", str(output)]) == 0
    assert 0 < len(embedded) <= 96 - 16
    whole = tmp_path / "whole.npz"
    assert embed.main([*options, "--output", str(whole)]) == 0
    assert output.read_bytes() == whole.read_bytes()
