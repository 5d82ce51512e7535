r"""Measures what --denoise and --trim_silence of create_data.py do to recognition: EER and minDCF.

    python benchmarks/denoise.py speech/dev.tsv --root speech --noise speech/noise

The list is a table with a header and tab-separated columns path and speaker. Each pair of different
utterances is a trial of the model, which removes silence itself.

Conditions:
- clean: the recordings as they are.
- steady: with a room's noise 10 dB below the speech, 1 s of it alone before and after.
- recorded: the same with a noise of the folder --noise, another one for each recording.
- steady, recorded on one side: a clean recording against a noisy one; both are treated.

Treatments: none; denoise and trim_silence as `utils/corpus/treatment.py` does them; whole: the
library's own estimate of the noise from the whole recording; adaptive: its mode for noise that
changes.
"""

import argparse
import datetime
import functools
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.silence import room_noise, stacked
from benchmarks.speaker_models import (
    P_TARGET,
    Item,
    cosine_scores,
    figure,
    read_items,
    rms,
)
from utils.arguments import make_parser, positive_int
from utils.arrays import FloatArray
from utils.audio.activity import remove_silence
from utils.audio.decode import load_audio
from utils.audio.recording import Recording
from utils.audio.suffixes import AUDIO_SUFFIXES
from utils.audio.waveform import SAMPLE_RATE
from utils.corpus.treatment import turn_down_noise
from utils.errors import AudioError, run_script
from utils.files import write_text_atomically
from utils.verification.embedding import Encoder
from utils.workers import map_in_processes

SNR_DB = 10.0
PAUSE_S = 1.0

TRIALS = {
    "clean": ("clean", "clean"),
    "steady": ("steady", "steady"),
    "recorded": ("recorded", "recorded"),
    "steady on one side": ("clean", "steady"),
    "recorded on one side": ("clean", "recorded"),
}
"""Enrolled and tested condition of each row."""


def trim_silence(waveform: FloatArray) -> FloatArray:
    """Cuts silence out as create_data.py does."""
    return remove_silence(waveform, Recording(waveform).activity)


def gate_whole(waveform: FloatArray) -> FloatArray:
    """Turns down what is steady in the whole recording, the voice too."""
    from noisereduce import reduce_noise

    return np.asarray(reduce_noise(y=waveform, sr=SAMPLE_RATE, stationary=True), np.float32)


def gate_adaptive(waveform: FloatArray) -> FloatArray:
    """Turns down noise that may change."""
    from noisereduce import reduce_noise

    return np.asarray(reduce_noise(y=waveform, sr=SAMPLE_RATE, stationary=False), np.float32)


