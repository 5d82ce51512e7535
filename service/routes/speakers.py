"""Routes of /v1/speakers: enrol, list, rename, delete, and the recordings of a speaker."""

import io
from typing import Annotated, Any
from urllib.parse import quote

import numpy as np
from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile

from service.answers.problems import Problem
from service.answers.schemas import (
    DeletedDocument,
    EnrolledDocument,
    RenameDocument,
    SpeakerDocument,
    SpeakersDocument,
)
from service.context import (
    Context,
    Service,
    action_of,
    checked_name,
    errand_of,
    require_speaker,
)
from service.encoding.uploads import name_fields
from service.freshness import ChallengeField, begin, note_replay, on_errand
from utils.errors import ReplayedError, UnknownSpeakerError
from utils.speaker_names import fold_name
from voices.sql.records import IfExists, Speaker

router = APIRouter(prefix="/v1/speakers", tags=["speakers"])

Name = Annotated[str, Form(description="Any name that can be a file name, in any script")]
Files = Annotated[list[UploadFile], File(alias="file", description="Recordings of the speaker")]

CREATED: dict[int | str, dict[str, Any]] = {
    201: {
        "headers": {
            "Location": {"description": "Path of the speaker", "schema": {"type": "string"}}
        }
    }
}
"""Documentation of the additional header in answers to an enrolment."""

MAX_OFFSET = 2**53
"""JavaScript cannot represent larger integers exactly, and databases limit them."""


@router.post(
    "",
    status_code=201,
    summary="Enrol a speaker",
    response_model=EnrolledDocument,
    responses=CREATED,
)
async def enrol(
    request: Request,
    response: Response,
    service: Context,
    name: Name,
    files: Files,
    challenge: ChallengeField = None,
) -> dict[str, Any]:
    """Enrols a speaker from one or more recordings; a name that is already enrolled is refused."""
    name = checked_name(name)
    _check_number(service, files)
    document = await _enrol(request, service, name, files, "error", challenge)
    response.headers["Location"] = path_of(document["name"])
    return document


@router.get("", summary="List speakers", response_model=SpeakersDocument)
async def list_speakers(
    request: Request,
    service: Context,
    offset: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    query: Annotated[str, Query(description="Only names that contain this")] = "",
    comparable: Annotated[
        bool | None, Query(description="false: only those whom the model in use cannot compare")
    ] = None,
) -> dict[str, Any]:
    """Lists enrolled speakers in the order of their names, a page at a time."""
    voices = service.voices(request)
    found, total = await service.call(voices.speakers, offset, limit, query, comparable=comparable)
    return {
        "speakers": [service.describe(speaker) for speaker in found],
        "total": total,
        "offset": offset,
        "limit": limit,
        "other_models": await service.count_other_models(voices.group),
    }


@router.get("/{name}", summary="Show a speaker", response_model=SpeakerDocument)
async def show_speaker(request: Request, service: Context, name: str) -> dict[str, Any]:
    """Returns a speaker with the enrolled recordings."""
    return service.describe(await require_speaker(service, request, name))


@router.patch("/{name}", summary="Rename a speaker", response_model=SpeakerDocument)
async def rename_speaker(
    request: Request, service: Context, name: str, document: RenameDocument
) -> dict[str, Any]:
    """Gives a speaker another name."""
    new_name = checked_name(document.name)
    name = checked_name(name)
    errand = errand_of(request, "rename", about=f"{fold_name(name)}/{new_name}")
    try:
        rename = service.voices(request).on(errand).rename
        return service.describe(await service.call(rename, name, new_name))
    except UnknownSpeakerError as error:
        raise Problem("unknown-speaker", f"nobody named {name} is enrolled") from error


@router.delete("/{name}", summary="Delete a speaker", response_model=DeletedDocument)
async def delete_speaker(request: Request, service: Context, name: str) -> dict[str, Any]:
    """Removes a speaker: embeddings, recordings, and their files in the folder of the scripts."""
    return await remove_speaker(request, service, name)


@router.post(
    "/{name}/recordings",
    status_code=201,
    summary="Add recordings",
    response_model=EnrolledDocument,
    responses=CREATED,
)
async def add_recordings(
    request: Request,
    response: Response,
    service: Context,
    name: str,
    files: Files,
    challenge: ChallengeField = None,
) -> dict[str, Any]:
    """Adds recordings to a speaker; several, from different days, work best."""
    _check_number(service, files)
    speaker = await require_speaker(service, request, name)
    most = service.settings.max_recordings
    if len(speaker.recordings) + len(files) > most:
        raise Problem(
            "too-many-recordings",
            f"{speaker.name} has {len(speaker.recordings)} recordings; delete some first",
            received=len(speaker.recordings) + len(files),
            expected=f"at most {most}",
        )
    document = await _enrol(request, service, speaker.name, files, "add", challenge)
    response.headers["Location"] = path_of(document["name"])
    return document


@router.put("/{name}/recordings", summary="Replace recordings", response_model=EnrolledDocument)
async def replace_recordings(
    request: Request,
    service: Context,
    name: str,
    files: Files,
    challenge: ChallengeField = None,
) -> dict[str, Any]:
    """Replaces all recordings of a speaker."""
    _check_number(service, files)
    speaker = await require_speaker(service, request, name)
    return await _enrol(request, service, speaker.name, files, "replace", challenge)


