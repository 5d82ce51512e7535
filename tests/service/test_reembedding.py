"""Another model: the port answers at once, the voices are embedded beside the requests."""

import json
import logging
import re
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.logs import FIELDS
from service.reembedding import BackgroundReembedding
from tests.support.fake_encoder import FakeEncoder
from tests.support.service_client import TestClient, check_problem, enrol, files, running, speech
from tests.support.service_process import service_process
from tests.support.synthetic_voices import synthetic_speech, write_wav
from utils.errors import DatabaseError
from voices.sql.other_models import OtherModels
from voices.sql.store import SqlVoiceStore


class GatedEncoder(FakeEncoder):
    """A model of another embedding size that embeds kept recordings only while its gate is open."""

    embedding_size = 96

    def __init__(self, model_id: str = "new") -> None:
        super().__init__(model_id)
        self.gate = threading.Event()
        self.whole = FakeEncoder()

    def embed_waveform(self, recording: Any, source: str = "recording") -> Any:
        if "/" in source:
            assert self.gate.wait(30)
        whole = self.whole.embed_waveform(recording, source)
        return np.concatenate([whole, np.zeros(32, np.float32)])


def verify(client: TestClient, name: str, speaker: int) -> Any:
    return client.post(f"/v1/speakers/{name}/verify", files=files(speech(speaker, 7)))


def figures(client: TestClient) -> dict[str, int]:
    found = re.findall(
        r'voiceprint_other_model_recordings{sound="(\w+)"} (\d+)', client.get("/metrics").text
    )
    return {sound: int(number) for sound, number in found}


def wait(client: TestClient) -> None:
    assert client.app.state.service.reembedding.wait(30)


def test_voices_stay_when_the_model_changes(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "voiceprint")
    folder = tmp_path / "audio_db"
    write_wav(folder / "Ben.wav", synthetic_speech(6, 0))
    with running(database_url, audio_db=folder, keep_audio=True) as client:
        enrol(client, "Ann", 1)
    with running(database_url, audio_db=folder) as client:
        enrol(client, "Cid", 3)
        assert "other_models" not in client.get("/health/ready").json()
        before = client.get("/v1/speakers").json()
        assert before["other_models"] == {"waiting": 0, "without_sound": 0}
    encoder = GatedEncoder()
    with running(database_url, encoder=encoder, audio_db=folder) as client:
        # Served at once, with everybody in the list.
        counts = {"waiting": 3, "without_sound": 2}
        assert client.get("/health/ready").json() == {"status": "ready", "other_models": counts}
        assert figures(client) == counts
        listed = client.get("/v1/speakers").json()
        assert listed["other_models"] == counts and listed["total"] == 3
        detail = check_problem(verify(client, "Ann", 1), 503, "waits-for-model")["detail"]
        assert "Ann is being embedded by the new model" in detail
        detail = check_problem(verify(client, "Cid", 3), 409, "other-model")["detail"]
        assert "send new recordings with PUT /v1/speakers/{name}/recordings" in detail
        assert client.post("/v1/identify", files=files(speech(1, 7))).json()["matches"] == []
        encoder.gate.set()
        wait(client)
        counts = {"waiting": 0, "without_sound": 2}
        assert client.get("/health/ready").json()["other_models"] == counts == figures(client)
        assert verify(client, "Ann", 1).json()["is_same_speaker"]
        assert verify(client, "Ben", 6).json()["is_same_speaker"]
        assert client.post("/v1/identify", files=files(speech(6, 7))).json()["name"] == "Ben"
        listed = client.get("/v1/speakers", params={"comparable": "false"}).json()
        assert [speaker["name"] for speaker in listed["speakers"]] == ["Cid"]
        assert not any(each["is_comparable"] for each in listed["speakers"][0]["recordings"])
        listed = client.get("/v1/speakers", params={"comparable": "true"}).json()
        assert [speaker["name"] for speaker in listed["speakers"]] == ["Ann", "Ben"]
        # Embedding anew is no change of the speaker.
        assert listed["speakers"][0] == before["speakers"][0]
        # What the refusal recommends helps.
        answer = client.put("/v1/speakers/Cid/recordings", files=files(speech(3, 1)))
        assert answer.status_code == 200 and verify(client, "Cid", 3).json()["is_same_speaker"]
        assert "other_models" not in client.get("/health/ready").json()
    (line,) = [each for each in caplog.records if "embedding by the new model ended" in each.msg]
    assert getattr(line, FIELDS)["done"] == 3 and "Ann" not in caplog.text
    # The earlier model finds what it has embedded, at once, and not what came since.
    earlier = FakeEncoder()
    with running(database_url, encoder=earlier, audio_db=folder) as client:
        assert client.get("/health/ready").json()["other_models"] == {
            "waiting": 0,
            "without_sound": 1,
        }
        assert earlier.num_embedded == 0
        assert verify(client, "Ann", 1).json()["is_same_speaker"]
        assert verify(client, "Ben", 6).json()["is_same_speaker"]
        # Whoever goes, goes with the embeddings of all models.
        for name in ("Ann", "Ben", "Cid"):
            assert client.delete(f"/v1/speakers/{name}").status_code == 200
        database = client.app.state.service.database._connections
        for table in ("embeddings", "means", "recordings", "speakers"):
            assert database.ask(f"SELECT count(*) FROM voiceprint_{table}") == 0


