"""Each kind of recording gets one answer, whichever way it comes in, from the shipped model.

On the command line, in a folder of voices, through create_data.py and as an upload, under a name
that says nothing of the content.
"""

import contextlib
import io
import json
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

import create_data
import infer_contrast
from tests.support.containers import encode_with_av
from tests.support.remembering import remembering_encoder
from tests.support.service_client import files, running
from tests.support.synthetic_sounds import sounds
from tests.support.synthetic_voices import synthetic_speech
from utils.errors import AudioError
from utils.model.encoder import SpeakerEncoder
from voices.store import open_database

pytestmark = pytest.mark.slow

VOICE = synthetic_speech(1, duration_s=2.0)
VOICE_48K = np.asarray(soxr.resample(VOICE, 16000, 48000), np.float32)
TIME_S = np.arange(len(VOICE)) / 16000


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


def stereo(left: np.ndarray, right: np.ndarray) -> bytes:
    return bytes(written("WAV", "PCM_16", np.stack([left, right], axis=1)))


def sound(name: str) -> bytes:
    return bytes(written("WAV", "PCM_16", sounds(3.0, 0)[name]))


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
    "channels that cancel": lambda: stereo(VOICE, -VOICE),
    "a silent channel": lambda: stereo(VOICE, 0 * VOICE),
    "a constant offset": lambda: bytes(written("WAV", "FLOAT", VOICE + 0.3)),
    "hum of 40 Hz": lambda: bytes(
        written("WAV", "FLOAT", VOICE + 0.3 * np.sin(2 * np.pi * 40 * TIME_S))
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
NO_SPEECH = {
    name: partial(sound, name)
    for name in ("white noise", "pink noise", "hum of 50 Hz", "ringback, 440 and 480 Hz", "drums")
} | {"music": partial(sound, "piano, chords"), "key tones": partial(sound, "keys of a telephone")}
REFUSED: dict[str, Callable[[], bytes]] = {
    "no file of sound": lambda: b"not a sound at all " * 50,
    "nothing": lambda: b"",
    "silence": lambda: bytes(written("WAV", "PCM_16", np.zeros(32000))),
    "a click": lambda: bytes(written("WAV", "PCM_16", VOICE[:1600])),
    "samples that are no numbers": lambda: bytes(
        written("WAV", "FLOAT", np.where(TIME_S < 1, np.nan, VOICE))
    ),
}
CASES = READ | TRUNCATED | NO_SPEECH | REFUSED
NAMES = {kind: f"k{number:02d}" for number, kind in enumerate(CASES)}
"""What the speaker, the folder and the file of a kind are called."""

REASONS = ("truncated", "no speech", "not audio", "empty", "silent", "too short", "non-finite")

Answers = dict[str, float | str]
"""By kind: the score to the voice, or the reason why there is none."""


def reason(text: str) -> str:
    """The kind of a refusal."""
    return next((word for word in REASONS if word in text), text)


@pytest.fixture(scope="module")
def encoder() -> SpeakerEncoder:
    return remembering_encoder()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each kind, as of a speaker, with one file in it; and the voice itself."""
    folder = tmp_path_factory.mktemp("one_answer")
    for kind, make in CASES.items():
        path = folder / "speakers" / NAMES[kind] / f"{NAMES[kind]}.wav"
        path.parent.mkdir(parents=True)
        path.write_bytes(make())
    (folder / "voice.wav").write_bytes(written("WAV"))
    return folder


def file_of(source: Path, kind: str) -> Path:
    return source / "speakers" / NAMES[kind] / f"{NAMES[kind]}.wav"


def on_the_command_line(source: Path, encoder: SpeakerEncoder) -> Answers:
    answers: Answers = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(infer_contrast, "SpeakerEncoder", lambda *options: encoder)
        for kind in CASES:
            paths = [f"--audio_path1={file_of(source, kind)}"]
            paths.append(f"--audio_path2={source / 'voice.wav'}")
            try:
                with contextlib.redirect_stdout(io.StringIO()) as shown:
                    assert infer_contrast.main([*paths, "--json"]) == 0
                answers[kind] = float(json.loads(shown.getvalue())["score"])
            except AudioError as error:
                answers[kind] = reason(str(error))
    return answers


def in_a_folder(source: Path, encoder: SpeakerEncoder) -> Answers:
    database = open_database(source / "speakers", encoder)
    database.load()
    answers: Answers = {Path(str(path)).stem: reason(text) for path, text in database.rejected}
    answers |= dict(database.rank(encoder.embed_file(source / "voice.wav")))
    return {kind: answers[name] for kind, name in NAMES.items()}


def through_create_data(source: Path, encoder: SpeakerEncoder) -> Answers:
    lists, wavs = source / "lists", source / "wavs"
    options = ["--dataset", f"folders:{source / 'speakers'}", "--list_dir", str(lists)]
    options += ["--wav_dir", str(wavs), "--min_duration_s", "0.3", "--num_workers", "1"]
    assert create_data.main(options) == 0
    answers: Answers = {}
    for line in (lists / "rejected.tsv").read_text(encoding="utf-8").splitlines():
        path, _, text = line.partition("\t")
        answers[Path(path).stem] = reason(text)
    voice = encoder.embed_file(source / "voice.wav")
    for path in wavs.rglob("*.wav"):
        # Its clips are training data, never embedded by it: what uses its lists refuses a sound.
        try:
            answers[path.stem] = float(encoder.embed_file(path) @ voice)
        except AudioError as error:
            answers[path.stem] = reason(str(error))
    return {kind: answers[name] for kind, name in NAMES.items()}


def as_an_upload(source: Path, encoder: SpeakerEncoder) -> Answers:
    answers: Answers = {}
    voice = (source / "voice.wav").read_bytes()
    with running(f"sqlite:///{source}/voices.sqlite3", encoder=encoder) as client:
        for kind in CASES:
            data = file_of(source, kind).read_bytes()
            sent = files(data, field="file1") + files(voice, field="file2")
            answer = client.post("/v1/compare", files=sent)
            if answer.status_code == 200:
                answers[kind] = float(answer.json()["score"])
            else:
                assert answer.status_code in (415, 422), answer.text
                answers[kind] = reason(answer.json()["detail"])
    return answers


WAYS = (on_the_command_line, in_a_folder, through_create_data, as_an_upload)


@pytest.fixture(scope="module")
def answers(source: Path, encoder: SpeakerEncoder) -> dict[str, Answers]:
    return {way.__name__: way(source, encoder) for way in WAYS}


@pytest.mark.parametrize("kind", READ)
def test_what_is_read_is_the_same_voice_everywhere(kind: str, answers: dict[str, Answers]) -> None:
    scores = {way: answers[way][kind] for way in answers}
    for way, score in scores.items():
        # Lossy codecs move a score a little; this one of mp3 ends at 7.2 kHz.
        assert isinstance(score, float), (way, score)
        assert score > (0.6 if "mp3" in kind else 0.9), way
    values = [float(score) for score in scores.values()]
    assert max(values) - min(values) < 0.005, scores


@pytest.mark.parametrize("kind", TRUNCATED)
def test_what_is_cut_short_is_refused_everywhere(kind: str, answers: dict[str, Answers]) -> None:
    assert {way: answers[way][kind] for way in answers} == dict.fromkeys(answers, "truncated")


@pytest.mark.parametrize("kind", NO_SPEECH)
def test_what_is_no_speech_is_refused_everywhere(kind: str, answers: dict[str, Answers]) -> None:
    assert {way: answers[way][kind] for way in answers} == dict.fromkeys(answers, "no speech")


@pytest.mark.parametrize(
    ("kind", "expected"),
    list(zip(REFUSED, ("not audio", "empty", "silent", "too short", "non-finite"), strict=True)),
)
def test_what_cannot_be_used_is_refused_everywhere(
    kind: str, expected: str, answers: dict[str, Answers]
) -> None:
    assert {way: answers[way][kind] for way in answers} == dict.fromkeys(answers, expected)
