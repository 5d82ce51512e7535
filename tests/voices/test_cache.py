import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voices.cache import CACHE_NAME, EmbeddingCache, file_stamp

EMBEDDING = np.array([0.6, 0.8, 0.0], np.float32)


def put(cache: EmbeddingCache, path: Path, embedding: np.ndarray = EMBEDDING) -> None:
    cache.put(path, embedding, file_stamp(path))


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "甲" / "1.wav"
    path.parent.mkdir()
    path.write_bytes(b"some audio")
    return path


@pytest.fixture
def cache(tmp_path: Path, recording: Path) -> EmbeddingCache:
    """A saved cache with one recording."""
    cache = EmbeddingCache(tmp_path / CACHE_NAME, "model")
    put(cache, recording)
    cache.save()
    return cache


def reopened(cache: EmbeddingCache, model_id: str = "model") -> EmbeddingCache:
    other = EmbeddingCache(cache.path, model_id)
    other.load()
    return other


def test_what_was_saved_is_there_again(cache: EmbeddingCache, recording: Path) -> None:
    np.testing.assert_array_equal(reopened(cache).get(recording), EMBEDDING)
    assert reopened(cache).get(recording.with_name("2.wav")) is None


def test_changed_recordings_are_not_found(cache: EmbeddingCache, recording: Path) -> None:
    times = recording.stat()
    recording.write_bytes(b"other data")  # as many bytes, and the same time
    os.utime(recording, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert reopened(cache).get(recording) is None
    recording.unlink()
    assert reopened(cache).get(recording) is None


def test_touched_and_copied_recordings_are_found(cache: EmbeddingCache, tmp_path: Path) -> None:
    shutil.copytree(tmp_path, tmp_path / "copy", copy_function=shutil.copyfile)
    copied = EmbeddingCache(tmp_path / "copy" / CACHE_NAME, "model")
    copied.load()
    assert copied.get(tmp_path / "copy" / "甲" / "1.wav") is not None
    copied.save()  # with the new times, so that the content need not be read again
    again = reopened(copied)
    assert again.get(tmp_path / "copy" / "甲" / "1.wav") is not None


def test_another_model_finds_nothing_and_takes_the_file_over(
    cache: EmbeddingCache, recording: Path
) -> None:
    other = reopened(cache, "other")
    assert other.get(recording) is None
    other.save()
    assert not cache.path.exists()


def test_no_model_takes_the_one_of_the_file(cache: EmbeddingCache, recording: Path) -> None:
    other = reopened(cache, "")
    assert other.model_id == "model"
    other.remove([recording.with_name("2.wav")])
    other.save()
    assert reopened(cache).get(recording) is not None
    other.remove([recording])
    other.save()
    assert not cache.path.exists()


def test_keep_only_forgets_the_rest(cache: EmbeddingCache, recording: Path) -> None:
    second = recording.with_name("2.wav")
    second.write_bytes(b"more audio")
    put(cache, second)
    cache.keep_only([second])
    cache.save()
    assert reopened(cache).get(recording) is None
    assert reopened(cache).get(second) is not None


def test_a_recording_that_changed_while_it_was_embedded_is_not_kept(
    cache: EmbeddingCache, recording: Path
) -> None:
    stamp = file_stamp(recording)
    recording.write_bytes(b"changed meanwhile")
    cache.put(recording, EMBEDDING, stamp)
    assert cache.get(recording) is None
    cache.put(recording, EMBEDDING, None)
    assert cache.get(recording) is None


def test_a_folder_that_refuses_does_without(tmp_path: Path, recording: Path) -> None:
    (tmp_path / CACHE_NAME).mkdir()  # nothing can be renamed to the name of a folder
    cache = EmbeddingCache(tmp_path / CACHE_NAME, "model")
    put(cache, recording)
    cache.save()
    np.testing.assert_array_equal(cache.get(recording), EMBEDDING)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CACHE_NAME, "甲"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(data=st.data())
def test_a_damaged_cache_is_as_good_as_none(
    cache: EmbeddingCache, recording: Path, data: st.DataObject
) -> None:
    put(cache, recording)
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
    put(damaged, recording)
    damaged.save()
    np.testing.assert_array_equal(reopened(cache).get(recording), EMBEDDING)


@pytest.mark.parametrize(
    ("index", "embeddings"),
    [
        ({"model_id": "model", "entries": [["甲/1.wav", [1, 2, 3, 4], "00"]]}, [[2.0, 0.0]]),
        ({"model_id": "model", "entries": [["甲/1.wav", [1, 2, 3, 4], "00"]]}, [[np.nan, 0.0]]),
        ({"model_id": "model", "entries": [["甲/1.wav", [1, 2, 3, 4], "00"]]}, [1.0]),
        ({"model_id": "model", "entries": []}, [[1.0, 0.0]]),
        ({"model_id": "model", "entries": [["甲/1.wav"]]}, [[1.0, 0.0]]),
        ({"entries": []}, [[1.0, 0.0]]),
        ([], [[1.0, 0.0]]),
    ],
)
def test_a_cache_with_wrong_content_is_as_good_as_none(
    cache: EmbeddingCache, recording: Path, index: object, embeddings: list[object]
) -> None:
    np.savez(cache.path, index=np.array(json.dumps(index)), embeddings=np.array(embeddings))
    assert reopened(cache).get(recording) is None