@router.delete(
    "/{name}/recordings/{recording_id}",
    summary="Delete a recording",
    response_model=SpeakerDocument,
)
async def delete_recording(
    request: Request, service: Context, name: str, recording_id: str
) -> dict[str, Any]:
    """Removes one recording; the last one can be removed only with the speaker."""
    speaker = await require_speaker(service, request, name)
    _require_recording(speaker, recording_id)
    if len(speaker.recordings) == 1:
        raise Problem("only-recording", f"{speaker.name} has no other; delete the speaker")
    errand = errand_of(request, "delete recording", about=recording_id)
    remove = service.keeper(request, errand).remove_recording
    changed = await service.call(remove, speaker.name, recording_id)
    return service.describe(changed)


@router.get(
    "/{name}/recordings/{recording_id}/audio",
    summary="Hear a recording",
    response_class=Response,
    responses={200: {"content": {"audio/wav": {}}, "description": "16 kHz mono, 16 bits"}},
)
async def hear_recording(
    request: Request, service: Context, name: str, recording_id: str
) -> Response:
    """Returns the audio of a recording, if the service keeps it."""
    speaker = await require_speaker(service, request, name)
    _require_recording(speaker, recording_id)
    content = await service.call(
        service.voices(request).recording_audio, speaker.name, recording_id
    )
    if content is None and service.inbox is not None:
        content = await service.call(service.inbox.read_recording, recording_id)
    if content is None:
        raise Problem("no-audio-kept", "this recording's audio was not kept; see --keep_audio")
    wav = await service.call(_to_wav, content)
    await service.note(request, "hear", speaker.name, recording_id)
    return Response(wav, media_type="audio/wav")


async def remove_speaker(request: Request, service: Service, name: str) -> dict[str, Any]:
    """Removes a speaker everywhere, and lists what was removed."""
    name = checked_name(name)
    errand = errand_of(request, "delete", about=fold_name(name))
    voices = service.voices(request).on(errand)
    # First, since the name may have been given again since then.
    if (earlier := await service.call(voices.recall)) is not None:
        return _removed_before(name, int(earlier))
    found: str | None = await service.call(voices.enrolled_name, name)
    name = found or name
    try:
        removal = await service.call(service.keeper(request, errand).remove, name)
    except UnknownSpeakerError as error:
        if (earlier := await service.call(voices.recall)) is not None:
            return _removed_before(name, int(earlier))
        raise Problem("unknown-speaker", f"nobody named {name} is enrolled") from error
    await service.lockout.forget(service.lock_name(request, name))
    return {
        "name": name,
        "removed": {
            "embeddings": removal.num_embeddings,
            "recordings": removal.num_recordings,
            "files": list(removal.files),
        },
    }


def _removed_before(name: str, num_recordings: int) -> dict[str, Any]:
    """Returns the answer to a deletion that is repeated."""
    removed = {"embeddings": num_recordings + 1, "recordings": num_recordings, "files": []}
    return {"name": name, "removed": removed}


def _check_number(service: Service, files: list[UploadFile]) -> None:
    """Raises Problem if there are more files than a speaker may have recordings."""
    most = service.settings.max_recordings
    if len(files) > most:
        raise Problem(
            "too-many-recordings",
            f"{len(files)} recordings; send fewer",
            received=len(files),
            expected=f"at most {most}",
        )


def _require_recording(speaker: Speaker, recording_id: str) -> None:
    """Raises Problem if the speaker has no such recording."""
    if all(recording.id != recording_id for recording in speaker.recordings):
        raise Problem("unknown-recording", f"{speaker.name} has no such recording; list them")


async def _enrol(
    request: Request,
    service: Service,
    name: str,
    files: list[UploadFile],
    if_exists: IfExists,
    challenge: str | None,
) -> dict[str, Any]:
    """Enrols uploads; returns the speaker with similarity and quality of the sent recordings."""
    errand = errand_of(request, action_of(if_exists), about=fold_name(name))
    recall = service.voices(request).on(errand).recall
    if challenge is not None and await service.call(recall) is not None:
        challenge = None  # it was used by this very request, whose answer got lost
    fresh = await begin(request, service, name, challenge)
    if fresh.challenge is not None and len(files) > 1:
        raise Problem("bad-field", "challenge: received several recordings, expected one reading")
    voices = await service.reader.read(
        name_fields(files), store_audio=True, take_print=fresh.remembers
    )
    is_new = if_exists == "error"
    recordings = [voice.to_recording() for voice in voices]
    errand = on_errand(service, errand, fresh, fresh.uploads(voices))
    try:
        speaker = await service.store_on(
            request, errand, name, recordings, if_exists, must_exist=not is_new
        )
    except ReplayedError:
        await note_replay(request, service, name)
        raise
    matrix = np.stack([voice.vector for voice in voices]).astype(np.float64)
    return {
        **service.describe(speaker),
        "looks_like": await service.call(service.voices(request).look_alikes, speaker.name),
        "similarity": np.clip(matrix @ matrix.T, -1, 1).round(6).tolist(),
        "quality": [voice.quality.to_dict() for voice in voices],
    }


def path_of(name: str) -> str:
    """Returns the path of a speaker."""
    return f"{router.prefix}/{quote(name, safe='')}"


def _to_wav(content: bytes) -> bytes:
    """Repacks FLAC as WAV, which every browser plays."""
    import soundfile

    if content[:4] == b"RIFF":
        return content
    samples, rate = soundfile.read(io.BytesIO(content), dtype="int16")
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
