"""POST /v1/calibrations: thresholds of certain people, from embeddings that the client holds."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.service_client import TestClient, check_problem, files, pack, running, speech
from utils.verification.calibration import Calibration

PATH = "/v1/calibrations"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    url = f"sqlite:///{tmp_path_factory.mktemp('data')}/v.sqlite3"
    with running(url, model_path="a b/m.onnx") as client:
        yield client


@pytest.fixture(scope="module")
def recordings(client: TestClient) -> list[dict[str, Any]]:
    """Three people of two recordings each, embedded by the service."""
    found = []
    for person in (1, 2, 3):
        for utterance in (0, 1):
            sent = files(speech(person, utterance, 4.0))
            answer = client.post(f"{PATH}/recordings", files=sent)
            assert answer.status_code == 200, answer.text
            document = answer.json()
            assert document["model_id"] == "fake"
            assert document["quality"]["heard"]
            assert [cut["name"] for cut in document["cuts"]] == ["full length", "3 s", "1 s"]
            assert [round(cut["speech_s"], 2) for cut in document["cuts"][1:]] == [3, 1]
            found.append({"speaker": f"person {person}", "cuts": document["cuts"]})
    return found


def send(client: TestClient, recordings: Any, model_id: str = "fake") -> Any:
    return client.post(PATH, json={"model_id": model_id, "recordings": recordings})


def test_proposes_thresholds_and_keeps_nothing(
    client: TestClient, recordings: list[dict[str, Any]]
) -> None:
    answer = send(client, recordings)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["num_people"], found["num_pairs"], found["num_recordings"]) == (3, 3, 6)
    for name, promised, in_use in (("strict", 0.003, 0.8), ("default", 0.05, 0.5)):
        one = found[name]
        assert (one["promised"], one["in_use"]) == (promised, in_use)
        assert not one["is_promised"], "three people are too few"
        assert in_use <= one["proposed"] <= max(one["found"], in_use)
        rate, lower, upper = one["false_accepts"]
        assert 0 == lower <= rate < upper > promised
    curve = found["curve"]
    assert len(curve["thresholds"]) == len(curve["misses"]) == len(curve["false_accepts"]) == 201
    saved = found["file"]
    assert (saved["model_id"], saved["score_norm"]) == ("fake", "none")
    assert Calibration.from_dict(saved["entries"]).strict_threshold == found["strict"]["proposed"]
    assert saved["entries"]["calibrated_on"]["num_speakers"] == 3
    assert found["commands"][1] == "python serve.py --model_path calibrated/m.onnx"
    assert "person" not in answer.text, "names stay with the client"
    # The service goes on with its own thresholds.
    assert client.get("/v1/info").json()["threshold"] == 0.5
    assert client.get("/v1/speakers").json()["total"] == 0
    assert client.get("/v1/events").json()["events"] == []


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        (lambda rows: rows[:2], 422, "too-few-people"),
        (lambda rows: rows[::2], 422, "too-few-people"),
        (lambda rows: [], 422, "too-few-people"),
        (lambda rows: [{**rows[0], "cuts": rows[0]["cuts"][:2]}, *rows[1:]], 422, "bad-field"),
        (lambda rows: [with_embedding(rows[0], [0.5] * 64), *rows[1:]], 422, "bad-field"),
        (lambda rows: [with_embedding(rows[0], [1.0]), *rows[1:]], 422, "bad-field"),
        (lambda rows: [with_embedding(rows[0], ["NaN"] * 64), *rows[1:]], 422, "bad-field"),
        (lambda rows: rows * 51, 422, "bad-field"),
        (lambda rows: None, 422, "bad-field"),
    ],
)
def test_what_cannot_be_calibrated_on(
    client: TestClient, recordings: list[dict[str, Any]], change: Any, status: int, code: str
) -> None:
    check_problem(send(client, change(recordings)), status, code)


def with_embedding(row: dict[str, Any], embedding: list[Any]) -> dict[str, Any]:
    return {**row, "cuts": [{**cut, "embedding": embedding} for cut in row["cuts"]]}


def test_another_model_and_silence(client: TestClient, recordings: list[dict[str, Any]]) -> None:
    check_problem(send(client, recordings, "another"), 409, "other-model")
    silence = client.post(f"{PATH}/recordings", files=files(pack([0.0] * 16_000)))
    check_problem(silence, 422, "bad-recording")
