"""Conversations put together from recordings of single speakers, with the truth of who spoke when.

Each has two to five speakers of one language, who take turns at random: pauses between them, a
fifth of the turns begins before the one before it has ended, sometimes somebody goes on after a
pause. Where an utterance of the list pauses inside, the truth pauses too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmarks.speaker_models import Item
from utils.arrays import FloatArray
from utils.audio.decode import load_audio
from utils.audio.waveform import SAMPLE_RATE
from utils.crops.augment import (
    AugmentContext,
    AugmentSettings,
    add_noise,
    add_reverb,
    telephone,
)
from utils.crops.noises import SoundFolder
from utils.diarization.turns import Turn

OVERLAP_SHARE = 0.2
"""Share of the turns that begin while another speaker still speaks."""

CONTINUED_SHARE = 0.2
"""Share of the turns after which the same speaker goes on."""

FRAME_SAMPLES = 160
"""10 ms: the step of the truth."""

LONGEST_PAUSE_S = 0.3
"""Shorter pauses inside an utterance count as speech."""

KINDS = ("room", "reverberant", "telephone")


@dataclass(frozen=True)
class Conversation:
    """A conversation.

    Attributes:
        name: Language, kind and number.
        waveform: Shape `(num_samples,)`, 16 kHz.
        turns: Who spoke when.
    """

    name: str
    waveform: FloatArray
    turns: list[Turn]


def make_conversation(
    items: Sequence[Item],
    root: str | Path,
    noises: SoundFolder,
    kind: str,
    seed: int,
    num_speakers: int,
    duration_s: float = 180.0,
) -> Conversation:
    """Makes a conversation, the same for the same arguments.

    Args:
        items: Utterances of enough speakers.
        root: Folder that their paths start from.
        noises: Recordings of noise.
        kind: One of `KINDS`.
        seed: Source of all random choices.
        num_speakers: How many speak.
        duration_s: Its length in seconds.
    """
    rng = np.random.default_rng(seed)
    utterances: dict[str, list[str]] = {}
    for item in items:
        utterances.setdefault(item.speaker, []).append(item.path)
    known = sorted(name for name, paths in utterances.items() if len(paths) >= 4)
    speakers = [known[i] for i in rng.choice(len(known), num_speakers, replace=False)]
    levels = {name: 10 ** (rng.uniform(-30, -22) / 20) for name in speakers}
    queues = {name: list(rng.permutation(utterances[name])) for name in speakers}
    rooms = {name: int(rng.integers(2**31)) for name in speakers}
    context = AugmentContext(AugmentSettings(snr_db=(15.0, 25.0)), noises)

    size = round(duration_s * SAMPLE_RATE)
    mixture = np.zeros(size, np.float32)
    turns: list[Turn] = []
    position, previous, last_length = round(0.5 * SAMPLE_RATE), "", 0
    while True:
        is_same = previous != "" and rng.random() < CONTINUED_SHARE
        others = [name for name in speakers if name != previous]
        speaker = previous if is_same else others[int(rng.integers(len(others)))]
        if not queues[speaker]:
            queues[speaker] = list(rng.permutation(utterances[speaker]))
        waveform, stretches = _utterance(Path(root) / queues[speaker].pop())
        speech = waveform / np.sqrt(np.mean(waveform**2) + 1e-9) * levels[speaker]
        if kind == "reverberant":
            speech = add_reverb(
                speech.astype(np.float32), np.random.default_rng(rooms[speaker]), context
            )
        elif kind == "telephone":
            speech = telephone(
                speech.astype(np.float32), np.random.default_rng(rooms[speaker]), context
            )
        is_overlapping = not is_same and last_length and rng.random() < OVERLAP_SHARE
        if is_overlapping:
            most = min(2.0 * SAMPLE_RATE, last_length / 2, len(speech) / 2)
            start = position - round(rng.uniform(0.2, 1.0) * most)
        else:
            start = position + round(float(np.clip(rng.exponential(0.6), 0.1, 3.0)) * SAMPLE_RATE)
        if start + len(speech) + SAMPLE_RATE // 2 > size:
            break
        mixture[start : start + len(speech)] += speech
        for begin, end in stretches:
            turns.append(Turn((start + begin) / SAMPLE_RATE, (start + end) / SAMPLE_RATE, speaker))
        # A short turn inside a long one does not shorten it.
        position = max(position, start + len(speech))
        previous, last_length = speaker, len(speech)
    mixture = add_noise(mixture, rng, context)
    turns.sort(key=lambda turn: turn.start_s)
    return Conversation(f"{kind}_{seed}", mixture, turns)


@lru_cache(maxsize=512)
def _utterance(path: Path) -> tuple[FloatArray, list[tuple[int, int]]]:
    """Returns an utterance without its edges, and where it is speech, in samples.

    Speech lies above 30 % of the way from the quietest to the loudest tenth, in dB, and less than
    35 dB below the loudest.
    """
    waveform = load_audio(path)
    num_frames = len(waveform) // FRAME_SAMPLES
    frames = waveform[: num_frames * FRAME_SAMPLES].reshape(num_frames, FRAME_SAMPLES)
    power = np.convolve(np.mean(frames**2, axis=1), np.full(5, 0.2), "same")
    levels = 10 * np.log10(power + 1e-10)
    low, high = np.percentile(levels, [10, 95])
    heard = np.flatnonzero(levels > max(low + 0.3 * (high - low), high - 35))
    breaks = np.flatnonzero(np.diff(heard) > LONGEST_PAUSE_S * SAMPLE_RATE / FRAME_SAMPLES)
    starts = heard[np.concatenate([[0], breaks + 1])] * FRAME_SAMPLES
    ends = (heard[np.concatenate([breaks, [len(heard) - 1]])] + 1) * FRAME_SAMPLES
    first, last = int(starts[0]), int(ends[-1])
    stretches = [
        (int(start) - first, int(end) - first)
        for start, end in zip(starts, ends, strict=True)
        if end - start >= 8 * FRAME_SAMPLES
    ]
    return waveform[first:last], stretches
