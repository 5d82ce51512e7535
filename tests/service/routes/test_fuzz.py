"""The service keeps to its OpenAPI document, whatever it is sent."""

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode

from tests.support.service_client import TOKEN, enrol, running, speech

pytestmark = pytest.mark.slow

SETTINGS = hypothesis.settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Host": "127.0.0.1"}

# What makes a name or a recording, no schema can say: refusing one is as documented.
BEYOND_SCHEMAS = [schemathesis.checks.positive_data_acceptance]

STATUSES = {"POST /v1/quality": {200, 422}, "POST /v1/embed": {200}, "POST /v1/compare": {200}}
"""What valid requests get among others, so that more than the first checks is fuzzed."""

OPERATIONS = [
    "GET /v1/info",
    "GET /v1/events",
    "POST /v1/quality",
    "POST /v1/compare",
    "POST /v1/embed",
    "POST /v1/identify",
    "POST /v1/challenges",
    "POST /v1/speakers",
    "GET /v1/speakers",
    "GET /v1/speakers/{name}",
    "PATCH /v1/speakers/{name}",
    "DELETE /v1/speakers/{name}",
    "POST /v1/speakers/{name}/recordings",
    "PUT /v1/speakers/{name}/recordings",
    "DELETE /v1/speakers/{name}/recordings/{recording_id}",
    "GET /v1/speakers/{name}/recordings/{recording_id}/audio",
    "POST /v1/speakers/{name}/verify",
    "POST /v1/calibrations/recordings",
    "POST /v1/calibrations",
    "POST /v1/diarizations",
    "GET /v1/diarizations",
    "GET /v1/diarizations/{job_id}",
    "GET /v1/diarizations/{job_id}/rttm",
    "DELETE /v1/diarizations/{job_id}",
    "POST /v1/diarizations/{job_id}/speakers/{label}/enrol",
    "POST /v1/bulk_enrolments",
    "POST /v1/enrolments",
    "GET /v1/enrolments/{enrolment_id}",
    "POST /v1/enrolments/{enrolment_id}/recordings",
    "PATCH /v1/enrolments/{enrolment_id}/recordings/{number}",
    "DELETE /v1/enrolments/{enrolment_id}/recordings/{number}",
    "POST /v1/enrolments/{enrolment_id}/finish",
    "DELETE /v1/enrolments/{enrolment_id}",
    "GET /voiceprint/health",
    "POST /voiceprint/register",
    "POST /voiceprint/identify",
    "DELETE /voiceprint/{speaker_id}",
    "GET /health/live",
    "GET /health/ready",
    "GET /metrics",
]


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[schemathesis.BaseSchema]:
    folder = tmp_path_factory.mktemp("fuzz")
    recordings = [speech(1), speech(2), speech(1)[:9000], b"", b"no sound"]
    schemathesis.openapi.format("binary", st.sampled_from(recordings))
    with pytest.MonkeyPatch.context() as patch:
        # Many wrong tokens are tried on purpose; each is to be refused as one.
        patch.setattr("service.edge.gate.FAILED_TOKENS_A_MINUTE", 0)
        yield from fuzzable(folder)


def fuzzable(folder: Path) -> Iterator[schemathesis.BaseSchema]:
    """The document of a running application."""
    with running(f"sqlite:///{folder}/v.sqlite3", token=TOKEN, lockout_failures=0) as client:
        enrol(client, "Ann", 1)
        yield schemathesis.openapi.from_asgi("/openapi.json", client.app, headers=HEADERS)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("name", OPERATIONS)
def test_answers_are_as_documented(
    schema: schemathesis.BaseSchema, name: str, mode: GenerationMode
) -> None:
    method, path = name.split()
    operation = schema[path][method]
    if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query):
        return

    @SETTINGS
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def check(case: schemathesis.Case) -> None:
        excluded = [*BEYOND_SCHEMAS]
        if method != "PATCH":
            # In a form or a query numbers are texts, and unknown parameters are passed over.
            excluded.append(schemathesis.checks.negative_data_rejection)
        answer = case.call_and_validate(headers=HEADERS, excluded_checks=excluded)
        statuses.add(answer.status_code)

    statuses: set[int] = set()
    check()
    assert max(statuses) < 500
    if mode is GenerationMode.POSITIVE:
        assert STATUSES.get(name, set()) <= statuses


def test_every_operation_is_fuzzed(schema: schemathesis.BaseSchema) -> None:
    names = {
        f"{result.ok().method.upper()} {result.ok().path}" for result in schema.get_all_operations()
    }
    assert names == set(OPERATIONS)
