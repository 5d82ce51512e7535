"""The classic routes, for existing clients of voice assistants.

Requests and answers are those of the voiceprint service of xiaozhi-esp32-server, so its clients
work unchanged; errors are `{"detail": "..."}`, which they display.
"""

import contextlib
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Query, Request, UploadFile

from service.answers.problems import Problem
from service.answers.schemas import ClassicAnswer, ClassicHealth, ClassicMatch
from service.context import Context, checked_name, group_of
from service.logs import log_event
from service.routes.speakers import remove_speaker
from utils.errors import AudioError, DatabaseError
from utils.speaker_names import clean_name, fold_name

router = APIRouter(prefix="/voiceprint", tags=["classic"])

ID_SIGNS = str.maketrans({":": "\uff1a", "/": "\uff0f"})
"""Signs of ids, such as MAC addresses, that no name may hold; full-width ones stand for them."""

Wave = Annotated[UploadFile, File(description="A recording, wav or any other format of /v1")]


@router.get("/health", summary="State", response_model=ClassicHealth)
async def health(
    request: Request,
    service: Context,
    key: Annotated[str | None, Query(description="The token, if the service has any")] = None,
) -> dict[str, Any]:
    """Reports that the service is healthy, and the number of enrolled speakers."""
    total = await service.call(service.voices(request).count)
    return {"total_voiceprints": total, "status": "healthy"}


@router.post("/register", summary="Enrol, or enrol anew", response_model=ClassicAnswer)
async def register(
    request: Request, service: Context, speaker_id: Annotated[str, Form()], file: Wave
) -> dict[str, Any]:
    """Enrols a speaker from one recording, which replaces any earlier ones."""
    name = checked_name(speaker_id.translate(ID_SIGNS))
    if "," in name:
        raise Problem("bad-name", f"{name} has a comma, which separates ids in identify")
    (voice,) = await service.reader.read([("file", file)], store_audio=True, may_shorten=True)
    remark = "1 recording, classic"
    await service.store(
        request, name, [voice.to_recording()], "replace", action="enrol", remark=remark
    )
    return {"success": True, "msg": f"已登记: {speaker_id}"}


@router.post("/identify", summary="Identify among candidates", response_model=ClassicMatch)
async def identify(
    request: Request,
    service: Context,
    speaker_ids: Annotated[str, Form(description="Candidates, separated by commas")],
    file: Wave,
) -> dict[str, Any]:
    """Identifies the speaker among the candidates; unknown candidates are ignored.

    The answer is the id as the client wrote it, or "" if no candidate's score reaches
    --classic_threshold. A recording that cannot be used is answered like nobody's: the clients
    take any status but 200 for a failure of the service.
    """
    ids = [part.strip() for part in speaker_ids.split(",") if part.strip()]
    most = service.settings.max_candidates
    if not ids:
        raise Problem("bad-field", "speaker_ids: no id in it, expected ids separated by commas")
    if len(ids) > most:
        raise Problem("bad-field", f"speaker_ids: {len(ids)} ids, expected at most {most}")
    spellings = _clean_ids(ids)
    threshold = service.settings.classic_threshold
    if threshold is None:
        threshold = service.encoder.threshold
    try:
        found = await service.identifier.identify(
            request.state.actor,
            file,
            threshold,
            candidates=list(spellings),
            group=group_of(request),
            may_shorten=True,
        )
    except AudioError as error:
        log_event("unusable recording", reason=str(error), actor=request.state.actor)
        return {"speaker_id": "", "score": 0.0}
    score = found.matches[0][1] if found.matches else 0.0
    sent = {fold_name(name): text for name, text in reversed(spellings.items())}
    speaker_id = "" if found.name is None else sent[fold_name(found.name)]
    return {"speaker_id": speaker_id, "score": round(score, 4)}


@router.delete("/{speaker_id:path}", summary="Delete a speaker", response_model=ClassicAnswer)
async def delete(request: Request, service: Context, speaker_id: str) -> dict[str, Any]:
    """Removes a speaker with all recordings."""
    await remove_speaker(request, service, speaker_id.translate(ID_SIGNS))
    return {"success": True, "msg": f"已删除: {speaker_id}"}


def _clean_ids(ids: Sequence[str]) -> dict[str, str]:
    """Returns name -> id as it was sent; ids that are not valid names are left out."""
    spellings: dict[str, str] = {}
    for text in ids:
        with contextlib.suppress(DatabaseError):
            spellings.setdefault(clean_name(text.translate(ID_SIGNS)), text)
    return spellings
