"""Recordings in memory: every format and defect; no file unpacks to more than is allowed."""

import io
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.containers import encode_with_av
from tests.support.synthetic_voices import synthetic_speech, write_wav
from utils.audio.decode import load_audio, read_blocks
from utils.errors import (
    AudioError,
    AudioFormatError,
    AudioTooLargeError,
    AudioTooLongError,
)

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
    waveform = load_audio(data, max_duration_s=60)
    assert waveform.dtype == np.float32
    assert len(waveform) == len(expected)
    np.testing.assert_allclose(waveform, expected, atol=1e-4)


def test_blocks_are_joined_without_a_seam(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = audio_bytes("flac", rate=44100, channels=2, seconds=2.0)
    (tmp_path / "a.flac").write_bytes(data)
    monkeypatch.setattr("utils.audio.decode.MAX_READ_SAMPLES", 1001)
    whole = load_audio(tmp_path / "a.flac")
    parts = load_audio(data, max_duration_s=60)
    assert len(parts) == len(whole)
    np.testing.assert_allclose(parts, whole, atol=1e-4)


# What cannot be used.


def test_empty() -> None:
    with pytest.raises(AudioError, match=r"^file 1: empty \(0 bytes\)"):
        load_audio(b"", max_duration_s=60, name="file 1")


@pytest.mark.parametrize("data", [b"x", b"hello " * 500, b"%PDF-1.7" + bytes(999), b"PK\3\4" * 9])
def test_what_is_no_audio(data: bytes) -> None:
    with pytest.raises(AudioFormatError, match=r"not audio that can be read, "):
        load_audio(data, max_duration_s=60)


def test_formats_of_the_nineties_are_refused() -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(9000), 16000, format="VOC", subtype="PCM_16")
    with pytest.raises(AudioFormatError, match="not audio that can be read"):
        load_audio(buffer.getvalue(), max_duration_s=60)


@pytest.mark.parametrize("form", ["wav", "flac", "mp3", "ogg", "aiff"])
def test_truncated(form: str) -> None:
    data = audio_bytes(form, seconds=2.0)
    with pytest.raises(AudioError, match=r"truncated|damaged") as caught:
        load_audio(data[: len(data) // 2], max_duration_s=60)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["wav", "flac", "mp3", "ogg"])
def test_too_long_by_the_header(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = audio_bytes(form, seconds=3.0)
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *a, **k: pytest.fail("was decoded"))
    with pytest.raises(AudioTooLongError, match=r"expected at most 2 s") as caught:
        load_audio(data, max_duration_s=2)
    assert caught.value.max_duration_s == 2


def flac_of_unknown_length(seconds: float) -> bytes:
    data = bytearray(audio_bytes("flac", seconds=seconds))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    return bytes(data)


def test_a_stream_of_unknown_length_is_counted_while_it_is_decoded() -> None:
    assert len(load_audio(flac_of_unknown_length(1.0), max_duration_s=2)) == 16000
    with pytest.raises(AudioTooLongError, match="or more"):
        load_audio(flac_of_unknown_length(3.0), max_duration_s=2)


@pytest.mark.slow
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
        load_audio(bytes(data), max_duration_s=60)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 60 s at 48 kHz in 8 channels are 92 MB.
    assert peak < 40e6


def test_many_channels_are_a_bomb() -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros((9000, 200)), 16000, format="WAV", subtype="PCM_16")
    with pytest.raises(AudioError, match="in 200 channels"):
        load_audio(buffer.getvalue(), max_duration_s=60)


@pytest.mark.parametrize("rate", [1, 2_000_000_000])
def test_absurd_rates(rate: int) -> None:
    data = bytearray(audio_bytes("wav"))
    data[24:28] = rate.to_bytes(4, "little")
    with pytest.raises(AudioError, match="damaged"):
        load_audio(bytes(data), max_duration_s=60)


def test_samples_that_are_no_numbers() -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full(9000, np.nan), 16000, format="WAV", subtype="FLOAT")
    with pytest.raises(AudioError, match="non-finite"):
        load_audio(buffer.getvalue(), max_duration_s=60)


@pytest.mark.slow
@settings(max_examples=60)
@given(st.data())
def test_any_bytes_give_a_waveform_or_an_error(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(sorted(FORMATS)))
    whole = bytearray(audio_bytes(form, seconds=0.3))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        waveform = load_audio(bytes(whole), max_duration_s=5)
    except AudioError as error:
        assert "\n" not in str(error)
    else:
        assert np.isfinite(waveform).all()
        assert len(waveform) <= 5 * 16000 + 16


# What PyAV reads.


