import ast
import io
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.synthetic_sounds import sounds
from tests.support.synthetic_voices import synthetic_speech, write_wav
from tests.support.virtual_microphone import (
    LEAD_S,
    VirtualMicrophone,
    missing_packages,
    virtual_microphone,
)
from utils.audio import microphone as recorder
from utils.audio.level_meter import level_meter
from utils.audio.microphone import describe_recording_defect, list_microphones, record
from utils.errors import MicrophoneError

pytestmark = pytest.mark.slow

needs_pulseaudio = pytest.mark.skipif(
    missing_packages() is not None, reason=str(missing_packages())
)

RECORD_PROGRAM = """
import sys
import numpy as np
from utils.audio.microphone import record
waveform = record(float(sys.argv[1]), on_start=lambda: print("started", flush=True))
np.save(sys.argv[2], waveform)
"""


def record_in_process(
    microphone: VirtualMicrophone, played: Path, duration_s: float, output: Path, root: Path
) -> np.ndarray:
    """Records in a program of its own, since the sound libraries read their set-up only once."""
    process = subprocess.Popen(
        [sys.executable, "-c", RECORD_PROGRAM, str(duration_s), str(output)],
        env={**microphone.environment, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"started\n", process.stderr.read().decode()
    player = microphone.play(played)
    _, errors = process.communicate(timeout=60)
    player.wait(timeout=60)
    assert process.returncode == 0, errors.decode()
    assert errors == b""  # no chatter of ALSA and JACK
    return np.load(output)


def aligned(recorded: np.ndarray, played: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the part of the recording that matches best, and its correlation with `played`."""
    from scipy.signal import correlate

    lag = int(np.argmax(correlate(recorded, played, mode="valid", method="fft")))
    part = recorded[lag : lag + len(played)]
    norm = np.linalg.norm(part) * np.linalg.norm(played)
    return part, float(part @ played / norm)


@needs_pulseaudio
def test_recording_is_what_was_played(tmp_path: Path, root: Path) -> None:
    speech = synthetic_speech(0, 0, 1.5)
    silence = np.zeros(round(LEAD_S * 16000), np.float32)
    played = write_wav(tmp_path / "played.wav", np.concatenate([silence, speech, silence]))
    with virtual_microphone() as microphone:
        recorded = record_in_process(microphone, played, 4.0, tmp_path / "recorded.npy", root)
    assert recorded.shape == (64000,)
    assert recorded.dtype == np.float32
    part, correlation = aligned(recorded, speech)
    # The sound server is asked for the rate that it calls its own: resampled twice, with a delay
    # of a part of a sample. A dropout of 10 ms would cost more.
    assert correlation > 0.995
    assert float(part.std() / speech.std()) == pytest.approx(1, abs=0.01)
    assert describe_recording_defect(recorded) is None


@needs_pulseaudio
def test_recording_of_a_microphone_with_another_rate_and_channels(
    tmp_path: Path, root: Path
) -> None:
    speech = synthetic_speech(1, 0, 1.5)
    silence = np.zeros(round(LEAD_S * 16000), np.float32)
    played = write_wav(tmp_path / "played.wav", np.concatenate([silence, speech, silence]))
    with virtual_microphone(sample_rate=44100, num_channels=2) as microphone:
        recorded = record_in_process(microphone, played, 4.0, tmp_path / "recorded.npy", root)
    _, correlation = aligned(recorded, speech)
    assert correlation > 0.98


@pytest.mark.skipif(Path("/proc/asound/card0").exists(), reason="this machine has a sound card")
@pytest.mark.skipif(sys.platform != "linux", reason="other systems find devices without ALSA")
def test_without_sound_devices_one_line_says_so(tmp_path: Path, root: Path) -> None:
    pytest.importorskip("pyaudio", reason="PyAudio is not installed")
    program = (
        "from utils.errors import run_script\n"
        "from utils.audio.microphone import record\n"
        "run_script(lambda argv: record(1.0) is None)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={"HOME": str(tmp_path), "PYTHONPATH": str(root), "PATH": os.environ["PATH"]},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert result.returncode == 2, result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("error: no microphone found")


def test_without_pyaudio_one_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyaudio", None)
    with pytest.raises(MicrophoneError, match=r"PyAudio is not installed .*portaudio19-dev"):
        record(1.0)


def test_only_the_recorder_imports_pyaudio(root: Path) -> None:
    importers = {
        path.name
        for path in [*root.glob("*.py"), *(root / "utils").rglob("*.py")]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import) and any(name.name == "pyaudio" for name in node.names)
    }
    assert importers == {"microphone.py"}


# Devices that behave in ways that no virtual sound card does


class FakeStream:
    """Delivers a stereo or mono sine of 440 Hz, as fast as it is read."""

    def __init__(self, rate: int, num_channels: int, stop_after: float = np.inf) -> None:
        self.rate, self.num_channels, self.stop_after = rate, num_channels, stop_after
        self.position = 0
        self.is_closed = False

    def get_read_available(self) -> int:
        return 0 if self.position >= self.stop_after * self.rate else 1 << 20

    def read(self, num_frames: int, exception_on_overflow: bool) -> bytes:
        assert not exception_on_overflow
        time_s = (self.position + np.arange(num_frames)) / self.rate
        self.position += num_frames
        samples = np.round(16384 * np.sin(2 * np.pi * 440 * time_s)).astype(np.int16)
        return np.repeat(samples, self.num_channels).tobytes()

    def close(self) -> None:
        self.is_closed = True


class FakePortAudio:
    """A speaker and microphones that open only at the rates and channel counts they are given."""

    names = ("speaker", "USB microphone", "Headset", "Headset of Ada")

    def __init__(self, accepts: set[tuple[int, int]], **options: Any) -> None:
        self.accepts, self.options = accepts, options
        self.stream: FakeStream | None = None
        self.is_terminated = False
        self.opened: list[object] = []
        self.attempts: list[tuple[int, int]] = []

    def get_device_count(self) -> int:
        return len(self.names)

    def get_device_info_by_index(self, index: int) -> dict[str, object]:
        channels = 4 if index else 0
        name = self.names[index]
        return {
            "index": index,
            "name": name,
            "defaultSampleRate": 44100.0,
            "maxInputChannels": channels,
        }

    def get_default_input_device_info(self) -> dict[str, object]:
        return self.get_device_info_by_index(1)

    def open(self, *, channels: int, rate: int, **options: object) -> FakeStream:
        self.opened.append(options["input_device_index"])
        self.attempts.append((rate, channels))
        if (rate, channels) not in self.accepts:
            raise OSError(-9997, "Invalid sample rate")
        self.stream = FakeStream(rate, channels, **self.options)
        return self.stream

    def terminate(self) -> None:
        self.is_terminated = True


@pytest.fixture
def use_device(monkeypatch: pytest.MonkeyPatch) -> Any:
    def use(device: FakePortAudio) -> FakePortAudio:
        module = types.SimpleNamespace(PyAudio=lambda: device, paInt16=8)
        monkeypatch.setitem(sys.modules, "pyaudio", module)
        return device

    return use


@pytest.mark.parametrize(
    "accepted", [(44100, 1), (44100, 2), (44100, 4), (48000, 1), (16000, 1), (22050, 2), (8000, 4)]
)
def test_record_opens_the_device_as_it_likes(use_device: Any, accepted: tuple[int, int]) -> None:
    device = use_device(FakePortAudio({accepted}))
    started = []
    waveform = record(1.0, on_start=lambda: started.append(True))
    assert waveform.shape == (16000,)
    assert waveform.dtype == np.float32
    spectrum = np.abs(np.fft.rfft(waveform))
    assert int(np.argmax(spectrum)) == 440
    assert float(np.abs(waveform[100:-100]).max()) == pytest.approx(0.5, abs=0.01)
    assert started == [True]
    assert device.is_terminated
    assert device.stream is not None
    assert device.stream.is_closed


def test_device_that_refuses_everything(use_device: Any) -> None:
    device = use_device(FakePortAudio(set()))
    with pytest.raises(MicrophoneError, match=r"USB microphone cannot be opened, tried") as caught:
        record(1.0)
    assert device.is_terminated
    rates = [44100, 48000, 32000, 16000, 22050, 8000]
    assert device.attempts == [(rate, channels) for rate in rates for channels in (1, 2, 4)]
    told = str(caught.value)
    assert all(f"{rate} Hz x {channels}" in told for rate, channels in device.attempts)
    assert told.count("Invalid sample rate") == 1
    assert "\n" not in told


def test_a_microphone_is_chosen_by_number_name_or_part_of_it(use_device: Any) -> None:
    for wanted, index in [("2", 2), ("Headset", 2), ("ada", 3), ("usb", 1), (None, 1)]:
        device = use_device(FakePortAudio({(44100, 1)}))
        record(0.1, microphone=wanted)
        assert device.opened == [index]


@pytest.mark.parametrize("wanted", ["none", "0", "speaker", "heads", "7"])
def test_an_unknown_microphone_is_told_with_those_that_are_there(
    use_device: Any, wanted: str
) -> None:
    device = use_device(FakePortAudio({(44100, 1)}))
    with pytest.raises(MicrophoneError, match=r"microphones named .*2 Headset, 3 Headset of Ada"):
        record(0.1, microphone=wanted)
    assert device.is_terminated
    assert device.opened == []


def test_microphones_are_listed(use_device: Any) -> None:
    device = use_device(FakePortAudio(set()))
    found = list_microphones()
    assert [(each.index, each.name, each.rate, each.is_default) for each in found] == [
        (1, "USB microphone", 44100, True),
        (2, "Headset", 44100, False),
        (3, "Headset of Ada", 44100, False),
    ]
    assert device.is_terminated


def test_each_block_is_shown_while_it_is_recorded(use_device: Any) -> None:
    use_device(FakePortAudio({(48000, 2)}))
    blocks: list[np.ndarray] = []
    record(1.0, on_block=blocks.append)
    assert [block.shape for block in blocks] == [(2400, 2)] * 20
    assert max(float(np.abs(block).max()) for block in blocks) == pytest.approx(0.5, abs=0.01)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_level_meter_draws_in_a_terminal_and_clears_its_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with level_meter() as show:
        assert show is not None
        for level in (0.0, 0.03, 1.0):
            show(np.full((800, 2), level, np.float32))
        shown = terminal.getvalue().split("\r")[1:]
    assert shown == [
        f"[{'':30}]  -60 dBFS",
        f"[{'#' * 15:30}]  -30 dBFS",
        f"[{'#' * 30}]    0 dBFS",
    ]
    assert terminal.getvalue().endswith("\r")
    assert not terminal.getvalue().rsplit("\r", 2)[1].strip()


def test_there_is_no_level_meter_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for stream in (io.StringIO(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        with level_meter() as show:
            assert show is None


def test_no_sound_system(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(-10000, "PortAudio not initialized")

    monkeypatch.setitem(sys.modules, "pyaudio", types.SimpleNamespace(PyAudio=refuse, paInt16=8))
    with pytest.raises(MicrophoneError, match="no sound system"):
        record(1.0)


def test_no_input_device(use_device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: FakePortAudio) -> dict[str, object]:
        raise OSError("No Default Input Device Available")

    monkeypatch.setattr(FakePortAudio, "get_default_input_device_info", refuse)
    device = use_device(FakePortAudio(set()))
    with pytest.raises(MicrophoneError, match=r"no microphone found \(4 sound devices\)"):
        record(1.0)
    assert device.is_terminated


def test_device_that_falls_silent(use_device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "TIMEOUT_S", 0.05)
    device = use_device(FakePortAudio({(16000, 1)}, stop_after=0.5))
    with pytest.raises(MicrophoneError, match="delivered nothing"):
        record(1.0)
    assert device.is_terminated


def test_device_that_is_unplugged(use_device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: FakeStream) -> int:
        raise OSError(-9988, "Stream closed")

    monkeypatch.setattr(FakeStream, "get_read_available", fail)
    monkeypatch.setattr(FakeStream, "close", fail)
    device = use_device(FakePortAudio({(16000, 1)}))
    with pytest.raises(MicrophoneError, match="the microphone stopped"):
        record(1.0)
    assert device.is_terminated


def test_no_stderr_is_no_hindrance(monkeypatch: pytest.MonkeyPatch, use_device: Any) -> None:
    def refuse(descriptor: int) -> int:
        raise OSError(9, "Bad file descriptor")

    use_device(FakePortAudio({(16000, 1)}))
    monkeypatch.setattr(os, "dup", refuse)
    assert len(record(0.1)) == 1600


# What is refused


def test_speech_is_accepted() -> None:
    assert describe_recording_defect(synthetic_speech(0, 0, 3.0)) is None


def test_silence_is_refused() -> None:
    assert "没有录到声音" in str(describe_recording_defect(np.zeros(48000, np.float32)))
    assert "没有录到声音" in str(describe_recording_defect(np.zeros(0, np.float32)))


@pytest.mark.parametrize("level", [0.003, 0.1])
def test_steady_noise_is_refused(level: float) -> None:
    random = np.random.default_rng(0)
    hiss = random.normal(0, level, 48000)
    hum = level * np.sin(2 * np.pi * 50 * np.arange(48000) / 16000)
    for noise in (hiss, hiss + hum):
        defect = describe_recording_defect(noise.astype(np.float32))
        assert defect == "没有听到说话声，只有持续的噪声"
    noisy = synthetic_speech(0, 0, 3.0) + 0.02 * random.normal(0, 1, 48000)
    assert describe_recording_defect(noisy.astype(np.float32)) is None


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("white noise", "持续的噪声"),
        ("ringback, 440 and 480 Hz", "音调或音乐"),
        ("ringback, 400 and 450 Hz", "音调或音乐"),
        ("busy tone, 425 Hz", "音调或音乐"),
        ("piano, chords", "音调或音乐"),
        ("organ, melody", "音调或音乐"),
    ],
)
def test_noise_ringback_and_music_are_refused_with_the_reason(kind: str, reason: str) -> None:
    for seed in range(3):
        defect = describe_recording_defect(sounds(3.0, seed)[kind])
        assert defect == f"没有听到说话声，只有{reason}"


def test_too_little_speech_is_refused_with_its_seconds() -> None:
    waveform = np.zeros(48000, np.float32)
    waveform[16000:20000] = synthetic_speech(0, 0, 0.25)
    assert "说话时间太短（0." in str(describe_recording_defect(waveform))


def test_clipping_is_refused_and_loudness_is_not() -> None:
    loud = synthetic_speech(0, 0, 3.0) * 2
    assert describe_recording_defect(loud / np.abs(loud).max()) is None
    clipped = np.clip(loud * 4, -1, 1)
    assert "削波" in str(describe_recording_defect(clipped))
    quiet = np.clip(synthetic_speech(0, 0, 3.0), -0.05, 0.05)
    assert describe_recording_defect(quiet) is None
