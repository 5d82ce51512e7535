r"""Measures recognition of one voice among 100,000 enrolled speakers, against a Python loop.

    python benchmarks/identification.py
    python benchmarks/identification.py --speakers 200000 --ways memory milvus pgvector

The speakers are directions in 192 dimensions of unequal weight, so that some strangers resemble
each other: in one comparison of 40,000 their cosine is above 0.5461, in real speech in one of 8,000
(benchmarks/open_set.py), among directions of equal weight in none. Enrolled and test embeddings lie
around them, with a cosine of about 0.7 to each other. The loop takes one dot product per enrolled
speaker, as the first version of infer_recognition.py did; it runs on the first 10,000 speakers and
is scaled.

The ways: in memory alone; through SQLite and PostgreSQL as the service uses them, where each query
first checks the database for changes; pgvector's indexes; and Milvus beside PostgreSQL, whose
candidates are scored from the database. PostgreSQL and Milvus run on this machine, in a temporary
folder, with their default settings. VOICEPRINT_MILVUS names the program milvus-server (of the
package milvus, in an environment of its own), or milvus-lite; without it Milvus is left out. Recall
is the share of queries whose best match is that of the comparison with all.
"""

import argparse
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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

SPREAD = 0.64
"""Length of what is added to a speaker's unit vector: a cosine of about 0.7 between two of them."""

DECAY = 0.8
"""How the variance of the dimensions falls, a power of their number."""

STRICT = 0.5461
"""The shipped model's strict threshold, a cosine."""

WAYS = ("memory", "sqlite", "postgresql", "pgvector", "milvus")

CHUNK = 5_000
"""Speakers stored by one statement."""


def make_options() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("--speakers", type=positive_int, default=100_000)
    parser.add_argument("--dimensions", type=positive_int, default=192)
    parser.add_argument("--queries", type=positive_int, default=100)
    parser.add_argument("--baseline_speakers", type=positive_int, default=10_000)
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, default=["memory", "sqlite", "postgresql"]
    )
    add_json_option(parser)
    return parser


