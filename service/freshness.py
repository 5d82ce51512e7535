"""Whether a recording was made for this request: digits that were asked for, and no replay.

What is said in it nobody here understands. A recording that was not sent before, and that was made
with other words, passes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Form, Request

from service.answers.problems import Problem
from service.context import Service, owner_of
from service.encoding.uploads import Voice
from voices.sql.challenges import Challenge
from voices.sql.requests import Errand
from voices.sql.uploads import Retention, Upload

ChallengeField = Annotated[
    str | None, Form(max_length=64, description="The id of a challenge that the recording is for")
]

SPEECH_PER_DIGIT_S = 0.25
"""Seconds of speech that a digit takes at least: hurried readers need 0.3, of any language."""

WORDS = {
    "en": ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    "zh": list("零一二三四五六七八九"),
}
"""Language -> the ten digits."""


@dataclass(frozen=True)
class Freshness:
    """What a request is checked for.

    Attributes:
        challenge: What was to be read, None if nothing.
        remembers: Whether the recordings are compared with earlier ones and remembered.
    """

    challenge: Challenge | None
    remembers: bool

    @property
    def is_asked(self) -> bool:
        """Whether there is anything to check."""
        return self.challenge is not None or self.remembers

    @property
    def challenge_id(self) -> str | None:
        """The challenge's id."""
        return None if self.challenge is None else self.challenge.id

    def uploads(self, voices: Sequence[Voice]) -> list[Upload]:
        """Returns what is remembered of recordings.

        Raises:
            Problem: 422, if there is too little speech for the digits.
        """
        if self.challenge is not None:
            heard_s = sum(voice.quality.speech_s for voice in voices)
            needed_s = needed_speech_s(self.challenge)
            if heard_s < needed_s:
                raise Problem(
                    "not-read",
                    f"{heard_s:.1f} s of speech for {len(self.challenge.digits)} digits; read all "
                    "of them, with the same challenge while its time lasts",
                    received=f"{heard_s:.2f} s of speech",
                    expected=f"at least {needed_s:g} s",
                )
        return [voice.upload for voice in voices if voice.upload is not None]


def needed_speech_s(challenge: Challenge) -> float:
    """Returns how many seconds of speech the digits take at least."""
    return SPEECH_PER_DIGIT_S * len(challenge.digits)


async def begin(
    request: Request,
    service: Service,
    name: str,
    challenge_id: str | None,
    *,
    is_required: bool = False,
) -> Freshness:
    """Returns what to check, before the recordings are decoded.

    Args:
        request: The request.
        service: The service.
        name: In whose name it is sent.
        challenge_id: What the client sent.
        is_required: Whether the settings may require a challenge here.

    Raises:
        Problem: 428 if a challenge is missing, 409 if it cannot be used.
    """
    settings = service.settings
    if challenge_id is None:
        if is_required and settings.challenge == "required":
            raise Problem(
                "challenge-required",
                "ask for digits with POST /v1/challenges, and send their reading with its id in "
                "the field challenge",
            )
        return Freshness(None, settings.replay_check == "all")
    found = None
    if settings.challenge != "off":
        find = service.database.challenges.find
        found = await service.call(find, challenge_id, owner_of(request))
    if found is None:
        raise _bad("unknown", "no such challenge; ask for another one")
    if found.is_used:
        raise _bad("used", "a recording was sent for this challenge already; ask for another one")
    if found.is_expired:
        raise _bad("expired", "the challenge's time is over; ask for another one")
    if not found.fits(name):
        raise _bad("other-speaker", f"the challenge is not for {name}; ask for another one")
    return Freshness(found, settings.replay_check != "off")


async def admit(
    request: Request, service: Service, name: str, fresh: Freshness, new: Sequence[Upload]
) -> None:
    """Uses up the challenge, and remembers recordings that were sent in a speaker's name.

    Raises:
        ReplayedError: If one was sent before.
        UsedChallengeError: If the challenge was used meanwhile.
    """
    voices, memory = service.voices(request), service.database.uploads
    retention = retention_of(service)

    def run() -> None:
        memory.admit(voices.speaker_id(name), new, fresh.challenge_id, retention)

    await service.call(run)


def on_errand(service: Service, errand: Errand, fresh: Freshness, new: Sequence[Upload]) -> Errand:
    """Returns an errand that does the same within the transaction of an enrolment."""
    if not fresh.is_asked:
        return errand
    memory = service.database.uploads
    return replace(errand, also=memory.admission(new, fresh.challenge_id, retention_of(service)))


async def note_replay(
    request: Request, service: Service, name: str, score: float | None = None
) -> None:
    """Counts a replay, and writes it into the audit log."""
    service.metrics.decisions.labels("replay", "rejected").inc()
    await service.note(request, "replay", name, "refused", score)


def retention_of(service: Service) -> Retention:
    """Returns how much is remembered of a speaker."""
    return Retention(service.settings.replay_uploads, service.settings.replay_days)


def _bad(reason: str, detail: str) -> Problem:
    """Returns the problem of a challenge that cannot be used."""
    return Problem("bad-challenge", detail, reason=reason)
