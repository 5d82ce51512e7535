"""A recording is known again whatever was done to the file; another one is not taken for it."""

import numpy as np
import pytest

from tests.support.synthetic_voices import synthetic_speech
from utils.audio.fingerprint import (
    HOP_SAMPLES,
    NUM_BITS,
    SAME,
    Print,
    agreement,
    take_print,
    take_prints,
)


def best(copy: np.ndarray, original: np.ndarray) -> float:
    return max(agreement(each, [take_print(original)]) for each in take_prints(copy))


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return synthetic_speech(1, 8, 3.0)


def test_copies_agree(speech: np.ndarray) -> None:
    assert best(speech, speech) == pytest.approx(1)
    assert best(0.05 * speech, speech) == pytest.approx(1, abs=0.01)
    # Cuts that fall between two frames are the worst.
    for cut in (HOP_SAMPLES // 4, 2111, 8000):
        assert best(speech[cut:], speech) > 0.8
        assert best(np.pad(speech, (cut, 300)), speech) > 0.8
    noise = np.random.default_rng(0).standard_normal(len(speech))
    noise *= np.sqrt(np.mean(speech**2) / 100)
    assert best((speech + noise).astype(np.float32), speech) > SAME


def test_other_recordings_do_not() -> None:
    others = [take_print(synthetic_speech(1, utterance, 3.0)) for utterance in (7, 10)]
    found = agreement(take_print(synthetic_speech(1, 8, 3.0)), others)
    assert 0 < found < SAME
    noise = [np.random.default_rng(seed).standard_normal(48_000) for seed in (1, 2)]
    assert agreement(take_print(noise[0]), [take_print(noise[1])]) < 0.2


def test_too_little_in_common_is_no_copy(speech: np.ndarray) -> None:
    whole = take_print(speech)
    assert agreement(whole, []) == -1
    assert agreement(take_print(speech[:4000]), [whole]) == -1
    assert agreement(whole, [take_print(np.zeros(100, np.float32)), whole]) == pytest.approx(1)
    assert best(speech[: len(speech) * 2 // 3], speech) > SAME


def test_a_print_as_bytes(speech: np.ndarray) -> None:
    whole = take_print(speech)
    packed = whole.to_bytes()
    assert len(packed) == len(whole.bits) * (1 + NUM_BITS // 8)
    assert len(packed) / 3.0 < 130  # bytes a second
    again = Print.from_bytes(packed)
    np.testing.assert_array_equal(again.bits, whole.bits)
    np.testing.assert_array_equal(again.is_heard, whole.is_heard)


def test_long_recordings_are_cut() -> None:
    noise = np.random.default_rng(0).standard_normal(16_000 * 70).astype(np.float32)
    assert len(take_print(noise).bits) <= 40 * 60
