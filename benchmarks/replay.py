r"""How well a recording is known again that was sent before, and how often a new one is mistaken.

    python benchmarks/replay.py speech/dev.tsv
    python benchmarks/replay.py speech/dev.tsv --digits AudioMNIST --replays 400

Each recording is changed as somebody might who sends it again: encoded anew, louder, cut, with
noise, faster. It should agree with the original by `SAME` or more. Other utterances of the same
speaker should not; nor the same digits, read twice by the same speaker: --digits names a folder
of single digits, DIGIT_SPEAKER_TAKE, as AudioMNIST and the Free Spoken Digit Dataset have them, or
a list of them, of which strings of six are made. Beside it stands what the cosine of the
embeddings would do, at the lowest threshold that mistakes none of these.
"""

import argparse
import io
import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measuring import Row, add_json_option, table, write_results
from utils.arguments import make_parser, non_negative_int, positive_int
from utils.arrays import FloatArray
from utils.audio.decode import load_audio
from utils.audio.fingerprint import SAME, Print, agreement, take_prints
from utils.audio.waveform import SAMPLE_RATE
from utils.corpus.clip_lists import read_clips
from utils.errors import AudioError, DataListError, run_script
from utils.verification.verdict import cosine_score

NUM_DIGITS = 6

PAUSE_S = 0.15
"""Seconds between the digits of a string."""

MIN_S = 2.0
"""Shorter utterances are left out: no service takes them for a reading of digits."""

Change = Callable[[FloatArray, np.random.Generator], FloatArray]


def coded(container: str, subtype: str, rate: int = SAMPLE_RATE, **options: Any) -> Change:
    """Returns what encodes and decodes a waveform."""

    def change(waveform: FloatArray, _: np.random.Generator) -> FloatArray:
        import soundfile
        import soxr

        buffer = io.BytesIO()
        samples = soxr.resample(waveform, SAMPLE_RATE, rate)
        soundfile.write(buffer, samples, rate, format=container, subtype=subtype, **options)
        return load_audio(buffer.getvalue())

    return change


def noisy(snr_db: float) -> Change:
    """Returns what adds white noise."""

    def change(waveform: FloatArray, random: np.random.Generator) -> FloatArray:
        noise = random.standard_normal(len(waveform))
        level = np.sqrt(np.mean(waveform**2) / 10 ** (snr_db / 10))
        return np.asarray(waveform + level * noise, np.float32)

    return change


def faster(factor: float) -> Change:
    """Returns what plays a waveform faster, with its pitch."""

    def change(waveform: FloatArray, _: np.random.Generator) -> FloatArray:
        import soxr

        return np.asarray(soxr.resample(waveform, SAMPLE_RATE, SAMPLE_RATE / factor), np.float32)

    return change


def cut(waveform: FloatArray, random: np.random.Generator) -> FloatArray:
    """Cuts up to 0.4 s off the beginning and the end."""
    first, last = random.integers(1, round(0.4 * SAMPLE_RATE), 2)
    return waveform[first : len(waveform) - last]


