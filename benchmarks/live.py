"""Measures `infer_recognition.py --live`: who is named, and how soon, in made conversations.

    python benchmarks/live.py --list speech/dev.tsv --root speech \
        --noise speech/noise/background

Conversations of four speakers (see benchmarks/conversations.py, here without overlaps), with room
noise, reverberant and over the telephone, the same on every machine. Half of the speakers are
enrolled with three clean utterances each, and six more people who never speak. A turn counts with
the name that is shown 2 s after it began.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.conversations import KINDS, Conversation, make_conversation
from benchmarks.measuring import Row, add_json_option, table, write_results
from benchmarks.speaker_models import Item, read_items
from utils.arguments import make_parser, non_negative_int, positive_int
from utils.arrays import FloatArray
from utils.audio.waveform import SAMPLE_RATE
from utils.crops.noises import SoundFolder
from utils.errors import run_script
from utils.model.encoder import SpeakerEncoder
from utils.verification.embedding import mean_embedding
from voices import live_voices
from voices.live import LiveRecogniser, LiveTurn, best_of

CORPORA = ("cv_zhCN", "cv_en")
"""Mandarin and English."""

NUM_SPEAKERS = 4
NUM_OTHERS = 6
"""Enrolled people who don't speak."""

NUM_ENROLMENTS = 3
"""Utterances that a speaker is enrolled with."""

PIECE = SAMPLE_RATE // 10
JUDGED_S = 2.0
"""Seconds from the start of a turn to the moment at which the name counts."""

PAUSE_S = 0.5
"""Shorter pauses of one speaker don't part a turn."""


class Enrolled:
    """Enrolled voices in memory."""

    def __init__(self, voices: dict[str, FloatArray]) -> None:
        self._voices = voices

    def names(self) -> list[str]:
        """Returns the speakers."""
        return sorted(self._voices)

    def rank(self, embedding: FloatArray) -> list[tuple[str, float]]:
        """Compares with all, the best first."""
        scores = [(name, float(embedding @ voice)) for name, voice in self._voices.items()]
        return sorted(scores, key=lambda pair: -pair[1])


