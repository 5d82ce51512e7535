r"""Measures how many live streams the running service can follow at a time.

    python benchmarks/streams.py
    python benchmarks/streams.py --streams 1 2 4 8 --seconds 60

A real service with the real model and SQLite runs on this machine. So many clients at once send
audio/conversation.wav, over and over, to /v1/stream, as fast as the service takes it. The real-time
factor is the time until all have their last event, over the seconds of one stream: below 1 the
service follows so many streams in real time. The processor time of the service, which other work on
the machine hardly changes, says how many would fill its cores.
"""

import argparse
import importlib.util
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measuring import ROOT, Row, add_json_option, num_cores, table, write_results
from benchmarks.service import RunningService, enrol
from utils.arguments import make_parser, positive_int
from utils.audio.decode import load_audio
from utils.audio.waveform import SAMPLE_RATE
from utils.errors import run_script

NUM_SPEAKERS = 1000
PIECE_BYTES = 2 * SAMPLE_RATE // 10


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the options."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--streams", type=positive_int, nargs="+", default=[1, 2, 4], help="at a time")
    add("--seconds", type=positive_int, default=40, help="of each stream")
    add("--model_path", help="speaker model (default: the shipped one)")
    add_json_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measures and prints the table."""
    from utils.model.encoder import SpeakerEncoder

    args = parse_args(argv)
    encoder = SpeakerEncoder(args.model_path, num_threads=1)
    data = sound(args.seconds)
    most = max(args.streams)
    options = ["--max_streams", str(most), "--stream_ahead_s", "100000"]
    found: dict[int, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        database = f"sqlite:///{folder}/v.sqlite3"
        enrol(database, encoder, NUM_SPEAKERS)
        service = RunningService(Path(folder), database, args.model_path, options=options)
        try:
            url = f"http://127.0.0.1:{service.port}"
            follow(url, data[: 20 * PIECE_BYTES], 1)  # loads what is loaded at the first use
            for count in args.streams:
                cpu_s = service.cpu_s()
                factor = follow(url, data, count) / args.seconds
                found[count] = factor, (service.cpu_s() - cpu_s) / args.seconds / count
                print(f"{count} streams: {factor:.2f}", file=sys.stderr)
        finally:
            service.close()
    lines = [
        [str(count), f"{factor:.2f}", f"{cpu:.2f} s", f"{num_cores() / cpu:.0f}"]
        for count, (factor, cpu) in found.items()
    ]
    header = ("streams at a time", "real-time factor", "processor time a second of stream",
              "streams that fill the cores")  # fmt: skip
    details = (
        f"{table(header, lines)}\n\n{args.seconds} s of speech each, {NUM_SPEAKERS:,} enrolled, "
        f"{num_cores()} cores shared by service and clients."
    )
    print(details)
    row = Row("live streams that fill the cores", "-", lines[-1][-1], "-", "")
    write_results(args.json, [row], details, ("fastapi", "uvicorn", "onnxruntime"), [])
    return 0


def sound(seconds: int) -> bytes:
    """Returns 16-bit samples of people who talk without end."""
    waveform = load_audio(ROOT / "audio" / "conversation.wav")
    samples = np.resize(waveform, seconds * SAMPLE_RATE)
    return (samples * 32767).astype("<i2").tobytes()


def follow(url: str, data: bytes, count: int) -> float:
    """Sends the sound in several streams at a time; returns the seconds until all are over."""
    client = _load_client().VoiceprintClient(url)
    start = time.monotonic()
    threads = [threading.Thread(target=_send, args=(client, data)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.monotonic() - start


def _send(client: Any, data: bytes) -> None:
    """Sends one stream and hears its events to the end."""
    with client.stream() as stream:
        reader = threading.Thread(target=list, args=(stream,))
        reader.start()
        for start in range(0, len(data), PIECE_BYTES):
            stream.send(data[start : start + PIECE_BYTES])
        stream.end()
        reader.join()


def _load_client() -> Any:
    """Loads the client of the service, a file by itself."""
    path = ROOT / "clients" / "python" / "voiceprint_client.py"
    spec = importlib.util.spec_from_file_location("voiceprint_client", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    run_script(main)
