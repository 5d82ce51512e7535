"""The voice of a speaker, cut out of a recording by its turns, to enrol it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.arrays import FloatArray
from utils.audio.decode import read_blocks
from utils.audio.decoders import Source
from utils.audio.recording import BLOCK_S
from utils.audio.waveform import SAMPLE_RATE
from utils.diarization.names import numbered_label
from utils.diarization.turns import Turn
from utils.errors import VoiceprintError
from utils.speaker_names import clean_name

MOST_SPEECH_S = 30.0
"""Seconds of speech that are taken: more tells a voice hardly better."""


@dataclass(frozen=True)
class Wish:
    """A speaker to enrol.

    Attributes:
        speaker: What the turns call it, or its number.
        name: The name to enrol it by.
    """

    speaker: str
    name: str


def parse_wish(text: str) -> Wish:
    """Reads `SPEAKER=NAME`.

    Raises:
        VoiceprintError: If one of both is missing, or the name cannot be one.
    """
    speaker, equals, name = text.partition("=")
    if not equals or not speaker.strip():
        raise VoiceprintError(f"--enrol: received {text!r}, expected SPEAKER=NAME")
    return Wish(speaker.strip(), clean_name(name))


def speech_of(
    wish: Wish, turns: Sequence[Turn], source: str | Path, channel: str = "mix"
) -> FloatArray:
    """Returns the speech of a speaker, from the longest turns in which nobody else speaks.

    Args:
        wish: Whom to enrol.
        turns: All turns of the recording.
        source: The recording.
        channel: As in `load_audio`.

    Returns:
        Shape `(num_samples,)`, at most 30 s, in order of time.

    Raises:
        VoiceprintError: If there is no such speaker, or none of the turns is the speaker's alone.
    """
    label = find_label(wish, turns)
    speech = speech_of_each([label], turns, source, channel)
    if label not in speech:
        raise VoiceprintError(
            f"--enrol {wish.speaker}: speaks only while others do, expected speech of one voice; "
            "enrol from another recording"
        )
    return speech[label]


def speech_of_each(
    labels: Iterable[str], turns: Sequence[Turn], source: Source, channel: str = "mix"
) -> dict[str, FloatArray]:
    """Returns the speech of several speakers, as `speech_of` does, in one pass over the recording.

    Args:
        labels: What the turns call them.
        turns: All turns of the recording.
        source: The recording, as in `read_blocks`.
        channel: As in `load_audio`.

    Returns:
        Shape `(num_samples,)` each; whoever speaks only while others do is left out.
    """
    parts = {label: _longest_alone(label, turns) for label in labels}
    return _cut_out({label: own for label, own in parts.items() if own}, source, channel)


def find_label(wish: Wish, turns: Sequence[Turn]) -> str:
    """Returns what the turns call a speaker: as it is printed in any language, or its number.

    Raises:
        VoiceprintError: If there is no such speaker.
    """
    labels = dict.fromkeys(turn.speaker for turn in turns)
    digits = wish.speaker.lower().removeprefix("speaker").removeprefix("说话人").strip()
    for label in (wish.speaker, numbered_label(int(digits)) if digits.isdecimal() else ""):
        if label in labels:
            return label
    raise VoiceprintError(
        f"--enrol {wish.speaker}: nobody is called so, expected one of: {', '.join(labels)}"
    )


def _longest_alone(label: str, turns: Sequence[Turn]) -> list[tuple[float, float]]:
    """Returns the longest parts in which a speaker speaks alone, 30 s together, in order."""
    alone = _alone(
        [t for t in turns if t.speaker == label], [t for t in turns if t.speaker != label]
    )
    chosen: list[tuple[float, float]] = []
    total_s = 0.0
    for start_s, end_s in sorted(alone, key=lambda part: part[0] - part[1]):
        if total_s >= MOST_SPEECH_S:
            break
        end_s = min(end_s, start_s + MOST_SPEECH_S - total_s)
        chosen.append((start_s, end_s))
        total_s += end_s - start_s
    return sorted(chosen)


def _alone(own: Sequence[Turn], others: Sequence[Turn]) -> list[tuple[float, float]]:
    """Returns the parts of turns in which no other turn is."""
    parts = [(turn.start_s, turn.end_s) for turn in own]
    for other in others:
        cut = []
        for start_s, end_s in parts:
            if other.end_s <= start_s or other.start_s >= end_s:
                cut.append((start_s, end_s))
                continue
            cut += [(start_s, other.start_s), (other.end_s, end_s)]
        parts = [(start_s, end_s) for start_s, end_s in cut if end_s > start_s]
    return parts


def _cut_out(
    parts: Mapping[str, list[tuple[float, float]]], source: Source, channel: str
) -> dict[str, FloatArray]:
    """Reads each speaker's parts of a recording, in seconds and in order, block by block."""
    pieces: dict[str, list[FloatArray]] = {label: [] for label in parts}
    position = 0
    for block in read_blocks(source, BLOCK_S, channel=channel):
        for label, own in parts.items():
            for start_s, end_s in own:
                first = max(round(start_s * SAMPLE_RATE) - position, 0)
                last = min(round(end_s * SAMPLE_RATE) - position, len(block))
                if first < last:
                    pieces[label].append(block[first:last].copy())
        position += len(block)
    return {label: np.concatenate(found) for label, found in pieces.items() if found}
