"""Whether a recording that should hold one voice holds several, one after another."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from utils.audio.recording import Recording
from utils.diarization.segmentation import MODEL_PATH
from utils.errors import AudioError
from utils.messages import translate
from utils.verification.embedding import Encoder

CHECKED_S = 8.0
"""Seconds from which a recording is searched without being asked for: it takes 0.2 s and more, and
shorter ones hardly hold two voices of more than a word."""


def note_voices(encoder: Encoder, recordings: Sequence[Recording], is_strict: bool) -> None:
    """Says on stderr which recordings hold several voices, with the seconds of each.

    Args:
        encoder: The speaker model.
        recordings: Recordings that should hold one voice each.
        is_strict: Refuse them instead; recordings of any length are searched then.

    Raises:
        AudioError: If a recording holds several voices, with `is_strict`.
    """
    for recording in recordings:
        seconds = voices_of(recording, encoder) if is_strict or is_long(recording) else []
        if len(seconds) < 2:
            continue
        name, count, each = recording.source, len(seconds), ", ".join(f"{s:.1f} s" for s in seconds)
        if is_strict:
            raise AudioError(
                f"{name}: {count} voices ({each}), expected one; choose a part of the recording"
            )
        note = f"note: {name}: {count} voices ({each}), mixed here; choose a part of it"
        print(translate(note), file=sys.stderr)


def is_long(recording: Recording) -> bool:
    """Tells whether a recording is searched without being asked for, where the network is."""
    return recording.duration_s >= CHECKED_S and MODEL_PATH.is_file()


def voices_of(recording: Recording, encoder: Encoder) -> list[float]:
    """Returns the seconds of each voice, the longest first; none if nobody is found."""
    # Most recordings are too short to need these, whose import takes 60 ms.
    from utils.diarization.diarizer import diarize
    from utils.diarization.turns import speaking_seconds

    try:
        turns = diarize(recording, encoder).turns
    except AudioError:  # whoever uses the recording says what is wrong with it
        return []
    return sorted(speaking_seconds(turns).values(), reverse=True)
