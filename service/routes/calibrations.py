"""Routes of /v1/calibrations: thresholds for one's own people and microphone; nothing is kept.

Recordings are embedded one by one, and their embeddings sent back together. So no sound and no
voice stays here, and what is found changes nothing: whoever runs the service applies it.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, File, UploadFile

from service.answers.calibration import (
    CalibrationRequest,
    CutRecordingDocument,
    EmbeddedRecording,
    ProposalDocument,
)
from service.answers.problems import Problem
from service.context import Context, Service
from service.settings import Settings
from utils.arrays import FloatArray
from utils.errors import DataListError
from utils.verification.calibration_file import CalibrationFile
from utils.verification.certainty import CONFIDENCE, miss_certainty
from utils.verification.conditions import LENGTHS_S, condition_recordings
from utils.verification.proposal import Proposal, ProposedThreshold, propose
from utils.verification.thresholds import calibration_entries, measured
from utils.verification.trial_groups import TrialGroup

LIST_NAME = "web page"
"""What the model's metadata call the list that it was calibrated on."""

UNIT_TOLERANCE = 1e-3
"""Deviation of an embedding's length from 1 that rounding may cause."""

router = APIRouter(prefix="/v1/calibrations", tags=["calibration"])

Upload = Annotated[UploadFile, File(description="A recording: wav, flac, mp3, ogg, opus, ...")]


@router.post(
    "/recordings", summary="Embed a recording to calibrate on", response_model=CutRecordingDocument
)
async def embed_cuts(service: Context, file: Upload) -> dict[str, Any]:
    """Embeds a recording whole, and cut to 3 s and 1 s of speech."""
    (voice,) = await service.reader.read([("file", file)], embed=False, cut=True)
    return {
        "model_id": service.encoder.model_id,
        "quality": voice.quality.to_dict(),
        "cuts": [
            {"name": name, "speech_s": speech_s, "embedding": embedding.tolist()}
            for name, (embedding, speech_s) in voice.cuts.items()
        ],
    }


@router.post("", summary="Propose thresholds", response_model=ProposalDocument)
async def calibrate(service: Context, document: CalibrationRequest) -> dict[str, Any]:
    """Compares the recordings of some people with each other, and proposes thresholds for them.

    A threshold is proposed to be lowered only as far as so many people can promise its rate of
    false accepts. Nothing is changed.
    """
    if document.model_id != service.encoder.model_id:
        raise Problem("other-model", "the recordings were embedded with another model; begin anew")
    return await asyncio.to_thread(_propose, service, document.recordings)


def _propose(service: Service, recordings: Sequence[EmbeddedRecording]) -> dict[str, Any]:
    """Returns a `ProposalDocument`."""
    encoder = service.encoder
    cuts = [_check_cuts(recording, encoder.embedding_size) for recording in recordings]
    try:
        conditioned = condition_recordings([recording.speaker for recording in recordings], cuts)
        groups = conditioned.groups(encoder.cohort)
        found = propose(groups, encoder.calibration)
    except DataListError as error:
        raise Problem("too-few-people", str(error)) from error
    entries = calibration_entries(LIST_NAME, conditioned.clips, groups, found.calibration)
    score_norm = service.settings.score_norm
    trials = measured(groups)
    return {
        "num_people": found.strict.certainty.num_people,
        "num_pairs": found.strict.certainty.num_pairs,
        "num_recordings": len(recordings),
        "confidence": CONFIDENCE,
        "strict": _describe(found.strict, trials),
        "default": _describe(found.default, trials),
        "curve": _describe_curve(found),
        "file": CalibrationFile(encoder.model_id, score_norm, entries).to_dict(),
        "commands": _commands(service.settings),
    }


def _commands(settings: Settings) -> list[str]:
    """Returns what applies a saved file, where the service runs."""
    path = settings.model_path
    serve = f"python serve.py --model_path {quote(str(Path('calibrated') / Path(path).name))}"
    if settings.score_norm != "none":
        serve += f" --score_norm {settings.score_norm}"
    return [f"python tools/calibrate.py calibration.json --model_path {quote(path)}", serve]


def _check_cuts(recording: EmbeddedRecording, size: int) -> dict[str, tuple[FloatArray, float]]:
    """Returns the embeddings of a recording.

    Raises:
        Problem: 422, if they are not what `embed_cuts` answered.
    """
    cuts: dict[str, tuple[FloatArray, float]] = {}
    for cut in recording.cuts:
        embedding = np.array(cut.embedding, np.float32)
        if len(embedding) != size or abs(np.linalg.norm(embedding) - 1) > UNIT_TOLERANCE:
            raise Problem(
                "bad-field",
                "recordings: an embedding that this model does not make",
                received=f"{len(embedding)} numbers",
                expected=f"{size} numbers of unit length, as /v1/calibrations/recordings answers",
            )
        cuts[cut.name] = (embedding, cut.speech_s)
    if cuts.keys() != LENGTHS_S.keys():
        raise Problem(
            "bad-field",
            "recordings: the cuts of a recording are not complete",
            received=", ".join(cuts)[:200],
            expected=", ".join(LENGTHS_S),
        )
    return cuts


def _describe(found: ProposedThreshold, trials: Sequence[TrialGroup]) -> dict[str, Any]:
    """Returns a `ProposedThresholdDocument`."""
    with_targets = [group for group in trials if group.has_targets]
    certainty = found.certainty
    return {
        "promised": found.promised,
        "is_promised": found.is_promised,
        "in_use": found.in_use,
        "found": found.found,
        "proposed": found.proposed,
        "false_accepts": [certainty.rate, certainty.lower_limit, certainty.upper_limit],
        "misses": list(miss_certainty(with_targets, found.proposed)),
    }


def _describe_curve(found: Proposal) -> dict[str, Any]:
    """Returns a `CurveDocument`."""
    curve = found.curve
    return {
        "thresholds": curve.thresholds.round(4).tolist(),
        "false_accepts": curve.false_accepts.tolist(),
        "misses": curve.misses.tolist(),
    }
