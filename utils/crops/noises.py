"""Folders of noise and room responses, decoded piece by piece on demand.

Noise sets run to a hundred hours, and every reader process has its own: in memory they would exceed
most machines. Decoding a few seconds takes less than a millisecond.
"""

from pathlib import Path

import numpy as np

from utils.arrays import FloatArray
from utils.audio.decode import duration_seconds, load_audio
from utils.audio.suffixes import AUDIO_SUFFIXES
from utils.audio.waveform import SAMPLE_RATE
from utils.errors import AudioError, DataListError

MIN_SOUND_S = 0.1
"""Seconds. Shorter files are left out."""

MAX_RESPONSE_S = 3.0
"""Seconds read of a room response; the direct sound comes within the first tenths."""


class SoundFolder:
    """The recordings below a folder.

    Attributes:
        paths: The files with an audio header, sorted.
        durations_s: Their lengths in seconds.
    """

    def __init__(self, folder: str | Path) -> None:
        """Reads the header of every file.

        Raises:
            DataListError: If there is no recording.
        """
        found = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
        self.paths: list[Path] = []
        self.durations_s: list[float] = []
        for path in found:
            try:
                duration_s = duration_seconds(path)
            except AudioError:
                continue
            if duration_s >= MIN_SOUND_S:
                self.paths.append(path)
                self.durations_s.append(duration_s)
        if not self.paths:
            raise DataListError(
                f"{folder}: found no audio that can be read, expected a folder of recordings "
                f"({', '.join(sorted(AUDIO_SUFFIXES))}); check the path or leave the option out"
            )

    def __len__(self) -> int:
        return len(self.paths)

    def draw_stretch(self, num_samples: int, rng: np.random.Generator) -> FloatArray | None:
        """Reads a stretch of a recording from a random place, wrapping around at its end.

        Args:
            num_samples: Length of the stretch.
            rng: Source of the random choices.

        Returns:
            Shape `(num_samples,)`, or `None` if the file turns out damaged.
        """
        index = int(rng.integers(len(self.paths)))
        start_s = rng.random() * self.durations_s[index]
        path, need_s = self.paths[index], num_samples / SAMPLE_RATE
        try:
            stretch = load_audio(path, offset_s=start_s, duration_s=need_s)
            if len(stretch) < num_samples:
                missing_s = need_s - len(stretch) / SAMPLE_RATE
                head = load_audio(path, duration_s=min(missing_s, self.durations_s[index]))
                stretch = np.concatenate([stretch, head])
        except AudioError:
            return None
        if len(stretch) == 0:
            return None
        return np.resize(stretch, num_samples)

    def draw_response(self, rng: np.random.Generator) -> FloatArray | None:
        """Reads a random room response, from its direct sound on.

        Returns:
            Shape `(n,)`, or `None` if the file turns out damaged or silent.
        """
        path = self.paths[int(rng.integers(len(self.paths)))]
        try:
            response = load_audio(path, duration_s=MAX_RESPONSE_S)
        except AudioError:
            return None
        direct = int(np.abs(response).argmax()) if len(response) else 0
        response = response[direct:]
        return response if response.any() else None