def padded(waveform: FloatArray, random: np.random.Generator) -> FloatArray:
    """Puts up to 0.5 s of silence before and behind."""
    first, last = random.integers(1, SAMPLE_RATE // 2, 2)
    return np.asarray(np.pad(waveform, (first, last)), np.float32)


def clipped(waveform: FloatArray, _: np.random.Generator) -> FloatArray:
    """Makes it 12 dB too loud."""
    return np.asarray(np.clip(4 * waveform / np.abs(waveform).max(), -1, 1), np.float32)


def quiet(waveform: FloatArray, random: np.random.Generator) -> FloatArray:
    """Makes it 20 dB quieter, in 16 bits."""
    return coded("WAV", "PCM_16")(0.1 * waveform, random)


def several(*changes: Change) -> Change:
    """Returns what does one change after the other."""

    def change(waveform: FloatArray, random: np.random.Generator) -> FloatArray:
        for each in changes:
            waveform = each(waveform, random)
        return waveform

    return change


MP3 = coded("MP3", "MPEG_LAYER_III", compression_level=0.99)
OPUS = coded("OGG", "OPUS", compression_level=0.99)

CHANGES: dict[str, Change] = {
    "mp3, lowest rate": MP3,
    "Opus, lowest rate": OPUS,
    "Vorbis, lowest rate": coded("OGG", "VORBIS", compression_level=0.99),
    "telephone (8 kHz, mu-law)": coded("WAV", "ULAW", 8000),
    "20 dB quieter": quiet,
    "12 dB too loud, clipped": clipped,
    "cut by up to 0.4 s at both ends": cut,
    "padded by up to 0.5 s at both ends": padded,
    "cut, quieter, mp3, Opus": several(cut, quiet, MP3, OPUS),
    "white noise, 20 dB below": noisy(20),
    "white noise, 10 dB below": noisy(10),
    "white noise, 5 dB below": noisy(5),
    "white noise, as loud": noisy(0),
    "1 % faster": faster(1.01),
    "3 % faster": faster(1.03),
}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add = parser.add_argument
    speech = os.environ.get("VOICEPRINT_SPEECH", "speech")
    add("list", nargs="?", default=f"{speech}/dev.tsv", help="table or folder of utterances")
    add("--digits", metavar="FOLDER", help="single digits, each several times by a speaker")
    add("--replays", type=positive_int, default=100, help="recordings that are sent again")
    add("--utterances", type=positive_int, default=8, help="of each speaker, for false alarms")
    add("--strings", type=positive_int, default=20, help="pairs of strings of each speaker")
    add("--seed", type=non_negative_int, default=0, help="of cuts, noise and digits")
    add("--model_path", help="speaker model; the word none leaves the embeddings out")
    add_json_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measures and prints the tables."""
    args = parse_args(argv)
    random = np.random.default_rng(args.seed)
    own = utterances(args.list, args.utterances)
    embed = None if args.model_path == "none" else embedder(args.model_path)
    pairs = {"another utterance of the speaker": other_utterances(own)}
    if args.digits:
        takes = read_digits(args.digits)
        pairs["the same digits, read again"] = strings_of(takes, args.strings, random)
    alarms = {what: measure(some, embed) for what, some in pairs.items()}
    lowest = max(float(each[:, 1].max()) for each in alarms.values())
    chosen = [path for paths in own.values() for path in paths]
    chosen = chosen[:: max(1, len(chosen) // args.replays)][: args.replays]
    waveforms = [load_audio(path) for path in chosen]
    replays = {
        what: measure(((wave, change(wave, random)) for wave in waveforms), embed)
        for what, change in CHANGES.items()
    }
    details = describe(replays, alarms, lowest, embed is not None)
    print(details)
    write_results(args.json, overview(replays, alarms), details, ("numpy", "soundfile"))
    return 0


def utterances(source: str, most: int) -> dict[int, list[str]]:
    """Returns some long enough utterances of each speaker.

    Raises:
        DataListError: If no speaker has two.
    """
    found: dict[int, list[str]] = defaultdict(list)
    for clip in read_clips(source):
        is_long = clip.seconds is None or clip.seconds >= MIN_S
        if is_long and len(found[clip.label]) < most:
            found[clip.label].append(clip.path)
    several = {label: paths for label, paths in found.items() if len(paths) > 1}
    if not several:
        raise DataListError(f"{source}: no speaker with two utterances of {MIN_S:g} s; give others")
    return several


def other_utterances(own: dict[int, list[str]]) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yields all pairs of utterances of each speaker."""
    for paths in own.values():
        yield from combinations([load_audio(path) for path in paths], 2)


def read_digits(source: str) -> dict[str, dict[str, list[FloatArray]]]:
    """Returns speaker -> digit -> its takes, of those who say several digits several times.

    Raises:
        DataListError: If nobody does.
    """
    found: dict[str, dict[str, list[FloatArray]]] = defaultdict(lambda: defaultdict(list))
    paths = sorted(map(str, Path(source).rglob("*"))) if Path(source).is_dir() else [
        clip.path for clip in read_clips(source)
    ]  # fmt: skip
    for path in paths:
        if match := re.fullmatch(r"(\d)_([^_]+)_\d+", Path(path).stem):
            found[match[2]][match[1]].append(load_audio(path))
    several = {
        speaker: {digit: takes for digit, takes in digits.items() if len(takes) > 1}
        for speaker, digits in found.items()
    }
    chosen = {speaker: digits for speaker, digits in several.items() if len(digits) >= NUM_DIGITS}
    if not chosen:
        raise DataListError(
            f"{source}: nobody says {NUM_DIGITS} digits twice, expected DIGIT_SPEAKER_TAKE.wav"
        )
    return chosen


def strings_of(
    takes: dict[str, dict[str, list[FloatArray]]], num_pairs: int, random: np.random.Generator
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yields pairs of strings of the same digits, each digit by two takes."""
    pause = np.zeros(round(PAUSE_S * SAMPLE_RATE), np.float32)
    for digits in takes.values():
        for _ in range(num_pairs):
            first, second = [], []
            for digit in random.permutation(sorted(digits))[:NUM_DIGITS]:
                one, two = random.choice(len(digits[digit]), 2, replace=False)
                first += [digits[digit][one], pause]
                second += [digits[digit][two], pause]
            yield np.concatenate(first), np.concatenate(second)


def embedder(model_path: str | None) -> Callable[[FloatArray], FloatArray]:
    """Returns what embeds a waveform."""
    from utils.model.encoder import SpeakerEncoder

    return SpeakerEncoder(model_path, num_threads=1).embed_waveform


def measure(
    pairs: Iterator[tuple[FloatArray, FloatArray]],
    embed: Callable[[FloatArray], FloatArray] | None,
) -> FloatArray:
    """Returns agreement of the prints and cosine of the embeddings of pairs, shape `(n, 2)`.

    A recording that the service would refuse is left out; without a model the cosine is NaN.
    """
    taken: dict[int, tuple[FloatArray, tuple[Print, ...], FloatArray | None]] = {}

    def take(waveform: FloatArray) -> tuple[FloatArray, tuple[Print, ...], FloatArray | None]:
        if id(waveform) not in taken:  # the waveform is kept, so that its id stays its own
            embedding = None if embed is None else embed(waveform)
            taken[id(waveform)] = waveform, take_prints(waveform), embedding
        return taken[id(waveform)]

    found = []
    for first, second in pairs:
        try:
            (_, kept, left), (_, new, right) = take(first), take(second)
        except AudioError:
            continue
        cosine = float("nan") if left is None or right is None else cosine_score(left, right)
        found.append((max(agreement(each, kept[:1]) for each in new), cosine))
    return np.array(found)


def describe(
    replays: dict[str, FloatArray], alarms: dict[str, FloatArray], lowest: float, has_model: bool
) -> str:
    """Returns the tables."""
    header = ["sent again", "known", "agreement: lowest", "5 %", "median"]
    header += [f"known by a cosine above {lowest:.3f}"] * has_model
    lines = []
    for what, found in replays.items():
        low, some, middle = np.percentile(found[:, 0], [0, 5, 50])
        shares = [f"{np.mean(found[:, 0] >= SAME):.1%}"]
        cells = [f"{value:.2f}" for value in (low, some, middle)]
        lines.append([what, *shares, *cells])
        if has_model:
            lines[-1].append(f"{np.mean(found[:, 1] > lowest):.1%}")
    parts = [f"{len(found)} recordings each.", "", table(header, lines), ""]
    header = ["a new recording", "pairs", "mistaken", "agreement: median", "99 %", "highest"]
    header += ["highest cosine"] * has_model
    lines = []
    for what, found in alarms.items():
        cells = [f"{value:.2f}" for value in np.percentile(found[:, 0], [50, 99, 100])]
        mistaken = int(np.sum(found[:, 0] >= SAME))
        lines.append([what, f"{len(found):,}", f"{mistaken}", *cells])
        if has_model:
            lines[-1].append(f"{found[:, 1].max():.3f}")
    parts.append(table(header, lines))
    return "\n".join(parts)


def overview(replays: dict[str, FloatArray], alarms: dict[str, FloatArray]) -> list[Row]:
    """Returns the lines of the overview."""
    found = replays["cut, quieter, mp3, Opus"][:, 0]
    num_pairs = sum(map(len, alarms.values()))
    mistaken = sum(int(np.sum(each[:, 0] >= SAME)) for each in alarms.values())
    return [
        Row(
            "an upload sent again, cut, quieter, as mp3 and Opus: known",
            "", f"{np.mean(found >= SAME):.1%}", "", "99 %",
        ),
        Row(f"{num_pairs:,} new recordings: mistaken for it", "", f"{mistaken}", "", "0"),
    ]  # fmt: skip


if __name__ == "__main__":
    run_script(main)
