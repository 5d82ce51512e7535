"""Routes of /v1 that process recordings: quality, compare, embed, verify and identify."""

import logging
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, UploadFile

from service.answers.problems import Problem, retry_later
from service.answers.schemas import (
    CalibrationDocument,
    CompareDocument,
    EmbedDocument,
    IdentifyDocument,
    InfoDocument,
    QualityDocument,
    RatesDocument,
    VerifyDocument,
)
from service.context import Context, Service, check_candidates, group_of, require_speaker
from service.edge.scopes import SCOPES
from service.encoding.uploads import Voice
from service.freshness import ChallengeField, Freshness, admit, begin, note_replay
from service.logs import log_event
from utils.arrays import FloatArray
from utils.errors import DatabaseError, OtherModelError, ReplayedError, UnknownSpeakerError
from utils.model.encoder import MIN_SPEECH_S
from utils.verification.calibration import Calibration
from utils.verification.embedding import score_pair
from utils.verification.verdict import verdict
from utils.version import __version__

WAIT_FOR_MODEL_S = 30
"""Seconds after which a speaker who waits for a new model is worth another try."""

router = APIRouter(prefix="/v1", tags=["recognition"])

Upload = Annotated[UploadFile, File(description="A recording: wav, flac, mp3, ogg, opus, ...")]
Threshold = Annotated[
    float | None,
    Form(ge=-1, le=1, allow_inf_nan=False, description="Least score, else the strict threshold"),
]


@router.head("/info", include_in_schema=False, response_model_exclude_unset=True)
@router.get("/info", summary="Show limits and model", response_model_exclude_unset=True)
async def show_info(request: Request, service: Context) -> InfoDocument:
    """Returns the model and the limits; without a valid token, only whether one is required."""
    required = service.auth_required
    if required and request.state.actor is None:
        return InfoDocument(auth_required=required, version=__version__)
    encoder, settings = service.encoder, service.settings
    calibration = encoder.calibration
    return InfoDocument(
        auth_required=required,
        version=__version__,
        token=request.state.actor,
        scopes=[scope for scope in SCOPES if scope in request.state.grant.scopes],
        group=group_of(request),
        groups=service.groups_of(request),
        model_id=encoder.model_id,
        embedding_size=encoder.embedding_size,
        threshold=encoder.threshold,
        strict_threshold=encoder.strict_threshold,
        score_norm=settings.score_norm,
        calibration=CalibrationDocument(
            slope=round(calibration.slope, 4), offset=round(calibration.offset, 4)
        ),
        rates=_measured_rates(calibration),
        min_speech_s=MIN_SPEECH_S,
        max_duration_s=settings.max_duration_s,
        max_upload_bytes=settings.max_upload_bytes,
        max_recordings=settings.max_recordings,
        keep_audio=settings.keep_audio,
        challenge=settings.challenge,
        num_speakers=await service.call(service.voices(request).count),
    )


def _measured_rates(calibration: Calibration) -> list[RatesDocument]:
    """Returns what the thresholds led to where they were found."""
    found = [
        (calibration.strict_threshold, calibration.strict_rates),
        (calibration.threshold, calibration.rates),
    ]
    return [
        RatesDocument(threshold=threshold, **asdict(rates))
        for threshold, rates in found
        if rates is not None
    ]


@router.post("/quality", summary="Judge a recording", response_model=QualityDocument)
async def judge_quality(service: Context, file: Upload) -> dict[str, Any]:
    """Measures length, speech, level, clipping and noise; silent recordings are measured too."""
    (voice,) = await service.reader.read([("file", file)], embed=False)
    return voice.quality.to_dict()


@router.post("/compare", summary="Compare two recordings", response_model=CompareDocument)
async def compare(service: Context, file1: Upload, file2: Upload) -> dict[str, Any]:
    """Decides whether two recordings are of the same person."""
    voices = await service.reader.read([("file1", file1), ("file2", file2)])
    score = score_pair(service.encoder, voices[0].vector, voices[1].vector)
    threshold = service.encoder.threshold
    is_same = verdict(score, threshold)
    _count(service, "compare", is_same)
    speech_s = voices[0].quality.speech_s, voices[1].quality.speech_s
    return {
        "score": score,
        "threshold": threshold,
        "is_same_speaker": is_same,
        "probability": service.encoder.probability(score, speech_s),
        "quality": [voice.quality.to_dict() for voice in voices],
    }


@router.post("/embed", summary="Embed a recording", response_model=EmbedDocument)
async def embed(service: Context, file: Upload) -> dict[str, Any]:
    """Returns the embedding itself, for your own database."""
    (voice,) = await service.reader.read([("file", file)])
    return {
        "embedding": voice.vector.tolist(),
        "model_id": service.encoder.model_id,
        "quality": voice.quality.to_dict(),
    }


