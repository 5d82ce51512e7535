"""Route of /v1/challenges: digits to be read aloud, so that no old recording will do."""

from typing import Any

from fastapi import APIRouter, Request

from service.answers.problems import Problem
from service.answers.schemas import ChallengeDocument, NewChallengeDocument
from service.context import Context, checked_name, owner_of
from service.freshness import WORDS, needed_speech_s

router = APIRouter(prefix="/v1/challenges", tags=["recognition"])


@router.post(
    "", status_code=201, summary="Ask for digits to be read", response_model=ChallengeDocument
)
async def make_challenge(
    request: Request, service: Context, document: NewChallengeDocument
) -> dict[str, Any]:
    """Makes random digits that one recording has to be of, within a time.

    Whether it is of them is not checked, except for its length.
    """
    settings = service.settings
    if settings.challenge == "off":
        raise Problem("not-found", "challenges are switched off; see --challenge")
    name = None if document.speaker is None else checked_name(document.speaker)
    make = service.database.challenges.make
    made = await service.call(
        make, owner_of(request), name, settings.challenge_digits, settings.challenge_s
    )
    words = WORDS[document.language]
    return {
        "id": made.id,
        "digits": made.digits,
        "text": " ".join(words[int(digit)] for digit in made.digits),
        "language": document.language,
        "speaker": name,
        "expires_at": made.expires_at.isoformat(),
        "expires_in_s": settings.challenge_s,
        "min_speech_s": needed_speech_s(made),
    }
