"""Challenges: digits to be read, once and in time; a recording that was sent before is refused."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from service.chores import forget_uploads
from service.edge.token_file import create_token
from service.freshness import WORDS
from tests.support.service_client import (
    TestClient,
    check_problem,
    enrol,
    files,
    pack,
    running,
    speech,
)
from tests.support.synthetic_voices import synthetic_speech
from voices.sql.owned import utc_now
from voices.sql.schema import challenges, keys, uploads

PATH = "/v1/challenges"
VERIFY = "/v1/speakers/Ann/verify"


@pytest.fixture
def client(database_url: str) -> Iterator[TestClient]:
    with running(database_url, challenge_digits=4, lockout_failures=0) as client:
        enrol(client, "Ann", 1)
        yield client


def ask(client: TestClient, **wish: Any) -> str:
    answer = client.post(PATH, json=wish)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def verify(client: TestClient, recording: bytes, challenge: str | None = "new", **more: Any) -> Any:
    challenge = ask(client) if challenge == "new" else challenge
    data = more if challenge is None else {"challenge": challenge, **more}
    return client.post(VERIFY, data=data, files=files(recording))


def test_digits_are_random_and_told_in_words(client: TestClient) -> None:
    answer = client.post(PATH, json={"speaker": " Ann ", "language": "zh"}).json()
    assert len(answer["digits"]) == 4
    assert answer["text"].split(" ") == [WORDS["zh"][int(digit)] for digit in answer["digits"]]
    assert (answer["speaker"], answer["language"], answer["expires_in_s"]) == ("Ann", "zh", 60)
    assert answer["min_speech_s"] == 1.0
    several = [client.post(PATH, json={}).json() for _ in range(8)]
    assert len({each["digits"] for each in several}) > 4
    assert len({each["id"] for each in several}) == 8
    for each in several:
        assert all(a != b for a, b in zip(each["digits"], each["digits"][1:], strict=False))
        assert [WORDS["en"][int(digit)] for digit in each["digits"]] == each["text"].split(" ")
    check_problem(client.post(PATH, json={"language": "xx"}), 422, "bad-field")
    check_problem(client.post(PATH, json={"speaker": "a/b"}), 422, "bad-name")


def test_a_challenge_serves_once_in_time_for_whom_it_was_made(client: TestClient) -> None:
    challenge = ask(client, speaker="ann")
    answer = verify(client, speech(1, 5), challenge)
    assert answer.json()["is_same_speaker"]
    assert answer.json()["challenge_passed"] is True
    assert verify(client, speech(1, 5), None).json()["challenge_passed"] is False

    def refused(reason: str, challenge: str) -> None:
        problem = check_problem(verify(client, speech(1, 6), challenge), 409, "bad-challenge")
        assert problem["reason"] == reason

    refused("used", challenge)
    refused("unknown", "0" * 32)
    refused("other-speaker", ask(client, speaker="Ben"))
    late = ask(client)
    with client.app.state.service.database._connections.write() as connection:
        connection.execute(
            challenges.update().where(challenges.c.id == late).values(expires_at=utc_now())
        )
    refused("expired", late)
    check_problem(verify(client, speech(1), "x" * 65), 422, "bad-field")


def test_a_recording_too_short_for_the_digits_does_not_use_them_up(client: TestClient) -> None:
    challenge = ask(client)
    short = speech(1, 7, duration_s=0.8)
    problem = check_problem(verify(client, short, challenge), 422, "not-read")
    assert problem["expected"] == "at least 1 s"
    assert verify(client, speech(1, 7), challenge).json()["challenge_passed"]
    # Nor does one that cannot be read, but another voice's does.
    challenge = ask(client)
    check_problem(verify(client, b"text", challenge), 415, "wrong-type")
    assert not verify(client, speech(2), challenge).json()["is_same_speaker"]
    check_problem(verify(client, speech(1, 8), challenge), 409, "bad-challenge")


def test_what_was_sent_before_is_refused_in_whatever_form(client: TestClient) -> None:
    samples = synthetic_speech(1, 9, 3.0)
    assert verify(client, pack(samples)).status_code == 200
    louder = np.pad(0.3 * samples[2111:], 3000)
    copies = {
        "the same": pack(samples),
        "of 24 bits": pack(samples, subtype="PCM_24"),
        "mp3": pack(samples, container="MP3", subtype="MPEG_LAYER_III"),
        "ogg, quieter, cut and padded": pack(louder, container="OGG", subtype="VORBIS"),
    }
    for what, recording in copies.items():
        answer = verify(client, recording)
        assert answer.status_code == 409, what
        check_problem(answer, 409, "replayed")
    # Another utterance of the same voice is none, and without a challenge nothing is compared.
    assert verify(client, speech(1, 10, duration_s=3.0)).json()["challenge_passed"]
    assert verify(client, pack(samples), None).status_code == 200
    database = client.app.state.service.database
    lines = [line for line in database.audit_log.last() if line.action == "replay"]
    assert len(lines) == len(copies)
    assert (lines[0].speaker, lines[0].outcome) == ("Ann", "refused")
    assert lines[0].score is not None
    events = client.get("/v1/events").json()["events"]
    assert [event["action"] for event in events].count("replay") == len(copies)
    assert 'kind="replay",outcome="rejected"} 4' in client.get("/metrics").text


def test_replicas_accept_one_recording_and_one_challenge_once(database_url: str) -> None:
    """Two processes that get the same at the same time, on one database."""
    options = {"challenge_digits": 4, "lockout_failures": 0}
    with running(database_url, **options) as first, running(database_url, **options) as second:
        enrol(first, "Ann", 1)
        for same_challenge in (False, True):
            one = ask(first)
            two = one if same_challenge else ask(second)
            recording = speech(1, 20 + same_challenge)
            found: list[int] = []

            def send(client: TestClient, challenge: str, recording: bytes = recording) -> None:
                found.append(verify(client, recording, challenge).status_code)  # noqa: B023

            threads = [
                threading.Thread(target=send, args=pair) for pair in [(first, one), (second, two)]
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(found) == [200, 409]


def test_enrolment_with_a_challenge(client: TestClient) -> None:
    """What enrolled somebody does not pass as a reading of digits."""

    def post(path: str, challenge: str, *recordings: bytes, **data: str) -> Any:
        data = {"challenge": challenge, **data}
        return client.post(path, data=data, files=files(*recordings))

    answer = post("/v1/speakers", ask(client), speech(3), speech(3, 1), name="Eve")
    check_problem(answer, 422, "bad-field")
    challenge = ask(client, speaker="Eve")
    client.headers["Idempotency-Key"] = "an-enrolment"
    for _ in range(2):  # a request that is sent again is the same one
        assert post("/v1/speakers", challenge, speech(3), name="Eve").status_code == 201
    del client.headers["Idempotency-Key"]
    check_problem(post("/v1/speakers", challenge, speech(3), name="Eve"), 409, "bad-challenge")
    assert post("/v1/speakers/Eve/recordings", ask(client), speech(3, 1)).status_code == 201
    answer = post("/v1/speakers/Eve/verify", ask(client), pack(synthetic_speech(3, 1, 2.0) / 2))
    check_problem(answer, 409, "replayed")
    answer = post("/v1/speakers/Eve/recordings", ask(client), pack(synthetic_speech(3, 0, 2.0) / 2))
    check_problem(answer, 409, "replayed")
    assert len(client.get("/v1/speakers/Eve").json()["recordings"]) == 2
    service = client.app.state.service
    assert [line.action for line in service.database.audit_log.last(2)] == ["replay", "replay"]
    assert len(stored(client)) == 2


def stored(client: TestClient) -> list[Any]:
    database = client.app.state.service.database
    return list(database._connections.fetch(select(uploads)))


def test_prints_belong_to_the_speaker_and_go_with_the_speaker(client: TestClient) -> None:
    verify(client, speech(1, 11))
    verify(client, speech(1, 12))
    assert not verify(client, speech(2)).json()["is_same_speaker"]  # is not remembered
    rows = stored(client)
    assert len(rows) == 2
    assert len({row.key_id for row in rows}) == 1
    assert client.delete("/v1/speakers/Ann").status_code == 200
    assert stored(client) == []
    database = client.app.state.service.database
    (key,) = database._connections.fetch(select(keys.c.stored).where(keys.c.id == rows[0].key_id))
    assert set(key.stored) == {0}


def test_they_are_forgotten_after_a_time_and_beyond_a_number(database_url: str) -> None:
    options = {"replay_uploads": 2, "challenge_digits": 4, "lockout_failures": 0}
    with running(database_url, **options) as client:
        enrol(client, "Ann", 1)
        for utterance in (8, 11, 12):  # synthetic voices are alike; these are not
            assert verify(client, speech(1, utterance)).status_code == 200
        assert len(stored(client)) == 2
        assert verify(client, speech(1, 8)).status_code == 200  # the oldest is forgotten
        check_problem(verify(client, speech(1, 12)), 409, "replayed")
        service = client.app.state.service
        with service.database._connections.write() as connection:
            connection.execute(uploads.update().values(created_at=utc_now().replace(year=2020)))
            connection.execute(challenges.update().values(expires_at=utc_now().replace(year=2020)))
        client.portal.call(forget_uploads, service)
        assert stored(client) == []
        assert service.database._connections.fetch(select(challenges)) == []
        assert verify(client, speech(1, 12)).status_code == 200
        # One that was changed from outside hides no other.
        with service.database._connections.write() as connection:
            connection.execute(uploads.update().values(content=b"x" * 80))
        assert verify(client, speech(1, 14)).status_code == 200
        check_problem(verify(client, speech(1, 14)), 409, "replayed")


def test_settings_that_require_or_switch_off(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/v.sqlite3"
    with running(url, challenge="required", replay_check="off", lockout_failures=0) as client:
        enrol(client, "Ann", 1)
        problem = check_problem(verify(client, speech(1, 1), None), 428, "challenge-required")
        assert PATH in problem["detail"]
        assert client.get("/v1/info").json()["challenge"] == "required"
        long = speech(1, 1, duration_s=3.0)
        for _ in range(2):  # nothing is remembered
            assert verify(client, long).json()["challenge_passed"]
        assert stored(client) == []
    with running(url, challenge="off", lockout_failures=0) as client:
        check_problem(client.post(PATH, json={}), 404, "not-found")
        check_problem(verify(client, speech(1, 1), "0" * 32), 409, "bad-challenge")
        assert verify(client, speech(1, 1), None).status_code == 200
    with running(url, replay_check="all", lockout_failures=2) as client:
        assert verify(client, speech(1, 1), None).status_code == 200
        # A replay counts as a failed verification, though the voice is the right one.
        for _ in range(2):
            check_problem(verify(client, speech(1, 1), None), 409, "replayed")
        check_problem(verify(client, speech(1, 2), None), 429, "locked")


def test_a_challenge_is_its_tokens_own(tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    tokens = {
        name: create_token(name, path, scopes=scopes, group=group)[0]
        for name, scopes, group in [
            ("one", ["verify", "enrol"], "default"),
            ("two", ["verify"], "default"),
            ("shop", ["verify"], "shop"),
        ]
    }
    url = f"sqlite:///{tmp_path}/v.sqlite3"
    with running(url, token_file=path, authorized=False, challenge_digits=4) as client:
        client.headers["Authorization"] = f"Bearer {tokens['one']}"
        enrol(client, "Ann", 1)
        challenge = ask(client)
        for other in ("two", "shop"):
            client.headers["Authorization"] = f"Bearer {tokens[other]}"
            status = 409 if other == "two" else 404
            assert verify(client, speech(1, 3), challenge).status_code == status
        client.headers["Authorization"] = f"Bearer {tokens['one']}"
        assert verify(client, speech(1, 3), challenge).status_code == 200
