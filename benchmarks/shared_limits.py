r"""What counting requests for all replicas in PostgreSQL adds to a request.

    python benchmarks/shared_limits.py
    python benchmarks/shared_limits.py --requests 2000 --at_once 16

The counts of the service's gate, through its threads, on a PostgreSQL on this machine that writes
as safely as in real use; and for comparison one identification: decoding, embedding 3 s with the
shipped model, and the search. On a network, add its round trip twice: a connection is tried before
it is used.
"""

import argparse
import asyncio
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measuring import BenchmarkError, table
from service.edge.counters import Counter
from tests.support.postgres_server import NO_SERVER, running_server
from tests.support.service_client import speech
from utils.arguments import make_parser, positive_int
from utils.audio.recording import Recording
from utils.model.encoder import SpeakerEncoder
from voices.sql.records import NewRecording
from voices.sql.store import SqlVoiceStore

NUM_IDENTIFICATIONS = 20
PER_MINUTE = 10**9
"""Requests a minute that are allowed: none is refused, and each is counted."""


def make_options() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("--requests", type=positive_int, default=1000, help="of each kind")
    parser.add_argument("--at_once", type=positive_int, default=8, help="requests at a time")
    return parser


async def count_times(
    counter: Counter, num_requests: int, at_once: int, num_keys: int
) -> tuple[float, float]:
    """Counts without a pause, some at a time under some keys.

    Returns:
        The median time of a count in ms, and counts a second.
    """
    times: list[float] = []
    begun = time.perf_counter()

    async def ask(first: int) -> None:
        for number in range(first, num_requests, at_once):
            start = time.perf_counter()
            await counter.take(f"token {number % num_keys}", PER_MINUTE)
            times.append(time.perf_counter() - start)

    await asyncio.gather(*(ask(first) for first in range(at_once)))
    return 1000 * float(np.median(times)), num_requests / (time.perf_counter() - begun)


def identification_ms(store: SqlVoiceStore, encoder: SpeakerEncoder) -> float:
    """Returns the median time of an identification in ms."""
    wav = speech(1, 0, 3.0)
    times = []
    for _ in range(NUM_IDENTIFICATIONS):
        start = time.perf_counter()
        recording = Recording.load(wav)
        store.identify(encoder.embed_waveform(recording), top_k=5)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


async def measure(
    store: SqlVoiceStore, options: argparse.Namespace
) -> dict[str, tuple[float, float]]:
    """Returns the median times of counts in ms, and counts a second."""
    shared, local = Counter(store.shared_counts), Counter()
    try:
        await count_times(shared, 20, 1, 1)
        many = options.requests, options.at_once
        return {
            "in memory": await count_times(local, options.requests, 1, 1),
            "in PostgreSQL, one at a time": await count_times(shared, options.requests, 1, 1),
            f"in PostgreSQL, {options.at_once} at a time, one token": await count_times(
                shared, *many, 1
            ),
            f"in PostgreSQL, {options.at_once} at a time, a token each": await count_times(
                shared, *many, options.at_once
            ),
        }
    finally:
        shared.close()


def main(argv: list[str] | None = None) -> int:
    options = make_options().parse_args(argv)
    with running_server(has_fsync=True) as server:
        if server is None:
            raise BenchmarkError(NO_SERVER)
        encoder = SpeakerEncoder(num_threads=1)
        store = SqlVoiceStore(server.new_database(), encoder)
        waveform = Recording.load(speech(0))
        embedding = encoder.embed_waveform(waveform)
        store.enrol("b", [NewRecording.of(waveform.waveform, embedding, None)])
        whole = identification_ms(store, encoder)
        times = asyncio.run(measure(store, options))
        store.close()
    rows = [
        [name, f"{ms:.2f} ms", f"{100 * ms / whole:.1f} %", f"{rate:,.0f}"]
        for name, (ms, rate) in times.items()
    ]
    rows.append(["an identification, without counting", f"{whole:.1f} ms", "100 %", ""])
    print(table(["a count", "median", "of an identification", "a second"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
