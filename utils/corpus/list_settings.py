"""What create_data.py is asked for: data sets, and the settings of the lists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from utils.audio.fidelity import Embed
from utils.corpus.treatment import UNTREATED, Treatment


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """A data set to read: the name of its layout and its folder (or its table)."""

    layout: str
    folder: Path

    def __str__(self) -> str:
        return f"{self.layout}:{self.folder.as_posix()}"


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the lists.

    Attributes:
        list_dir: Folder of the lists, of rejected.tsv, speakers.tsv and the journal.
        wav_dir: Folder for converted wavs; None keeps sources in place (zhvoice: wav beside mp3).
        speaker_level: See `utils.corpus.layouts.read_folders`; None is each layout's own.
        min_duration_s: Shorter clips are rejected, in seconds.
        min_utterances: Speakers with fewer usable clips are rejected.
        test_every: 200 puts clips 0, 200, 400, ... into the test list.
        test_speakers: If not 0, the test list holds speakers of its own: their number (int) or
            their share (float).
        seed: Chooses the test speakers.
        delete_source: Remove a source once its wav is verified.
        num_workers: Number of processes of this machine.
        engine: Where clips are checked and converted, as `utils.engine.choice` reads it.
        shards: Tar files to write of the training list, in the folder shards beside it.
        treatment: What is done to the sound of clips that are converted.
        load_model: As in `utils.corpus.conversion.Rules`.
    """

    list_dir: Path = Path("dataset")
    wav_dir: Path | None = None
    speaker_level: int | None = None
    min_duration_s: float = 1.3
    min_utterances: int = 1
    test_every: int = 200
    test_speakers: int | float = 0
    seed: int = 0
    delete_source: bool = False
    num_workers: int = 1
    engine: str = "local"
    shards: int | None = None
    treatment: Treatment = UNTREATED
    load_model: Callable[[], Embed] | None = None
