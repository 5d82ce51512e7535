r"""Measures recognition of one voice among 100,000 enrolled speakers, against a Python loop.

    python benchmarks/identification.py
    python benchmarks/identification.py --speakers 1000000    # 12 GB of disk, half an hour

The speakers are random directions in 192 dimensions. Enrolled and test embeddings lie around them,
with a cosine of about 0.7 to each other. The loop takes one dot product per enrolled speaker, as
the first version of infer_recognition.py did; it runs on the first 10,000 speakers and is scaled.
Ours is measured in memory alone, and through the databases as the service uses them: each query
first checks the database for changes. PostgreSQL runs on this machine, in a temporary folder, with
its default settings; it is also searched exactly, without an index, and through pgvector's HNSW
index. Recall is the share of queries whose best match is the right speaker.
"""

import argparse
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measuring import Row, add_json_option, median, num_cores, table, write_results
from tests.support.postgres_server import NO_SERVER, running_server
from utils.arguments import make_parser, positive_int
from utils.speaker_names import fold_name
from voices.sql import search as sql_search
from voices.sql.cipher import KeyRing, seal
from voices.sql.index import Question, VectorIndex
from voices.sql.rows import to_bytes
from voices.sql.schema import embeddings, info, keys, means, recordings, speakers, vectors
from voices.sql.store import SqlVoiceStore

SPREAD = 0.046
"""Standard deviation of each of 192 numbers around a speaker's unit vector: cosine about 0.7."""

CHUNK = 5_000
"""Speakers stored by one statement."""


def make_options() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("--speakers", type=positive_int, default=100_000)
    parser.add_argument("--dimensions", type=positive_int, default=192)
    parser.add_argument("--queries", type=positive_int, default=100)
    parser.add_argument("--baseline_speakers", type=positive_int, default=10_000)
    parser.add_argument("--without_postgresql", action="store_true")
    add_json_option(parser)
    return parser


