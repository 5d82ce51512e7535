"""Names for the speakers that were found: enrolled people by a threshold, others numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from utils.arrays import FloatArray
from utils.diarization.diarizer import Diarization
from utils.diarization.turns import Turn
from utils.messages import translate
from utils.verification.verdict import verdict

Rank = Callable[[FloatArray], Sequence[tuple[str, float]]]
"""From an embedding to the enrolled people and their scores, the best first."""


@dataclass(frozen=True)
class FoundSpeaker:
    """A speaker of a recording.

    Attributes:
        label: What the turns call it: a name, or 说话人 and a number.
        numbers: Its numbers among the embeddings, from 0; several where two groups of stretches are
            one enrolled person.
        score: Cosine to the best enrolled voice; None if nobody is enrolled.
    """

    label: str
    numbers: tuple[int, ...]
    score: float | None


def numbered_label(number: int) -> str:
    """Returns what a speaker without a name is called, by a number from 1."""
    return translate(f"说话人{number}")


def name_speakers(
    diarization: Diarization, rank: Rank | None, threshold: float
) -> tuple[list[Turn], list[FoundSpeaker]]:
    """Names the speakers.

    Args:
        diarization: Who spoke when.
        rank: The enrolled people, empty if there are none; None means the same.
        threshold: Least score of an enrolled person.

    Returns:
        The turns with labels, those of one person joined where they overlap; and the speakers, in
        the order in which they first speak.
    """
    labels: list[str] = []
    speakers: dict[str, FoundSpeaker] = {}
    for number, embedding in enumerate(diarization.embeddings):
        ranked = rank(embedding) if rank else ()
        name, score = ranked[0] if ranked else ("", None)
        is_match = score is not None and verdict(score, threshold)
        label = name if is_match else numbered_label(number + 1)
        labels.append(label)
        known = speakers.get(label)
        if known is None:
            speakers[label] = FoundSpeaker(label, (number,), score)
        else:
            best = max(score or -1.0, known.score or -1.0)
            speakers[label] = FoundSpeaker(label, (*known.numbers, number), best)
    turns = [replace(turn, speaker=labels[int(turn.speaker) - 1]) for turn in diarization.turns]
    return _join(turns), list(speakers.values())


def _join(turns: Sequence[Turn]) -> list[Turn]:
    """Joins turns of one speaker that overlap or touch; the longer one's score stays."""
    joined: list[Turn] = []
    latest: dict[str, int] = {}
    for turn in turns:
        index = latest.get(turn.speaker)
        before = joined[index] if index is not None else None
        if index is not None and before is not None and turn.start_s <= before.end_s:
            longer = max(before, turn, key=lambda t: t.duration_s)
            end_s = max(before.end_s, turn.end_s)
            joined[index] = replace(before, end_s=end_s, score=longer.score)
        else:
            latest[turn.speaker] = len(joined)
            joined.append(turn)
    return joined
