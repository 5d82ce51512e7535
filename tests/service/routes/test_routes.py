"""The routes of /v1, on both databases."""

import io
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from service.answers.problems import describe_error
from service.answers.schemas import InfoDocument
from tests.support.fake_encoder import FakeEncoder
from tests.support.service_client import (
    TOKEN,
    TestClient,
    check_problem,
    enrol,
    files,
    pack,
    running,
    speech,
)
from tests.support.synthetic_sounds import sounds
from tests.support.synthetic_voices import synthetic_speech
from utils.audio.decode import load_audio
from utils.errors import AudioTooLargeError
from utils.verification.calibration import ThresholdRates


@pytest.fixture
def client(database_url: str) -> Iterator[TestClient]:
    with running(database_url, keep_audio=True) as client:
        yield client


def test_a_speaker_is_enrolled_recognised_renamed_and_deleted(client: TestClient) -> None:
    document = enrol(client, "Ann", 1, utterances=3)
    assert document["name"] == "Ann"
    assert len(document["recordings"]) == len(document["quality"]) == 3
    matrix = np.array(document["similarity"])
    assert matrix.shape == (3, 3)
    np.testing.assert_allclose(np.diag(matrix), 1, atol=1e-5)
    np.testing.assert_allclose(matrix, matrix.T)
    enrol(client, "李雷", 2)

    found = client.post("/v1/identify", files=files(speech(1, 7))).json()
    assert found["name"] == "Ann"
    assert found["score"] >= found["threshold"] == FakeEncoder.strict_threshold
    assert [match["name"] for match in found["matches"]] == ["Ann", "李雷"]
    assert found["quality"]["speech_s"] > 1

    renamed = client.patch("/v1/speakers/Ann", json={"name": "Anna"}).json()
    assert renamed["name"] == "Anna"
    assert client.post("/v1/identify", files=files(speech(1, 7))).json()["name"] == "Anna"

    deleted = client.delete("/v1/speakers/Anna").json()
    assert deleted["name"] == "Anna"
    assert deleted["removed"]["recordings"] == 3
    assert client.post("/v1/identify", files=files(speech(1, 7))).json()["name"] is None
    check_problem(client.get("/v1/speakers/Anna"), 404, "unknown-speaker")


def test_answers_to_enrolments_name_the_place(client: TestClient) -> None:
    for name in ["李雷", "a b#c&d+e"]:
        answer = client.post("/v1/speakers", data={"name": name}, files=files(speech(1)))
        place = answer.headers["location"]
        assert client.get(place).json()["name"] == name
        answer = client.post(f"{place}/recordings", files=files(speech(1, 1)))
        assert (answer.status_code, answer.headers["location"]) == (201, place)
        assert len(client.get(place).json()["recordings"]) == 2


def test_a_stranger_is_nobody(client: TestClient) -> None:
    empty = client.post("/v1/identify", files=files(speech(1))).json()
    assert empty["name"] is None
    assert empty["score"] is None
    assert empty["matches"] == []
    enrol(client, "Ann", 1)
    found = client.post("/v1/identify", files=files(speech(3))).json()
    assert found["name"] is None
    assert found["matches"][0]["name"] == "Ann"


def test_top_k_threshold_and_candidates(client: TestClient) -> None:
    for number, name in enumerate(["a", "b", "c"]):
        enrol(client, name, number, utterances=1)
    sent = files(speech(0, 5))
    assert len(client.post("/v1/identify", files=sent, data={"top_k": 2}).json()["matches"]) == 2
    narrowed = client.post(
        "/v1/identify", files=sent, data={"candidates": ["b", "C", "b"], "threshold": "-1"}
    ).json()
    assert {match["name"] for match in narrowed["matches"]} == {"b", "c"}
    assert narrowed["name"] in {"b", "c"}
    answer = client.post("/v1/identify", files=sent, data={"candidates": ["b", "x", "y"]})
    assert check_problem(answer, 404, "unknown-speaker")["unknown"] == ["x", "y"]
    check_problem(
        client.post("/v1/identify", files=sent, data={"candidates": ["a/b"]}), 422, "bad-name"
    )


