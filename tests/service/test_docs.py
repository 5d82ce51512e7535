"""The transcripts of docs/service.md are what a running service answers."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import manage
import serve
from tests.support.service_client import TOKEN
from tests.support.service_process import ROOT, ServiceProcess, service_process
from utils.model.header import DEFAULT_MODELS
from voices.sql.records import NewRecording
from voices.sql.store import SqlVoiceStore

DOCUMENT = ROOT / "docs" / "service.md"
PAGES = [ROOT / "docs" / f"{name}.md" for name in ("service", "operating", "privacy")]
ADDRESS = "127.0.0.1:8005"

VOLATILE = [
    (r"\b[0-9a-f]{32}\b", "ID"),
    (r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", "TIME"),
]
NUMBER = re.compile(r"-?\d+\.\d+")


def transcripts() -> list[tuple[str, str]]:
    """`(command, output)` of all console blocks, in their order."""
    text = DOCUMENT.read_text(encoding="utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    found: list[tuple[str, str]] = []
    for line in "".join(blocks).splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        else:
            command, output = found[-1]
            found[-1] = (command, f"{output}{line}\n")
    return found


def run(command: str, service: ServiceProcess, folder: Path) -> str:
    result = subprocess.run(
        ["bash", "-c", command.replace(ADDRESS, f"127.0.0.1:{service.port}")],
        cwd=folder,
        env={"TOKEN": TOKEN, "PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip() + "\n"


def settled(text: str) -> tuple[str, list[float]]:
    """A text without what differs each time, and its numbers."""
    for pattern, word in VOLATILE:
        text = re.sub(pattern, word, text)
    return NUMBER.sub("NUMBER", text), [float(number) for number in NUMBER.findall(text)]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_every_transcript_is_what_the_service_answers(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "audio", tmp_path / "audio")
    options = ["--database", "sqlite:///v.sqlite3"]
    options += ["--model_path", str(ROOT / f"{DEFAULT_MODELS[0]}.onnx")]
    with service_process(tmp_path, *options, script="serve.py", VOICEPRINT_TOKEN=TOKEN) as service:
        assert len(transcripts()) > 20
        for command, output in transcripts():
            received, numbers = settled(run(command, service, tmp_path))
            shown, expected = settled(output)
            assert received == shown, command
            assert numbers == pytest.approx(expected, abs=0.02), command


def text_of_all() -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def test_every_path_of_the_interface_is_told() -> None:
    text = text_of_all()
    words = ["/v1/speakers", "/v1/identify", "/verify", "/v1/compare", "/v1/quality", "/v1/embed"]
    words += ["/v1/info", "/metrics", "/health/ready", "/health/live", "/recordings/ID/audio"]
    words += ["/v1/diarizations/ID/rttm", "/v1/diarizations/ID/speakers/LABEL/enrol", "/v1/stream"]
    words += ["/v1/enrolments/ID/recordings/NUMBER", "/v1/enrolments/ID/finish"]
    for word in words:
        assert word in text


def test_every_limit_is_told() -> None:
    args, _ = serve.parse_args([])
    text = text_of_all()
    for name in vars(args):
        if name not in {"port", "model_path"}:
            assert f"--{name}" in text, name


def test_the_operators_commands_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of docs/operating.md, in their order, but for those that start a service."""
    text = PAGES[1].read_text(encoding="utf-8")
    blocks = re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (limits,) = [block for block in blocks if block.startswith("[groups.")]
    lines = [line for block in blocks for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("python ") and " -c " not in line]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "voiceprint.toml").write_text(limits, encoding="utf-8")
    address = f"sqlite:///{tmp_path}/v.sqlite3"
    database = SqlVoiceStore(address)
    new = NewRecording(np.full(64, 0.125, np.float32), 1.0, None, 1.0)
    database.in_group("shop").enrol("Ann", [new])
    database.close()
    monkeypatch.setenv("VOICEPRINT_DATABASE", address)
    monkeypatch.setenv("VOICEPRINT_MODEL_PATH", str(ROOT / f"{DEFAULT_MODELS[0]}.onnx"))
    ran = set()
    for command in commands:
        script, *words = shlex.split(command.partition("#")[0])[1:]
        if script == "serve.py" and not {"--new_token", "--show_config"} & set(words):
            serve.parse_args(words)
            continue
        main = {"serve.py": serve.main, "manage.py": manage.main}[script]
        assert main(words) == 0, command
        ran |= {word for word in words if word.startswith("--")}
    assert ran >= {"--tokens", "--rotate_token", "--revoke_token", "--groups", "--delete_group"}
    assert ran >= {"--trim_audit", "--show_config", "--new_token"}
    assert "shop: 1 speakers and 1 tokens removed" in capsys.readouterr().out