def make_voices(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns enrolled embeddings, questions and the index of the right answer to each."""
    rng = np.random.default_rng(0)
    centres = unit(rng.standard_normal((args.speakers, args.dimensions), np.float32))
    noise = rng.standard_normal(centres.shape, np.float32)
    enrolled = unit(centres + SPREAD * noise)
    answers = rng.choice(args.speakers, args.queries, replace=args.queries > args.speakers)
    noise = rng.standard_normal((args.queries, args.dimensions), np.float32)
    return enrolled, unit(centres[answers] + SPREAD * noise), answers


def unit(matrix: np.ndarray) -> np.ndarray:
    return np.asarray(matrix / np.linalg.norm(matrix, axis=1, keepdims=True), np.float32)


def loop(features: Sequence[np.ndarray], question: np.ndarray) -> int:
    """The baseline's way: a dot product and two lengths for each enrolled speaker."""
    best, name = 0.0, -1
    for index, feature in enumerate(features):
        score = np.dot(question, feature)
        score = score / (np.linalg.norm(question) * np.linalg.norm(feature))
        if score > best:
            best, name = score, index
    return name


def ask(
    find: Callable[[np.ndarray], Any], questions: np.ndarray, answers: np.ndarray
) -> tuple[float, float]:
    """Returns the median time of a query in ms, and the share of right answers."""
    find(questions[0])
    seconds, num_right = [], 0
    for question, answer in zip(questions, answers, strict=True):
        start = time.perf_counter()
        found = find(question)
        seconds.append(time.perf_counter() - start)
        num_right += found[0][0] == str(answer)
    return 1000 * median(seconds), num_right / len(answers)


def fill(database: SqlVoiceStore, enrolled: np.ndarray) -> None:
    """Enrols all speakers at once; one by one it would take minutes."""
    now = datetime.now(timezone.utc)
    ring = KeyRing()
    model_id = database.model_id
    timed = {"speech_s": 2.0, "duration_s": 3.0, "file_name": "", "position": 0}
    is_postgresql = not database._connections.is_sqlite
    for start in range(0, len(enrolled), CHUNK):
        rows: dict[Any, list[dict[str, Any]]] = {
            keys: [], speakers: [], means: [], recordings: [], embeddings: [],
        }  # fmt: skip
        if is_postgresql:
            rows[vectors] = []
        for index in range(start, min(start + CHUNK, len(enrolled))):
            name, speaker_id, recording_id = str(index), uuid.uuid4().hex, uuid.uuid4().hex
            (key, stored), (other, other_stored) = ring.new(), ring.new()
            rows[keys] += [{"id": 2 * index + 1, "stored": stored}]
            rows[keys] += [{"id": 2 * index + 2, "stored": other_stored}]
            content = to_bytes(enrolled[index])
            row: dict[str, Any] = {"id": speaker_id, "name": name, "folded_name": fold_name(name)}
            row |= {"created_at": now, "updated_at": now, "change_number": 1}
            rows[speakers] += [{**row, "key_id": 2 * index + 1}]
            sealed = seal(key, content, f"{speaker_id} embedding")
            row = {"speaker_id": speaker_id, "model_id": model_id}
            rows[means] += [{**row, "embedding": sealed}]
            row = {"id": recording_id, "speaker_id": speaker_id, "key_id": 2 * index + 2}
            rows[recordings] += [{**row, **timed, "created_at": now}]
            sealed = seal(other, content, f"{recording_id} embedding")
            row = {"recording_id": recording_id, "model_id": model_id}
            rows[embeddings] += [{**row, "embedding": sealed}]
            if is_postgresql:
                row = {"speaker_id": speaker_id, "model_id": model_id}
                rows[vectors] += [{**row, "embedding": enrolled[index]}]
        with database._connections.write() as connection:
            for kind, some in rows.items():
                connection.execute(kind.insert(), some)
            connection.execute(info.update().values(change_number=1))


class Model:
    """Replaces a speaker model where only its name and size matter."""

    model_id = "benchmark"

    def __init__(self, embedding_size: int) -> None:
        """Takes the length of the embeddings."""
        self.embedding_size = embedding_size


def first_question(database: SqlVoiceStore, question: np.ndarray) -> float:
    """Returns the seconds of a process's first query, which loads all speakers."""
    start = time.perf_counter()
    database.identify(question)
    return time.perf_counter() - start


def measure(args: argparse.Namespace) -> tuple[list[list[str]], float, float, list[str]]:
    """Returns the lines of the table, the loop's and our time in ms, and remarks."""
    enrolled, questions, answers = make_voices(args)
    lines, notes = [], []

    part = list(enrolled[: args.baseline_speakers])
    starts = [time.perf_counter()]
    for question in questions[:5]:
        loop(part, question)
        starts.append(time.perf_counter())
    factor = len(enrolled) / len(part)
    loop_ms = 1000 * factor * median(np.diff(starts).tolist())
    lines.append(["Python loop", f"{loop_ms:,.0f}", "1x", "", ""])
    if factor > 1:
        notes.append(f"The loop ran on {len(part):,} speakers and is scaled by {factor:.0f}.")

    def add(what: str, figures: tuple[float, float], ready: str) -> float:
        ms, recall = figures
        ratio = f"{loop_ms / ms:,.0f}x"
        lines.append([what, f"{ms:.1f}", ratio, f"{recall:.3f}", ready])
        print(" | ".join(lines[-1]), file=sys.stderr)
        return ms

    index = VectorIndex(args.dimensions)
    start = time.perf_counter()
    index.update((str(i), str(i), row) for i, row in enumerate(enrolled))
    ready = f"{time.perf_counter() - start:.1f} s"
    ours_ms = add("in memory", ask(lambda x: index.best(x, 1), questions, answers), ready)
    with tempfile.TemporaryDirectory() as folder:
        model: Any = Model(args.dimensions)
        database = SqlVoiceStore(f"sqlite:///{folder}/v.sqlite3", model)
        fill(database, enrolled)
        ready = f"{first_question(database, questions[0]):.1f} s"
        add("SQLite", ask(database.identify, questions, answers), ready)
        size = Path(f"{folder}/v.sqlite3").stat().st_size / 1e6
        notes.append(f"The SQLite file of {len(enrolled):,} speakers takes {size:,.0f} MB.")
        database.close()
    if not args.without_postgresql:
        with running_server(has_fsync=True) as server:
            if server is None:
                notes.append(f"PostgreSQL was not measured: {NO_SERVER}.")
                return lines, loop_ms, ours_ms, notes
            database = SqlVoiceStore(server.new_database(), model)
            fill(database, enrolled)
            with database._connections.engine.execution_options(
                isolation_level="AUTOCOMMIT"
            ).connect() as connection:
                connection.exec_driver_sql("ANALYZE")
            # Otherwise a million speakers would start the index build during the queries.
            sql_search.VECTOR_INDEX_MIN_SPEAKERS = sys.maxsize
            ready = f"{first_question(database, questions[0]):.1f} s"
            figures = ask(database.identify, questions, answers)
            add("PostgreSQL, searched in memory", figures, ready)

            def in_database(question: np.ndarray) -> Any:
                return database._search._best_in_database(Question(question))

            figures = ask(in_database, questions[:20], answers[:20])
            add("PostgreSQL, exact in the database", figures, "")
            start = time.perf_counter()
            database._search.build_vector_index()
            ready = f"{time.perf_counter() - start:.0f} s"
            add("PostgreSQL, HNSW index", ask(database.identify, questions, answers), ready)
            database.close()
    return lines, loop_ms, ours_ms, notes


def main(argv: list[str] | None = None) -> int:
    args = make_options().parse_args(argv)
    lines, loop_ms, ours_ms, notes = measure(args)
    header = ["one voice among all", "ms", "ratio", "recall@1", "ready after"]
    details = (
        f"{args.speakers:,} enrolled speakers x {args.dimensions}, median of {args.queries} "
        f"questions, {num_cores()} cores.\n\n{table(header, lines)}\n\n"
        "Ready after: reading all speakers at a process's first question; building the index. "
        + " ".join(notes)
    )
    print(details)
    row = Row(
        f"one voice among {args.speakers:,} speakers",
        f"a dot product each: {loop_ms:,.0f} ms",
        f"{ours_ms:.1f} ms",
        f"{loop_ms / ours_ms:,.0f}x",
        ">= 50x, <= 20 ms",
    )
    packages = ["numpy", "sqlalchemy", "psycopg", "pgvector"]
    write_results(args.json, [row], details, packages)
    return 0


if __name__ == "__main__":
    sys.exit(main())
