"""Whether the channels of a recording hold different voices, as those of a telephone call do.

Mixed, they make an embedding of nobody. Channels that have much in common are never looked at, so
that recordings with one channel, and stereo recordings of one voice, cost nothing.
"""

import sys
from collections.abc import Sequence
from itertools import combinations

from utils.audio.recording import Recording
from utils.errors import AudioError
from utils.messages import translate
from utils.verification.embedding import Encoder, score_pair
from utils.verification.verdict import verdict


def differing_channels(encoder: Encoder, recording: Recording, threshold: float) -> tuple[int, ...]:
    """Returns the channels of a recording that hold different voices.

    Args:
        encoder: The speaker model.
        recording: As `Recording.load` gave it.
        threshold: Least score of the same person.

    Returns:
        Their numbers, from 1, if two of them differ; none otherwise.
    """
    embeddings = {}
    for number, load in recording.channels.items():
        try:
            embeddings[number] = encoder.embed_waveform(load())
        except AudioError:  # nobody speaks in it, or it was replaced meanwhile
            continue
    pairs = combinations(embeddings.values(), 2)
    is_one = all(verdict(score_pair(encoder, *pair), threshold) for pair in pairs)
    return () if is_one else tuple(embeddings)


def note_channels(
    encoder: Encoder, recordings: Sequence[Recording], threshold: float
) -> list[tuple[int, ...]]:
    """Says on stderr which channels of recordings hold different voices, and returns them."""
    found = [differing_channels(encoder, recording, threshold) for recording in recordings]
    for recording, channels in zip(recordings, found, strict=True):
        if channels:
            numbers = ", ".join(map(str, channels))
            note = (
                f"note: {recording.source}: channels {numbers} hold different voices, mixed here; "
                "choose one with --channel"
            )
            print(translate(note), file=sys.stderr)
    return found
