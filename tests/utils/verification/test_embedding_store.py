import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from utils.errors import VoiceprintError
from utils.verification.embedding_store import EmbeddingStore

EMBEDDING = np.array([0.6, 0.8, 0.0], np.float32)


CACHE_NAME = ".embeddings.npz"


def open_cache(path: Path, model_id: str = "model") -> EmbeddingStore:
    cache = EmbeddingStore(path, model_id, is_cache=True)
    cache.load()
    return cache


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "甲" / "1.wav"
    path.parent.mkdir()
    path.write_bytes(b"some audio")
    return path


@pytest.fixture
def cache(tmp_path: Path, recording: Path) -> EmbeddingStore:
    """A saved cache with one recording."""
    cache = open_cache(tmp_path / CACHE_NAME)
    cache.put(recording, EMBEDDING)
    cache.save()
    return cache


def reopened(cache: EmbeddingStore, model_id: str = "model") -> EmbeddingStore:
    return open_cache(cache.path, model_id)


def test_what_was_saved_is_there_again(cache: EmbeddingStore, recording: Path) -> None:
    np.testing.assert_array_equal(reopened(cache).get(recording), EMBEDDING)
    assert reopened(cache).get(recording.with_name("2.wav")) is None


def test_changed_recordings_are_not_found(cache: EmbeddingStore, recording: Path) -> None:
    times = recording.stat()
    recording.write_bytes(b"other data")  # as many bytes, and the same time
    os.utime(recording, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert reopened(cache).get(recording) is None
    recording.unlink()
    assert reopened(cache).get(recording) is None


def test_touched_and_copied_recordings_are_found(cache: EmbeddingStore, tmp_path: Path) -> None:
    shutil.copytree(tmp_path, tmp_path / "copy", copy_function=shutil.copyfile)
    copied = open_cache(tmp_path / "copy" / CACHE_NAME)
    assert copied.get(tmp_path / "copy" / "甲" / "1.wav") is not None
    copied.save()  # with the new times, so that the content need not be read again
    again = reopened(copied)
    assert again.get(tmp_path / "copy" / "甲" / "1.wav") is not None


def test_another_model_finds_nothing_and_takes_the_file_over(
    cache: EmbeddingStore, recording: Path
) -> None:
    other = reopened(cache, "other")
    assert other.get(recording) is None
    other.save()
    assert not cache.path.exists()


def test_no_model_takes_the_one_of_the_file(cache: EmbeddingStore, recording: Path) -> None:
    other = reopened(cache, "")
    assert other.model_id == "model"
    other.drop([recording.with_name("2.wav")])
    other.save()
    assert reopened(cache).get(recording) is not None
    other.drop([recording])
    other.save()
    assert not cache.path.exists()


def test_keep_only_forgets_the_rest(cache: EmbeddingStore, recording: Path) -> None:
    second = recording.with_name("2.wav")
    second.write_bytes(b"more audio")
    cache.put(second, EMBEDDING)
    cache.keep_only([second])
    cache.save()
    assert reopened(cache).get(recording) is None
    assert reopened(cache).get(second) is not None


def test_a_recording_that_changed_while_it_was_embedded_is_not_kept(
    cache: EmbeddingStore, recording: Path
) -> None:
    second = recording.with_name("2.wav")
    second.write_bytes(b"some audio")
    assert cache.get(second) is None
    second.write_bytes(b"changed meanwhile")
    cache.put(second, EMBEDDING)
    assert cache.get(second) is None
    second.unlink()
    cache.put(second, EMBEDDING)
    assert cache.get(second) is None


def test_a_folder_that_refuses_does_without(tmp_path: Path, recording: Path) -> None:
    (tmp_path / CACHE_NAME).mkdir()  # nothing can be renamed to the name of a folder
    cache = open_cache(tmp_path / CACHE_NAME)
    cache.put(recording, EMBEDDING)
    cache.save()
    np.testing.assert_array_equal(cache.get(recording), EMBEDDING)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CACHE_NAME, "甲"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(data=st.data())
def test_a_damaged_cache_is_as_good_as_none(
    cache: EmbeddingStore, recording: Path, data: st.DataObject
) -> None:
    cache.put(recording, EMBEDDING)
    cache.save()
    content = bytearray(cache.path.read_bytes())
    if data.draw(st.booleans(), label="cut"):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, len(content) - 1))
            content[place] = data.draw(st.integers(0, 255))
    cache.path.write_bytes(bytes(content))
    damaged = reopened(cache)
    found = damaged.get(recording)
    assert found is None or found.shape == (3,)
    damaged.put(recording, EMBEDDING)
    damaged.save()
    np.testing.assert_array_equal(reopened(cache).get(recording), EMBEDDING)


@pytest.mark.parametrize(
    "changes",
    [
        {"embedding": np.array([[2.0, 0.0]])},
        {"embedding": np.array([[np.nan, 0.0]])},
        {"embedding": np.array([1.0])},
        {"embedding": np.array([[1.0, 0.0], [0.0, 1.0]])},
        {"stamp": np.array([[1, 2, 3, 4], [1, 2, 3, 4]])},
        {"stamp": np.array([1])},
        {"sha256": np.array([])},
        {"model_id": np.array("other")},
    ],
)
def test_wrong_content_is_no_cache_and_no_embeddings_file(
    cache: EmbeddingStore, recording: Path, changes: dict[str, np.ndarray]
) -> None:
    with np.load(cache.path) as archive:
        content = dict(archive)
    np.savez(cache.path, **content | changes)
    assert reopened(cache).get(recording) is None
    if "model_id" in changes:
        assert EmbeddingStore(cache.path, "model").is_of_other_model
    elif np.shape(changes.get("embedding")) != (1, 2):  # their length matters to a cache alone
        with pytest.raises(VoiceprintError, match="not a file of embeddings"):
            EmbeddingStore(cache.path, "model")


def test_a_file_of_an_earlier_version_is_read_and_updated(tmp_path: Path, recording: Path) -> None:
    status = recording.stat()
    columns = {"path": np.array([str(recording)]), "model_id": np.array("model")}
    columns["stamp"] = np.array([[status.st_size, status.st_mtime_ns]])
    columns["embedding"] = EMBEDDING[None]
    np.savez(tmp_path / "old.npz", **columns)
    for _ in range(2):
        store = EmbeddingStore(tmp_path / "old.npz", "model")
        np.testing.assert_array_equal(store.get(str(recording)), EMBEDDING)
        store.save()
    recording.write_bytes(b"changed")
    assert store.get(str(recording)) is None
