"""Scopes: every route has one, and a token without it is refused before its upload is read."""

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.routing import Mount

from service.edge.gate import PROTECTED_PREFIXES
from service.edge.scopes import ANY, OPEN, ROUTES, SCOPES, needed_scope
from service.edge.token_file import create_token
from tests.support.service_client import TestClient, check_problem, enrol, files, running, speech


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/v.sqlite3"


def routes_of(app: FastAPI) -> set[str]:
    """Method and template of all routes, HEAD left out."""
    found = set()
    waiting = list(app.routes)
    while waiting:
        route: Any = waiting.pop()
        # Some versions of FastAPI keep an included router whole.
        waiting += getattr(getattr(route, "original_router", None), "routes", [])
        if isinstance(route, Mount) or not hasattr(route, "path"):
            continue
        methods = getattr(route, "methods", None) or {"WEBSOCKET"}
        found |= {f"{method} {route.path}" for method in methods - {"HEAD"}}
    return found


def test_every_route_declares_its_scope(url: str) -> None:
    with running(url) as client:
        all_routes = routes_of(client.app)
    assert "POST /v1/identify" in all_routes
    of_the_api = {
        route for route in all_routes if route.split(" ")[1].startswith(PROTECTED_PREFIXES)
    }
    assert of_the_api - ROUTES.keys() == set(), "give it a line in service/edge/scopes.py"
    assert ROUTES.keys() - all_routes == set(), "no such route any more"
    assert set(ROUTES.values()) <= {OPEN, ANY, *SCOPES}


def test_the_need_of_a_path() -> None:
    assert needed_scope("GET", "/v1/speakers/x") == needed_scope("HEAD", "/v1/speakers/x") == "read"
    assert needed_scope("DELETE", "/v1/speakers/x") == "administer"
    assert needed_scope("DELETE", "/voiceprint/a/b") == "administer"
    assert needed_scope("GET", "/v1/nothing") is None
    assert needed_scope("PUT", "/v1/identify") is None
    assert needed_scope("GET", "/voiceprint/docs") == OPEN


def filled(path: str) -> str:
    return (
        path.replace("{name}", "Ann")
        .replace("{speaker_id:path}", "Ann")
        .replace("{", "")
        .rstrip("}")
    )


def test_a_token_reaches_what_its_scopes_name(url: str, tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    tokens = {scope: create_token(scope, path, scopes=[scope])[0] for scope in SCOPES}
    with running(url, token_file=path, authorized=False) as client:
        for route, need in ROUTES.items():
            method, template = route.split(" ")
            if method == "WEBSOCKET":
                continue
            for scope, token in tokens.items():
                headers = {"Authorization": f"Bearer {token}"}
                answer = client.request(method, filled(template), headers=headers)
                refused = answer.status_code == 403
                assert refused == (need not in (OPEN, ANY, scope)), (route, scope, answer.text)


def test_the_answer_says_which_scope_is_missing(url: str, tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    token, _ = create_token("door", path, scopes=["identify", "verify"])
    headers = {"Authorization": f"Bearer {token}"}
    with running(url, token_file=path, authorized=False) as client:
        sent = files(speech(1))
        assert client.post("/v1/identify", files=sent, headers=headers).status_code == 200
        answer = client.post("/v1/speakers", data={"name": "x"}, files=sent, headers=headers)
        document = check_problem(answer, 403, "missing-scope")
        assert document["scope"] == "enrol"
        assert document["detail"] == "the token door lacks the scope enrol; it has identify, verify"
        challenge = answer.headers["www-authenticate"]
        assert challenge == 'Bearer realm="voiceprint", error="insufficient_scope", scope="enrol"'
        answer = client.delete("/voiceprint/x", headers=headers)
        assert (answer.status_code, list(answer.json())) == (403, ["detail"])
        # What is not there stays 404: it needs no scope.
        assert client.get("/v1/nothing", headers=headers).status_code == 404
        described = client.get("/openapi.json").json()["paths"]
        assert "scope `enrol`" in described["/v1/speakers"]["post"]["description"]
        assert "security" not in described["/v1/info"]["get"]


def test_the_upload_of_a_token_without_the_scope_is_not_read(url: str, tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    token, _ = create_token("reader", path, scopes=["read"])
    headers = {"Authorization": f"Bearer {token}"}
    with running(url, token_file=path, authorized=False, max_upload_mb=1e-5) as client:
        answer = client.post("/v1/identify", files=files(speech(1)), headers=headers)
        check_problem(answer, 403, "missing-scope")


def test_without_tokens_everything_is_allowed(url: str) -> None:
    with running(url) as client:
        assert isinstance(client, TestClient)
        enrol(client, "Ann", 1)
        assert client.delete("/v1/speakers/Ann").status_code == 200
