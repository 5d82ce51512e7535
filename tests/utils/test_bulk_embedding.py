"""What workers do with a recording, and the journal that a killed run leaves."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.synthetic_voices import synthetic_speech, write_wav
from tests.support.tiny_model import write_tiny_model
from utils import bulk_embedding
from utils.bulk_embedding import EmbeddingTask, embed_all, journal_path
from utils.corpus.embedding_file import StoredEmbedding, stamp_of
from utils.engine.engine import LocalEngine
from utils.errors import ModelError, VoiceprintError
from utils.model.encoder import SpeakerEncoder
from utils.model.header import read_header

ALONE = LocalEngine(1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.keras")


@pytest.fixture
def recordings(tmp_path: Path) -> list[str]:
    return [
        str(write_wav(tmp_path / f"{number}.wav", synthetic_speech(number, 0, 1.5)))
        for number in range(3)
    ]


def task_of(model: Path, **changes: object) -> EmbeddingTask:
    return EmbeddingTask(str(model), read_header(model).model_id, **changes)  # type: ignore[arg-type]


def test_a_task_finds_what_the_encoder_says(model: Path, recordings: list[str]) -> None:
    entry = task_of(model)(recordings[0])
    assert isinstance(entry, StoredEmbedding)
    expected, speech_s = SpeakerEncoder(model, 1).embed_and_measure(recordings[0])
    np.testing.assert_array_equal(entry.embedding, expected)
    assert entry.speech_s == speech_s > 0.5
    assert entry.stamp == stamp_of(recordings[0])
    assert len(entry.sha256) == 64


def test_a_short_recording_has_no_cuts_but_an_embedding(model: Path, tmp_path: Path) -> None:
    task = task_of(model, cuts=True)
    path = str(write_wav(tmp_path / "a.wav", synthetic_speech(0, 0, 1.5)))
    entry = task(path)
    assert isinstance(entry, StoredEmbedding)
    assert list(entry.cuts) == ["full length", "3 s", "1 s"]
    assert task.holds(entry)
    assert not task.holds(task_of(model)(path))  # type: ignore[arg-type]


def test_a_recording_that_changes_meanwhile_is_left_out(
    model: Path, recordings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stamps = iter([(1, 2, 3, 4), (1, 2, 3, 5)])
    monkeypatch.setattr(bulk_embedding, "stamp_of", lambda path: next(stamps))
    assert "changed while it was read" in str(task_of(model)(recordings[0]))


def test_another_model_is_refused(model: Path, recordings: list[str]) -> None:
    with pytest.raises(ModelError, match=r"tiny\.keras is the model .*, expected 000000000000 as"):
        EmbeddingTask(str(model), "0" * 64)(recordings[0])


def test_a_journal_is_of_its_task_and_its_recordings(
    model: Path, recordings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_embedding, "NUM_TOGETHER", 1)
    output = tmp_path / "out.npz"
    task = task_of(model)
    first = embed_all(ALONE, task, [*recordings, "gone.wav"], output)
    assert list(first.entries) == recordings
    assert "gone.wav" in first.defects["gone.wav"]
    done: list[str] = []

    def noting(self: EmbeddingTask, path: str) -> str:
        done.append(path)
        return "not now"

    monkeypatch.setattr(EmbeddingTask, "__call__", noting)
    write_wav(Path(recordings[1]), synthetic_speech(7, 0, 1.5))
    again = embed_all(ALONE, task, recordings, output)
    assert done == [recordings[1]]
    assert list(again.entries) == [recordings[0], recordings[2]]
    # Damaged in the middle: what stands before counts, what follows is done again.
    content = bytearray(journal_path(output).read_bytes())
    content[len(content) // 2] ^= 255
    journal_path(output).write_bytes(bytes(content))
    done.clear()
    embed_all(ALONE, task, recordings, output)
    assert recordings[0] not in done
    assert recordings[2] in done
    done.clear()
    embed_all(ALONE, task_of(model, cuts=True), recordings, output)
    assert done == recordings


def test_a_journal_that_cannot_be_written(
    model: Path, recordings: list[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(VoiceprintError, match="can't be written"):
        embed_all(ALONE, task_of(model), recordings, tmp_path / "file" / "out.npz")