@router.post(
    "/speakers/{name}/verify", summary="Verify a claimed speaker", response_model=VerifyDocument
)
async def verify(
    request: Request,
    service: Context,
    name: str,
    file: Upload,
    threshold: Threshold = None,
    challenge: ChallengeField = None,
) -> dict[str, Any]:
    """Decides whether a recording is of the claimed speaker (1:1).

    With a challenge, it has to be fresh: sent in time, once, and never before.
    """
    speaker = (await require_speaker(service, request, name)).name
    fresh = await begin(request, service, speaker, challenge, is_required=True)
    strict = service.encoder.strict_threshold
    threshold = strict if threshold is None else threshold
    lock_name = service.lock_name(request, speaker)
    try:
        mark = await service.lockout.begin(lock_name)
    except Problem:
        if service.lockout.is_news(lock_name):
            failures = f"{service.lockout.max_failures} failures"
            await service.note(request, "lock", speaker, failures)
        raise
    try:
        (voice,) = await service.reader.read([("file", file)], take_print=fresh.remembers)
        score = await _score(service, request, speaker, voice.vector)
        await _check_fresh(request, service, speaker, fresh, voice, score, threshold)
    except ReplayedError:
        await note_replay(request, service, speaker, score)
        raise  # counts as a failure
    except BaseException:
        await service.lockout.forget(lock_name, mark)
        raise
    is_same = verdict(score, threshold)
    # A score that only the client's own lower threshold accepts counts as a failure.
    if is_same and verdict(score, strict):
        await service.lockout.forget(lock_name)
    _count(service, "verify", is_same)
    await service.note(request, "verify", speaker, "accepted" if is_same else "rejected", score)
    return {
        "name": speaker,
        "score": score,
        "threshold": threshold,
        "is_same_speaker": is_same,
        # How long the enrolled recordings are is not kept.
        "probability": service.encoder.probability(score, (voice.quality.speech_s, None)),
        "challenge_passed": fresh.challenge is not None,
        "quality": voice.quality.to_dict(),
    }


@router.post("/identify", summary="Identify a speaker", response_model=IdentifyDocument)
async def identify(
    request: Request,
    service: Context,
    file: Upload,
    top_k: Annotated[int, Form(ge=1, le=100, description="Matches to return")] = 5,
    candidates: Annotated[
        list[str] | None, Form(description="Compare with these speakers only")
    ] = None,
    threshold: Threshold = None,
) -> dict[str, Any]:
    """Identifies the speaker of a recording, among all speakers or the candidates (1:N)."""
    names = None if candidates is None else await check_candidates(service, request, candidates)
    threshold = service.encoder.strict_threshold if threshold is None else threshold
    found = await service.identifier.identify(
        request.state.actor,
        file,
        threshold,
        candidates=names,
        top_k=top_k,
        group=group_of(request),
    )
    matches = found.matches
    probability = service.encoder.probability
    speech_s = found.voice.quality.speech_s, None  # of those enrolled it is not kept
    return {
        "name": found.name,
        "score": matches[0][1] if matches else None,
        "threshold": threshold,
        "matches": [
            {"name": other, "score": value, "probability": probability(value, speech_s)}
            for other, value in matches
        ],
        "quality": found.voice.quality.to_dict(),
    }


async def _check_fresh(
    request: Request,
    service: Service,
    name: str,
    fresh: Freshness,
    voice: Voice,
    score: float,
    threshold: float,
) -> None:
    """Uses up the challenge; what is accepted as the speaker's is remembered.

    Raises:
        Problem: 422 if the recording is too short for the digits.
        ReplayedError: If it was sent before.
    """
    if not fresh.is_asked:
        return
    new = fresh.uploads([voice])
    await admit(request, service, name, fresh, new if verdict(score, threshold) else [])


async def _score(service: Service, request: Request, name: str, embedding: FloatArray) -> float:
    """Compares a voice with a speaker's."""
    try:
        return await service.call(service.voices(request).score, name, embedding)
    except UnknownSpeakerError:
        raise
    except OtherModelError as error:
        if service.reembedding.is_waiting(error.speaker_id):
            detail = f"{name} is being embedded by the new model; send the recording again later"
            raise retry_later("waits-for-model", detail, WAIT_FOR_MODEL_S) from error
        detail = (
            f"{name} was enrolled with another model, and the sound was not kept; send new "
            "recordings with PUT /v1/speakers/{name}/recordings"
        )
        raise Problem("other-model", detail) from error
    except DatabaseError as error:
        await service.call(service.database.ping)  # It answers, so the speaker's data is the cause.
        log_event("a speaker cannot be verified", level=logging.ERROR, reason=str(error))
        detail = f"the stored voice data of {name} cannot be read; enrol the speaker again"
        raise Problem("damaged", detail) from error


def _count(service: Service, kind: str, is_accepted: bool) -> None:
    """Counts a decision."""
    service.metrics.decisions.labels(kind, "accepted" if is_accepted else "rejected").inc()
