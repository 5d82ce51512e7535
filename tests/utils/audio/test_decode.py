"""Reading recordings: any container, rate and channel count, with librosa as the oracle."""

import warnings
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.synthetic_voices import synthetic_speech
from utils.audio import decode as audio
from utils.audio.decode import duration_seconds, load_audio, read_blocks
from utils.audio.waveform import SAMPLE_RATE, describe_defect, peak_db, write_wav
from utils.errors import AudioError

# Suffix, container, coding.
FORMATS = [
    ("wav", "WAV", "PCM_16"),
    ("wav", "WAV", "PCM_24"),
    ("wav", "WAV", "PCM_32"),
    ("wav", "WAV", "FLOAT"),
    ("wav", "WAVEX", "PCM_16"),
    ("wav", "WAV", "ULAW"),
    ("flac", "FLAC", "PCM_16"),
    ("aiff", "AIFF", "PCM_16"),
    ("ogg", "OGG", "VORBIS"),
    ("opus", "OGG", "OPUS"),
    ("mp3", "MP3", "MPEG_LAYER_III"),
]
RATES = [8000, 16000, 22050, 44100, 48000]
OPUS_RATES = {8000, 16000, 48000}


def write(path: Path, *, rate: int = 16000, channels: int = 1, seconds: float = 1.0,
          container: str = "WAV", subtype: str = "PCM_16") -> Path:  # fmt: skip
    voices = [synthetic_speech(voice, 0, seconds, rate) for voice in range(channels)]
    soundfile.write(path, np.stack(voices, axis=1), rate, format=container, subtype=subtype)
    return path


def librosa_waveform(path: Path) -> np.ndarray:
    import librosa

    return librosa.load(path, sr=16000)[0]


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("rate", RATES)
def test_any_rate_and_channel_count_equals_librosa(
    tmp_path: Path, rate: int, channels: int
) -> None:
    path = write(tmp_path / "a.wav", rate=rate, channels=channels)
    waveform = load_audio(path)
    assert waveform.dtype == np.float32
    assert waveform.flags.c_contiguous
    np.testing.assert_allclose(waveform, librosa_waveform(path), atol=1e-6)


@pytest.mark.parametrize(("suffix", "container", "subtype"), FORMATS)
@pytest.mark.parametrize("rate", [16000, 44100])
def test_any_format_equals_librosa(
    tmp_path: Path, suffix: str, container: str, subtype: str, rate: int
) -> None:
    if subtype == "OPUS" and rate not in OPUS_RATES:
        rate = 48000
    path = write(
        tmp_path / f"a.{suffix}", rate=rate, channels=2, container=container, subtype=subtype
    )
    waveform = load_audio(path)
    np.testing.assert_allclose(waveform, librosa_waveform(path), atol=1e-6)
    assert len(waveform) == pytest.approx(SAMPLE_RATE, abs=2500)  # mp3 frames are padded
    assert np.abs(waveform).max() > 0.05


def test_names_of_any_script_can_be_read(tmp_path: Path) -> None:
    for name in ("张三 的录音.wav", "a b'c\"$x.wav", "UPPER.WAV", "no_suffix"):
        assert len(load_audio(write(tmp_path / name))) == SAMPLE_RATE


def test_part_of_a_recording_is_the_same_samples(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", container="FLAC")
    whole = load_audio(path)
    part = load_audio(path, offset_s=0.25, duration_s=0.5)
    np.testing.assert_array_equal(part, whole[4000:12000])
    np.testing.assert_array_equal(load_audio(path, offset_s=0.75, duration_s=9), whole[12000:])
    assert load_audio(path, offset_s=5.0).shape == (0,)
    assert load_audio(path, duration_s=0.0).shape == (0,)


@pytest.mark.parametrize("options", [{"offset_s": -1.0}, {"duration_s": -0.1}])
def test_negative_times_are_a_mistake_of_the_caller(tmp_path: Path, options: dict) -> None:
    with pytest.raises(ValueError, match="from 0 up"):
        load_audio(write(tmp_path / "a.wav"), **options)


@pytest.mark.parametrize(("suffix", "container", "subtype"), FORMATS)
@pytest.mark.parametrize("rate", RATES)
def test_blocks_joined_are_the_whole(
    tmp_path: Path, suffix: str, container: str, subtype: str, rate: int
) -> None:
    if subtype == "OPUS" and rate not in OPUS_RATES:
        rate = 48000
    path = write(
        tmp_path / f"a.{suffix}", rate=rate, channels=2, seconds=1.3,
        container=container, subtype=subtype,
    )  # fmt: skip
    blocks = list(read_blocks(path, 0.31))
    assert len(blocks) > 3
    assert all(block.dtype == np.float32 and len(block) for block in blocks)
    joined, whole = np.concatenate(blocks), load_audio(path)
    assert abs(len(joined) - len(whole)) <= 1
    size = min(len(joined), len(whole))
    np.testing.assert_allclose(joined[:size], whole[:size], atol=2e-4)


def test_blocks_of_any_length_lose_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", seconds=0.1)
    for block_s in (1e-9, 0.01, 0.1, 100.0):
        np.testing.assert_array_equal(
            np.concatenate(list(read_blocks(path, block_s))), load_audio(path)
        )


def test_block_of_no_length_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="more than 0 s"):
        next(read_blocks(write(tmp_path / "a.wav"), 0.0))


