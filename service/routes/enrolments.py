"""Routes of /v1/enrolments: a speaker is enrolled recording by recording, until it is enough."""

import dataclasses
from typing import Annotated, Any

from fastapi import APIRouter, File, Request, Response, UploadFile

from service.answers.problems import Problem
from service.answers.schemas import (
    ConfirmDocument,
    EnrolmentDocument,
    FinishDocument,
    NewEnrolmentDocument,
    NewSpeakerDocument,
)
from service.context import Context, Service, action_of, checked_name, errand_of, owner_of
from service.encoding.completeness import Completeness, judge
from service.routes.speakers import path_of
from voices.sql.enrolments import Enrolment
from voices.sql.records import Speaker
from voices.sql.requests import Errand

router = APIRouter(prefix="/v1/enrolments", tags=["speakers"])

Recording = Annotated[UploadFile, File(description="A recording: wav, flac, mp3, ogg, opus, ...")]

MAX_OPEN = 100
"""Enrolments of one token that may be under way at a time."""

LOCATION: dict[int | str, dict[str, Any]] = {
    201: {"headers": {"Location": {"description": "Path", "schema": {"type": "string"}}}}
}


@router.post(
    "",
    status_code=201,
    summary="Begin an enrolment",
    response_model=EnrolmentDocument,
    responses=LOCATION,
)
async def begin_enrolment(
    request: Request, response: Response, service: Context, document: NewEnrolmentDocument
) -> dict[str, Any]:
    """Begins the enrolment of a speaker, to which recordings are added one by one.

    The name may also be told when the enrolment is finished.
    """
    name = None if document.name is None else checked_name(document.name)
    if name is not None and document.if_exists == "error":
        await _check_free(request, service, name)
    owner, table = owner_of(request), service.database.enrolments
    if await service.call(table.count, owner) >= MAX_OPEN:
        raise Problem("too-many-requests", f"{MAX_OPEN} enrolments are under way; finish some")
    wish = {"name": name, "if_exists": document.if_exists}
    begun = await service.call(table.begin, owner, wish, service.settings.enrolment_keep_s)
    response.headers["Location"] = f"{router.prefix}/{begun.id}"
    return _describe(service, begun)


@router.get("/{enrolment_id}", summary="Show an enrolment", response_model=EnrolmentDocument)
async def show_enrolment(request: Request, service: Context, enrolment_id: str) -> dict[str, Any]:
    """Returns how complete an enrolment is, and what to do next."""
    return _describe(service, await _require(request, service, enrolment_id))


@router.post(
    "/{enrolment_id}/recordings",
    status_code=201,
    summary="Add a recording",
    response_model=EnrolmentDocument,
)
async def add_part(
    request: Request, service: Context, enrolment_id: str, file: Recording
) -> dict[str, Any]:
    """Adds a recording, and answers how complete the enrolment is now."""
    enrolment = await _require(request, service, enrolment_id)
    most = service.settings.max_recordings
    if len(enrolment.parts) >= most:
        raise Problem("too-many-recordings", f"{most} recordings; remove some", expected=most)
    (voice,) = await service.reader.read([("file", file)], store_audio=True)
    changed = await service.call(
        service.database.enrolments.add,
        enrolment.id,
        owner_of(request),
        voice.to_recording(),
        service.encoder.model_id,
        voice.quality.to_dict(),
        service.settings.enrolment_keep_s,
    )
    return _describe(service, _there(changed))


@router.patch(
    "/{enrolment_id}/recordings/{number}",
    summary="Confirm a recording",
    response_model=EnrolmentDocument,
)
async def confirm_part(
    request: Request,
    service: Context,
    enrolment_id: str,
    number: int,
    document: ConfirmDocument,
) -> dict[str, Any]:
    """Lets a recording count whose voice differs from the others', or not any more."""
    await _require_part(request, service, enrolment_id, number)
    confirm, owner = service.database.enrolments.confirm, owner_of(request)
    changed = await service.call(confirm, enrolment_id, owner, number, document.confirmed)
    return _describe(service, _there(changed))


@router.delete(
    "/{enrolment_id}/recordings/{number}",
    summary="Take a recording out",
    response_model=EnrolmentDocument,
)
async def remove_part(
    request: Request, service: Context, enrolment_id: str, number: int
) -> dict[str, Any]:
    """Removes a recording from an enrolment that is under way."""
    await _require_part(request, service, enrolment_id, number)
    table = service.database.enrolments
    changed = await service.call(table.remove_part, enrolment_id, owner_of(request), number)
    return _describe(service, _there(changed))


@router.post(
    "/{enrolment_id}/finish",
    status_code=201,
    summary="Enrol the speaker",
    response_model=NewSpeakerDocument,
    responses=LOCATION,
)
async def finish_enrolment(
    request: Request,
    response: Response,
    service: Context,
    enrolment_id: str,
    document: FinishDocument | None = None,
) -> dict[str, Any]:
    """Enrols the speaker from all recordings, if they are enough and all of them count.

    Sent again after it was carried out, it answers the same.
    """
    errand = errand_of(request, "enrol", about=enrolment_id)
    errand = dataclasses.replace(errand, key=f"enrolment {enrolment_id}", kind="finish")
    table, voices = service.database.enrolments, service.voices(request)
    name = await service.call(table.finished, errand, voices.group)
    if name is None:
        enrolment = await _require(request, service, enrolment_id)
        speaker = await _finish(request, service, enrolment, document or FinishDocument(), errand)
    else:
        speaker = await service.call(voices.speaker, name)
    await service.call(table.settle, enrolment_id)
    response.headers["Location"] = path_of(speaker.name)
    looks_like = await service.call(voices.look_alikes, speaker.name)
    return {**service.describe(speaker), "looks_like": looks_like}


