"""Groups of the service: tokens of one reach nothing of another's, on both databases."""

import re
from pathlib import Path

import pytest

import manage
from service.edge.scopes import ROUTES
from service.edge.token_file import create_token, read_token_file
from service.settings import GroupLimits, ServiceError
from tests.support.service_client import check_problem, files, running, speech
from tests.support.service_process import ROOT
from voices.sql.store import SqlVoiceStore

GROUPS = ("shop", "bank", "default")


@pytest.fixture
def headers(tmp_path: Path) -> dict[str, dict[str, str]]:
    """What each group's requests carry."""
    return {
        group: {"Authorization": f"Bearer {create_token(group, tmp_path / 't', group=group)[0]}"}
        for group in GROUPS
    }


def test_no_route_reaches_another_groups_speaker(
    database_url: str, tmp_path: Path, headers: dict[str, dict[str, str]]
) -> None:
    with running(database_url, token_file=tmp_path / "t", authorized=False) as client:
        for group, number in [("shop", 1), ("bank", 2)]:
            sent = files(speech(number), speech(number, 1))
            answer = client.post(
                "/v1/speakers", data={"name": "Ann"}, files=sent, headers=headers[group]
            )
            assert answer.status_code == 201
        one = client.post(
            "/voiceprint/register",
            data={"speaker_id": "Ben"},
            files=files(speech(3)),
            headers=headers["shop"],
        )
        assert one.status_code == 200
        mine = client.get("/v1/speakers", headers=headers["shop"]).json()
        assert [speaker["name"] for speaker in mine["speakers"]] == ["Ann", "Ben"]
        id_ = mine["speakers"][0]["recordings"][0]["id"]

        theirs = headers["bank"]
        assert client.get("/v1/speakers", headers=theirs).json()["total"] == 1
        assert client.get("/v1/speakers", headers=headers["default"]).json()["total"] == 0
        assert client.get("/v1/info", headers=theirs).json()["num_speakers"] == 1
        total = client.get("/voiceprint/health", headers=theirs).json()["total_voiceprints"]
        assert total == 1
        sent = files(speech(3, 5))
        for method, path, more in [
            ("GET", "/v1/speakers/Ben", {}),
            ("PATCH", "/v1/speakers/Ben", {"json": {"name": "X"}}),
            ("DELETE", "/v1/speakers/Ben", {}),
            ("POST", "/v1/speakers/Ben/verify", {"files": sent}),
            ("POST", "/v1/speakers/Ben/recordings", {"files": sent}),
            ("PUT", "/v1/speakers/Ben/recordings", {"files": sent}),
            ("DELETE", f"/v1/speakers/Ann/recordings/{id_}", {}),
            ("GET", f"/v1/speakers/Ann/recordings/{id_}/audio", {}),
            ("DELETE", "/voiceprint/Ben", {}),
            ("POST", "/v1/identify", {"files": sent, "data": {"candidates": "Ben"}}),
        ]:
            answer = client.request(method, path, headers=theirs, **more)
            assert answer.status_code == 404, (method, path, answer.text)
        found = client.post("/v1/identify", files=sent, headers=theirs).json()
        assert (found["name"], [match["name"] for match in found["matches"]]) == (None, ["Ann"])
        data = {"speaker_ids": "Ben,Ann"}
        classic = client.post("/voiceprint/identify", data=data, files=sent, headers=theirs)
        assert classic.json()["speaker_id"] != "Ben"
        for group, number in [("shop", 3), ("shop", 1), ("bank", 2)]:
            sent = files(speech(number, 6))
            answer = client.post("/v1/identify", files=sent, headers=headers[group]).json()
            assert answer["name"] == ("Ben" if number == 3 else "Ann")
        # Failures lock one group's speaker, not the other's of the same name.
        for _ in range(6):
            answer = client.post("/v1/speakers/Ann/verify", files=files(speech(5)), headers=theirs)
        check_problem(answer, 429, "locked")
        answer = client.post(
            "/v1/speakers/Ann/verify", files=files(speech(1, 3)), headers=headers["shop"]
        )
        assert answer.json()["is_same_speaker"] is True
        lines = client.app.state.service.database.audit_log.last()
        assert {(line.actor, line.group) for line in lines} == {("shop", "shop"), ("bank", "bank")}


def test_routes_use_the_store_of_the_requests_group() -> None:
    """Whoever adds a route asks `service.voices(request)`, never the whole database."""
    for path in (ROOT / "service" / "routes").glob("*.py"):
        used = set(re.findall(r"service\.database\.(\w+)", path.read_text(encoding="utf-8")))
        used -= {
            "ping",
            "jobs",
            "enrolments",
            "challenges",
            "audit_log",
        }  # these name group or owner
        assert not used, path
    assert ROUTES


def test_the_inbox_is_the_default_groups(
    tmp_path: Path, speech_folder: Path, headers: dict[str, dict[str, str]]
) -> None:
    folder = tmp_path / "audio_db"
    (folder / "Ann").mkdir(parents=True)
    (folder / "Ann" / "1.wav").write_bytes(speech(1))
    url = f"sqlite:///{tmp_path}/v.sqlite3"
    with running(url, token_file=tmp_path / "t", authorized=False, audio_db=folder) as client:
        assert client.get("/v1/speakers/Ann", headers=headers["default"]).status_code == 200
        data, sent = {"name": "Ann"}, files(speech(2))
        shop = headers["shop"]
        assert client.post("/v1/speakers", data=data, files=sent, headers=shop).status_code == 201
        answer = client.put("/v1/speakers/Ann/recordings", files=sent, headers=shop)
        assert answer.status_code == 200
        removed = client.delete("/v1/speakers/Ann", headers=shop).json()["removed"]
        assert (folder / "Ann" / "1.wav").exists()
        assert not any(name.startswith("audio_db") for name in removed["files"])
        client.delete("/v1/speakers/Ann", headers=headers["default"])
        assert not (folder / "Ann").exists()


