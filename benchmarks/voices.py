"""Measures the folder of voices with 10,000 speakers: listing, loading, registering, deleting.

    python benchmarks/voices.py
    python benchmarks/voices.py --speakers 1000

Half of the speakers are a file NAME.wav of 3 s, half a folder of such files. The embeddings are
random: what is measured is the folder, not the network. Each operation is done on a store that was
just opened, as a run of infer_recognition.py does; loading is measured with the embeddings cached,
as it is from the second time on. The service's inbox is the same folder, read at its start when
nothing has changed, and the deletion of a speaker with files.
"""

import argparse
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measuring import Row, add_json_option, num_cores, table, write_results
from service.inbox import Inbox
from utils.arguments import make_parser, positive_int
from utils.arrays import FloatArray
from voices.folder import FolderVoiceStore
from voices.sql.records import NewRecording
from voices.sql.store import SqlVoiceStore

DIMENSIONS = 192
"""Numbers of an embedding, as of the included model."""

RECORDING_BYTES = 44 + 2 * 3 * 16_000
"""Size of 3 s of 16-bit wav at 16 kHz."""


class Model:
    """In the place of the encoder: an embedding of unit length for any file, at once."""

    model_id = "benchmark"
    embedding_size = DIMENSIONS

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)

    def embed_waveform(self, waveform: FloatArray, source: str = "", activity: Any = None) -> Any:
        """Returns the same embedding for any waveform: what is stored is what was heard."""
        return np.full(DIMENSIONS, DIMENSIONS**-0.5, np.float32)

    def embed_files(self, paths: Sequence[Any], **options: Any) -> Iterator[tuple[int, Any]]:
        """Yields position and embedding, another one for each file."""
        for number in range(len(paths)):
            yield number, self.embed_one()

    def embed_one(self) -> FloatArray:
        """Returns another embedding each time."""
        vector: FloatArray = self._rng.standard_normal(DIMENSIONS).astype(np.float32)
        vector /= np.linalg.norm(vector)
        return vector


def make_options() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("--speakers", type=positive_int, default=10_000)
    add_json_option(parser)
    return parser


def fill(folder: Path, num_speakers: int) -> None:
    """Writes recordings: random bytes behind the head of a wav file, so that all differ."""
    import io

    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(48_000, np.int16), 16_000, format="WAV", subtype="PCM_16")
    head = buffer.getvalue()[:44]
    for number in range(num_speakers):
        name = f"说话人 {number:05d}"
        places = [f"{name}.wav"] if number % 2 else [f"{name}/1.wav", f"{name}/2.wav"]
        for place in places:
            path = folder / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(head + os.urandom(RECORDING_BYTES - 44))


def enrol_all(folder: Path, database: SqlVoiceStore) -> None:
    """Enrols the files as the service's first start does, but without decoding them."""
    model = Model()
    for name, paths in FolderVoiceStore(folder).all_recordings().items():
        new = [
            NewRecording(
                model.embed_one(),
                speech_s=3.0,
                audio=None,
                duration_s=3.0,
                inbox_path=path.relative_to(folder).as_posix(),
                inbox_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            )
            for path in paths
        ]
        database.enrol(name, new)


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(num_speakers: int) -> dict[str, float]:
    """Returns what each operation takes, in seconds."""
    voice = np.random.default_rng(1).standard_normal(48_000, np.float32) / np.float32(10)
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "audio_db"
        fill(folder, num_speakers)

        def opened() -> FolderVoiceStore:
            return FolderVoiceStore(folder, Model())  # type: ignore[arg-type]

        taken = {}
        taken["load, nothing cached"] = seconds(lambda: opened().load())
        taken["load"] = seconds(lambda: opened().load())
        taken["list"] = seconds(lambda: FolderVoiceStore(folder).all_recordings())
        taken["register"] = seconds(lambda: opened().add("新人", voice))
        taken["register one more recording"] = seconds(lambda: opened().add("新人", voice))
        taken["delete"] = seconds(lambda: FolderVoiceStore(folder).delete("新人"))
        assert len(opened().names()) == num_speakers
        database = SqlVoiceStore(f"sqlite:///{top}/v.sqlite3", Model())  # type: ignore[arg-type]
        enrol_all(folder, database)
        inbox = Inbox(folder, database, Model())  # type: ignore[arg-type]
        taken["start of the service, nothing new"] = seconds(inbox.enrol_files)
        assert database.count() == num_speakers, inbox.rejected[:3]
        taken["delete in the service"] = seconds(lambda: inbox.remove("说话人 00000"))
        database.close()
    return taken


def main(argv: list[str] | None = None) -> int:
    args = make_options().parse_args(argv)
    taken = measure(args.speakers)
    lines = [[what, f"{value:.2f}"] for what, value in taken.items()]
    header = [f"a folder of {args.speakers:,} speakers", "s"]
    details = (
        f"{args.speakers:,} speakers with {args.speakers + (args.speakers + 1) // 2:,} recordings "
        f"of 3 s, {num_cores()} cores, embeddings as if they took no time.\n\n"
        f"{table(header, lines)}"
    )
    print(details)
    wanted = ["list", "load", "register", "delete"]
    row = Row(
        f"list, load, register, delete in a folder of {args.speakers:,} speakers",
        "",
        ", ".join(f"{taken[what]:.2f}" for what in wanted) + " s",
        "",
        "<= 3 s each",
    )
    write_results(args.json, [row], details, ["numpy", "sqlalchemy"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
