"""Settings from options, variables and a file: which one counts, and what is refused."""

from pathlib import Path

import pytest

import manage
import serve
from service.configuration import read_config, unknown_variables
from service.edge.token_file import create_token
from service.settings import GroupLimits, ServiceError
from tests.support.service_process import service_process


def show(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, tuple[str, str]]:
    """What --show_config prints: name -> value and origin."""
    assert serve.main([*words, "--show_config"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = {}
    for line in lines:
        if " = " in line:
            name, rest = line.split(" = ", 1)
            value, _, origin = rest.partition("  # ")
            found.setdefault(name, (value, origin))
    return found


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "voice.toml"
    path.write_text(
        "# The shop's.\n"
        "port = 9000\n"
        "rate_limit = 5\n"
        "max_upload_mb = 3\n"
        "keep_audio = true\n"
        'database = "postgresql://me:secret@h/d"\n'
        "\n"
        "[groups.shop]\n"
        "max_speakers = 10\n"
        "[groups.bank]\n"
        "rate_limit = 60\n",
        encoding="utf-8",
    )
    return path


def test_options_count_before_variables_before_the_file(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICEPRINT_RATE_LIMIT", "6")
    monkeypatch.setenv("VOICEPRINT_PORT", "9001")
    monkeypatch.setenv("VOICEPRINT_JSON_LOGS", "yes")
    monkeypatch.setenv("VOICEPRINT_TOKEN", "a-secret-of-many-letters")
    # The default, named in so many words, is an option all the same.
    found = show(capsys, "--config", str(config), "--port", "8005")
    assert found["port"] == ("8005", "option")
    assert found["rate_limit"] == ("6", "VOICEPRINT_RATE_LIMIT")
    assert found["json_logs"] == ("true", "VOICEPRINT_JSON_LOGS")
    assert found["max_upload_mb"] == ("3.0", f"{config}, line 4")
    assert found["keep_audio"] == ("true", f"{config}, line 5")
    assert found["queue_size"] == ("64", "default")
    assert found["database"] == ('"postgresql://h/d"', f"{config}, line 6")
    assert found["max_speakers"] == ("10", "")


def test_secrets_are_not_shown(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICEPRINT_TOKEN", "a-secret-of-many-letters")
    monkeypatch.setenv("VOICEPRINT_CONFIG", str(config))
    assert serve.main(["--show_config"]) == 0
    text = capsys.readouterr().out
    assert "a-secret" not in text
    assert "me:" not in text
    assert "# VOICEPRINT_TOKEN is set: ***" in text
    assert "# VOICEPRINT_KEY is not set" in text
    assert "# cors_origin is not set  # default" in text


def test_what_is_shown_can_be_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--audio_db", 'a "b"\\c', "--max_upload_mb", "2.5", "--database", "sqlite:///x.db"]
    before = show(capsys, *words)
    path = tmp_path / "again.toml"
    serve.main([*words, "--show_config"])
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    after = show(capsys, "--config", str(path))
    assert {name: value for name, (value, _) in after.items()} == {
        name: value for name, (value, _) in before.items()
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("port = 1\nrate_limt = 5\n", "line 2: unknown setting 'rate_limt'"),
        ("port = 1\n\n[limits]\nx = 1\n", "line 3: unknown setting 'limits'"),
        ("port = 1\ntoken = 'abc'\n", "line 2: unknown setting 'token'"),
        ("port = -1\n", "line 1: port: received '-1', expected a whole number from 0 up"),
        ("port = '80'\n", "line 1: port: received '80', expected a number"),
        ("host = 80\n", "line 1: host: received 80, expected a text in quotes"),
        ('score_norm = "znorm"\n', "score_norm: received 'znorm', expected none or asnorm"),
        ("keep_audio = 1\n", "line 1: keep_audio: received 1, expected true or false"),
        ("rate_limit = true\n", "line 1: rate_limit: received True, expected a number"),
        ("port = 1\nport = 2\n", "not TOML: Cannot overwrite a value"),
        ("port 1\n", "not TOML: Expected '=' after a key in a key/value pair (at line 1"),
        ("groups = 3\n", "line 1: expected tables such as [groups.shop]"),
        ("[groups]\nshop = 3\n", "expected [groups.shop] to be a table"),
        ("[groups.Shop]\n", "received the group 'Shop'"),
        ("[groups.a]\nmax = 3\n", "line 2: unknown limit 'max' of a group, expected max_speakers"),
        ("[groups.a]\n[groups.b]\nrate_limit = -3\n", "line 3: rate_limit: received -3"),
        ("[groups.b]\nmax_speakers = 1.5\n", "line 2: max_speakers: received 1.5, expected"),
    ],
)  # fmt: skip
def test_slips_are_refused_with_their_line(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ServiceError) as caught:
        read_config(str(path), {})
    assert reason in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"none\.toml: cannot be read"):
        read_config(None, {"VOICEPRINT_CONFIG": str(tmp_path / "none.toml")})
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ServiceError, match="not UTF-8"):
        read_config(str(tmp_path / "b.toml"), {})
    assert read_config(None, {}).values == {}


def test_variables_that_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICEPRINT_PORT", "http")
    with pytest.raises(ServiceError, match="VOICEPRINT_PORT: received 'http', expected a whole"):
        serve.main(["--show_config"])
    monkeypatch.setenv("VOICEPRINT_PORT", "")
    monkeypatch.setenv("VOICEPRINT_KEEP_AUDIO", "perhaps")
    with pytest.raises(ServiceError, match="VOICEPRINT_KEEP_AUDIO: received 'perhaps', expected"):
        serve.main(["--show_config"])
    environment = dict.fromkeys(["VOICEPRINT_PROT", "VOICEPRINT_KEY", "VOICEPRINT_PORT"], "x")
    assert unknown_variables(environment) == ["VOICEPRINT_PROT"]


def test_limits_of_groups(config: Path) -> None:
    groups = read_config(str(config), {}).groups
    assert groups == {
        "shop": GroupLimits(max_speakers=10),
        "bank": GroupLimits(rate_limit=60),
    }


@pytest.mark.slow
def test_a_service_and_its_manager_share_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import urllib.request

    path, tokens = tmp_path / "voice.toml", tmp_path / "tokens.txt"
    token, _ = create_token("app", tokens)
    create_token("idle", tokens)
    path.write_text(
        f'database = "sqlite:///{tmp_path}/v.sqlite3"\ntoken_file = "{tokens}"\n',
        encoding="utf-8",
    )
    with service_process(tmp_path, "--config", str(path), VOICEPRINT_PROT="1") as service:
        assert "warning: VOICEPRINT_PROT is no setting" in service.log
        request = urllib.request.Request(f"{service.url}/v1/speakers")
        request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request) as answer:
            assert answer.status == 200
        service.process.terminate()
        assert service.wait() == 0
    assert manage.main(["--tokens", "--config", str(path)]) == 0
    _, app, idle = capsys.readouterr().out.splitlines()
    assert app.split("\t")[5].startswith("20")
    assert idle.endswith("\tnever\tnever")
    monkeypatch.setenv("VOICEPRINT_DATABASE", f"sqlite:///{tmp_path}/none.sqlite3")
    assert manage.main(["--tokens", "--config", str(path)]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines()[1].endswith("\tunknown")
    assert "note: when tokens were used is unknown" in output.err


def test_secrets_in_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "database").write_text(f"sqlite:///{tmp_path}/v.sqlite3\n", encoding="utf-8")
    environment = {
        "VOICEPRINT_DATABASE_FILE": str(tmp_path / "database"),
        "VOICEPRINT_KEY_FILE": str(tmp_path / "key"),
    }
    assert unknown_variables(environment) == []
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        assert serve.main(["--show_config", "--model_path", "models/campplus.onnx"]) == 0
    text = capsys.readouterr().out
    assert f'database = "sqlite:///{tmp_path}/v.sqlite3"  # VOICEPRINT_DATABASE\n' in text
    assert "# VOICEPRINT_KEY is set: ***" in text
