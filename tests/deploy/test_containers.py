"""What deploy/ says of containers is whole: linted, consistent, and the image's files suffice.

No image is built here; docs/containers.md says what was not run.
"""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.postgres_server import PostgresServer
from tests.support.proxy import find_nginx, write_config
from tests.support.service_client import files, speech
from voices.sql.cipher import read_key
from voices.sql.store import SqlVoiceStore

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
TOKEN = "a-token-for-tests-only"
START_S = 90.0


def instructions(name: str) -> list[str]:
    """The arguments of an instruction of the Dockerfile, each as one line."""
    text = DOCKERFILE.replace("\\\n", " ")
    return [re.sub(r"\s+", " ", line) for line in re.findall(rf"^\s*{name} (.*)$", text, re.M)]


def copied() -> dict[str, str]:
    """What is copied out of the repository, and where to."""
    found = {}
    for line in instructions("COPY"):
        *sources, target = line.split()
        if not line.startswith("--from"):
            found.update(dict.fromkeys(sources, target))
    return found


def document(name: str) -> dict[str, Any]:
    return next(iter(documents(name)))


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))


def kind(name: str) -> dict[str, Any]:
    """The document of a kind in the manifests."""
    (found,) = (each for each in documents("kubernetes.yaml") if each["kind"] == name)
    return found


