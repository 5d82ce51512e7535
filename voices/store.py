"""What a voice database needs of a speaker model, and what the scripts need of a voice database."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

from utils.arrays import FloatArray
from utils.errors import AudioError


class Encoder(Protocol):
    """What the database needs of `SpeakerEncoder`."""

    model_id: str

    def embed_waveform(self, waveform: FloatArray, source: str = "recording") -> FloatArray:
        """Returns the unit-length embedding, shape `(embedding_size,)`."""

    def embed_files(
        self, paths: Sequence[Path], *, on_error: Literal["raise", "skip"] = "raise"
    ) -> Iterator[tuple[int, FloatArray | AudioError]]:
        """Yields `(index, embedding)` in order; with "skip", the error of a file that fails."""


class Voiceprints(Protocol):
    """A voice database as the scripts use it: a folder's, or the one in SQL.

    The methods are those of `VoiceprintDatabase`; a recording is whatever prints its place.
    """

    @property
    def rejected(self) -> Sequence[tuple[object, str]]:
        """`(recording, reason)` of recordings that cannot be used."""

    def load(self) -> list[str]:
        """Makes everything ready for comparison, and returns the speakers."""

    def names(self) -> list[str]:
        """Returns the enrolled speakers in alphabetical order."""

    def recordings(self, name: str) -> Sequence[object]:
        """Returns a speaker's recordings."""

    def find(self, name: str) -> str | None:
        """Returns the enrolled spelling of a name."""

    def add(self, name: str, *waveforms: FloatArray) -> Sequence[object]:
        """Enrols a speaker, or adds recordings."""

    def replace(self, name: str, *waveforms: FloatArray) -> Sequence[object]:
        """Puts new recordings in the place of the old ones."""

    def delete(self, name: str) -> Sequence[object]:
        """Removes a speaker and returns what was removed."""

    def rank(self, embedding: FloatArray) -> list[tuple[str, float]]:
        """Compares an embedding with all speakers, the best first."""