TREATMENTS = {
    "none": lambda waveform: waveform,
    "denoise": turn_down_noise,
    "trim_silence": trim_silence,
    "whole": gate_whole,
    "adaptive": gate_adaptive,
}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("list_path", help="table of utterances")
    add("--root", default=".", help="folder that the paths are relative to")
    add("--noise", metavar="DIR", help="folder of recorded noises (default: steady noise only)")
    add("--model_path", default="models/campplus.onnx")
    add("--treatments", nargs="+", choices=list(TREATMENTS), default=list(TREATMENTS))
    add("--every", type=positive_int, default=1, help="take only every so many speakers")
    add("--num_workers", type=positive_int, default=1, help="processes")
    add("--output", help="file for the table, else it is only printed")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measures every treatment and writes the table."""
    args = parse_args(argv)
    items = read_items(args.list_path)
    chosen = set(list(dict.fromkeys(item.speaker for item in items))[:: args.every])
    items = [item for item in items if item.speaker in chosen]
    noises = sorted(Path(args.noise).rglob("*.*")) if args.noise else []
    noises = [path for path in noises if path.suffix.lower() in AUDIO_SUFFIXES]
    conditions = ["clean", "steady", *(["recorded"] if noises else [])]
    work = functools.partial(
        measure, args.root, args.model_path, conditions, tuple(args.treatments), noises
    )
    results = map_in_processes(work, items, args.num_workers, lambda _: ({}, {}))
    embeddings: dict[tuple[str, str], list[FloatArray | None]] = {}
    seconds = dict.fromkeys([*args.treatments, ""], 0.0)
    for found, times in tqdm(results, total=len(items), unit="clip"):
        for key in [(c, t) for c in conditions for t in args.treatments]:
            embeddings.setdefault(key, []).append(found.get(key))
        for name, value in times.items():
            seconds[name] += value
    rows = []
    for condition, sides in TRIALS.items():
        for name in args.treatments if sides[1] in {key[0] for key in embeddings} else []:
            pair = [embeddings[side, name] for side in sides]
            cost_ms = 1000 * seconds[name] / max(seconds[""], 1e-9)
            rows.append([condition, name, *figures(pair, items), f"{cost_ms:.1f}"])
    text = markdown(args.list_path, items, rows)
    print(text)
    if args.output:
        write_text_atomically(args.output, text)
    return 0


def measure(
    root: str,
    model_path: str,
    conditions: Sequence[str],
    treatments: Sequence[str],
    noises: Sequence[Path],
    item: Item,
) -> tuple[dict[tuple[str, str], FloatArray | None], dict[str, float]]:
    """Treats and embeds one recording under all conditions.

    Returns:
        Embeddings by condition and treatment, None where it is refused; processor seconds of each
        treatment, and under "" the seconds of sound.
    """
    encoder = load_encoder(model_path)
    waveform = load_audio(Path(root) / item.path)
    embeddings: dict[tuple[str, str], FloatArray | None] = {}
    seconds = dict.fromkeys([*treatments, ""], 0.0)
    for condition in conditions:
        sound = degraded(waveform, condition, item, noises)
        seconds[""] += len(sound) / SAMPLE_RATE
        for name in treatments:
            start = time.thread_time()
            treated = TREATMENTS[name](sound)
            seconds[name] += time.thread_time() - start
            try:
                embeddings[condition, name] = encoder.embed_waveform(treated)
            except AudioError:
                embeddings[condition, name] = None
    return embeddings, seconds


@functools.lru_cache(maxsize=1)
def load_encoder(model_path: str) -> Encoder:
    """Loads the model, once in each process."""
    from utils.model.encoder import SpeakerEncoder

    return SpeakerEncoder(model_path, 1)


def degraded(
    waveform: FloatArray, condition: str, item: Item, noises: Sequence[Path]
) -> FloatArray:
    """Returns a recording under a condition; the utterance's path chooses the noise."""
    if condition == "clean":
        return waveform
    seed = zlib.crc32(item.path.encode())
    padded = np.pad(waveform, round(PAUSE_S * SAMPLE_RATE))
    if condition == "steady":
        noise = room_noise(len(padded), 0.0, seed)
    else:
        noise = np.resize(load_audio(noises[seed % len(noises)]), len(padded))
    level = rms(remove_silence(waveform)) * 10 ** (-SNR_DB / 20)
    return np.asarray(padded + noise * np.float32(level / max(rms(noise), 1e-9)), np.float32)


def figures(found: Sequence[Sequence[FloatArray | None]], items: Sequence[Item]) -> list[str]:
    """Returns EER, minDCF and the number of refused recordings as text."""
    left, right = stacked(found[0]), stacked(found[1])
    scores = cosine_scores(left, right, standardize=False)
    result = figure(scores, np.ones(len(items), bool), items, symmetric=found[0] is found[1])
    refused = str(sum(embedding is None for embedding in found[1]))
    if result is None:
        return ["", "", refused]
    return [f"{100 * result['eer']:.2f}", f"{result['min_dcf']:.3f}", refused]


def markdown(list_path: str, items: Sequence[Item], rows: Sequence[Sequence[str]]) -> str:
    """Returns the report: one table, one row per condition and treatment."""
    num_speakers = len({item.speaker for item in items})
    lines = [
        f"{len(items)} utterances of {num_speakers} speakers ({Path(list_path).name}), "
        f"{datetime.date.today().isoformat()}, `python benchmarks/denoise.py`. EER in %, minDCF "
        f"with P(target) = {P_TARGET}, equal costs; ms of one core per second of the recording.",
        "",
        "| condition | treatment | EER | minDCF | refused | ms/s |",
        "|---|---|---:|---:|---:|---:|",
        *(f"| {' | '.join(cells)} |" for cells in rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_script(main)