def test_verify(client: TestClient) -> None:
    enrol(client, "Ann", 1)
    same = client.post("/v1/speakers/ann/verify", files=files(speech(1, 4))).json()
    assert same["name"] == "Ann"
    assert same["is_same_speaker"] is True
    assert 0.9 < same["probability"] <= 1
    other = client.post("/v1/speakers/Ann/verify", files=files(speech(3))).json()
    assert other["is_same_speaker"] is False
    low = client.post(
        "/v1/speakers/Ann/verify", files=files(speech(3)), data={"threshold": "-1"}
    ).json()
    assert low["is_same_speaker"] is True
    assert low["threshold"] == -1


def test_compare_and_embed(client: TestClient) -> None:
    pair = files(speech(1, 0), field="file1") + files(speech(1, 1), field="file2")
    answer = client.post("/v1/compare", files=pair).json()
    assert answer["is_same_speaker"] is True
    assert answer["threshold"] == FakeEncoder.threshold
    assert len(answer["quality"]) == 2
    document = client.post("/v1/embed", files=files(speech(1))).json()
    assert np.linalg.norm(document["embedding"]) == pytest.approx(1, abs=1e-4)
    assert document["model_id"] == "fake"


@pytest.mark.slow
def test_quality_measures_silence_too(client: TestClient) -> None:
    good = client.post("/v1/quality", files=files(speech(1, duration_s=3))).json()
    assert good["warnings"] == []
    assert good["heard"] == "speech"
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(16000), 16000, format="WAV")
    silent = client.post("/v1/quality", files=files(buffer.getvalue())).json()
    assert {"quiet", "short"} <= set(silent["warnings"])
    assert silent["heard"] == "silence"
    for name, heard in (("white noise", "steady noise"), ("piano, chords", "tones or music")):
        answer = client.post("/v1/quality", files=files(pack(sounds(3.0)[name]))).json()
        assert answer["heard"] == heard


def test_channels_with_different_voices_are_a_warning(client: TestClient) -> None:
    ada, ben = synthetic_speech(1, 0, 3.0), synthetic_speech(2, 0, 3.0)
    for right, are_two in ((ben, True), (0.5 * ada, False)):
        call = pack(np.stack([ada, right], axis=1))
        for path in ("/v1/quality", "/v1/embed"):
            answer = client.post(path, files=files(call)).json()
            assert ("two_voices" in answer.get("quality", answer)["warnings"]) is are_two


def test_a_recording_of_too_many_bytes_is_too_large() -> None:
    with pytest.raises(AudioTooLargeError) as caught:
        load_audio(speech(1), max_bytes=1000)
    problem = describe_error(caught.value)
    assert (problem.code, problem.extra) == ("too-large", {"expected": "at most 1000 bytes"})


def test_info(client: TestClient) -> None:
    enrol(client, "Ann", 1)
    info = client.get("/v1/info").json()
    assert set(info) == set(InfoDocument.model_fields)
    assert info["num_speakers"] == 1
    assert info["auth_required"] is False
    assert info["keep_audio"] is True
    assert info["rates"] == []  # of a fake encoder nothing was measured
    encoder = FakeEncoder()
    slope, offset = info["calibration"]["slope"], info["calibration"]["offset"]
    assert 1 / (1 + np.exp(-(slope * 0.7 + offset))) == pytest.approx(encoder.probability(0.7))


