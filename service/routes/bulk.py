"""Route of /v1/bulk_enrolments: many speakers from one zip, with a report of every recording."""

import asyncio
import io
import time
import zipfile
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, File, Request, UploadFile

from service.answers.problems import Problem, describe_error
from service.answers.schemas import BulkDocument
from service.context import Context, Service, checked_name, group_of
from utils.errors import VoiceprintError
from voices.upkeep.bulk import (
    ENROLLED,
    PRESENT,
    SKIPPED,
    Row,
    id_of,
    looks_like,
    read_member,
    recordings_of,
    speaker_of,
)

router = APIRouter(prefix="/v1/bulk_enrolments", tags=["speakers"])

LEFT = "left"
"""What becomes of recordings for which there was no time."""

Zip = Annotated[UploadFile, File(description="SPEAKER.wav or SPEAKER/*.wav, as a zip")]

MAX_MEMBERS = 2_000
"""Recordings in a zip; more go into a second one."""

MAX_UNPACKED = 10
"""How many times as many bytes as a request may have a zip may unpack to; speech as WAV shrinks to
half."""

TIME_S = 40.0
"""Seconds after which the rest is left: proxies wait for an answer for a minute."""


@router.post("", summary="Enrol many speakers", response_model=BulkDocument)
async def enrol_zip(request: Request, service: Context, file: Zip) -> dict[str, Any]:
    """Enrols the recordings of a zip, and answers what became of each.

    The folder that holds a recording names the speaker, or the file itself. Sent again, what is
    enrolled already is known; what there was no time for is enrolled then.
    """
    archive = _open(await file.read())
    await file.close()
    members = recordings_of(archive)
    if len(members) > MAX_MEMBERS:
        raise Problem(
            "too-large",
            f"{len(members)} recordings; send them in several zips",
            received=f"{len(members)} recordings",
            expected=f"at most {MAX_MEMBERS}",
        )
    give_up = time.monotonic() + TIME_S
    room = MAX_UNPACKED * service.settings.max_upload_bytes
    rows = []
    for member in members:
        if time.monotonic() >= give_up:
            reason = "the time is over; send the zip again"
            rows.append(Row(member.filename, speaker_of(member), LEFT, reason))
            continue
        try:
            most = min(room, service.settings.max_upload_bytes)
            content = await asyncio.to_thread(read_member, archive, member, most)
            room -= len(content)
            rows.append(await _enrol(request, service, member, content))
        except VoiceprintError as error:
            await service.call(service.database.ping)  # one that fails ends the request
            rows.append(_skipped(member, describe_error(error).detail))
        except Problem as problem:
            if problem.code == "busy":
                rows.append(Row(member.filename, speaker_of(member), LEFT, problem.detail))
                continue
            rows.append(_skipped(member, problem.detail))
    counts = {word: [row.outcome for row in rows].count(word) for word in (ENROLLED, PRESENT, LEFT)}
    return {
        "enrolled": counts[ENROLLED],
        "present": counts[PRESENT],
        "skipped": len(rows) - sum(counts.values()),
        "left": counts[LEFT],
        "recordings": [vars(row) for row in rows],
    }


async def _enrol(
    request: Request, service: Service, member: zipfile.ZipInfo, content: bytes
) -> Row:
    """Enrols a recording, unless it is enrolled already."""
    name = checked_name(speaker_of(member))
    id_ = id_of(name, content, group_of(request))
    if await service.call(service.voices(request).has_recording, id_):
        return Row(member.filename, name, PRESENT)
    (voice,) = await service.reader.read_contents([(member.filename, content)])
    recording = replace(voice.to_recording(), id=id_)
    is_known = await service.call(service.voices(request).enrolled_name, name) is not None
    action, remark = "add" if is_known else "enrol", "1 recording of a zip"
    await service.store(request, name, [recording], "add", action=action, remark=remark)
    others = await service.call(service.voices(request).look_alikes, name)
    return Row(member.filename, name, ENROLLED, looks_like(others))


def _open(data: bytes) -> zipfile.ZipFile:
    """Opens a zip.

    Raises:
        Problem: 415 if it is none.
    """
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise Problem("wrong-type", f"file: not a zip ({error})", expected="a zip") from error


def _skipped(member: zipfile.ZipInfo, reason: str) -> Row:
    """Returns the row of a recording that cannot be enrolled."""
    return Row(member.filename, speaker_of(member), SKIPPED, reason)