def test_limits_of_a_group(tmp_path: Path, headers: dict[str, dict[str, str]]) -> None:
    path = tmp_path / "t"
    second, _ = create_token("shop2", path, group="shop")
    limits = {"shop": GroupLimits(max_speakers=1, rate_limit=5)}
    url = f"sqlite:///{tmp_path}/v.sqlite3"
    with running(url, token_file=path, authorized=False, groups=limits) as client:

        def enrol(name: str, group: str) -> object:
            sent = files(speech(1))
            return client.post(
                "/v1/speakers", data={"name": name}, files=sent, headers=headers[group]
            )

        assert enrol("a", "shop").status_code == 201
        check_problem(enrol("b", "shop"), 409, "too-many-speakers")
        assert enrol("a", "bank").status_code == enrol("b", "bank").status_code == 201
        # The tokens of a group share its rate.
        shared = [headers["shop"], {"Authorization": f"Bearer {second}"}] * 3
        statuses = [client.get("/v1/speakers", headers=each).status_code for each in shared]
        assert statuses == [200, 200, 200, 429, 429, 429]
        for _ in range(9):
            assert client.get("/v1/speakers", headers=headers["bank"]).status_code == 200


def test_the_operator_lists_and_deletes_groups(
    database_url: str, tmp_path: Path, headers: dict[str, dict[str, str]],
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = tmp_path / "t"
    with running(database_url, token_file=path, authorized=False) as client:
        monkeypatch.setattr("service.edge.tokens.RELOAD_S", 0.0)
        for group in GROUPS:
            sent, data = files(speech(1)), {"name": "Ann"}
            client.post("/v1/speakers", data=data, files=sent, headers=headers[group])
        assert manage.main(["--groups", "--database", database_url]) == 0
        assert capsys.readouterr().out.splitlines()[1:] == ["bank\t1", "default\t1", "shop\t1"]
        options = ["--database", database_url, "--token_file", str(path)]
        assert manage.main(["--delete_group", "shop", *options]) == 0
        assert capsys.readouterr().out == "shop: 1 speakers and 1 tokens removed\n"
        assert client.get("/v1/speakers", headers=headers["shop"]).status_code == 401
        assert client.get("/v1/speakers", headers=headers["bank"]).json()["total"] == 1
        with pytest.raises(ServiceError, match="no speakers of the group shop"):
            manage.main(["--delete_group", "shop", *options])
        assert {grant.group for grant in read_token_file(path)} == {"bank", "default"}
    database = SqlVoiceStore(database_url)
    line = database.audit_log.last(1)[0]
    assert (line.actor, line.action, line.outcome, line.group) == (
        ("operator", "delete group", "1 speakers", "shop")
    )
    database.close()


def test_a_token_of_all_groups_chooses_one(
    database_url: str, tmp_path: Path, headers: dict[str, dict[str, str]]
) -> None:
    path = tmp_path / "t"
    token, line = create_token("boss", path, group="*")
    assert line.endswith(" group=*")
    assert read_token_file(path)[-1].line() == line
    boss = {"Authorization": f"Bearer {token}"}
    in_shop, in_bank = ({**boss, "Voiceprint-Group": group} for group in ("shop", "bank"))
    limits = {"new": GroupLimits()}
    with running(database_url, token_file=path, authorized=False, groups=limits) as client:
        info = client.get("/v1/info", headers=boss).json()
        assert (info["token"], info["group"]) == ("boss", "default")
        assert info["groups"] == ["bank", "default", "new", "shop"]
        assert client.get("/v1/info", headers=in_shop).json()["group"] == "shop"
        info = client.get("/v1/info", headers=headers["shop"]).json()
        assert (info["group"], info["groups"]) == ("shop", ["shop"])

        sent = files(speech(1))
        answer = client.post("/v1/speakers", data={"name": "Ann"}, files=sent, headers=in_shop)
        assert answer.status_code == 201
        totals = [
            client.get("/v1/speakers", headers=each).json()["total"]
            for each in (boss, in_bank, in_shop, headers["shop"], headers["bank"])
        ]
        assert totals == [0, 0, 1, 1, 0]
        line = client.app.state.service.database.audit_log.last(1)[0]
        assert (line.actor, line.group) == ("boss", "shop")
        with client.websocket_connect("ws://127.0.0.1/v1/stream", headers=boss) as socket:
            socket.send_json({"group": "nowhere"})
            assert socket.receive_json()["type"] == "/problems/unknown-group"

        # A group that there is not, and one that a token does not reach, are told alike.
        for who, wanted in [(boss, "nowhere"), (headers["shop"], "bank"), (boss, "*")]:
            answer = client.get("/v1/speakers", headers={**who, "Voiceprint-Group": wanted})
            check_problem(answer, 404, "unknown-group")
        own = {**headers["shop"], "Voiceprint-Group": "shop"}
        assert client.get("/v1/speakers", headers=own).status_code == 200