@pytest.mark.parametrize(("container", "codec"), [
    ("mp4", "aac"), ("mov", "aac"), ("adts", "aac"), ("webm", "libopus"), ("asf", "wmav2"),
    ("mp4", "alac"),
])  # fmt: skip
def test_formats_of_ffmpeg(container: str, codec: str) -> None:
    data = encode_with_av(synthetic_speech(1, duration_s=1.5, sample_rate=48000), container, codec)
    waveform = load_audio(data, max_duration_s=60)
    assert len(waveform) == pytest.approx(24000, abs=2100)
    # Encoders put a pause of their own before the sound: it is there at some lag.
    piece = synthetic_speech(1, duration_s=1.5)[4000:16000]
    products = np.correlate(waveform, piece, "valid") / np.linalg.norm(piece)
    assert products.max() > 0.9 * np.linalg.norm(waveform[int(products.argmax()) :][:12000])
    part = load_audio(data, offset_s=0.5, duration_s=0.5)
    np.testing.assert_allclose(part[500:-500], waveform[8500:15500], atol=1e-3)
    with pytest.raises(AudioTooLongError):
        load_audio(data, max_duration_s=1)


@pytest.mark.parametrize("container", ["mp4", "webm", "asf"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_formats_of_ffmpeg(container: str, share: float) -> None:
    codec = {"mp4": "aac", "webm": "libopus", "asf": "wmav2"}[container]
    data = encode_with_av(synthetic_speech(1, duration_s=3.0, sample_rate=48000), container, codec)
    with pytest.raises(AudioError, match="truncated"):
        load_audio(data[: int(share * len(data))])


def test_without_pyav_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioFormatError, match=r"needs PyAV, which is not installed; pip install"):
        load_audio(b"\0\0\0\x18ftypM4A " * 9)


def test_a_playlist_opens_nothing(tmp_path: Path) -> None:
    target = tmp_path / "secret.wav"
    target.write_bytes(audio_bytes())
    for text in (f"#EXTM3U\n#EXTINF:9,\n{target}\n", f"ffconcat version 1.0\nfile {target}\n"):
        (tmp_path / "list.m4a").write_text(text)
        with pytest.raises(AudioFormatError):
            load_audio(tmp_path / "list.m4a")


def test_decoding_ends_in_time() -> None:
    with pytest.raises(AudioError, match="not decoded within -1 s"):
        load_audio(audio_bytes(), timeout_s=-1)


# Channels and scale.


def stereo(left: np.ndarray, right: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    samples = np.stack([left, right], axis=1)
    soundfile.write(buffer, samples, 16000, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def test_channels_that_cancel_are_not_averaged() -> None:
    wave = synthetic_speech(1)
    np.testing.assert_allclose(load_audio(stereo(wave, -wave)), wave, atol=1e-6)
    np.testing.assert_allclose(load_audio(stereo(0.5 * wave, -wave)), -wave, atol=1e-6)


def test_a_silent_channel_is_left_out() -> None:
    wave = synthetic_speech(1)
    for silence in (np.zeros_like(wave), np.full_like(wave, 0.2)):
        np.testing.assert_allclose(load_audio(stereo(wave, silence)), wave, atol=1e-6)
        np.testing.assert_allclose(load_audio(stereo(silence, wave)), wave, atol=1e-6)


def test_a_channel_can_be_chosen() -> None:
    first, second = synthetic_speech(1), synthetic_speech(2)
    data = stereo(first, second)
    np.testing.assert_allclose(load_audio(data), (first + second) / 2, atol=1e-6)
    for channel, wave in (("left", first), ("1", first), ("right", second), ("2", second)):
        np.testing.assert_allclose(load_audio(data, channel=channel), wave, atol=1e-6)
    with pytest.raises(AudioError, match="channel 3 was asked for, it has 2"):
        load_audio(data, channel="3")


@pytest.mark.parametrize("scale", [2.1, 32768.0, 1e9])
def test_what_is_beyond_full_scale_is_divided_by_its_peak(scale: float) -> None:
    wave = synthetic_speech(1)
    data = stereo(np.float32(scale) * wave, np.float32(scale) * wave)
    expected = wave / np.abs(wave).max()
    np.testing.assert_allclose(load_audio(data), expected, atol=1e-6)
    blocks = np.concatenate(list(read_blocks(data, 0.5)))
    assert np.abs(blocks).max() == 1


def test_too_many_bytes_are_refused_in_files_and_in_memory(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", np.zeros(8000, np.float32))
    size = path.stat().st_size
    for source in (path, path.read_bytes()):
        assert len(load_audio(source, max_bytes=size)) == 8000
        with pytest.raises(AudioTooLargeError, match=rf"{size} bytes, expected at most {size - 1}"):
            load_audio(source, max_bytes=size - 1)
