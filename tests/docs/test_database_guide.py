"""Each command of docs/database.md runs, in their order; those of other scripts run elsewhere."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.support.fake_encoder import FakeEncoder
from tests.support.script_runs import run_here
from tests.support.synthetic_voices import synthetic_speech, write_wav
from utils.model import encoder as encoder_module
from voices.sql.store import SqlVoiceStore

ROOT = Path(__file__).resolve().parents[2]

# Lines that are not run here, and what does instead.
CHECKED_ELSEWHERE = {
    "pip install -r requirements-service.txt": "test_docs.py",
    "python infer_recognition.py": "test_infer_recognition.py, with databases too",
    "python serve.py --database sqlite:///voices.sqlite3": "test_start.py and test_server.py",
    "export VOICEPRINT_DATABASE='postgresql://": "an example of an address",
    'python -c "import secrets': "test_the_guides_way_to_a_key",
    "chmod 600 database.key": "the shell's",
    "export VOICEPRINT_KEY=$(cat database.key)": "the shell's",
    "export VOICEPRINT_NEW_KEY=$(cat new.key)": "the shell's",
}


def commands() -> list[str]:
    text = (ROOT / "docs" / "database.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```shell\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if not line.startswith(tuple(CHECKED_ELSEWHERE))]


def test_the_commands_of_the_guide_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(encoder_module, "SpeakerEncoder", lambda *_: FakeEncoder())
    monkeypatch.setenv("VOICEPRINT_DATABASE", "sqlite:///env.sqlite3")
    monkeypatch.setenv("VOICEPRINT_NEW_KEY", "ab" * 32)
    write_wav(Path("audio_db") / "Ann.wav", synthetic_speech(1))
    shutil.copytree("audio_db", "people")
    database = SqlVoiceStore("sqlite:///voices.sqlite3", FakeEncoder("before"), keep_audio=True)
    database.add("NAME", synthetic_speech(3))
    database.close()
    lines = commands()
    assert len(lines) == 12
    for line in lines:
        script, *arguments = shlex.split(line)[1:]
        assert run_here(ROOT / script, arguments) == 0, (line, capsys.readouterr())
        if "rekey" in line:
            monkeypatch.setenv("VOICEPRINT_KEY", "ab" * 32)
    assert not (Path("audio_db") / "Ann.wav").exists()
    copy = SqlVoiceStore("sqlite:///other.sqlite3", FakeEncoder(), key=bytes.fromhex("ab" * 32))
    assert copy.names() == ["Ann", "NAME"]
    copy.close()


def test_what_is_checked_elsewhere_is_there() -> None:
    text = (ROOT / "docs" / "database.md").read_text(encoding="utf-8")
    assert all(line in text for line in CHECKED_ELSEWHERE)
