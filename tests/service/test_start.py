"""From options and environment to settings: what is filled in, printed and refused."""

import base64
from pathlib import Path
from typing import Any

import pytest

import serve
from service.edge.tokens import Tokens
from service.settings import ServiceError
from service.start import (
    check_model,
    classic_address,
    find_own_address,
    make_settings,
    resolve_defaults,
    without_passwords,
)
from tests.support.fake_encoder import FakeEncoder
from tests.support.service_process import ROOT
from utils.errors import DatabaseError, ModelError
from utils.model.encoder import SpeakerEncoder
from utils.model.header import DEFAULT_MODELS
from voices.sql.cipher import read_key
from voices.store import public_name

pytestmark = pytest.mark.slow


def parse(*argv: str, environment: dict[str, str] | None = None):  # type: ignore[no-untyped-def]
    args, _ = serve.parse_args(list(argv))
    resolve_defaults(args, environment or {})
    return args


def test_defaults() -> None:
    args = parse()
    assert (args.host, args.port) == ("127.0.0.1", 8005)
    assert args.database == "sqlite:///audio_db/voiceprints.sqlite3"
    assert args.audio_db == "audio_db"
    assert args.model_path.startswith("models/")
    assert make_settings(args, {}).max_upload_bytes == 20_000_000


def test_another_database_takes_no_folder_over() -> None:
    assert parse("--database", "sqlite:///x.db").audio_db is None
    environment = {"VOICEPRINT_DATABASE": "postgresql://u@h/d"}
    args = parse(environment=environment)
    assert (args.database, args.audio_db) == ("postgresql://u@h/d", None)
    assert parse("--audio_db", "voices", environment=environment).audio_db == "voices"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host:5432/db", "postgresql://host:5432/db"),
        ("postgresql://me:a:b@c@host/db", "postgresql://host/db"),
        ("postgresql://host/db?user=me&password=secret", "postgresql://host/db"),
        ("postgresql://me:se/cr?e#t@host/db", "postgresql://host/db"),
        ("postgresql://me:s/e@c/r@host/db", "postgresql://host/db"),
        ("sqlite:///a.db", "sqlite:///a.db"),
    ],
)  # fmt: skip
def test_passwords_are_not_printed(url: str, shown: str) -> None:
    assert public_name(url) == shown
    assert without_passwords(parse("--database", url)).database == shown


def test_other_machines_need_a_token(tmp_path: Path) -> None:
    for host in ["0.0.0.0", "::", "192.168.1.2"]:
        with pytest.raises(ServiceError, match="without a token"):
            make_settings(parse("--host", host), {})
        settings = make_settings(parse("--host", host), {"VOICEPRINT_TOKEN": "x" * 16})
        assert not settings.is_loopback
    assert make_settings(parse("--host", "::1"), {}).is_loopback


def test_one_origin(tmp_path: Path) -> None:
    assert make_settings(parse("--cors_origin", "https://a.b"), {}).cors_origin == "https://a.b"
    for origin in ["*", "https://a.b/", "https://a.b/page", "https://", "ftp://a.b", "https://a b"]:
        with pytest.raises(ServiceError, match="--cors_origin"):
            make_settings(parse("--cors_origin", origin), {})


def test_token_of_the_environment() -> None:
    # Files of secrets often end with a line feed.
    assert make_settings(parse(), {"VOICEPRINT_TOKEN": "x" * 16 + "\n"}).token == "x" * 16
    assert make_settings(parse(), {"VOICEPRINT_TOKEN": " "}).token is None
    for token in ["x" * 15, "ключ" * 4, "x" * 16 + "\t" + "x"]:
        with pytest.raises(ServiceError, match="VOICEPRINT_TOKEN") as caught:
            make_settings(parse(), {"VOICEPRINT_TOKEN": token})
        assert token not in str(caught.value)


def test_keys() -> None:
    key = bytes(range(32))
    assert read_key({}) is None
    assert read_key({"VOICEPRINT_KEY": key.hex()}) == key
    assert read_key({"VOICEPRINT_KEY": base64.b64encode(key).decode() + "\n"}) == key
    for text in ["short", key.hex()[:-2], "ä" * 32]:
        with pytest.raises(DatabaseError, match="expected 32 random bytes") as caught:
            read_key({"VOICEPRINT_KEY": text})
        assert text not in str(caught.value)


def test_new_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tokens.txt"
    assert serve.main(["--new_token", "app", "--token_file", str(path)]) == 0
    token = capsys.readouterr().out.splitlines()[0].removeprefix("token of app: ")
    assert len(token) == 43
    assert token not in path.read_text(encoding="utf-8")
    settings = make_settings(parse("--host", "::", "--token_file", str(path)), {})
    assert settings.token_file == path
    assert serve.main(["--new_token", "b"]) == 0
    assert "line for a --token_file: b:" in capsys.readouterr().out


def test_a_token_for_a_client_of_voiceprint_api(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tokens.txt"
    options = ["--create_token", "--token_file", str(path), "--host", "192.0.2.7", "--port", "80"]
    assert serve.main(options) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    token = first.removeprefix("token of voiceprint-api: ")
    assert second == f"声纹接口地址: http://192.0.2.7:80/voiceprint/health?key={token}"
    grant = Tokens(path=path).find(token)
    assert grant is not None
    assert grant.name == "voiceprint-api"
    assert "127.0.0.1" not in classic_address("::", 80, "x") or find_own_address() == "127.0.0.1"
    with pytest.raises(ServiceError, match="expected --token_file"):
        serve.main(["--create_token"])


@pytest.mark.parametrize(
    "option", ["--port=x", "--max_upload_mb=0", "--rate_limit=-1", "--queue_size=0"]
)
def test_options_out_of_range(option: str) -> None:
    with pytest.raises(SystemExit) as caught:
        serve.parse_args([option])
    assert caught.value.code == 2


class Broken(FakeEncoder):
    def __init__(self, sign: float) -> None:
        super().__init__()
        self.sign = sign

    def embed_waveform(self, recording: Any, source: str = "recording") -> Any:
        embedding = super().embed_waveform(recording, source)
        return self.sign * embedding if source == "a_2.wav" else embedding


def test_a_model_that_takes_two_people_for_one_is_not_started() -> None:
    check_model(Broken(1.0))
    for sign in [-1.0, float("nan")]:
        with pytest.raises(ModelError, match="fails its self-test"):
            check_model(Broken(sign))


def test_without_the_shipped_recordings_no_model_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.start.SAMPLES", tmp_path / "audio")
    check_model(Broken(-1.0))


def test_a_model_with_flipped_bits_is_not_started(tmp_path: Path) -> None:
    data = bytearray((ROOT / f"{DEFAULT_MODELS[0]}.onnx").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = b"\xff" * 4000  # NaN among the weights
    (tmp_path / "damaged.onnx").write_bytes(data)
    with pytest.raises(ModelError, match="damaged"):
        check_model(SpeakerEncoder(str(tmp_path / "damaged.onnx"), num_threads=1))
