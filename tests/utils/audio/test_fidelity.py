"""What is stored gives the same embedding as what was heard, or is refused."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.fake_encoder import FakeEncoder, RoundingEncoder
from tests.support.synthetic_voices import synthetic_speech
from utils.arrays import FloatArray
from utils.audio.decode import load_audio
from utils.audio.fidelity import (
    audible_in_16_bits,
    encode,
    encode_faithfully,
    loss_of_copy,
    loss_of_file,
)
from utils.errors import AudioError

VOICE = synthetic_speech(0, duration_s=2.0)
EMBED = FakeEncoder().embed_waveform
ROUNDING = RoundingEncoder().embed_waveform


def subtype_of(content: bytes) -> str:
    return str(soundfile.info(io.BytesIO(content)).subtype)


@pytest.mark.parametrize("container", ["WAV", "FLAC"])
def test_16_bits_where_they_are_enough(container: str) -> None:
    content = encode_faithfully(VOICE, EMBED(VOICE), EMBED, container)
    assert subtype_of(content) == "PCM_16"
    assert np.abs(load_audio(content) - VOICE).max() < 2 / 2**15


@pytest.mark.parametrize("container", ["WAV", "FLAC"])
def test_24_bits_where_they_are_needed(container: str) -> None:
    content = encode_faithfully(VOICE, ROUNDING(VOICE), ROUNDING, container)
    assert subtype_of(content) == "PCM_24"
    assert np.abs(load_audio(content) - VOICE).max() < 2 / 2**23


def test_16_bit_samples_are_stored_as_they_are_without_another_look() -> None:
    samples = np.round(VOICE * 2**15).astype(np.int16)
    waveform = (samples / 2**15).astype(np.float32)

    def embed(waveform: FloatArray) -> FloatArray:
        raise AssertionError("expected no embedding")

    content = encode_faithfully(waveform, np.zeros(2, np.float32), embed)
    assert np.array_equal(soundfile.read(io.BytesIO(content), dtype="int16")[0], samples)


def test_what_no_format_keeps_is_refused() -> None:
    other = np.array([1, 0], np.float32)
    with pytest.raises(AudioError, match=r"not what was heard: cosine 0\.0000"):
        encode_faithfully(VOICE, other, lambda _: np.array([0, 1], np.float32))


def test_what_has_no_embedding_is_refused() -> None:
    def embed(waveform: FloatArray) -> FloatArray:
        raise AudioError("recording: no speech: steady noise")

    with pytest.raises(AudioError, match="no embedding to compare"):
        encode_faithfully(VOICE, np.ones(2, np.float32), embed)
    assert "no embedding" in str(loss_of_copy(VOICE, VOICE[1:], embed))


def test_beyond_full_scale_is_scaled_not_clipped() -> None:
    content = encode_faithfully(5 * VOICE, EMBED(VOICE / np.abs(VOICE).max()), EMBED)
    assert np.corrcoef(load_audio(content), VOICE)[0, 1] > 0.9999


def test_equal_samples_are_no_loss() -> None:
    assert loss_of_copy(VOICE, VOICE.copy(), ROUNDING) is None
    assert "cosine 0.0000" in str(loss_of_copy(VOICE, np.round(VOICE * 2**15) / 2**15, ROUNDING))


def test_quiet_voices_are_made_louder_by_powers_of_two() -> None:
    quiet = VOICE / np.abs(VOICE).max() / 3000
    louder = audible_in_16_bits(quiet)
    gain = np.abs(louder).max() / np.abs(quiet).max()
    assert gain == 2 ** round(np.log2(gain)) > 1000
    assert audible_in_16_bits(VOICE) is VOICE


@pytest.mark.parametrize("other", ["same", "inverted", "silent", "a person"])
def test_channels(tmp_path: Path, other: str) -> None:
    second = {
        "same": VOICE, "inverted": -VOICE, "silent": 0 * VOICE,
        "a person": synthetic_speech(1, duration_s=2.0),
    }[other]  # fmt: skip
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([VOICE, second], axis=1), 16000, subtype="FLOAT")
    stored = load_audio(encode(load_audio(path), "PCM_16"))
    loss = loss_of_file(path, stored, EMBED)
    if other == "a person":
        assert str(loss).startswith("channel 1 would be lost: cosine 0.")
    else:
        assert loss is None


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no such file"):
        loss_of_file(tmp_path / "none.wav", VOICE, EMBED)


def test_comment_is_carried() -> None:
    with soundfile.SoundFile(io.BytesIO(encode(VOICE, "PCM_16", comment="denoise"))) as file:
        assert file.comment == "denoise"
