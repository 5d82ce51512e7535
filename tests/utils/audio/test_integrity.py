"""Every container is recognised when its file breaks off, and let through when it is whole."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from tests.support.synthetic_voices import synthetic_speech
from utils.audio import integrity

FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


def describe_truncation(path: Path) -> str | None:
    with path.open("rb") as file:
        return integrity.describe_truncation(file)


def encode(name: str, duration_s: float = 3.0) -> bytes:
    memory = io.BytesIO()
    container, subtype = FORMATS[name]
    waveform = synthetic_speech(0, duration_s=duration_s)
    soundfile.write(memory, waveform, 16000, format=container, subtype=subtype)
    return memory.getvalue()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("duration_s", [0.5, 3.0, 20.0])
def test_whole_files_pass(tmp_path: Path, name: str, duration_s: float) -> None:
    path = tmp_path / f"a.{name}"
    path.write_bytes(encode(name, duration_s))
    assert describe_truncation(path) is None


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.94])
def test_cut_files_are_told(tmp_path: Path, name: str, share: float) -> None:
    path, data = tmp_path / f"a.{name}", encode(name)
    path.write_bytes(data[: int(share * len(data))])
    assert str(describe_truncation(path)).startswith("truncated")


def test_ogg_without_an_end_mark_is_whole_if_its_last_packet_is(tmp_path: Path) -> None:
    path, data = tmp_path / "a.ogg", encode("ogg")
    whole = data[: data.rfind(b"OggS")]
    path.write_bytes(whole)
    assert describe_truncation(path) is None
    page = whole.rfind(b"OggS")
    segments = whole[page + 26]
    cut = bytearray(whole[: page + 27 + segments])
    cut[-1] = 255  # a packet that goes on on the next page
    path.write_bytes(bytes(cut) + bytes(sum(cut[page + 27 :])))
    assert describe_truncation(path) == "truncated: the last Ogg packet is incomplete"


def test_wav_with_chunks_around_the_data(tmp_path: Path) -> None:
    path, data = tmp_path / "a.wav", encode("wav")
    extra = b"LIST" + (5).to_bytes(4, "little") + b"notes\0"
    path.write_bytes(data[:12] + extra + data[12:] + extra)
    assert describe_truncation(path) is None


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x80000000, 0xFFFFFFFF - 36, 0xFFFFFFFF])
def test_streamed_wav_has_no_size_to_compare(tmp_path: Path, size: int) -> None:
    path, data = tmp_path / "a.wav", bytearray(encode("wav"))
    place = data.find(b"data") + 4
    data[place : place + 4] = size.to_bytes(4, "little")
    path.write_bytes(data)
    assert describe_truncation(path) is None


def test_mp3_behind_a_tag_with_a_picture(tmp_path: Path) -> None:
    path, data = tmp_path / "a.mp3", encode("mp3")
    picture = np.random.default_rng(0).bytes(3000).replace(b"\xff", b"\0")
    tag = b"ID3\x04\0\0" + bytes([0, 0, 3000 >> 7, 3000 & 127]) + picture
    path.write_bytes(tag + data)
    assert describe_truncation(path) is None
    path.write_bytes(tag + data[: len(data) // 2])
    assert describe_truncation(path) is not None


@given(
    st.sampled_from([b"", b"RIFF0000WAVE", b"FORM0000AIFF", b"OggS", b"ID3", b"\xff\xfb", b"fLaC"]),
    st.binary(max_size=80),
)
def test_any_bytes_are_judged_without_an_exception(
    tmp_path_factory: pytest.TempPathFactory, head: bytes, rest: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any_bytes.audio"
    path.write_bytes(head + rest)
    result = describe_truncation(path)
    assert result is None or result.startswith("truncated")