@dataclass
class Counts:
    """What was shown in the turns of one kind of conversation."""

    enrolled: int = 0
    right: int = 0
    other_name: int = 0
    unknown: int = 0
    taken_for_enrolled: int = 0
    numbers: int = 0
    unknown_speakers: int = 0
    first_s: list[float] = field(default_factory=list)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the options; their defaults come from the environment, for run_all.py."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    speech = os.environ.get("VOICEPRINT_SPEECH", "speech")
    add("--list", default=f"{speech}/dev.tsv", help="table of utterances: path, speaker")
    add("--root", default=speech, help="folder that its paths start from")
    add("--noise", default=f"{speech}/noise/background", help="folder of noise recordings")
    add("--conversations", type=positive_int, default=6, help="of each language")
    add("--duration_s", type=positive_int, default=120, help="seconds of each")
    add("--first_seed", type=non_negative_int, default=0, help="of the conversations")
    add("--lenience", type=float, help="another one than that of voices/live_voices.py")
    add("--model_path", help="speaker model")
    add_json_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Follows the conversations and prints the table."""
    args = parse_args(argv)
    if args.lenience is not None:
        kept = live_voices.KEPT_LENIENCE - live_voices.LENIENCE
        live_voices.LENIENCE = args.lenience
        live_voices.KEPT_LENIENCE = args.lenience + kept
    encoder = SpeakerEncoder(args.model_path, num_threads=1)
    items, noises = read_items(args.list), SoundFolder(args.noise)
    counts: dict[str, Counts] = {}
    heard_s = busy_s = 0.0
    for corpus in CORPORA:
        enrolments, rest = split(items, corpus)
        for seed in range(args.first_seed, args.first_seed + args.conversations):
            kind = KINDS[seed % len(KINDS)]
            talk = make_conversation(
                rest, args.root, noises, kind, seed, NUM_SPEAKERS, args.duration_s, overlaps=False
            )
            database, silent = enrol(encoder, enrolments, talk, Path(args.root))
            start = time.process_time()
            recogniser = LiveRecogniser(encoder, best_of(database), encoder.strict_threshold)  # type: ignore[arg-type]
            shown = follow(recogniser, talk.waveform)
            busy_s += time.process_time() - start
            heard_s += len(talk.waveform) / SAMPLE_RATE
            count(counts.setdefault(kind, Counts()), talk, shown, silent)
            print(f"{corpus} {seed} {kind}: {counts[kind]}", file=sys.stderr)
    details = describe(counts) + f"\n\nReal-time factor on one core: {busy_s / heard_s:.2f}."
    print(details)
    write_results(args.json, overview(counts, busy_s / heard_s), details, ("onnxruntime",), [])
    return 0


def split(items: Sequence[Item], corpus: str) -> tuple[dict[str, list[str]], list[Item]]:
    """Returns the enrolment utterances of each speaker of a corpus, and all other utterances."""
    own: dict[str, list[Item]] = {}
    for item in items:
        if item.corpus == corpus:
            own.setdefault(item.speaker, []).append(item)
    own = {name: listed for name, listed in own.items() if len(listed) >= NUM_ENROLMENTS + 4}
    enrolments = {
        name: [item.path for item in listed[:NUM_ENROLMENTS]] for name, listed in own.items()
    }
    return enrolments, [item for listed in own.values() for item in listed[NUM_ENROLMENTS:]]


def enrol(
    encoder: SpeakerEncoder, enrolments: dict[str, list[str]], talk: Conversation, root: Path
) -> tuple[Enrolled, set[str]]:
    """Enrols half of the speakers and six others; returns them, and who of them speaks."""
    speakers = sorted({turn.speaker for turn in talk.turns})
    known = speakers[::2]
    others = [name for name in sorted(enrolments) if name not in speakers][:NUM_OTHERS]
    voices = {
        name: mean_embedding([encoder.embed_file(root / path) for path in enrolments[name]])
        for name in [*known, *others]
    }
    return Enrolled(voices), set(known)


def follow(recogniser: LiveRecogniser, waveform: FloatArray) -> list[tuple[float, LiveTurn]]:
    """Returns when what was shown, in seconds."""
    shown = []
    for start in range(0, len(waveform), PIECE):
        piece = waveform[start : start + PIECE]
        now = (start + len(piece)) / SAMPLE_RATE
        shown += [(now, turn) for turn in recogniser.hear(piece)]
    return [*shown, *((len(waveform) / SAMPLE_RATE, turn) for turn in recogniser.finish())]


def count(
    counts: Counts, talk: Conversation, shown: Sequence[tuple[float, LiveTurn]], known: set[str]
) -> None:
    """Counts what was shown 2 s after the start of each turn that lasts so long."""
    turns: list[tuple[float, float, str]] = []
    for turn in talk.turns:
        if turns and turns[-1][2] == turn.speaker and turn.start_s - turns[-1][1] < PAUSE_S:
            turns[-1] = (turns[-1][0], turn.end_s, turn.speaker)
        else:
            turns.append((turn.start_s, turn.end_s, turn.speaker))
    unknown = set()
    for start_s, end_s, speaker in turns:
        if end_s - start_s < JUDGED_S:
            continue
        so_far = [turn for at_s, turn in shown if at_s <= start_s + JUDGED_S]
        label = so_far[-1].speaker if so_far else None
        if speaker in known:
            counts.enrolled += 1
            counts.right += label == speaker
            counts.other_name += isinstance(label, str) and label != speaker
        else:
            unknown.add(speaker)
            counts.unknown += 1
            counts.taken_for_enrolled += isinstance(label, str)
        named = [
            at_s for at_s, turn in shown if start_s < at_s < end_s and turn.speaker is not None
        ]
        counts.first_s += [named[0] - start_s] if named else []
    counts.unknown_speakers += len(unknown)
    counts.numbers += len({t.number for _, t in shown if t.is_over and t.number is not None})


def describe(counts: dict[str, Counts]) -> str:
    """Returns the table."""
    header = (
        "conversations", "turns of enrolled people", "right name", "another's name",
        "turns of unknown people", "taken for an enrolled one", "unknown people", "numbers given",
        "first answer after, median (90 %)",
    )  # fmt: skip
    lines = []
    for kind, found in counts.items():
        lines.append([
            kind, str(found.enrolled), f"{100 * found.right / max(found.enrolled, 1):.1f} %",
            str(found.other_name), str(found.unknown), str(found.taken_for_enrolled),
            str(found.unknown_speakers), str(found.numbers),
            f"{np.median(found.first_s):.1f} s ({np.percentile(found.first_s, 90):.1f} s)",
        ])  # fmt: skip
    return table(header, lines)


def overview(counts: dict[str, Counts], real_time_factor: float) -> list[Row]:
    """Returns the lines of the overview: the targets."""
    every = list(counts.values())
    right = sum(c.right for c in every) / max(sum(c.enrolled for c in every), 1)
    wrong = sum(c.taken_for_enrolled for c in every) / max(sum(c.unknown for c in every), 1)
    return [
        Row("live: right name 2 s into a turn", "-", f"{100 * right:.1f} %", "-", ">= 95 %"),
        Row("live: unknown taken for enrolled", "-", f"{100 * wrong:.1f} %", "-", "<= 1 %"),
        Row("live: real-time factor, one core", "-", f"{real_time_factor:.2f}", "-", "<= 0.3"),
    ]


if __name__ == "__main__":
    run_script(main)