def test_info_tells_what_the_thresholds_led_to(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    strict = ThresholdRates(0.0002, 0.2, 0.001, "clean, female", 1000)
    lenient = ThresholdRates(0.01, 0.05, 0.02, "clean, male", 1000)
    encoder.calibration = replace(encoder.calibration, rates=lenient, strict_rates=strict)
    with running(f"sqlite:///{tmp_path / 'voices.sqlite3'}", encoder=encoder) as client:
        rates = client.get("/v1/info").json()["rates"]
    assert rates == [
        {"threshold": 0.8, **asdict(strict)},
        {"threshold": 0.5, **asdict(lenient)},
    ]


def test_pages_of_speakers(client: TestClient) -> None:
    for name in ["b2", "a1", "c3", "B1"]:
        enrol(client, name, 1, utterances=1)
    page = client.get("/v1/speakers", params={"offset": 1, "limit": 2}).json()
    assert page["total"] == 4
    assert (page["offset"], page["limit"], len(page["speakers"])) == (1, 2, 2)
    found = client.get("/v1/speakers", params={"query": "b"}).json()
    assert {speaker["name"] for speaker in found["speakers"]} == {"b2", "B1"}
    assert client.get("/v1/speakers", params={"offset": 99}).json()["speakers"] == []
    for params in [{"limit": 0}, {"limit": 501}, {"offset": -1}, {"offset": "x"}]:
        check_problem(client.get("/v1/speakers", params=params), 422, "bad-field")


def test_recordings_are_added_heard_replaced_and_removed(client: TestClient) -> None:
    enrol(client, "Ann", 1, utterances=1)
    added = client.post("/v1/speakers/Ann/recordings", files=files(speech(1, 1), speech(1, 2)))
    assert added.status_code == 201
    recordings = added.json()["recordings"]
    assert len(recordings) == 3
    assert len(added.json()["quality"]) == 2
    assert all(recording["has_audio"] for recording in recordings)
    heard = client.get(f"/v1/speakers/Ann/recordings/{recordings[1]['id']}/audio")
    assert heard.headers["content-type"] == "audio/wav"
    samples, rate = soundfile.read(io.BytesIO(heard.content))
    assert rate == 16000
    sent, _ = soundfile.read(io.BytesIO(speech(1, 1)))
    np.testing.assert_allclose(samples, sent, atol=2 / 32768)

    left = client.delete(f"/v1/speakers/Ann/recordings/{recordings[0]['id']}").json()
    assert [r["id"] for r in left["recordings"]] == [r["id"] for r in recordings[1:]]
    check_problem(client.delete("/v1/speakers/Ann/recordings/0"), 404, "unknown-recording")
    check_problem(client.get("/v1/speakers/Ann/recordings/0/audio"), 404, "unknown-recording")

    replaced = client.put("/v1/speakers/Ann/recordings", files=files(speech(6)))
    assert replaced.status_code == 200
    (only,) = replaced.json()["recordings"]
    new, old = (
        client.post("/v1/identify", files=files(speech(number, 3))).json()["score"]
        for number in (6, 1)
    )
    assert new > 0.7 > old
    answer = client.delete(f"/v1/speakers/Ann/recordings/{only['id']}")
    check_problem(answer, 409, "only-recording")


def test_one_of_two_last_recordings_stays(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (r["id"] for r in enrol(client, "Ann", 1)["recordings"])
    database = client.app.state.service.database
    remove = database.remove_recording

    def remove_too_late(name: str, recording_id: str) -> object:
        # The route has seen two recordings; now somebody else's deletion comes in between.
        remove(name, first)
        return remove(name, recording_id)

    monkeypatch.setattr(database, "remove_recording", remove_too_late)
    answer = client.delete(f"/v1/speakers/Ann/recordings/{second}")
    check_problem(answer, 409, "only-recording")
    assert [r.id for r in database.recordings("Ann")] == [second]


def test_sound_is_kept_only_if_asked(database_url: str) -> None:
    with running(database_url) as client:
        (recording,) = enrol(client, "Ann", 1, utterances=1)["recordings"]
        assert recording["has_audio"] is False
        answer = client.get(f"/v1/speakers/Ann/recordings/{recording['id']}/audio")
        check_problem(answer, 404, "no-audio-kept")


def test_names_that_exist_and_that_cannot(client: TestClient) -> None:
    enrol(client, "Ann", 1, utterances=1)
    enrol(client, "Ben", 2, utterances=1)
    one = files(speech(3))
    check_problem(client.post("/v1/speakers", data={"name": "ANN"}, files=one), 409,
                  "speaker-exists")  # fmt: skip
    check_problem(client.patch("/v1/speakers/Ann", json={"name": "ben"}), 409, "speaker-exists")
    assert client.patch("/v1/speakers/Ann", json={"name": "ANN"}).json()["name"] == "ANN"
    for method, path in [
        ("GET", "/v1/speakers/nobody"),
        ("DELETE", "/v1/speakers/nobody"),
        ("DELETE", "/v1/speakers/nobody/recordings/1"),
        ("GET", "/v1/speakers/nobody/recordings/1/audio"),
    ]:
        check_problem(client.request(method, path), 404, "unknown-speaker")
    for path in ["recordings", "verify"]:
        answer = client.post(f"/v1/speakers/nobody/{path}", files=one)
        check_problem(answer, 404, "unknown-speaker")
    check_problem(client.patch("/v1/speakers/Ann", json={"name": "../x"}), 422, "bad-name")


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_who_was_deleted_meanwhile_does_not_come_back(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    enrol(client, "Ann", 1)
    database = client.app.state.service.database
    enrol_it = database.enrol

    def enrol_too_late(name: str, *arguments: object, **options: object) -> object:
        # The route has found the speaker; now somebody else's deletion comes in between.
        assert database.remove(name).num_recordings == 2
        return enrol_it(name, *arguments, **options)

    monkeypatch.setattr(database, "enrol", enrol_too_late)
    answer = client.request(method, "/v1/speakers/Ann/recordings", files=files(speech(1, 5)))
    check_problem(answer, 404, "unknown-speaker")
    assert database.names() == []


@pytest.mark.slow
def test_a_speaker_has_so_many_recordings(database_url: str) -> None:
    with running(database_url, max_recordings=3) as client:
        enrol(client, "Ann", 1, utterances=2)
        two = files(speech(1, 5), speech(1, 6))
        answer = client.post("/v1/speakers/Ann/recordings", files=two)
        assert check_problem(answer, 409, "too-many-recordings")["expected"] == "at most 3"
        four = files(*[speech(1, i) for i in range(4)])
        answer = client.post("/v1/speakers", data={"name": "Ben"}, files=four)
        check_problem(answer, 409, "too-many-recordings")
        assert client.get("/v1/info").json()["num_speakers"] == 1


def test_one_bad_recording_enrols_nothing(client: TestClient) -> None:
    sent = files(speech(1), b"no sound", speech(1, 2))
    answer = client.post("/v1/speakers", data={"name": "Ann"}, files=sent)
    assert "file 2" in check_problem(answer, 415, "wrong-type")["detail"]
    check_problem(client.get("/v1/speakers/Ann"), 404, "unknown-speaker")


def test_one_of_simultaneous_enrolments_of_a_name_wins(client: TestClient) -> None:
    statuses: list[int] = []

    def post(number: int) -> None:
        answer = client.post("/v1/speakers", data={"name": "Ann"}, files=files(speech(number)))
        statuses.append(answer.status_code)

    threads = [threading.Thread(target=post, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201, 409, 409, 409, 409, 409]


def test_the_audit_log_tells_who_did_what(database_url: str) -> None:
    with running(database_url, token=TOKEN) as client:
        enrol(client, "Ann", 1)
        client.post("/v1/speakers/Ann/verify", files=files(speech(3)))
        client.delete("/v1/speakers/Ann")
        entries = client.app.state.service.database.audit_log.last()
    told = [(entry.actor, entry.action, entry.speaker, entry.outcome) for entry in entries]
    assert told == [
        ("environment", "delete", "Ann", "2 recordings"),
        ("environment", "verify", "Ann", "rejected"),
        ("environment", "enrol", "Ann", "2 recordings"),
    ]
    assert entries[1].score is not None


def test_a_speaker_of_another_model_cannot_be_verified(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/v.sqlite3"
    with running(url, encoder=FakeEncoder("old")) as client:
        enrol(client, "Ann", 1)
    with running(url, encoder=FakeEncoder("new")) as client:
        answer = client.post("/v1/speakers/Ann/verify", files=files(speech(1)))
        check_problem(answer, 409, "other-model")


@pytest.mark.slow
def test_a_damaged_speaker_is_told_and_stops_nobody_else(database_url: str) -> None:
    with running(database_url) as client:
        enrol(client, "Ann", 1)
        enrol(client, "Ben", 2)
        with client.app.state.service.database._connections.write() as connection:
            connection.exec_driver_sql(
                "UPDATE voiceprint_means SET embedding = (SELECT m.embedding "
                "FROM voiceprint_means m JOIN voiceprint_speakers s ON s.id = m.speaker_id "
                "WHERE s.name = 'Ben') "
                "WHERE speaker_id = (SELECT id FROM voiceprint_speakers WHERE name = 'Ann')"
            )
    with running(database_url, lockout_failures=1) as client:
        found = client.post("/v1/identify", files=files(speech(2, 7))).json()
        assert [match["name"] for match in found["matches"]] == ["Ben"]
        assert "voiceprint_damaged_speakers 1.0" in client.get("/metrics").text
        for _ in range(2):
            answer = client.post("/v1/speakers/Ann/verify", files=files(speech(1)))
            assert "enrol the speaker again" in check_problem(answer, 409, "damaged")["detail"]
        client.put("/v1/speakers/Ann/recordings", files=files(speech(1)))
        answer = client.post("/v1/speakers/Ann/verify", files=files(speech(1)))
        assert answer.json()["is_same_speaker"] is True