def test_a_service_with_the_earlier_model_goes_on(database_url: str) -> None:
    old, new = FakeEncoder(), GatedEncoder()
    new.gate.set()
    with running(database_url, encoder=old, keep_audio=True) as before:
        enrol(before, "Ann", 1)
        with running(database_url, encoder=new, keep_audio=True) as after:
            wait(after)
            enrol(after, "Ben", 6)
            assert verify(before, "Ann", 1).json()["is_same_speaker"]
            enrol(before, "Cid", 3)
            for client, names in ((before, {"Ann", "Cid"}), (after, {"Ann", "Ben"})):
                answer = client.post("/v1/identify", files=files(speech(1, 5)), data={"top_k": 5})
                assert answer.json()["name"] == "Ann"
                assert {match["name"] for match in answer.json()["matches"]} == names
            # A recording goes, and with it its part of both models' means.
            id_ = before.get("/v1/speakers/Ann").json()["recordings"][0]["id"]
            assert before.delete(f"/v1/speakers/Ann/recordings/{id_}").status_code == 200
            assert verify(after, "Ann", 1).json()["score"] == pytest.approx(
                verify(after, "Ann", 1).json()["score"]
            )
            assert after.get("/v1/speakers/Ben").json()["recordings"][0]["is_comparable"]
            assert not before.get("/v1/speakers/Ben").json()["recordings"][0]["is_comparable"]


def test_files_that_changed_meanwhile_are_left_out(tmp_path: Path) -> None:
    url, folder = f"sqlite:///{tmp_path}/v.sqlite3", tmp_path / "audio_db"
    write_wav(folder / "Aaa.wav", synthetic_speech(3, 0))  # The first waits at the gate.
    write_wav(folder / "Ann.wav", synthetic_speech(1, 0))
    write_wav(folder / "Ben.wav", synthetic_speech(6, 0))
    with running(url, audio_db=folder):
        pass
    encoder = GatedEncoder()
    with running(url, encoder=encoder, audio_db=folder) as client:
        write_wav(folder / "Ann.wav", synthetic_speech(5, 0))
        (folder / "Ben.wav").unlink()
        encoder.gate.set()
        wait(client)
        work = client.app.state.service.reembedding._work
        assert sorted(reason.split(": ")[1].split(" ")[0] for _, reason in work.rejected) == [
            "cannot",
            "has",
        ]
        check_problem(verify(client, "Ann", 1), 409, "other-model")


def test_a_database_that_fails_for_a_moment_is_asked_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    database = SqlVoiceStore(database_url, FakeEncoder(), keep_audio=True)
    database.add("Ann", synthetic_speech(1))
    database.add("Ben", synthetic_speech(2))
    database.close()
    add, failures = OtherModels.add, [DatabaseError("is restarting"), ValueError("a fault")]

    def fail(self: OtherModels, *args: Any) -> Any:
        if failures and len(args[1]) > 0:
            raise failures.pop(0)
        return add(self, *args)

    monkeypatch.setattr(OtherModels, "add", fail)
    monkeypatch.setattr("service.reembedding.RETRY_S", 0.01)
    monkeypatch.setattr("service.reembedding.PROGRESS_S", -1)
    newer = SqlVoiceStore(database_url, FakeEncoder("new"))
    for expected in ((2, 0), (0, 0)):
        work = BackgroundReembedding(newer, FakeEncoder("new"))
        assert work.count() == (0, 2)
        work.start()
        assert work.wait(30) and work.count() == expected
        work.stop()
    assert "embedding by the new model waits" in caplog.text
    assert "embedding by the new model failed" in caplog.text
    newer.close()


@pytest.mark.slow
def test_killed_half_way_it_goes_on(database_url: str, tmp_path: Path) -> None:
    database = SqlVoiceStore(database_url, FakeEncoder("old"), keep_audio=True)
    for number in range(8):
        database.add(f"s{number}", synthetic_speech(number))
    database.close()
    options = ("--database", database_url)

    def left(url: str) -> int:
        with urllib.request.urlopen(f"{url}/health/ready") as answer:
            found = json.load(answer).get("other_models", {"waiting": 0})
            return int(found["waiting"])

    with service_process(tmp_path, *options, FAKE_DELAY_S="0.3") as service:
        while left(service.url) > 5:
            time.sleep(0.02)
        service.process.kill()
    with service_process(tmp_path, *options) as service:
        assert left(service.url) <= 5
        while left(service.url) > 0:
            time.sleep(0.05)
        done = sum(int(each) for each in re.findall(r"ended done=(\d+) waiting=0", service.log))
        assert 0 < done <= 5, service.log
    database = SqlVoiceStore(database_url, FakeEncoder("fake"))
    assert len(database.prepare()) == 8
    # The next service stops while it embeds, and does not wait for the rest.
    database.close()
    database = SqlVoiceStore(database_url, FakeEncoder("third"))
    work = BackgroundReembedding(database, FakeEncoder("third"))
    work._stop.set()
    work.start()
    work.stop()
    assert work.count() == (8, 0)
    database.close()
