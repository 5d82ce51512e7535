"""Folders of noise and rooms: what is taken, and the stretches that are drawn."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.synthetic_voices import write_wav
from utils.crops.noises import SoundFolder
from utils.errors import DataListError


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_folders_are_searched_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name in ("b/2.wav", "a/1.WAV", "c.flac"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        container = "FLAC" if name == "c.flac" else "WAV"
        soundfile.write(path, np.full(4800, 0.1), 16000, format=container)
    (tmp_path / "d.wav").write_text("no audio")
    (tmp_path / "e.wav").touch()
    (tmp_path / "notes.txt").write_text("no audio either")
    write_wav(tmp_path / "short.wav", np.ones(100))
    folder = SoundFolder(tmp_path)
    assert len(folder) == 3
    assert [path.name for path in folder.paths] == ["1.WAV", "2.wav", "c.flac"]
    assert folder.durations_s == [0.3, 0.3, 0.3]


def test_folder_without_audio_is_told(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no audio")
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DataListError, match="no audio that can be read") as error:
            SoundFolder(folder)
        assert str(folder) in str(error.value)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(1600, 4000), need=st.integers(1, 12000), seed=st.integers(0, 999))
def test_stretch_is_a_piece_of_the_recording_as_a_ring(
    tmp_path: Path, length: int, need: int, seed: int
) -> None:
    write_wav(tmp_path / "a.wav", np.arange(length) / 32767)
    stretch = SoundFolder(tmp_path).draw_stretch(need, rng(seed))
    assert stretch is not None
    assert (stretch.shape, stretch.dtype) == ((need,), np.float32)
    places = np.round(stretch * 32768).astype(int)
    steps = np.diff(places[: min(need, length)]) % length
    assert set(steps) <= {1}


def test_stretches_come_from_all_recordings_and_places(tmp_path: Path) -> None:
    for n in range(3):
        write_wav(tmp_path / f"{n}.wav", (n * 8000 + np.arange(8000)) / 32767)
    folder, generator = SoundFolder(tmp_path), rng()
    starts = []
    for _ in range(200):
        stretch = folder.draw_stretch(10, generator)
        assert stretch is not None
        starts.append(stretch[0] * 32768)
    counts, _ = np.histogram(starts, 12, (0, 24000))
    assert counts.min() >= 5


def test_same_seed_draws_the_same(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", rng().uniform(-0.5, 0.5, 16000))
    folder = SoundFolder(tmp_path)
    np.testing.assert_array_equal(
        folder.draw_stretch(500, rng(1)), folder.draw_stretch(500, rng(1))
    )


def test_file_that_is_damaged_later_gives_nothing(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", np.full(16000, 0.1))
    folder = SoundFolder(tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    assert folder.draw_stretch(100, rng()) is None
    assert folder.draw_response(rng()) is None


def test_file_that_is_emptied_later_gives_nothing(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", np.full(16000, 0.1))
    folder = SoundFolder(tmp_path)
    write_wav(path, np.zeros(0))
    assert folder.draw_stretch(100, rng()) is None
    assert folder.draw_response(rng()) is None


@pytest.mark.parametrize("delay", [0, 300, 12000])
def test_response_begins_with_the_direct_sound(tmp_path: Path, delay: int) -> None:
    response = np.zeros(16000)
    response[delay], response[delay + 100] = -0.8, 0.4
    write_wav(tmp_path / "a.wav", response)
    drawn = SoundFolder(tmp_path).draw_response(rng())
    assert drawn is not None
    assert len(drawn) == 16000 - delay
    assert drawn[[0, 100]] == pytest.approx([-0.8, 0.4], abs=1e-3)


def test_silent_response_is_none(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", np.zeros(16000))
    assert SoundFolder(tmp_path).draw_response(rng()) is None
