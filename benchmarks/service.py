r"""Measures the running service under load, against the encoder alone on the same cores.

    python benchmarks/service.py
    python benchmarks/service.py --speakers 1000 --seconds 3 --rounds 2

A real service with the real model and SQLite runs on this machine. Clients on the loopback address
send real recordings of 3 s to /v1/identify, one after the other. The speakers are random
directions, inserted directly into the database. Alternately, the same recordings go to the encoder
alone, in as many threads as the service uses for it: the ratio shows the overhead of decoding,
measuring, HTTP, search, audit log and the clients themselves. Then more clients come than the
queue holds: they must be refused at once, and none may be left waiting.
"""

import argparse
import asyncio
import io
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.identification import fill, unit
from benchmarks.measuring import Row, add_json_option, median, num_cores, table, write_results
from utils.arguments import make_parser, positive_float, positive_int
from utils.arrays import FloatArray
from utils.audio.decode import load_audio
from utils.audio.waveform import SAMPLE_RATE

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ["a_1.wav", "a_2.wav", "b_1.wav", "b_2.wav"]
RECORDING_S = 3
START_S = 120.0
QUEUE_SIZE = 64


def make_options() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("--speakers", type=positive_int, nargs="+", default=[1_000, 100_000])
    parser.add_argument("--clients", type=positive_int, default=8)
    parser.add_argument("--seconds", type=positive_float, default=5.0, help="of each turn")
    parser.add_argument("--rounds", type=positive_int, default=5)
    parser.add_argument("--model_path", help="speaker model (default: the shipped one)")
    add_json_option(parser)
    return parser


@dataclass
class Load:
    """The clients' view: seconds of each answer by status, and failed connections."""

    seconds: dict[int, list[float]] = field(default_factory=dict)
    num_failed: int = 0
    elapsed_s: float = 0.0

    @property
    def num_errors(self) -> int:
        """Answers other than 200 and 503, and connections that broke."""
        return self.num_failed + sum(len(s) for k, s in self.seconds.items() if k not in (200, 503))


def recordings() -> list[FloatArray]:
    """Returns the project's own recordings, 3 s each."""
    return [load_audio(ROOT / "audio" / name)[: RECORDING_S * SAMPLE_RATE] for name in SAMPLES]


def wav_of(waveform: FloatArray) -> bytes:
    """Returns a recording as the bytes of a wav file."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def request_of(path: str, wav: bytes, **fields: str) -> bytes:
    """Returns a complete HTTP request that posts a recording and texts as a form."""
    parts = [f'name="{name}"\r\n\r\n{text}'.encode() for name, text in fields.items()]
    parts.append(b'name="file"; filename="a.wav"\r\n\r\n' + wav)
    body = b"".join(b"--b\r\nContent-Disposition: form-data; %b\r\n" % part for part in parts)
    body += b"--b--\r\n"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def receive(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Returns status and body of an answer.

    Raises:
        OSError or EOFError: If the connection ends too early.
    """
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return int(head[9:12]), await reader.readexactly(length)


