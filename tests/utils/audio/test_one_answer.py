"""Each kind of recording gets one answer, whichever way it comes in."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.containers import encode_with_av
from tests.support.fake_encoder import FakeEncoder
from tests.support.synthetic_voices import synthetic_speech
from utils.audio.decode import load_audio
from utils.audio.recording import Recording
from utils.corpus.conversion import Rules, Task, examine
from utils.errors import AudioError
from voices.folder import open_database
from voices.sql.audio import decode, encode_flac

VOICE = synthetic_speech(1, duration_s=2.0)
VOICE_48K = synthetic_speech(1, duration_s=2.0, sample_rate=48000)


def written(container: str, subtype: str = "PCM_16", samples: np.ndarray = VOICE) -> bytearray:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 16000, format=container, subtype=subtype)
    return bytearray(buffer.getvalue())


def sized(container: str, mark: bytes, form: str, size: int, behind: int = 4) -> bytes:
    """A file whose sound claims to have `size` bytes, or that many more than it has."""
    data = written(container)
    place = data.find(mark) + behind
    length = struct.unpack_from(form, data, place)[0]
    struct.pack_into(form, data, place, length + size if 0 < size < 1000 else size)
    return bytes(data)


def unknown_flac() -> bytes:
    data = written("FLAC")
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    return bytes(data)


def crc_of_page(page: bytes) -> int:
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = ((crc << 1) ^ 0x04C11DB7 if crc & 0x80000000 else crc << 1) & 0xFFFFFFFF
    return crc


def ogg_without_end_mark(subtype: str) -> bytes:
    data = written("OGG", subtype)
    last = data.rfind(b"OggS")
    data[last + 5] &= ~4 & 0xFF
    data[last + 22 : last + 26] = bytes(4)
    data[last + 22 : last + 26] = struct.pack("<I", crc_of_page(data[last:]))
    return bytes(data)


def cut(data: bytes | bytearray) -> bytes:
    return bytes(data[: int(0.55 * len(data))])


W64_DATA = b"data\xf3\xac\xd3\x11"
READ: dict[str, Callable[[], bytes]] = {
    **{
        f"wav of size {size:#x}": lambda size=size: sized("WAV", b"data", "<I", size)
        for size in (0, 1, 16, 44, 0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFF)
    },
    **{
        f"aiff of size {size:#x}": lambda size=size: sized("AIFF", b"SSND", ">I", size)
        for size in (0, 16, 0x7F000058, 0xFFFFFFFF)
    },
    **{
        f"caf of size {size}": lambda size=size: sized("CAF", b"data", ">q", size)
        for size in (0, -1, 16)
    },
    **{
        f"au of size {size:#x}": lambda size=size: sized("AU", b".snd", ">I", size, 8)
        for size in (0, 16, 0x7FFFFFFF, 0xFFFFFFFF)
    },
    **{
        f"w64 of size {size}": lambda size=size: sized("W64", W64_DATA, "<q", size, 16)
        for size in (0, -1, 16, 2**63 - 1)
    },
    **{
        f"rf64 of size {size}": lambda size=size: sized("RF64", b"ds64", "<q", size, 16)
        for size in (0, -1, 16, 2**63 - 1)
    },
    "flac of unknown length": unknown_flac,
    "vorbis without an end mark": lambda: ogg_without_end_mark("VORBIS"),
    "opus without an end mark": lambda: ogg_without_end_mark("OPUS"),
    "mp3 behind zeros": lambda: bytes(3000) + bytes(written("MP3", "MPEG_LAYER_III")),
    "webm": lambda: encode_with_av(VOICE_48K, "webm", "libopus"),
    "m4a": lambda: encode_with_av(VOICE_48K, "mp4", "aac"),
    "QuickTime": lambda: encode_with_av(VOICE_48K, "mov", "aac"),
    "aac behind an ID3 tag": lambda: (
        b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + encode_with_av(VOICE_48K, "adts", "aac")
    ),
    "float beyond full scale": lambda: bytes(written("WAV", "FLOAT", 32768 * VOICE)),
    "channels that cancel": lambda: bytes(
        written("WAV", "PCM_16", np.stack([VOICE, -VOICE], axis=1))
    ),
}
TRUNCATED: dict[str, Callable[[], bytes]] = {
    **{
        f"cut {container}": lambda container=container: cut(written(container))
        for container in ("WAV", "W64", "RF64", "AIFF", "CAF", "AU", "FLAC")
    },
    "cut ogg": lambda: cut(written("OGG", "VORBIS")),
    "cut mp3": lambda: cut(written("MP3", "MPEG_LAYER_III")),
    "cut m4a": lambda: cut(encode_with_av(VOICE_48K, "mp4", "aac")),
    "cut webm": lambda: cut(encode_with_av(VOICE_48K, "webm", "libopus")),
}


def answers(data: bytes, folder: Path) -> dict[str, object]:
    """What a file, a folder of voices, a conversion and an upload say to the same bytes."""

    def told(read: Callable[[], np.ndarray]) -> object:
        try:
            return FakeEncoder().embed_waveform(read())
        except AudioError as error:
            return "truncated" if "truncated" in str(error) else str(error)

    # A name that says nothing of the content, as in the worst of folders.
    source = folder / "voice.wav"
    source.write_bytes(data)

    def enrolled() -> np.ndarray:
        database = open_database(folder / "audio_db", FakeEncoder())
        (path, *_) = database.add("Ada", load_audio(source))
        return load_audio(path)

    def converted() -> np.ndarray:
        task = Task(str(source), str(folder / "converted.wav"))
        finding = examine(task, None, Rules(min_duration_s=0.1))
        if finding.defect is not None:
            raise AudioError(finding.defect)
        return load_audio(finding.listed)

    return {
        "file": told(lambda: load_audio(source)),
        "folder": told(enrolled),
        "conversion": told(converted),
        "upload": told(lambda: decode(encode_flac(Recording.load(data).waveform))),
    }


@pytest.mark.parametrize("kind", READ)
def test_what_is_read_is_the_same_voice_everywhere(kind: str, tmp_path: Path) -> None:
    expected = FakeEncoder().embed_waveform(VOICE)
    for way, answer in answers(READ[kind](), tmp_path).items():
        assert isinstance(answer, np.ndarray), f"{way}: {answer}"
        # Lossy codecs and their delays move the long-term spectrum a little.
        assert float(answer @ expected) > 0.9, way


@pytest.mark.parametrize("kind", TRUNCATED)
def test_what_is_cut_short_is_refused_everywhere(kind: str, tmp_path: Path) -> None:
    assert set(answers(TRUNCATED[kind](), tmp_path).values()) == {"truncated"}
