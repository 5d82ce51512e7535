"""A recording of hours stays in bounded memory, and its blocks are what it is made of."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.peak_memory import PEAK_MB
from tests.support.synthetic_sounds import sounds
from tests.support.synthetic_voices import synthetic_speech
from utils.audio.recording import BLOCK_S, Recording

LONG_S = 1200.0
MAX_GROWTH_MB = 140
"""20 minutes at 16 kHz take 77 MB, and are held once, with what is computed of them in blocks."""

MEASURE = f"""
import sys
import numpy as np
from utils.audio.quality import measure_quality
from utils.audio.recording import Recording
from utils.audio.waveform import describe_defect
{PEAK_MB}
_ = Recording(np.zeros(16000, np.float32)).missing_speech  # the detector is loaded
before = peak_mb()
recording = Recording.load(sys.argv[1])
assert describe_defect(recording.waveform) is None
num_speech = sum(len(block.speech) for block in recording.blocks())
quality = measure_quality(recording)
assert num_speech == round(recording.speech_s * 16000) > 0
assert quality.duration_s == float(sys.argv[2]), quality
print(peak_mb() - before)
"""


def growth_mb(path: Path, duration_s: float, root: Path) -> float:
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), str(duration_s)],
        capture_output=True,
        encoding="utf-8",
        cwd=root,
        timeout=500,
    )
    assert result.returncode == 0, result.stderr
    return float(result.stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no getrusage")
def test_a_long_recording_in_stereo_is_held_once(tmp_path: Path, root: Path) -> None:
    voice = synthetic_speech(1, duration_s=10.0, sample_rate=44100)
    stereo = np.stack([voice, 0.5 * voice], axis=1)
    with soundfile.SoundFile(tmp_path / "long.wav", "w", 44100, 2, "PCM_16") as file:
        for _ in range(round(LONG_S / 10)):
            file.write(stereo)
    growth = growth_mb(tmp_path / "long.wav", LONG_S, root)
    # Less than the waveform alone would mean that nothing was measured.
    assert 75 < growth < MAX_GROWTH_MB


def test_blocks_make_the_recording() -> None:
    voice = np.tile(synthetic_speech(2, duration_s=5.0), 14)[: 65 * 16000]
    recording = Recording(voice, "a.wav")
    blocks = list(recording.blocks())
    assert [len(block.waveform) for block in blocks] == [480_000, 480_000, 80_000]
    assert {block.source for block in blocks} == {"a.wav"}
    speech = np.concatenate([block.speech for block in blocks])
    np.testing.assert_array_equal(speech, recording.speech)
    assert len(speech) == round(16000 * recording.speech_s)


def test_a_short_recording_is_its_own_block() -> None:
    recording = Recording(synthetic_speech(2, duration_s=1.0))
    assert list(recording.blocks()) == [recording]
    assert next(iter(Recording(np.empty(0, np.float32)).blocks())).speech_s == 0


@pytest.mark.slow
def test_speech_after_minutes_of_noise_is_heard() -> None:
    noise = 0.1 * sounds(BLOCK_S, 1)["white noise"]
    assert Recording(np.tile(noise, 2)).missing_speech == "steady noise"
    late = np.concatenate([noise, noise, synthetic_speech(2, duration_s=2.0)])
    assert Recording(late).missing_speech is None


# --- Channels -------------------------------------------------------------------------------------


def written(path: Path, *channels: np.ndarray) -> Recording:
    soundfile.write(path, np.stack(channels, axis=1), 16000)
    return Recording.load(path)


def test_channels_that_have_little_in_common_can_be_loaded_alone(tmp_path: Path) -> None:
    ada, ben = (synthetic_speech(speaker, duration_s=2.0) for speaker in (1, 2))
    call = written(tmp_path / "call.wav", ada, ben)
    assert list(call.channels) == [1, 2]
    for load, voice in zip(call.channels.values(), (ada, ben), strict=True):
        np.testing.assert_allclose(load().waveform, voice, atol=1e-4)
        assert load().channels == {}


def test_channels_of_one_sound_are_none_of_their_own(tmp_path: Path) -> None:
    voice = synthetic_speech(1, duration_s=2.0)
    silence = np.zeros_like(voice)
    for channels in ([voice, 0.3 * voice], [voice, -voice], [voice, silence], [silence, silence]):
        assert written(tmp_path / "stereo.wav", *channels).channels == {}
    assert Recording.load(tmp_path / "stereo.wav", channel="left").channels == {}


def test_the_part_with_most_speech() -> None:
    speech = synthetic_speech(1, 0, 2.0)
    pause = np.zeros(48_000, np.float32)
    whole = Recording(np.concatenate([pause, speech, pause, speech[:8000]]))
    best = whole.best_part(2.0)
    assert best.duration_s == 2.0
    assert best.speech_s > 0.9 * Recording(speech).speech_s
    assert whole.best_part(60.0) is whole
    assert Recording(pause).best_part(1.0).duration_s == 1.0
