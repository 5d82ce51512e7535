"""A real nginx with the settings of deploy/nginx.conf, in front of services of a test."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "deploy" / "nginx.conf"
START_S = 20.0


def find_nginx() -> str:
    """Returns the program; skips the test where there is none, which CI must have."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        assert "VOICEPRINT_CI" not in os.environ, "nginx is missing: apt-get install nginx"
        pytest.skip("nginx is not installed; Debian: apt-get install nginx")
    return nginx


def write_config(
    folder: Path, replicas: Sequence[str], ports: tuple[int, int] = (8080, 8443)
) -> Path:
    """Writes deploy/nginx.conf with other addresses and files.

    Args:
        folder: For the certificate and all that nginx writes.
        replicas: Addresses HOST:PORT in the place of service1 and service2.
        ports: Where to listen, without and with TLS.
    """
    secrets = ROOT / "deploy" / "make_secrets.sh"
    subprocess.run(["sh", str(secrets), "localhost", str(folder / "secrets")], check=True)
    text = CONFIG.read_text(encoding="utf-8")
    for number, address in enumerate(replicas, 1):
        text = _replaced(text, f"service{number}:8005", address)
    text = _replaced(text, "listen 8080;", f"listen 127.0.0.1:{ports[0]};")
    text = _replaced(text, "listen 8443 ssl;", f"listen 127.0.0.1:{ports[1]} ssl;")
    text = _replaced(text, "/tmp/", f"{folder}/")
    text = _replaced(text, "/run/secrets/", f"{folder}/secrets/")
    text = _replaced(text, "/dev/stderr", f"{folder}/error.log")
    text = _replaced(text, "/dev/stdout", f"{folder}/access.log")
    if os.geteuid() == 0:
        text = f"user root;\n{text}"  # its files are in a folder of root's
    config = folder / "nginx.conf"
    config.write_text(text, encoding="utf-8")
    return config


def _replaced(text: str, old: str, new: str) -> str:
    assert old in text, f"deploy/nginx.conf has no {old!r} any more"
    return text.replace(old, new)


@contextlib.contextmanager
def running_proxy(folder: Path, replicas: Sequence[str]) -> Iterator[str]:
    """Yields the https:// address of a proxy."""
    nginx = find_nginx()
    plain, secure = _free_ports()
    config = write_config(folder, replicas, (plain, secure))
    early = folder / "early.log"
    process = subprocess.Popen(
        [nginx, "-e", str(early), "-c", str(config), "-g", "daemon off;"],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", secure), 1):
                break
            assert process.poll() is None, early.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield f"https://localhost:{secure}"
    finally:
        process.terminate()
        process.wait(30)


def _free_ports() -> tuple[int, int]:
    """Returns two ports that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as b:
        return one.getsockname()[1], b.getsockname()[1]


def upstreams(folder: Path) -> list[list[str]]:
    """Returns the replicas that were asked for each request, in order, from the access log."""
    text = (folder / "access.log").read_text(encoding="utf-8")
    return [found.split(", ") for found in re.findall(r"upstream=(.*?) answers=", text)]
