"""The route /v1/stream: who is speaking now, over a WebSocket."""

import asyncio
import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from service.answers.problems import Problem, describe_error, problem_document
from service.context import Service, checked_name, group_of
from service.edge.token_file import Grant
from service.live.session import LiveSession
from service.live.talk import Command, Options, Talk, read_text
from service.logs import log_failure
from utils.arrays import FloatArray
from utils.audio.fidelity import encode_faithfully
from utils.audio.waveform import SAMPLE_RATE
from utils.errors import DatabaseError, VoiceprintError
from voices.live_voices import NUM_RANKED
from voices.sql.records import AuditLine, NewRecording
from voices.sql.store import SqlVoiceStore

router = APIRouter(prefix="/v1", tags=["recognition"])

CLOSE_BASE = 4000
"""What is added to a problem's status to make the code that the stream is closed with."""

MAX_REASON_BYTES = 123
"""Longest reason that a close frame can hold (RFC 6455, 5.5)."""


@router.websocket("/stream")
async def stream(socket: WebSocket) -> None:
    """Hears samples and sends events; docs/service.md describes both."""
    service = cast(Service, socket.app.state.service)
    await socket.accept()
    try:
        with _place(service):
            await _admit(socket, service)
            session = LiveSession(service.encoder, partial(_rank, service.voices(socket)))
            talk = Talk(
                socket,
                session,
                service.pool,
                service.settings,
                partial(_note, service, socket),
                partial(_enrol, service, socket),
                lambda: socket.state.admit(socket.state.token),
            )
            if await talk.run():
                await socket.send_json({"event": "end", "heard_s": round(session.heard_s, 3)})
                await socket.close(1000)
    except WebSocketDisconnect:
        pass
    except Exception as error:
        await _refuse(socket, error)


@contextlib.contextmanager
def _place(service: Service) -> Iterator[None]:
    """Holds one of the streams' places.

    Raises:
        Problem: 503 if all are taken.
    """
    most = service.settings.max_streams
    if service.num_streams >= most:
        raise Problem("busy", f"{most} streams are open; try again later")
    service.num_streams += 1
    service.metrics.streams.inc()
    try:
        yield
    finally:
        service.num_streams -= 1
        service.metrics.streams.dec()


async def _admit(socket: WebSocket, service: Service) -> None:
    """Reads the first frame, and says that the stream may begin.

    Raises:
        Problem: 401 or 403 without a token that may identify; 408, 413, 400 or 422 if the frame
            is late or something else.
    """
    patience_s = service.settings.header_timeout_s
    try:
        message = await asyncio.wait_for(socket.receive(), patience_s)
    except (asyncio.TimeoutError, TimeoutError) as error:
        detail = f"the first frame, the options, did not arrive in {patience_s:g} s"
        raise Problem("slow-client", detail) from error
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    if message.get("text") is None:
        raise Problem("bad-field", "the first frame has to be the options, a JSON text such as {}")
    options = read_text(message["text"], Options)
    if options.token is not None:
        socket.state.token = options.token
    grant: Grant = await socket.state.admit(socket.state.token, options.group)
    socket.state.grant, socket.state.actor = grant, grant.name
    await socket.send_json(
        {
            "event": "ready",
            "sample_rate": SAMPLE_RATE,
            "threshold": service.encoder.strict_threshold,
            "max_duration_s": service.settings.stream_max_s,
        }
    )


def _rank(voices: SqlVoiceStore, embedding: FloatArray) -> list[tuple[str, float]]:
    """Returns the enrolled voices that are most alike; in a thread of the pool."""
    return voices.identify(embedding, top_k=NUM_RANKED)


async def _note(service: Service, socket: WebSocket, events: list[dict[str, Any]]) -> None:
    """Counts the decisions among events and writes them to the audit log."""
    lines = []
    for event in events:
        if event["event"] in ("speaker", "speaker-corrected"):
            outcome = "accepted" if event["name"] else "rejected"
            line = socket.state.actor, "stream", event["name"] or "", outcome, event["score"]
            lines.append(AuditLine(*line, group=group_of(socket)))
            service.metrics.decisions.labels("stream", outcome).inc()
    if lines:
        await service.note_decisions(*lines)


async def _enrol(
    service: Service, socket: WebSocket, session: LiveSession, command: Command
) -> str:
    """Enrols an unknown speaker from what was heard; returns the name.

    Raises:
        Problem: If the token may not enrol, nobody has the number, too little was heard, or the
            name cannot be taken.
    """
    grant: Grant = socket.state.grant
    if "enrol" not in grant.scopes:
        raise Problem("missing-scope", f"the token {grant.name} lacks the scope enrol")
    number = command.enrol or 0
    name = checked_name(command.name)
    try:
        speech = session.speech_of(number)
    except DatabaseError as error:
        raise Problem("unknown-label", str(error)) from error
    try:
        (future,) = service.pool.submit([partial(_embed, service, speech, number)])
        recording = await asyncio.wrap_future(future)
        remark = "from a stream"
        speaker = await service.store(socket, name, [recording], command.if_exists, remark=remark)
    except VoiceprintError as error:
        raise describe_error(error) from error
    session.rename(number, speaker.name)
    return speaker.name


def _embed(service: Service, speech: FloatArray, number: int) -> NewRecording:
    """Returns speech as a recording; in a thread of the pool."""
    embed = service.encoder.embed_waveform
    embedding, audio = embed(speech, f"speaker {number}"), None
    if service.settings.keep_audio:
        audio = encode_faithfully(speech, embedding, embed, "FLAC")
    return NewRecording.of(speech, embedding, audio)


async def _refuse(socket: WebSocket, error: Exception) -> None:
    """Tells the client why the stream ends, and closes it."""
    if isinstance(error, VoiceprintError):
        error = describe_error(error)
    if not isinstance(error, Problem):
        log_failure("unexpected error", error, route="/v1/stream")
        error = Problem("internal", "see the service's log")
    reason = f"{error.code}: {error.detail}".encode()[:MAX_REASON_BYTES].decode(errors="ignore")
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        await socket.send_json({"event": "error", **problem_document(error)})
        await socket.close(CLOSE_BASE + error.status_code, reason)