async def _finish(
    request: Request,
    service: Service,
    enrolment: Enrolment,
    document: FinishDocument,
    errand: Errand,
) -> Speaker:
    """Enrols the speaker and removes what is under way, in one transaction."""
    name = enrolment.wish["name"] if document.name is None else checked_name(document.name)
    if name is None:
        raise Problem("bad-field", "name: missing; it was not told at the beginning either")
    found = _judge(service, enrolment)
    if found.next_step != "finish":
        code = "voices-differ" if found.next_step == "decide" else "not-complete"
        raise Problem(code, _lack(service, enrolment, found), completeness=round(found.share, 3))
    if_exists = document.if_exists or enrolment.wish["if_exists"]
    remark = f"{len(enrolment.parts)} recordings, one by one"
    if not all(found.agrees):
        remark += f", {found.agrees.count(False)} of them confirmed"
    errand = dataclasses.replace(
        errand,
        action=action_of(if_exists),
        remark=remark,
        also=service.database.enrolments.removal(enrolment.id),
    )
    recordings = [part.recording for part in enrolment.parts]
    return await service.store_on(request, errand, name, recordings, if_exists)


@router.delete("/{enrolment_id}", status_code=204, summary="Give an enrolment up")
async def give_up(request: Request, service: Context, enrolment_id: str) -> None:
    """Removes an enrolment that is under way, with all its recordings."""
    enrolment = await _require(request, service, enrolment_id)
    await service.call(service.database.enrolments.remove, enrolment.id)


async def _check_free(request: Request, service: Service, name: str) -> None:
    """Raises Problem if a name is enrolled."""
    if await service.call(service.voices(request).enrolled_name, name) is not None:
        raise Problem("speaker-exists", f"{name} is enrolled already; choose another name")


async def _require_part(request: Request, service: Service, enrolment_id: str, number: int) -> None:
    """Raises Problem if an enrolment has no such recording."""
    enrolment = await _require(request, service, enrolment_id)
    if all(part.number != number for part in enrolment.parts):
        raise Problem("unknown-recording", f"the enrolment has no recording {number}")


async def _require(request: Request, service: Service, enrolment_id: str) -> Enrolment:
    """Returns an enrolment of the request's token.

    Raises:
        Problem: 404 if there is none, 409 if it was begun with another model.
    """
    table = service.database.enrolments
    found = _there(await service.call(table.find, enrolment_id, owner_of(request)))
    if any(part.model_id != service.encoder.model_id for part in found.parts):
        raise Problem("other-model", "it was begun with another model; begin a new one")
    return found


def _there(enrolment: Enrolment | None) -> Enrolment:
    """Returns an enrolment, or raises Problem if there is none."""
    if enrolment is None:
        raise Problem(
            "unknown-enrolment",
            "no such enrolment: it was finished, given up, has expired, or is another token's",
        )
    return enrolment


def _judge(service: Service, enrolment: Enrolment) -> Completeness:
    """Returns how complete an enrolment is."""
    settings = service.settings
    voices = [(part.recording.embedding, part.recording.speech_s) for part in enrolment.parts]
    needed = settings.enrolment_speech_s, settings.enrolment_recordings
    confirmed = [part.is_confirmed for part in enrolment.parts]
    return judge(service.encoder, voices, *needed, confirmed)


def _lack(service: Service, enrolment: Enrolment, found: Completeness) -> str:
    """Says why an enrolment cannot be finished."""
    if found.next_step == "decide":
        numbers = [
            str(part.number)
            for part, agrees in zip(enrolment.parts, found.agrees, strict=True)
            if not (agrees or part.is_confirmed)
        ]
        return f"the voices differ: confirm or remove the recordings {', '.join(numbers)}"
    settings = service.settings
    return (
        f"{found.speech_s:.1f} s of speech in {len(enrolment.parts)} recordings, expected "
        f"{settings.enrolment_speech_s:g} s in {settings.enrolment_recordings}; add a recording"
    )


def _describe(service: Service, enrolment: Enrolment) -> dict[str, Any]:
    """Returns an enrolment as an `EnrolmentDocument`."""
    found = _judge(service, enrolment)
    return {
        "id": enrolment.id,
        "name": enrolment.wish["name"],
        "created_at": enrolment.created_at.isoformat(),
        "expires_at": enrolment.expires_at.isoformat(),
        "speech_s": round(found.speech_s, 2),
        "needed_speech_s": service.settings.enrolment_speech_s,
        "needed_recordings": service.settings.enrolment_recordings,
        "completeness": round(found.share, 3),
        "next": found.next_step,
        "similarity": found.similarity.astype(float).round(6).tolist(),
        "recordings": [
            {
                "number": part.number,
                "agrees": agrees,
                "confirmed": part.is_confirmed,
                "quality": part.quality,
            }
            for part, agrees in zip(enrolment.parts, found.agrees, strict=True)
        ],
    }