async def drive(port: int, requests: list[bytes], num_clients: int, seconds: float) -> Load:
    """Lets clients send one request after the other for some time."""
    load = Load()
    start = time.perf_counter()

    async def ask(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            while (began := time.perf_counter()) < start + seconds:
                writer.write(requests[number % len(requests)])
                number += 1
                status, _ = await receive(reader)
                load.seconds.setdefault(status, []).append(time.perf_counter() - began)
        except (OSError, EOFError):
            load.num_failed += 1
        finally:
            writer.close()

    await asyncio.gather(*(ask(number) for number in range(num_clients)))
    load.elapsed_s = time.perf_counter() - start
    return load


def encode_alone(
    encoder: object, waveforms: list[FloatArray], seconds: float
) -> tuple[float, float]:
    """Returns recordings a second of the encoder in as many threads as cores, and CPU seconds."""
    counts = [0] * num_cores()
    start, cpu_start = time.perf_counter(), time.process_time()

    def work(thread: int) -> None:
        while time.perf_counter() < start + seconds:
            encoder.embed_waveform(waveforms[counts[thread] % len(waveforms)])  # type: ignore
            counts[thread] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(counts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cpu_s = time.process_time() - cpu_start
    return sum(counts) / (time.perf_counter() - start), cpu_s / sum(counts)


class RunningService:
    """serve.py in a separate process."""

    def __init__(
        self,
        folder: Path,
        database: str,
        model_path: str | None,
        queue_size: int = QUEUE_SIZE,
        options: Sequence[str] = (),
    ) -> None:
        """Starts it and waits until it answers."""
        log_path = folder / "service.log"
        command = [sys.executable, str(ROOT / "serve.py"), "--port", "0", "--rate_limit", "0"]
        command += ["--database", database, "--queue_size", str(queue_size), *options]
        command += ["--model_path", model_path] if model_path else []
        environment = {k: v for k, v in os.environ.items() if not k.startswith("VOICEPRINT_")}
        with log_path.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log,
                                            stderr=subprocess.STDOUT)  # fmt: skip
        deadline = time.monotonic() + START_S
        while "Ctrl-C stops it." not in (text := log_path.read_text(encoding="utf-8")):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the service did not start:\n{text}")
            time.sleep(0.1)
        address = next(line for line in text.splitlines() if line.startswith("Web page:"))
        self.port = int(address.rstrip("/").rsplit(":", 1)[1])

    def cpu_s(self) -> float:
        """Returns its processor time in seconds; NaN where the system does not report it."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return float("nan")
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> int:
        """Stops it as Ctrl-C does and returns its exit status."""
        self.process.terminate()
        return self.process.wait(60)


def enrol(database_url: str, encoder: object, num_speakers: int) -> None:
    """Inserts random speakers into a new database."""
    from voices.sql.store import SqlVoiceStore

    rng = np.random.default_rng(0)
    database = SqlVoiceStore(database_url, encoder)  # type: ignore[arg-type]
    size = encoder.embedding_size  # type: ignore[attr-defined]
    fill(database, unit(rng.standard_normal((num_speakers, size), np.float32)))
    database.close()


def percentile(load: Load, percent: float) -> str:
    return f"{1000 * float(np.percentile(load.seconds[200], percent)):.0f}"


def measure(args: argparse.Namespace) -> tuple[list[list[str]], list[str]]:
    """Returns the lines of the table, and remarks."""
    from utils.model.encoder import SpeakerEncoder

    encoder = SpeakerEncoder(args.model_path, num_threads=1)
    waveforms = recordings()
    requests = [request_of("/v1/identify", wav_of(waveform)) for waveform in waveforms]
    lines: list[list[str]] = []
    notes: list[str] = []
    for num_speakers in args.speakers:
        with tempfile.TemporaryDirectory() as folder:
            database = f"sqlite:///{folder}/v.sqlite3"
            enrol(database, encoder, num_speakers)
            service = RunningService(Path(folder), database, args.model_path)
            try:
                asyncio.run(drive(service.port, requests, args.clients, 2.0))
                encode_alone(encoder, waveforms, 1.0)
                alone: list[float] = []
                rates: list[float] = []
                encoder_cpu: list[float] = []
                service_cpu: list[float] = []
                total = Load()
                for _ in range(args.rounds):
                    before = encode_alone(encoder, waveforms, args.seconds / 2)
                    cpu_s = service.cpu_s()
                    load = asyncio.run(drive(service.port, requests, args.clients, args.seconds))
                    num_answers = len(load.seconds.get(200, []))
                    service_cpu.append((service.cpu_s() - cpu_s) / max(num_answers, 1))
                    after = encode_alone(encoder, waveforms, args.seconds / 2)
                    alone.append((before[0] + after[0]) / 2)
                    encoder_cpu.append((before[1] + after[1]) / 2)
                    rates.append(num_answers / load.elapsed_s)
                    total.num_failed += load.num_failed
                    for status, seconds in load.seconds.items():
                        total.seconds.setdefault(status, []).extend(seconds)
                share = median([rate / other for rate, other in zip(rates, alone, strict=True)])
                lines.append(
                    [
                        f"{num_speakers:,}", f"{median(rates):.1f}", f"{median(alone):.1f}",
                        f"{100 * share:.0f} %", percentile(total, 50), percentile(total, 95),
                        percentile(total, 99), str(total.num_errors),
                        f"{1000 * median(service_cpu):.1f}", f"{1000 * median(encoder_cpu):.1f}",
                    ]
                )  # fmt: skip
                print(" | ".join(lines[-1]), file=sys.stderr)
                if num_speakers == args.speakers[-1]:
                    crowd = 4 * (QUEUE_SIZE + num_cores())
                    load = asyncio.run(drive(service.port, requests, crowd, args.seconds))
                    notes.append(describe_crowd(crowd, load))
            finally:
                status = service.close()
            if status != 0:
                notes.append(f"The service ended with status {status}.")
    return lines, notes


def describe_crowd(num_clients: int, load: Load) -> str:
    """Describes the answers when more clients come than the queue holds."""
    accepted, refused = load.seconds.get(200, []), load.seconds.get(503, [])
    fast = f"{1000 * median(refused):.0f} ms" if refused else "-"
    return (
        f"With {num_clients} clients at once, which do not wait as Retry-After asks them to, "
        f"{len(accepted) / load.elapsed_s:.1f} requests a second were answered, {len(refused):,} "
        f"refused with 503 (median after {fast}), and {load.num_errors} failed."
    )


def main(argv: list[str] | None = None) -> int:
    args = make_options().parse_args(argv)
    lines, notes = measure(args)
    header = ["enrolled", "requests/s", "encoder alone/s", "share", "p50 ms", "p95 ms", "p99 ms"]
    header += ["errors", "CPU ms a request", "CPU ms encoder alone"]
    details = (
        f"Recordings of {RECORDING_S} s, {args.clients} clients, {num_cores()} cores shared by "
        f"service and clients, median of {args.rounds} turns of {args.seconds:g} s.\n\n"
        f"{table(header, lines)}\n\n" + " ".join(notes)
    )
    print(details)
    row = Row(
        f"HTTP identification among {args.speakers[-1]:,} speakers, of the encoder's throughput",
        f"encoder alone: {lines[-1][2]}/s",
        f"{lines[-1][1]}/s",
        lines[-1][3],
        ">= 90 %",
    )
    write_results(args.json, [row], details, ["fastapi", "uvicorn", "onnxruntime", "sqlalchemy"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