def lint(command: list[str], text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a linter of the environment on a text."""
    path = folder / "linted.yaml"
    path.write_text(text, encoding="utf-8")
    program = Path(sys.executable).with_name(command[0])
    assert program.exists(), f"{program} is missing: pip install -r requirements-dev.txt"
    return subprocess.run(
        [program, *command[1:], path], capture_output=True, text=True, timeout=120
    )


# --- Linters: each passes the file, and refuses a spoiled one ------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "command", "good", "bad"),
    [
        ("Dockerfile", ["hadolint"], "USER 10001:10001", "USER root"),
        (
            "compose.yaml",
            ["check-jsonschema", "--builtin-schema", "vendor.compose-spec"],
            "read_only: true",
            "readonly: true",
        ),
        ("kubernetes.yaml", ["kubernetes-validate", "--strict"], "minAvailable", "minimum"),
    ],
)
def test_linters(name: str, command: list[str], good: str, bad: str, tmp_path: Path) -> None:
    text = (DEPLOY / name).read_text(encoding="utf-8")
    result = lint(command, text, tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert good in text
    assert lint(command, text.replace(good, bad), tmp_path).returncode != 0


def test_the_proxys_settings_are_valid(tmp_path: Path) -> None:
    nginx = find_nginx()
    config = write_config(tmp_path, ["127.0.0.1:1", "127.0.0.1:2"])
    command = [nginx, "-t", "-e", str(tmp_path / "early.log"), "-c", str(config)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "warn" not in result.stderr
    config.write_text(config.read_text().replace("least_conn;", "least_con;"))
    assert subprocess.run(command, capture_output=True).returncode != 0


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_unit_is_valid_and_hardened(tmp_path: Path) -> None:
    text = (DEPLOY / "voiceprint.service").read_text(encoding="utf-8")
    (program,) = re.findall(r"ExecStart=(\S+)", text)
    unit = tmp_path / "voiceprint.service"
    verify = ["systemd-analyze", "verify", "--man=no", str(unit)]
    unit.write_text(text.replace(program, "/bin/true"), encoding="utf-8")
    result = subprocess.run(verify, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    # 0 is a unit that may do nothing, 10 one that may do everything.
    security = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)]
    result = subprocess.run(security, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-200:]
    unit.write_text(unit.read_text().replace("ProtectSystem=", "ProtectSytem="))
    assert "ProtectSytem" in subprocess.run(verify, capture_output=True, text=True).stderr


# --- The files agree with each other and with the service ----------------------------------------


def test_only_what_is_copied_reaches_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if not line.startswith("#")]
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == set(copied())
    hidden = [line for line in lines[1:] if not line.startswith("!")]
    assert hidden == ["**/__pycache__", "**/.*"]


def test_everything_stops_later_than_the_service() -> None:
    from service.settings import Settings

    stop_s = Settings.stop_timeout_s
    for name in ("service1", "service2"):
        grace = document("compose.yaml")["services"][name]["stop_grace_period"]
        assert float(grace.removesuffix("s")) > stop_s
    pod = kind("Deployment")["spec"]["template"]["spec"]
    options = pod["containers"][0]["args"]
    drain_s = float(options[options.index("--drain_s") + 1])
    # Readiness fails twice before the balancer knows.
    probe = pod["containers"][0]["readinessProbe"]
    assert drain_s >= probe["periodSeconds"] * probe["failureThreshold"]
    assert pod["terminationGracePeriodSeconds"] > stop_s + drain_s
    unit = (DEPLOY / "voiceprint.service").read_text(encoding="utf-8")
    assert float(re.findall(r"TimeoutStopSec=(\d+)", unit)[0]) > stop_s


def test_nobody_is_root_and_nothing_is_written() -> None:
    compose = document("compose.yaml")["services"]
    for name in ("service1", "service2", "proxy", "manage"):
        assert compose[name]["read_only"] is True
        assert compose[name]["cap_drop"] == ["ALL"]
    pod = kind("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    user = f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"
    assert instructions("USER") == [user]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in ("/health/live", "/health/ready")


def test_secrets_are_in_files_and_never_in_the_image() -> None:
    compose = document("compose.yaml")
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            is_secret = name in ("VOICEPRINT_TOKEN", "VOICEPRINT_KEY", "VOICEPRINT_DATABASE")
            assert not is_secret, f"{name}: {value} stands in compose.yaml"
            assert "PASSWORD" not in name or name.endswith("_FILE")
        assert set(service.get("secrets", ())) <= set(compose["secrets"])
    (container,) = kind("Deployment")["spec"]["template"]["spec"]["containers"]
    assert all(each["name"].endswith(("_FILE", "_IPS")) for each in container["env"])
    assert not re.search(r"^(ENV|ARG) .*(TOKEN|KEY|PASSWORD|DATABASE)", DOCKERFILE, re.M)


# --- The scripts ---------------------------------------------------------------------------------


def make_secrets(folder: Path) -> dict[str, str]:
    subprocess.run(
        ["sh", str(DEPLOY / "make_secrets.sh"), "voice.example.com", str(folder)], check=True
    )
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def test_secrets_are_made_once(tmp_path: Path) -> None:
    made = make_secrets(tmp_path / "secrets")
    assert set(made) == set(document("compose.yaml")["secrets"])
    assert make_secrets(tmp_path / "secrets") == made
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert len(read_key({"VOICEPRINT_KEY_FILE": str(tmp_path / "secrets" / "key")}) or b"") == 32
    password = made["database_password"].strip()
    assert made["database"] == f"postgresql://voiceprint:{password}@database/voiceprint\n"
    (tmp_path / "secrets" / "key").unlink()
    renewed = make_secrets(tmp_path / "secrets")
    assert renewed["key"] != made["key"]
    assert {**renewed, "key": ""} == {**made, "key": ""}
    without_host = subprocess.run(["sh", str(DEPLOY / "make_secrets.sh")], capture_output=True)
    assert without_host.returncode == 2


@pytest.mark.slow
def test_the_database_is_made_for_a_role_without_rights(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    psql = shutil.which("psql") or str(postgres_server.program("psql"))
    (tmp_path / "password").write_text("it's \\ a `password`\n", encoding="utf-8")
    environment = {
        **os.environ,
        "PATH": f"{Path(psql).parent}:{os.environ['PATH']}",
        "PGHOST": str(postgres_server.folder),
        "POSTGRES_USER": "tester",
        "DATABASE_PASSWORD_FILE": str(tmp_path / "password"),
    }
    result = subprocess.run(
        ["sh", str(DEPLOY / "make_database.sh")], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    url = f"postgresql://voiceprint@/voiceprint?host={postgres_server.folder}"
    try:
        store = SqlVoiceStore(url)
        rights = "SELECT rolsuper OR rolcreatedb OR rolcreaterole FROM pg_roles WHERE rolname = "
        assert store.count() == 0
        assert postgres_server.ask(f"{rights}'voiceprint'") is False
        assert postgres_server.ask(
            "SELECT rolpassword LIKE 'SCRAM%' FROM pg_authid WHERE rolname = 'voiceprint'"
        )
        store.close()
    finally:
        postgres_server.drop_database(url)
        postgres_server.ask("DROP ROLE voiceprint")


# --- The image -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """A folder with exactly what the Dockerfile copies, in which nothing can be written."""
    folder = Path(tempfile.mkdtemp(prefix="image"))
    hidden = shutil.ignore_patterns("__pycache__", ".*")
    for source, target in copied().items():
        if target.startswith("/"):
            continue
        assert (ROOT / source).exists(), f"COPY {source}: it is not there"
        place = folder / target
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place, ignore=hidden)
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, place)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


def confined(command: list[str]) -> list[str]:
    """A command without capabilities, as in the container: even root cannot write there."""
    if os.geteuid() != 0:
        return command
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("root writes everywhere, and there is no setpriv to keep it from that")
    return [setpriv, "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", *command]


@pytest.mark.slow
def test_the_copied_files_are_enough_to_serve(image: Path, tmp_path: Path) -> None:
    """The entry point runs on them alone until it is ready, enrols, recognises, and stops."""
    refused = subprocess.run(
        confined(["sh", "-c", "echo > serve.py || echo > new"]), cwd=image, capture_output=True
    )
    assert refused.returncode != 0, "the folder can be written to: the test would show nothing"
    made = make_secrets(tmp_path / "secrets")
    (tmp_path / "data").mkdir()
    (tmp_path / "database").write_text(f"sqlite:///{tmp_path}/data/voices.sqlite3\n")
    (entry,), (options,) = instructions("ENTRYPOINT"), instructions("CMD")[-1:]
    program, *arguments = [*json.loads(entry), *json.loads(options), "--port", "0"]
    assert program == "python"
    log_path = tmp_path / "log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            confined([sys.executable, *arguments]),
            cwd=image,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONUNBUFFERED": "1",
                "VOICEPRINT_DATABASE_FILE": str(tmp_path / "database"),
                "VOICEPRINT_KEY_FILE": str(tmp_path / "secrets" / "key"),
                "VOICEPRINT_TOKEN": TOKEN,
            },
        )
    try:
        port = wait_until_ready(process, log_path)
        check = json.loads(re.findall(r"CMD (\[.*)$", instructions("HEALTHCHECK")[0])[0])
        check = [part.replace(":8005/", f":{port}/") for part in check]
        assert subprocess.run([sys.executable, *check[1:]]).returncode == 0
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
            answer = client.post("/v1/speakers", data={"name": "a"}, files=files(speech(0)))
            assert answer.status_code == 201, answer.text
            answer = client.post("/v1/identify", files=files(speech(0, 1)))
            assert answer.json()["matches"][0]["name"] == "a"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    log_text = log_path.read_text()
    assert made["key"].strip() not in log_text
    assert TOKEN not in log_text
    assert "warning" not in log_text
    assert not list(image.rglob("__pycache__"))


def wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> int:
    """Returns the port of a service as soon as /health/ready answers."""
    deadline = time.monotonic() + START_S
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        found = re.findall(r"Interface: http://0\.0\.0\.0:(\d+)/docs", log.read_text())
        if found:
            answer = httpx.get(f"http://127.0.0.1:{found[0]}/health/ready")
            assert answer.status_code == 200, answer.text
            return int(found[0])
        time.sleep(0.1)


@pytest.mark.slow
def test_every_package_has_a_wheel_for_arm64(tmp_path: Path) -> None:
    (base, _) = instructions("FROM")
    version = re.findall(r"python:(\d+\.\d+)-", base)[0]
    platforms = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", "--target", str(tmp_path)]
    command += ["--python-version", version, "--implementation", "cp"]
    command += [word for each in platforms for word in ("--platform", each)]
    command += ["-r", str(ROOT / "requirements-service.txt")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    unreachable = any(word in result.stderr for word in ("Connection", "timed out", "resolve host"))
    if result.returncode and unreachable and "VOICEPRINT_CI" not in os.environ:
        pytest.skip("the package index can't be reached here")
    assert result.returncode == 0, result.stderr
