"""The application: routes, middleware and documents put together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.formparsers import MultiPartParser
from starlette.middleware.cors import CORSMiddleware

from service.answers.problems import PROBLEMS, add_handlers
from service.answers.schemas import ClassicError, ProblemDocument
from service.chores import chores
from service.context import Service
from service.diarization.jobs import Jobs
from service.edge.counters import Counter
from service.edge.gate import GROUP_HEADER, Gate
from service.edge.limits import Lockout
from service.edge.observation import Observation
from service.edge.pages import add_pages
from service.edge.scopes import ANY, OPEN, needed_scope
from service.edge.tokens import Tokens
from service.encoding.pool import EncodingPool
from service.encoding.uploads import VoiceReader
from service.inbox import Inbox
from service.metrics import Metrics
from service.reembedding import BackgroundReembedding
from service.routes import (
    bulk,
    calibrations,
    challenges,
    classic,
    diarizations,
    enrolments,
    events,
    health,
    recognition,
    speakers,
    stream,
)
from service.settings import Settings
from utils.verification.embedding import Encoder
from utils.version import __version__
from voices.sql.store import SqlVoiceStore

STREAM_PATH = "/v1/stream"
"""A WebSocket, which OpenAPI cannot describe."""

DESCRIPTION = """Enrols voices and recognises who is speaking. Errors are problem documents
(RFC 9457); the classic routes answer `{"detail": "..."}` instead. docs/service.md tells more."""


def make_app(
    settings: Settings,
    encoder: Encoder,
    database: SqlVoiceStore,
    inbox: Inbox | None = None,
) -> FastAPI:
    """Makes the application; who opened the database closes it.

    Raises:
        ServiceError: If the token or the token file cannot be used.
    """
    # Uploads stay in memory: a temporary file would be a voice on the disk.
    MultiPartParser.spool_max_size = max(
        MultiPartParser.spool_max_size, settings.max_upload_bytes + 1
    )
    tokens = Tokens(settings.token, settings.token_file)
    metrics = Metrics(
        lambda: pool.num_pending, lambda: database.num_damaged, lambda: jobs.num_pending
    )
    counter = Counter(database.shared_counts)
    jobs = Jobs(settings, encoder, database)
    pool = EncodingPool(settings.num_threads, settings.queue_size, metrics.encodings.observe)
    find_sound = None if inbox is None else inbox.find_sound
    reembedding = BackgroundReembedding(database, encoder, find_sound)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(reembedding.start)
        jobs.open()
        async with chores(app.state.service):
            yield
        await asyncio.to_thread(jobs.close)
        await asyncio.to_thread(reembedding.stop)
        await asyncio.to_thread(pool.close)
        app.state.service.close()
        counter.close()

    app = FastAPI(
        title="Voiceprint service",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = Service(
        settings=settings,
        encoder=encoder,
        database=database,
        pool=pool,
        reader=VoiceReader(encoder, pool, settings),
        metrics=metrics,
        lockout=Lockout(settings.lockout_failures, settings.lockout_s, counter),
        inbox=inbox,
        tokens=tokens,
        reembedding=reembedding,
        jobs=jobs,
    )
    problems = _errors(ProblemDocument, "application/problem+json")
    for module in (
        recognition,
        challenges,
        speakers,
        enrolments,
        calibrations,
        bulk,
        diarizations,
        stream,
        health,
        events,
    ):
        app.include_router(module.router, responses=problems)
    app.include_router(classic.router, responses=_errors(ClassicError, "application/json"))
    add_pages(app)
    add_handlers(app)
    app.openapi = lambda: _describe(app, tokens.are_required)  # type: ignore[method-assign]
    # The last one added is the outermost: a page that may call can read refusals, too.
    app.add_middleware(
        Gate, settings=settings, tokens=tokens, check_room=pool.check_room, counter=counter
    )
    if settings.cors_origin is not None:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=[settings.cors_origin],
            allow_methods=["*"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", GROUP_HEADER],
            expose_headers=["Location", "Retry-After", "X-Request-Id"],
        )
    app.add_middleware(
        Observation,
        metrics=metrics,
        templates=lambda: [*app.openapi()["paths"], "/openapi.json", STREAM_PATH],
    )
    return app


def _describe(app: FastAPI, auth_required: bool) -> dict[str, Any]:
    """Returns the OpenAPI document, with the errors of each path in the form they have."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    components = document["components"]
    for model in (ProblemDocument, ClassicError):
        components["schemas"][model.__name__] = model.model_json_schema()
    for schema in components["schemas"].values():
        for field in schema.get("properties", {}).values():
            for part in (field, field.get("items", {})):
                # What generated clients and forms take for a file.
                if part.pop("contentMediaType", None) is not None:
                    part["format"] = "binary"
    if auth_required:
        components["securitySchemes"] = {"HTTPBearer": {"type": "http", "scheme": "bearer"}}
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                _describe_scope(operation, needed_scope(method.upper(), path))
    app.openapi_schema = document
    return document


def _describe_scope(operation: dict[str, Any], need: str | None) -> None:
    """Tells in a path's description what its token needs."""
    if need == OPEN:
        return
    operation["security"] = [{"HTTPBearer": []}]
    if need != ANY:
        told = operation.get("description", "")
        operation["description"] = f"{told}\n\nThe token needs the scope `{need}`."


def _errors(model: type[BaseModel], media: str) -> dict[int | str, dict[str, Any]]:
    """Returns the documentation of the errors that all paths answer alike."""
    content = {media: {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}
    titles: dict[int, list[str]] = {}
    for status, title in PROBLEMS.values():
        titles.setdefault(status, []).append(title)
    return {
        status: {"description": "; ".join(some), "content": content}
        for status, some in titles.items()
        if status != 500
    }