def test_long_files_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.ogg", container="OGG", subtype="VORBIS")
    whole = load_audio(path)
    monkeypatch.setattr(audio, "MAX_READ_SAMPLES", 1000)
    np.testing.assert_array_equal(load_audio(path), whole)


# Files that cannot be used.


def both_fail(path: Path, match: str) -> None:
    """Asserts that both ways of reading name the file and the reason in one line."""
    with pytest.raises(AudioError, match=match) as error:
        load_audio(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(AudioError, match=match):
        list(read_blocks(path, 0.5))


def test_missing_file_and_folder_are_told(tmp_path: Path) -> None:
    both_fail(tmp_path / "absent.wav", "no such file")
    both_fail(tmp_path, "a folder")
    with pytest.raises(AudioError, match="no such file"):
        duration_seconds(tmp_path / "absent.wav")


def test_empty_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    both_fail(tmp_path / "a.wav", "empty")


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.txt", "a.raw"])
def test_file_that_is_no_audio_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("the quick brown fox " * 50)
    both_fail(tmp_path / name, "not audio that can be read")


@pytest.mark.parametrize(
    ("suffix", "container", "subtype"),
    [row for row in FORMATS if row[2] in ("PCM_16", "FLOAT", "VORBIS", "OPUS", "MPEG_LAYER_III")],
)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_cut_file_is_told(
    tmp_path: Path, suffix: str, container: str, subtype: str, share: float
) -> None:
    path = write(tmp_path / f"a.{suffix}", seconds=2.0, container=container, subtype=subtype)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    both_fail(path, "truncated|damaged")


def test_cut_wav_says_how_much_is_there(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav")
    path.write_bytes(path.read_bytes()[:3000])
    both_fail(path, "truncated: 3000 of 32044 bytes; fetch or record it again")


def test_header_that_is_cut_short_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav")
    path.write_bytes(path.read_bytes()[:30])
    both_fail(path, "truncated")


@pytest.mark.parametrize("size", [0x7FFFF000, 0xFFFFFFFF])
def test_wav_of_a_stream_whose_length_was_never_written_is_read(tmp_path: Path, size: int) -> None:
    path = write(tmp_path / "a.wav")
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = size.to_bytes(4, "little")
    path.write_bytes(data)
    assert len(load_audio(path)) == SAMPLE_RATE


def test_header_that_promises_years_is_told_without_taking_the_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", container="FLAC")
    data = bytearray(path.read_bytes())
    # STREAMINFO: the 36 bits of the number of samples end at byte 26 of the file.
    data[21] |= 0x0F
    data[22:26] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    both_fail(path, "truncated|damaged")


@pytest.mark.parametrize("rate", [1, 1999, 768_001, 2**31 - 1])
def test_rate_that_no_recorder_has_is_told(tmp_path: Path, rate: int) -> None:
    path = write(tmp_path / "a.wav")
    data = bytearray(path.read_bytes())
    data[24:28] = rate.to_bytes(4, "little")
    path.write_bytes(data)
    both_fail(path, f"sample rate {rate} Hz in 1 channels, expected 2000 to 768000 Hz")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_told(tmp_path: Path, value: float) -> None:
    samples = np.zeros(SAMPLE_RATE, dtype=np.float32)
    samples[12345] = value
    soundfile.write(tmp_path / "a.wav", samples, SAMPLE_RATE, subtype="FLOAT")
    both_fail(tmp_path / "a.wav", "non-finite")


def test_decoder_that_breaks_down_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("first line\nlost sync")

    path = write(tmp_path / "a.wav")
    monkeypatch.setattr(soundfile.SoundFile, "read", fail)
    both_fail(path, r"truncated or damaged audio \(lost sync\) after 0 samples of 16000")
    monkeypatch.setattr(soundfile.SoundFile, "seek", fail)
    with pytest.raises(AudioError, match="after 8000 samples"):
        load_audio(path, offset_s=0.5)


def test_decoder_that_ends_early_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.wav")
    monkeypatch.setattr(
        soundfile.SoundFile, "read", lambda *_, **__: np.zeros((100, 1), np.float32)
    )
    both_fail(path, "truncated, 100 samples of 16000")


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    head=st.sampled_from(
        [b"", b"RIFF\x24\x00\x00\x00WAVE", b"fLaC", b"OggS", b"ID3\x04", b"\xff\xfb", b"FORM"]
    ),
    body=st.binary(max_size=300),
    name=st.sampled_from(["a.wav", "a.mp3", "a.ogg", "a.raw", "a.aiff"]),
)
def test_wild_bytes_are_audio_or_an_audio_error(
    tmp_path: Path, head: bytes, body: bytes, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(head + body)
    try:
        waveform = load_audio(path)
    except AudioError:
        return
    assert waveform.dtype == np.float32
    assert np.isfinite(waveform).all()


@pytest.mark.slow
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    row=st.sampled_from(FORMATS),
    place=st.integers(0, 4000),
    value=st.binary(min_size=1, max_size=9),
)
def test_damaged_bytes_are_audio_or_an_audio_error(
    tmp_path: Path, row: tuple[str, str, str], place: int, value: bytes
) -> None:
    suffix, container, subtype = row
    path = tmp_path / f"a_{subtype}.{suffix}"
    write(path, seconds=0.4, container=container, subtype=subtype)
    data = bytearray(path.read_bytes())
    place %= len(data)
    data[place : place + len(value)] = value
    path.write_bytes(data)
    for read in (load_audio, lambda path: np.concatenate([*read_blocks(path, 0.1), []])):
        try:
            assert np.isfinite(read(path)).all()
        except AudioError as error:
            assert "\n" not in str(error)


# Writing and judging waveforms.


def test_written_wav_is_16_bit_and_reads_back(tmp_path: Path) -> None:
    waveform = synthetic_speech(1, duration_s=0.5)
    path = tmp_path / "new" / "a.wav"
    write_wav(path, waveform)
    with wave.open(str(path)) as file:
        form = (file.getframerate(), file.getnchannels(), file.getsampwidth())
    assert form == (16000, 1, 2)
    np.testing.assert_allclose(load_audio(path), waveform, atol=1 / 32768)
    assert [item.name for item in path.parent.iterdir()] == ["a.wav"]


def test_written_samples_beyond_full_scale_are_scaled(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", np.array([2.0, -2.0, 0.5], dtype=np.float32))
    np.testing.assert_allclose(load_audio(tmp_path / "a.wav"), [1.0, -1.0, 0.25], atol=1e-4)


@pytest.mark.parametrize(
    "waveform", [np.zeros((5, 2)), np.float32(1.0), np.array([0.0, np.nan]), np.array([np.inf])]
)
def test_unusable_waveform_is_not_written(tmp_path: Path, waveform: np.ndarray) -> None:
    with pytest.raises(ValueError, match="finite samples in one dimension"):
        write_wav(tmp_path / "a.wav", waveform)
    assert list(tmp_path.iterdir()) == []


def test_duration_is_that_of_the_header(tmp_path: Path) -> None:
    assert duration_seconds(write(tmp_path / "a.wav", rate=44100, seconds=1.5)) == 1.5


@pytest.mark.parametrize(
    ("waveform", "defect"),
    [
        (np.zeros(0), "empty"),
        (np.full(16000, np.nan), "non-finite"),
        (np.full(3200, 0.1), "too short: 0.20 s, expected at least 0.30 s"),
        (np.zeros(16000), "silent: peak -120 dBFS"),
        (np.full(16000, 9e-4), "silent: peak -61 dBFS, expected at least -60 dBFS"),
        (np.full(16000, 1.1e-3), None),
        (np.full(4800, -0.5), None),
    ],
)
def test_defects_are_described(waveform: np.ndarray, defect: str | None) -> None:
    found = describe_defect(waveform.astype(np.float32))
    assert found == defect if defect is None else defect in str(found)


def test_shortest_duration_can_be_chosen() -> None:
    assert describe_defect(np.full(3200, 0.1, np.float32), 0.1) is None


def test_peak_is_in_db_of_full_scale() -> None:
    assert peak_db(np.array([0.1, -1.0], np.float32)) == pytest.approx(0.0)
    assert peak_db(np.array([0.01], np.float32)) == pytest.approx(-40.0, abs=1e-4)
    assert peak_db(np.zeros(0, np.float32)) == pytest.approx(-120.0)


def test_reading_warns_of_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_audio(write(tmp_path / "a.mp3", container="MP3", subtype="MPEG_LAYER_III"))
