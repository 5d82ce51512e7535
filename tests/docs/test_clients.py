"""The examples of docs/clients.md print what stands below them."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.python.voiceprint_client import VoiceprintClient
from tests.support.service_client import TOKEN
from tests.support.service_process import ROOT, ServiceProcess, service_process
from utils.model.header import DEFAULT_MODELS

ADDRESS = "http://127.0.0.1:8005"
NODE = shutil.which("node")
RUN = {"python": [sys.executable, "-"], "javascript": [str(NODE), "--input-type=module", "-"]}


def examples() -> list[tuple[str, str, str]]:
    """`(language, program, output)` of each example."""
    text = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
    pattern = r"^```(python|javascript)\n(.*?)^```\n\n```\n(.*?)^```$"
    return re.findall(pattern, text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("service")
    options = ["--database", "sqlite:///v.sqlite3"]
    options += ["--model_path", str(ROOT / f"{DEFAULT_MODELS[0]}.onnx")]
    with service_process(folder, *options, script="serve.py", VOICEPRINT_TOKEN=TOKEN) as process:
        yield process


@pytest.mark.parametrize("number", range(5))
def test_an_example_prints_what_the_document_shows(service: ServiceProcess, number: int) -> None:
    language, program, output = examples()[number]
    if language == "javascript" and NODE is None:
        pytest.skip("node is not installed")
    assert ADDRESS in program
    result = subprocess.run(
        RUN[language],
        input=program.replace(ADDRESS, service.url),
        cwd=ROOT,
        env={**os.environ, "TOKEN": TOKEN, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == output


def test_every_example_is_run() -> None:
    text = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
    assert len(examples()) == 5 == len(re.findall(r"^```\w", text, re.MULTILINE))


def test_the_document_names_the_limits_of_the_clients() -> None:
    text = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
    defaults = VoiceprintClient.__init__.__kwdefaults__ or {}
    assert f"{defaults['timeout_s']:.0f} s without a byte" in text
    assert f"more than {defaults['max_wait_s']:.0f} s" in text
    script = Path(ROOT / "clients" / "javascript" / "voiceprint_client.js").read_text("utf-8")
    assert "timeoutMs = 60_000, maxTries = 4, maxWaitS = 30" in script
    assert defaults["max_tries"] == 4