def make_voices(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns enrolled embeddings, questions and the index of the right answer to each.

    Made in parts: a million speakers of float64 would take several GB.
    """
    rng = np.random.default_rng(0)
    weights = np.arange(1, args.dimensions + 1, dtype=np.float32) ** (-DECAY / 2)
    answers = rng.choice(args.speakers, args.queries, replace=args.queries > args.speakers)
    enrolled = np.empty((args.speakers, args.dimensions), np.float32)
    centres = np.empty((args.queries, args.dimensions), np.float32)

    def drawn(number: int) -> np.ndarray:
        return unit(rng.standard_normal((number, args.dimensions), np.float32) * weights)

    for start in range(0, args.speakers, CHUNK):
        number = min(CHUNK, args.speakers - start)
        some = drawn(number)
        enrolled[start : start + number] = unit(some + SPREAD * drawn(number))
        inside = (answers >= start) & (answers < start + number)
        centres[inside] = some[answers[inside] - start]
    return enrolled, unit(centres + SPREAD * drawn(args.queries)), answers


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


def fill(database: SqlVoiceStore, enrolled: np.ndarray, *, has_recordings: bool = True) -> None:
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
                if has_recordings or kind not in (recordings, embeddings):
                    connection.execute(kind.insert(), some)
            connection.execute(info.update().values(change_number=1))


class Model:
    """Replaces a speaker model where only its name and size matter."""

    model_id = "benchmark"
    cohort = None

    def __init__(self, embedding_size: int) -> None:
        """Takes the length of the embeddings."""
        self.embedding_size = embedding_size


def first_question(database: SqlVoiceStore, question: np.ndarray) -> float:
    """Returns the seconds of a process's first query, which loads all speakers."""
    start = time.perf_counter()
    database.identify(question)
    return time.perf_counter() - start


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Attributes:
        what: The way.
        ms: Median time of a question.
        recall: Share of the questions whose best match is that of the comparison with all.
        ready: Seconds until the first question can be answered.
        megabytes: Memory or size of the index.
    """

    what: str
    ms: float
    recall: float | None = None
    ready: float | None = None
    megabytes: float | None = None

    def cells(self, loop_ms: float) -> list[str]:
        """Returns the cells of the table, the ratio to the loop among them."""
        return [
            self.what,
            f"{self.ms:.1f}" if self.ms < 100 else f"{self.ms:,.0f}",
            f"{loop_ms / self.ms:,.0f}x",
            "" if self.recall is None else f"{self.recall:.3f}",
            "" if self.ready is None else f"{self.ready:,.1f} s",
            "" if self.megabytes is None else f"{self.megabytes:,.0f}",
        ]


@dataclass
class Bench:
    """What all ways are measured with.

    Attributes:
        enrolled: The speakers, shape `(num_speakers, dimensions)`.
        questions: Shape `(num_questions, dimensions)`.
        answers: Who of all speakers is most alike, for each question.
        lines: What was found.
        notes: Remarks.
    """

    enrolled: np.ndarray
    questions: np.ndarray
    answers: np.ndarray
    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(
        self,
        what: str,
        find: Callable[[np.ndarray], Any],
        ready: float | None = None,
        megabytes: float | None = None,
        num_questions: int | None = None,
    ) -> None:
        """Asks, and adds a line."""
        some = slice(num_questions)
        ms, recall = ask(find, self.questions[some], self.answers[some])
        self.lines.append(Line(what, ms, recall, ready, megabytes))
        print(self.lines[-1], file=sys.stderr, flush=True)


def measure_loop(bench: Bench, num_speakers: int) -> None:
    """The baseline, on a part of the speakers."""
    part = list(bench.enrolled[:num_speakers])
    starts = [time.perf_counter()]
    for question in bench.questions[:5]:
        loop(part, question)
        starts.append(time.perf_counter())
    factor = len(bench.enrolled) / len(part)
    bench.lines.append(Line("Python loop", 1000 * factor * median(np.diff(starts).tolist())))
    if factor > 1:
        bench.notes.append(f"The loop ran on {len(part):,} speakers and is scaled by {factor:.0f}.")


def measure_memory(bench: Bench) -> None:
    """The index of this process."""
    index = VectorIndex(bench.enrolled.shape[1])
    start = time.perf_counter()
    index.update((str(i), str(i), row) for i, row in enumerate(bench.enrolled))
    ready = time.perf_counter() - start
    size = index._matrix.nbytes + index._codes._codes.nbytes
    bench.add("in memory, exact", lambda x: index.best(x, 1), ready, size / 1e6)


def measure_sqlite(bench: Bench, model: Any) -> None:
    """SQLite, searched in memory."""
    with tempfile.TemporaryDirectory() as folder:
        database = SqlVoiceStore(f"sqlite:///{folder}/v.sqlite3", model)
        fill(database, bench.enrolled)
        ready = first_question(database, bench.questions[0])
        bench.add("SQLite, searched in memory", database.identify, ready)
        size = Path(f"{folder}/v.sqlite3").stat().st_size / 1e6
        bench.notes.append(
            f"The SQLite file of {len(bench.enrolled):,} speakers takes {size:,.0f} MB."
        )
        database.close()


def measure_server(bench: Bench, model: Any, ways: Sequence[str]) -> None:
    """PostgreSQL, and what is asked beside it."""
    with running_server(has_fsync=True) as server:
        if server is None:
            bench.notes.append(f"PostgreSQL was not measured: {NO_SERVER}.")
            return
        database = SqlVoiceStore(server.new_database(), model)
        with _engine(database).connect() as connection:
            for table in (means, vectors):  # no replica of an earlier version reads along
                connection.exec_driver_sql(f"ALTER TABLE {table.name} DISABLE TRIGGER USER")
        fill(database, bench.enrolled, has_recordings="postgresql" in ways)
        with _engine(database).connect() as connection:
            connection.exec_driver_sql("ANALYZE")
        # Otherwise a million speakers would start the index build during the queries.
        sql_search.VECTOR_INDEX_MIN_SPEAKERS = sys.maxsize
        if "postgresql" in ways:
            ready = first_question(database, bench.questions[0])
            bench.add("PostgreSQL, searched in memory", database.identify, ready)

            def in_database(question: np.ndarray) -> Any:
                return database._search._best_in_database(Question(question))

            bench.add("PostgreSQL, exact in the database", in_database, num_questions=10)
        if "milvus" in ways:
            measure_milvus(bench, database)
        if "pgvector" in ways:
            measure_pgvector(bench, database)
        database.close()


def _engine(database: SqlVoiceStore) -> Any:
    return database._connections.engine.execution_options(isolation_level="AUTOCOMMIT")


def measure_pgvector(bench: Bench, database: SqlVoiceStore) -> None:
    """Indexes of pgvector over half precision; the best candidates are scored in full."""
    size = bench.enrolled.shape[1]
    half = f"embedding::halfvec({size})"
    lists = max(10, len(bench.enrolled) // 1000)
    kinds = [
        ("IVF", f"ivfflat (({half}) halfvec_cosine_ops) WITH (lists = {lists})",
         "ivfflat.probes", (max(1, lists // 50), max(2, lists // 10))),
        ("HNSW", f"hnsw (({half}) halfvec_cosine_ops)", "hnsw.ef_search", (100, 400, 1000)),
    ]  # fmt: skip
    query = (
        "SELECT s.name FROM (SELECT speaker_id, embedding FROM voiceprint_model_vectors "
        f"ORDER BY {half} <=> %(q)s::halfvec({size}) LIMIT 64) f "
        "JOIN voiceprint_speakers s ON s.id = f.speaker_id "
        "ORDER BY f.embedding <=> %(q)s::vector LIMIT 1"
    )
    for name, index, setting, values in kinds:
        with _engine(database).connect() as connection:
            connection.exec_driver_sql("SET maintenance_work_mem = '2GB'")
            connection.exec_driver_sql("SET max_parallel_maintenance_workers = 0")
            start = time.perf_counter()
            connection.exec_driver_sql(
                f"CREATE INDEX half_{name} ON voiceprint_model_vectors USING {index}"
            )
            ready = time.perf_counter() - start
            bytes_ = connection.exec_driver_sql(f"SELECT pg_relation_size('half_{name}')").scalar()
            for value in values:
                connection.exec_driver_sql(f"SET {setting} = {value}")

                def find(question: np.ndarray, connection: Any = connection) -> Any:
                    text = "[" + ",".join(map(str, question.tolist())) + "]"
                    return connection.exec_driver_sql(query, {"q": text}).all()

                what = f"pgvector, {name} of half precision, {setting} {value}"
                bench.add(what, find, ready, bytes_ / 1e6)
            connection.exec_driver_sql(f"DROP INDEX half_{name}")


def measure_milvus(bench: Bench, database: SqlVoiceStore) -> None:
    """Milvus names candidates, PostgreSQL has their embeddings."""
    program = os.environ.get("VOICEPRINT_MILVUS", "")
    if not program:
        bench.notes.append("Milvus was not measured: VOICEPRINT_MILVUS names no program.")
        return
    from tests.support.milvus_server import running_milvus
    from voices.sql import milvus
    from voices.sql.index_keeper import IndexKeeper
    from voices.sql.indexed_search import IndexedSearch

    kinds = [
        ("HNSW", {"M": 16, "efConstruction": 200}, "ef", (256, 1024)),
        ("IVF_SQ8", {"nlist": 1024}, "nprobe", (32, 128)),
    ]
    with running_milvus(program) as server:
        kind, params, _, _ = kinds[0]
        milvus.INDEX = {"metric_type": "COSINE", "index_type": kind, "params": params}
        index = milvus.MilvusIndex(server.address, database.model_id, "benchmark")
        index.open(bench.enrolled.shape[1])
        keeper = IndexKeeper(database._connections, database._rows, index)
        start = time.perf_counter()
        keeper.follow()
        sent_s = time.perf_counter() - start
        keeper.settled = keeper._noted  # nobody was enrolled lately
        outside = database._search.outside
        outside.address = server.address
        outside._search = IndexedSearch(database._connections, database._rows, keeper)
        for kind, params, setting, values in kinds:
            ready = sent_s
            if kind != kinds[0][0]:
                start = time.perf_counter()
                index.build({"metric_type": "COSINE", "index_type": kind, "params": params})
                ready = time.perf_counter() - start
            for value in values:
                milvus.SEARCH = {setting: value}
                what = f"Milvus {index.version}, {kind}, {setting} {value}"
                bench.add(what, database.identify, ready, server.megabytes())
        outside.address = None
        index.close()


def measure(args: argparse.Namespace) -> Bench:
    """Measures the ways, as far as it is let."""
    enrolled, questions, meant = make_voices(args)
    answers = np.array([int(np.argmax(enrolled @ question)) for question in questions])
    bench = Bench(enrolled, questions, answers)
    others = enrolled[: min(len(enrolled), 10_000)] @ questions.T
    others[meant[meant < len(others)], meant < len(others)] = -1
    share, right = (others > STRICT).mean(), (answers == meant).mean()
    bench.notes.append(
        f"Strangers reach a cosine of {STRICT} in {100 * share:.3f} % of the comparisons; the best "
        f"match of all is the right speaker in {100 * right:.0f} % of the questions."
    )
    model: Any = Model(args.dimensions)
    measure_loop(bench, args.baseline_speakers)
    try:
        if "memory" in args.ways:
            measure_memory(bench)
        if "sqlite" in args.ways:
            measure_sqlite(bench, model)
        if set(args.ways) & {"postgresql", "pgvector", "milvus"}:
            measure_server(bench, model, args.ways)
    except KeyboardInterrupt:
        bench.notes.append("It was interrupted: what is missing was not measured.")
    return bench


def arithmetic(dimensions: int) -> str:
    """Returns a table of the memory that so many speakers need, on paper.

    A process that compares exactly holds 5 bytes a dimension. A graph of M = 16 holds 2 M links of
    4 bytes beside each vector, in full or in 8 bits; machines of 64 GB give it 48 GB.
    """
    lines = []
    for power in range(6, 10):
        sizes = [bytes_ * 10**power / 1e9 for bytes_ in (5 * dimensions, *_graph_bytes(dimensions))]
        machines = [f"{np.ceil(size / 48):,.0f}" for size in sizes[1:]]
        exact, full, short = (f"{size:,.1f}" for size in sizes)
        lines.append([f"{10**power:,}", exact, full, machines[0], short, machines[1]])
    header = ["speakers", "exact, GB", "graph, GB", "machines", "graph of 8 bits, GB", "machines"]
    return table(header, lines)


def _graph_bytes(dimensions: int) -> tuple[int, int]:
    links = 2 * 16 * 4
    return 4 * dimensions + links, dimensions + links


def main(argv: list[str] | None = None) -> int:
    args = make_options().parse_args(argv)
    bench = measure(args)
    loop_ms = bench.lines[0].ms
    ours_ms = next((line.ms for line in bench.lines if "memory" in line.what), None)
    header = ["one voice among all", "ms", "ratio", "recall@1", "ready after", "MB"]
    rows = [line.cells(loop_ms) for line in bench.lines]
    details = (
        f"{args.speakers:,} enrolled speakers x {args.dimensions}, median of {args.queries} "
        f"questions, {num_cores()} cores.\n\n{table(header, rows)}\n\n"
        "Ready after: reading all speakers at a process's first question; building the index, of "
        "Milvus's first one sending the speakers too. "
        "MB: the memory of the index; of Milvus, of its process. " + " ".join(bench.notes)
    )
    print(details)
    print(f"\nOn paper:\n\n{arithmetic(args.dimensions)}")
    overview = []
    if ours_ms is not None:
        overview = [
            Row(
                f"one voice among {args.speakers:,} speakers",
                f"a dot product each: {loop_ms:,.0f} ms",
                f"{ours_ms:.1f} ms",
                f"{loop_ms / ours_ms:,.0f}x",
                ">= 50x, <= 20 ms",
            )
        ]
    packages = ["numpy", "sqlalchemy", "psycopg", "pgvector", "pymilvus"]
    write_results(args.json, overview, details, packages)
    return 0


if __name__ == "__main__":
    sys.exit(main())
