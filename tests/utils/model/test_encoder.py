import subprocess
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.support.peak_memory import PEAK_MB
from tests.support.synthetic_sounds import coloured_noise, sounds
from tests.support.synthetic_voices import synthetic_speech, write_wav
from tests.support.tiny_model import write_tiny_model
from utils.audio.detector import NoSpeechError
from utils.errors import AudioError, ModelError
from utils.model import encoder as encoder_module
from utils.model.encoder import MIN_SPEECH_S, SpeakerEncoder, _windows
from utils.model.header import read_header


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.keras")


@pytest.fixture(scope="module")
def encoder(model: Path) -> SpeakerEncoder:
    return SpeakerEncoder(model)


@pytest.fixture(scope="module", params=["keras", "onnx"])
def real(root: Path, request: pytest.FixtureRequest) -> SpeakerEncoder:
    """The model that is shipped: a random network is far more easily disturbed."""
    return SpeakerEncoder(root / "models" / f"resnet34.{request.param}")


def write(path: Path, duration_s: float = 3.0, speaker: int = 0) -> Path:
    return write_wav(path, synthetic_speech(speaker, 0, duration_s))


# --- The model ------------------------------------------------------------------------------------


def test_says_what_the_model_is(encoder: SpeakerEncoder, model: Path) -> None:
    assert encoder.model_path == str(model)
    assert encoder.model_id == read_header(model).model_id
    assert encoder.embedding_size == 16
    assert encoder.is_calibrated
    assert (encoder.threshold, encoder.strict_threshold) == (0.5, 0.7)
    assert encoder.probability(0.5) == pytest.approx(0.5)
    assert encoder.probability(0.9) > 0.95 > 0.05 > encoder.probability(0.1)


