"""Uploads: every format, every defect, and no file that unpacks to more than is allowed."""

import io
import os
import shutil
import subprocess
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.synthetic_voices import synthetic_speech
from utils.audio.decode import load_audio
from utils.audio.upload import AudioFormatError, AudioTooLongError, load_audio_bytes
from utils.errors import AudioError

FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "24-bit wav": ("WAV", "PCM_24"),
    "float wav": ("WAV", "FLOAT"),
    "8-bit wav": ("WAV", "PCM_U8"),
    "a-law wav": ("WAV", "ALAW"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "aiff": ("AIFF", "PCM_16"),
}
HAS_FFMPEG = shutil.which("ffmpeg") is not None
needs_ffmpeg = pytest.mark.skipif(not HAS_FFMPEG, reason="ffmpeg is not installed")


def audio_bytes(
    form: str = "wav", rate: int = 16000, channels: int = 1, seconds: float = 1.0
) -> bytes:
    wave = synthetic_speech(1, duration_s=seconds, sample_rate=rate)
    samples = np.stack([wave] * channels, axis=1)
    buffer = io.BytesIO()
    container, subtype = FORMATS[form]
    soundfile.write(buffer, samples, rate, format=container, subtype=subtype)
    return buffer.getvalue()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (8000, 1), (48000, 2)])
def test_bytes_give_what_the_file_gives(
    form: str, rate: int, channels: int, tmp_path: Path
) -> None:
    data = audio_bytes(form, rate, channels)
    path = tmp_path / "a.bin"
    path.write_bytes(data)
    expected = load_audio(path)
    waveform = load_audio_bytes(data, 60)
    assert waveform.dtype == np.float32
    assert len(waveform) == len(expected)
    np.testing.assert_allclose(waveform, expected, atol=1e-4)


def test_blocks_are_joined_without_a_seam(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = audio_bytes("flac", rate=44100, channels=2, seconds=2.0)
    (tmp_path / "a.flac").write_bytes(data)
    monkeypatch.setattr("utils.audio.upload.BLOCK_SAMPLES", 1001)
    whole = load_audio(tmp_path / "a.flac")
    parts = load_audio_bytes(data, 60)
    assert len(parts) == len(whole)
    np.testing.assert_allclose(parts, whole, atol=1e-4)


# What cannot be used.


def test_empty() -> None:
    with pytest.raises(AudioError, match=r"^file 1: empty \(0 bytes\)"):
        load_audio_bytes(b"", 60, "file 1")


@pytest.mark.parametrize("data", [b"x", b"hello " * 500, b"%PDF-1.7" + bytes(999), b"PK\3\4" * 9])
def test_what_is_no_audio(data: bytes) -> None:
    with pytest.raises(AudioFormatError, match=r"no audio, expected wav, flac"):
        load_audio_bytes(data, 60)


def test_formats_of_the_nineties_are_refused() -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(9000), 16000, format="VOC", subtype="PCM_16")
    with pytest.raises(AudioFormatError, match="received VOC"):
        load_audio_bytes(buffer.getvalue(), 60)


