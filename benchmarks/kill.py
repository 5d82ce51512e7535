r"""Kills the service with -9 while 1,000 clients enrol, and checks the database afterwards.

    python benchmarks/kill.py
    python benchmarks/kill.py --clients 100 --rounds 1

A real service with the real model; the clients send their recordings at the same moment, each
under its own name. After some answers the process is killed and started again on the same
database, and all speakers are read. A speaker is lost if the enrolment was confirmed and the
speaker is missing or incomplete. Speakers without a confirmation were enrolled while their answer
was on its way. PostgreSQL runs on this machine in a temporary folder.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measuring import Row, add_json_option, table, write_results
from benchmarks.service import RunningService, receive, recordings, request_of, wav_of
from service.edge.server import allow_connections
from tests.support.postgres_server import NO_SERVER, running_server
from utils.arguments import make_parser, positive_int

PAGE = 100


def make_options() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("--clients", type=positive_int, default=1_000)
    parser.add_argument("--rounds", type=positive_int, default=3, help="for each database")
    parser.add_argument("--model_path", help="speaker model (default: the shipped one)")
    add_json_option(parser)
    return parser


async def enrol_until_killed(
    service: RunningService, wavs: list[bytes], num_clients: int, num_answers: int
) -> set[str]:
    """Enrols all at once, kills the service after some answers; returns the confirmed names."""
    enrolled: set[str] = set()

    async def enrol(number: int) -> None:
        name = f"speaker {number}"
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
            writer.write(request_of("/v1/speakers", wavs[number % len(wavs)], name=name))
            status, body = await receive(reader)
        except (OSError, EOFError):
            return
        if status != 201:
            raise SystemExit(f"an enrolment was answered with {status}: {body!r}")
        enrolled.add(name)
        if len(enrolled) == num_answers:
            service.process.kill()

    await asyncio.gather(*(enrol(number) for number in range(num_clients)))
    service.process.kill()
    service.process.wait()
    return enrolled


def read_speakers(port: int) -> tuple[set[str], int]:
    """Returns the names of all speakers, and the number of incomplete ones."""
    address = f"http://127.0.0.1:{port}"
    names: set[str] = set()
    num_broken = 0
    while True:
        with urlopen(f"{address}/v1/speakers?offset={len(names)}&limit={PAGE}") as answer:
            page = json.load(answer)["speakers"]
        if not page:
            break
        names |= {speaker["name"] for speaker in page}
        num_broken += sum(len(speaker["recordings"]) != 1 for speaker in page)
    with urlopen(f"{address}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    # The service counted unreadable speakers when it loaded all of them at its start.
    damaged = next(line for line in lines if line.startswith("voiceprint_damaged_speakers "))
    return names, num_broken + round(float(damaged.split()[1]))


async def identify_all(port: int, wavs: list[bytes]) -> None:
    """Identifies each recording; each must be found."""
    for wav in wavs:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_of("/v1/identify", wav))
        status, body = await receive(reader)
        writer.close()
        if status != 200 or json.loads(body)["name"] is None:
            raise SystemExit(f"an enrolled voice was answered with {status}: {body!r}")


def kill_once(
    database: str, num_clients: int, num_answers: int, model_path: str | None
) -> tuple[int, int, int, int, float]:
    """Returns the speakers confirmed, lost, unconfirmed and incomplete; seconds to restart."""
    wavs = [wav_of(waveform) for waveform in recordings()]
    with tempfile.TemporaryDirectory() as folder:
        service = RunningService(Path(folder), database, model_path, num_clients)
        try:
            enrolled = asyncio.run(enrol_until_killed(service, wavs, num_clients, num_answers))
        finally:
            service.process.kill()
        start = time.perf_counter()
        service = RunningService(Path(folder), database, model_path)
        back_s = time.perf_counter() - start
        try:
            asyncio.run(identify_all(service.port, wavs))
            found, num_broken = read_speakers(service.port)
        finally:
            service.close()
    return len(enrolled), len(enrolled - found), len(found - enrolled), num_broken, back_s


def main(argv: list[str] | None = None) -> int:
    args = make_options().parse_args(argv)
    allow_connections()
    lines: list[list[str]] = []
    notes: list[str] = []
    num_enrolled = num_lost = 0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(running_server(has_fsync=True))
        if server is None:
            notes.append(f"PostgreSQL was not tried: {NO_SERVER}.")
        for number in range(args.rounds):
            num_answers = args.clients * (number + 1) // (args.rounds + 1)
            databases = {"SQLite": f"sqlite:///{folder}/{number}.sqlite3"}
            if server is not None:
                databases["PostgreSQL"] = server.new_database()
            for kind, database in databases.items():
                answered, lost, silent, broken, back_s = kill_once(
                    database, args.clients, max(num_answers, 1), args.model_path
                )
                num_enrolled += answered
                num_lost += lost + broken
                lines.append(
                    [kind, str(answered), str(lost), str(silent), str(broken), f"{back_s:.1f}"]
                )
                print(" | ".join(lines[-1]), file=sys.stderr)
    lines.sort(key=lambda line: line[0], reverse=True)
    header = ["database", "answered with success", "lost", "there without an answer", "not whole"]
    details = (
        f"{args.clients:,} clients enrol at once; the service is killed with -9 in their midst.\n\n"
        f"{table([*header, 's until it is back'], lines)}\n\n" + " ".join(notes)
    ).rstrip()
    print(details)
    kinds = " and ".join(dict.fromkeys(line[0] for line in lines))
    row = Row(
        f"kill -9 amid {args.clients:,} concurrent enrolments, {kinds}",
        f"{num_enrolled:,} answered with success",
        f"{num_lost} lost",
        "",
        "0 lost",
    )
    write_results(args.json, [row], details, ["fastapi", "uvicorn", "sqlalchemy", "psycopg"])
    return 1 if num_lost else 0


if __name__ == "__main__":
    sys.exit(main())