def test_loading_prints_nothing(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    SpeakerEncoder(str(model), num_threads=1)
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_model_without_thresholds_embeds_but_judges_nothing(tmp_path: Path) -> None:
    plain = SpeakerEncoder(write_tiny_model(tmp_path / "plain.keras", calibrated=False))
    assert not plain.is_calibrated
    assert plain.embed_waveform(synthetic_speech(0)).shape == (16,)
    for judge in (
        lambda: plain.threshold,
        lambda: plain.strict_threshold,
        lambda: plain.probability(0.5),
    ):
        with pytest.raises(ModelError, match=r"plain\.keras: holds no calibrated threshold"):
            judge()


def test_missing_model() -> None:
    with pytest.raises(ModelError, match=r"none\.keras: no such model file"):
        SpeakerEncoder("none.keras")


# --- One recording --------------------------------------------------------------------------------


@pytest.mark.slow
def test_embedding_is_float32_of_unit_length(encoder: SpeakerEncoder) -> None:
    embedding = encoder.embed_waveform(synthetic_speech(0))
    assert embedding.shape == (16,)
    assert embedding.dtype == np.float32
    assert np.linalg.norm(embedding) == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_array_equal(encoder.embed_waveform(synthetic_speech(0)), embedding)


@pytest.mark.slow
@pytest.mark.parametrize("duration_s", [1.0, 3.0, 35.0])
def test_file_and_waveform_give_the_same(
    encoder: SpeakerEncoder, tmp_path: Path, duration_s: float
) -> None:
    path = write(tmp_path / "a.wav", duration_s)
    waveform, _ = soundfile.read(path, dtype="float32")
    by_waveform = encoder.embed_waveform(waveform)
    np.testing.assert_allclose(encoder.embed_file(path), by_waveform, atol=1e-6)


@pytest.mark.slow
def test_silence_around_the_speech_does_not_matter(real: SpeakerEncoder, root: Path) -> None:
    speech, _ = soundfile.read(root / "audio" / "a_1.wav", dtype="float32")
    silence = np.random.default_rng(0).normal(0, 1e-4, 32000).astype(np.float32)
    padded = np.concatenate([silence, speech, silence])
    assert real.embed_waveform(padded) @ real.embed_waveform(speech) > 0.999


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_stereo_copy_at_another_rate_is_the_same_voice(
    real: SpeakerEncoder, root: Path, tmp_path: Path, suffix: str
) -> None:
    speech, _ = soundfile.read(root / "audio" / "a_1.wav", dtype="float32")
    speech = speech[: len(speech) // 160 * 160]
    # Without a filter: what is lost between 7.3 and 8 kHz is lost in our own resampling.
    num_samples = len(speech) // 160 * 441
    spectrum = np.fft.rfft(speech)
    padded = np.pad(spectrum, (0, num_samples // 2 + 1 - len(spectrum)))
    high = np.fft.irfft(padded, num_samples) * num_samples / len(speech)
    soundfile.write(tmp_path / f"copy{suffix}", np.stack([high, high], axis=1), 44100)
    assert real.embed_file(tmp_path / f"copy{suffix}") @ real.embed_waveform(speech) > 0.97


@pytest.mark.parametrize(
    ("waveform", "text"),
    [
        (np.zeros(0, np.float32), "tape: empty"),
        (np.zeros(32000, np.float32), "tape: silent"),
        (np.full(32000, np.nan, np.float32), "tape: non-finite samples"),
        (synthetic_speech(0, 0, 0.2), r"tape: too short: 0\.20 s, expected at least 0\.\d+ s"),
    ],
)
def test_refused_waveforms(encoder: SpeakerEncoder, waveform: np.ndarray, text: str) -> None:
    with pytest.raises(AudioError, match=text):
        encoder.embed_waveform(waveform, source="tape")


def test_too_little_speech_is_told_in_figures(encoder: SpeakerEncoder, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    waveform = random.normal(0, 1e-4, 48000).astype(np.float32)
    waveform[20000:20800] = synthetic_speech(0, 0, 0.05)
    path = write_wav(tmp_path / "short.wav", waveform)
    for embed in (
        lambda: encoder.embed_file(path),
        lambda: encoder.embed_waveform(waveform, str(path)),
    ):
        with pytest.raises(AudioError, match=r"short\.wav: 0\.[0-3]\d s of speech found, expected"):
            embed()
    assert 0.3 <= MIN_SPEECH_S <= 1.0


@pytest.mark.parametrize(
    ("name", "data"), [("none.wav", None), ("text.wav", b"no audio at all"), ("empty.wav", b"")]
)
def test_refused_files(
    encoder: SpeakerEncoder, tmp_path: Path, name: str, data: bytes | None
) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(AudioError, match=name):
        encoder.embed_file(tmp_path / name)


@pytest.mark.slow
def test_sounds_without_a_voice_are_refused(encoder: SpeakerEncoder, tmp_path: Path) -> None:
    noise = coloured_noise(48_000, np.random.default_rng(0), 0.0) * np.float32(0.1)
    path = write_wav(tmp_path / "noise.wav", noise)
    for embed in (lambda: encoder.embed_waveform(noise, "x"), lambda: encoder.embed_file(path)):
        with pytest.raises(NoSpeechError, match="no speech: steady noise, expected"):
            embed()
    ringing = sounds(4.0)["ringback, 400 and 450 Hz"]
    with pytest.raises(NoSpeechError, match="no speech: tones or music"):
        encoder.embed_waveform(ringing)
    late = np.concatenate([np.tile(0.1 * noise, 11), synthetic_speech(0)])  # in the second block
    assert encoder.embed_waveform(late).shape == (16,)


def test_silent_file(encoder: SpeakerEncoder, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "silent.wav", np.zeros(48000, np.float32))
    with pytest.raises(AudioError, match=r"silent\.wav: .*expected"):
        encoder.embed_file(path)


# --- Long recordings ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blocks_s", "expected_s"),
    [
        ([3], [3]),
        ([10], [10]),
        ([12], [6, 6]),
        ([19], [9.5, 9.5]),
        ([20], [10, 10]),
        ([25], [10, 7.5, 7.5]),
        ([4, 0, 5, 3], [6, 6]),
        ([30, 30, 1], [10, 10, 10, 10, 10, 5.5, 5.5]),
        ([], []),
    ],
)
def test_speech_is_cut_into_windows(blocks_s: list[float], expected_s: list[float]) -> None:
    total = round(sum(blocks_s) * 16000)
    stream = np.arange(total, dtype=np.float32)
    edges = np.cumsum([0, *(round(s * 16000) for s in blocks_s)])
    windows = list(_windows(stream[a:b] for a, b in pairwise(edges)))
    assert [len(window) / 16000 for window in windows] == expected_s
    np.testing.assert_array_equal(np.concatenate([*windows, stream[:0]]), stream)


@pytest.mark.slow
def test_long_embedding_is_the_mean_of_its_windows(
    encoder: SpeakerEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_module.Recording, "speech", property(lambda block: block.steady))
    speech = synthetic_speech(0, 0, 35.0)
    windows = _windows([encoder_module.Recording(speech).steady])
    parts = [encoder._embed_window(window) * len(window) for window in windows]
    expected = np.sum(parts, axis=0)
    expected /= np.linalg.norm(expected)
    assert len(parts) == 4
    np.testing.assert_allclose(encoder.embed_waveform(speech), expected, atol=1e-5)


@pytest.mark.slow
def test_file_is_read_block_by_block(
    encoder: SpeakerEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "long.wav", 65.0)
    lengths: list[float] = []
    read_blocks = encoder_module.read_blocks

    def watched(path: Any, block_s: float) -> Iterable[np.ndarray]:
        for block in read_blocks(path, block_s):
            lengths.append(len(block) / 16000)
            yield block

    monkeypatch.setattr(encoder_module, "read_blocks", watched)
    encoder.embed_file(path)
    assert sum(lengths) == pytest.approx(65.0)
    assert max(lengths) <= 30.0


LONG_PROBE = f"""
import sys
from utils.model.encoder import SpeakerEncoder
{PEAK_MB}
encoder = SpeakerEncoder(sys.argv[1], num_threads=1)
peaks = []
for path in sys.argv[2:]:
    encoder.embed_file(path)
    peaks.append(round(peak_mb()))
print(*peaks)
"""


@pytest.mark.slow
def test_a_long_file_takes_hardly_more_memory_than_a_minute(
    model: Path, tmp_path: Path, root: Path
) -> None:
    # 38 MB of samples that must not be in memory at once.
    minute = np.round(synthetic_speech(0, 0, 60.0) * 32767).astype(np.int16)
    for name, repeats in (("minute", 1), ("long", 10)):
        soundfile.write(tmp_path / f"{name}.wav", np.tile(minute, repeats), 16000)
    paths = [tmp_path / "minute.wav", tmp_path / "long.wav"]
    result = subprocess.run(
        [sys.executable, "-c", LONG_PROBE, model, *paths],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    first, second = map(int, result.stdout.split())
    assert second - first < 30


# --- Many recordings ------------------------------------------------------------------------------


def test_embed_files_keeps_the_order(encoder: SpeakerEncoder, tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{k}.wav", 0.6 + 0.9 * ((7 * k) % 5), k) for k in range(9)]
    results = list(encoder.embed_files(paths, num_workers=3))
    assert [index for index, _ in results] == list(range(9))
    for path, (_, embedding) in zip(paths, results, strict=True):
        np.testing.assert_allclose(embedding, encoder.embed_file(path), atol=1e-6)


def test_embed_files_yields_errors_in_their_place(encoder: SpeakerEncoder, tmp_path: Path) -> None:
    good = write(tmp_path / "good.wav")
    paths = [good, tmp_path / "none.wav", good]
    results = dict(encoder.embed_files(paths, on_error="skip"))
    assert isinstance(results[1], AudioError)
    assert "none.wav" in str(results[1])
    np.testing.assert_array_equal(results[0], results[2])
    with pytest.raises(AudioError, match=r"none\.wav"):
        list(encoder.embed_files(paths))


def test_embed_files_reads_only_a_little_ahead(encoder: SpeakerEncoder, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", 1.0)
    taken: list[int] = []

    def paths() -> Iterable[Path]:
        for number in range(100):
            taken.append(number)
            yield path

    results = encoder.embed_files(paths(), num_workers=2)
    next(iter(results))
    assert len(taken) <= 6
    results.close()  # type: ignore[attr-defined]


def test_embed_files_of_nothing(encoder: SpeakerEncoder) -> None:
    assert list(encoder.embed_files([])) == []