@pytest.mark.parametrize("form", ["wav", "flac", "mp3", "ogg", "aiff"])
def test_truncated(form: str) -> None:
    data = audio_bytes(form, seconds=2.0)
    with pytest.raises(AudioError, match=r"truncated|damaged") as caught:
        load_audio_bytes(data[: len(data) // 2], 60)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["wav", "flac", "mp3", "ogg"])
def test_too_long_by_the_header(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = audio_bytes(form, seconds=3.0)
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *a, **k: pytest.fail("was decoded"))
    with pytest.raises(AudioTooLongError, match=r"expected at most 2 s") as caught:
        load_audio_bytes(data, 2)
    assert caught.value.max_duration_s == 2


def flac_of_unknown_length(seconds: float) -> bytes:
    data = bytearray(audio_bytes("flac", seconds=seconds))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    return bytes(data)


def test_a_stream_of_unknown_length_is_counted_while_it_is_decoded() -> None:
    assert len(load_audio_bytes(flac_of_unknown_length(1.0), 2)) == 16000
    with pytest.raises(AudioTooLongError, match="or more"):
        load_audio_bytes(flac_of_unknown_length(3.0), 2)


def test_a_bomb_takes_little_memory() -> None:
    # Four hours of silence in a few kilobytes a minute, of an unknown length.
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", 48000, 8, format="FLAC", subtype="PCM_16") as file:
        for _ in range(120):
            file.write(np.zeros((48000, 8), np.int16))
    data = bytearray(buffer.getvalue())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    assert len(data) < 200_000
    tracemalloc.start()
    with pytest.raises(AudioTooLongError):
        load_audio_bytes(bytes(data), 60)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 60 s at 48 kHz in 8 channels are 92 MB.
    assert peak < 40e6


def test_many_channels_are_a_bomb() -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros((9000, 200)), 16000, format="WAV", subtype="PCM_16")
    with pytest.raises(AudioError, match="in 200 channels"):
        load_audio_bytes(buffer.getvalue(), 60)


@pytest.mark.parametrize("rate", [1, 2_000_000_000])
def test_absurd_rates(rate: int) -> None:
    data = bytearray(audio_bytes("wav"))
    data[24:28] = rate.to_bytes(4, "little")
    with pytest.raises(AudioError, match="damaged"):
        load_audio_bytes(bytes(data), 60)


def test_samples_that_are_no_numbers() -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full(9000, np.nan), 16000, format="WAV", subtype="FLOAT")
    with pytest.raises(AudioError, match="non-finite"):
        load_audio_bytes(buffer.getvalue(), 60)


@settings(max_examples=60)
@given(st.data())
def test_any_bytes_give_a_waveform_or_an_error(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(sorted(FORMATS)))
    whole = bytearray(audio_bytes(form, seconds=0.3))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        waveform = load_audio_bytes(bytes(whole), 5)
    except AudioError as error:
        assert "\n" not in str(error)
    else:
        assert np.isfinite(waveform).all()
        assert len(waveform) <= 5 * 16000 + 16


# ffmpeg.


def ffmpeg_bytes(suffix: str, folder: Path, *options: str, seconds: float = 1.5) -> bytes:
    (folder / "a.wav").write_bytes(audio_bytes(rate=44100, seconds=seconds))
    command = ["ffmpeg", "-v", "error", "-y", "-i", str(folder / "a.wav"), *options]
    subprocess.run([*command, str(folder / f"b{suffix}")], check=True, stdin=subprocess.DEVNULL)
    return (folder / f"b{suffix}").read_bytes()


@needs_ffmpeg
@pytest.mark.parametrize(
    ("suffix", "options"),
    [(".m4a", ()), (".aac", ()), (".webm", ("-c:a", "libopus")), (".wma", ())],
)
def test_formats_of_ffmpeg(
    suffix: str, options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ffmpeg_bytes(suffix, tmp_path, *options)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    waveform = load_audio_bytes(data, 60)
    assert len(waveform) == pytest.approx(24000, abs=2100)
    assert np.abs(waveform).max() > 0.2


@needs_ffmpeg
@pytest.mark.parametrize("is_linux", [True, False])
def test_ffmpeg_keeps_to_the_limits_and_leaves_nothing(
    is_linux: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ffmpeg_bytes(".m4a", tmp_path, seconds=4.0)
    if not is_linux:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    descriptors = len(list(Path("/dev/fd").iterdir()))
    assert len(load_audio_bytes(data, 60)) == pytest.approx(64000, abs=2100)
    with pytest.raises(AudioTooLongError):
        load_audio_bytes(data, 2)
    with pytest.raises(AudioError, match="truncated or damaged"):
        load_audio_bytes(data[:1500], 60)
    assert list((tmp_path / "temporary").iterdir()) == []
    assert len(list(Path("/dev/fd").iterdir())) == descriptors


def test_without_ffmpeg_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(AudioFormatError, match=r"needs ffmpeg, and ffmpeg is absent"):
        load_audio_bytes(b"\0\0\0\x18ftypM4A " * 9, 60)


def test_ffmpeg_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **options: object) -> None:
        raise subprocess.TimeoutExpired(command, 30)

    monkeypatch.setattr(shutil, "which", lambda name: "/bin/ffmpeg")
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(AudioError, match="not decoded within 30 s"):
        load_audio_bytes(b"\0\0\0\x18ftypM4A " * 9, 60)
