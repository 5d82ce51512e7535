"""manage_voices.py on both kinds of database."""

from pathlib import Path

import pytest

import manage_voices
from tests.support.fake_encoder import FakeEncoder
from tests.support.service_client import running
from tests.support.synthetic_voices import synthetic_speech, write_wav
from utils.errors import DatabaseError
from utils.model import encoder as encoder_module
from voices.sql.records import NewRecording
from voices.sql.store import SqlVoiceStore


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(encoder_module, "SpeakerEncoder", lambda path, _: FakeEncoder(path))
    monkeypatch.chdir(tmp_path)


def test_embedding_by_another_model(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "audio_db"
    write_wav(folder / "Ann.wav", synthetic_speech(1))
    with running(database_url, audio_db=folder, keep_audio=True) as client:
        database = client.app.state.service.database
        database.add("Ben", synthetic_speech(2))
        database.enrol(
            "Cid", [NewRecording(FakeEncoder().embed_waveform(synthetic_speech(3)), 1, None, 1)]
        )
        # Beside the running service.
        command = ["embed", database_url, "--model_path", "new"]
        assert manage_voices.main(command) == 2
        out, err = capsys.readouterr()
        assert out == "1 recordings embedded by fake.keras\n"
        assert [line.split("/")[0] for line in err.splitlines()] == ["warning: Ann", "warning: Cid"]
        assert "its sound was not kept; enrol it again" in err
        assert manage_voices.main([*command, "--audio_db", str(folder)]) == 2
        assert capsys.readouterr().out == "1 recordings embedded by fake.keras\n"
        database.remove("Cid")
        assert manage_voices.main([*command, "--audio_db", str(folder)]) == 0
        assert capsys.readouterr().out == "0 recordings embedded by fake.keras\n"
    newer = SqlVoiceStore(database_url, FakeEncoder("new"))
    assert newer.prepare() == ["Ann", "Ben"]
    newer.close()


def test_addresses(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ("audio_db", "env"):
        with pytest.raises(SystemExit) as stop:
            manage_voices.main(["embed", wrong])
        assert stop.value.code == 2
        assert "expected the address of a database" in capsys.readouterr().err
    monkeypatch.setenv("VOICEPRINT_DATABASE", "sqlite:///missing.sqlite3")
    with pytest.raises(DatabaseError, match="no such file"):
        manage_voices.main(["embed", "env"])
    assert list(Path().iterdir()) == []
