"""A stand-in for SpeakerEncoder: the long-term spectrum as embedding, without any network."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from utils.arrays import FloatArray
from utils.audio.decode import load_audio
from utils.audio.recording import Recording
from utils.audio.spectrogram import N_FFT
from utils.audio.waveform import describe_defect
from utils.errors import AudioError
from utils.verification.calibration import Calibration

BANDS = np.linspace(-1, 1, 64)


class FakeHeader:
    """The header of a model file that is not there, with thresholds."""

    def __init__(self, path: str | None, calibration: Calibration | None = None) -> None:
        self.path = path or "models/resnet34.keras"
        self.calibration = calibration

    cohort = None

    def with_score_norm(self, score_norm: str) -> "FakeHeader":
        assert score_norm == "none"
        return self


class FakeEncoder:
    """Tells synthetic voices apart, in well under a millisecond; counts what it embeds."""

    model_path = "fake.keras"
    embedding_size = 64
    is_calibrated = True
    cohort = None
    threshold = 0.5
    strict_threshold = 0.8

    calibration = Calibration(threshold=0.5, strict_threshold=0.8, slope=10.0, offset=-5.0)

    def __init__(self, model_id: str = "fake") -> None:
        self.model_id = model_id
        self.num_embedded = 0

    def probability(
        self, score: float, speech_s: tuple[float | None, float | None] | None = None
    ) -> float:
        return float(1 / (1 + np.exp(-10 * (score - self.threshold))))

    def embed_waveform(
        self, recording: Recording | FloatArray, source: str = "recording"
    ) -> FloatArray:
        if not isinstance(recording, Recording):
            recording = Recording(recording, source)
        waveform, source = recording.waveform, recording.source
        defect = describe_defect(waveform)
        if defect is not None:
            raise AudioError(f"{source}: {defect}")
        self.num_embedded += 1
        frames = waveform[: len(waveform) // N_FFT * N_FFT].reshape(-1, N_FFT)
        level = np.abs(np.fft.rfft(frames)).mean(axis=0)[: 4 * self.embedding_size]
        bands = np.log(level.reshape(self.embedding_size, -1).mean(axis=1) + 1e-3)
        # Less the slope that all voices have in common: what is left is the speaker's own.
        bands -= np.polyval(np.polyfit(BANDS, bands, 4), BANDS)
        return np.asarray(bands / np.linalg.norm(bands), np.float32)

    def embed_speech(self, speech: FloatArray) -> FloatArray:
        return self.embed_waveform(speech)

    def embed_file(self, path: str | Path) -> FloatArray:
        return self.embed_waveform(load_audio(path), source=str(path))

    def embed_files(
        self,
        paths: Sequence[str | Path],
        *,
        num_workers: int | None = None,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> Iterator[tuple[int, FloatArray | AudioError]]:
        for index, path in enumerate(paths):
            try:
                yield index, self.embed_file(path)
            except AudioError as error:
                if on_error == "raise":
                    raise
                yield index, error


class RoundingEncoder(FakeEncoder):
    """Tells samples that were rounded to 16 bits from others."""

    def embed_waveform(
        self, recording: Recording | FloatArray, source: str = "recording"
    ) -> FloatArray:
        waveform = recording.waveform if isinstance(recording, Recording) else recording
        steps = waveform * 2**15
        return np.array([1, 0] if np.array_equal(steps, np.round(steps)) else [0, 1], np.float32)
