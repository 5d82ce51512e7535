r"""Measures the effect of removing silence: EER and minDCF with and without, in one table.

    python benchmarks/silence.py speech/dev.tsv --root speech --output silence.md

The list is a table with a header and tab-separated columns path and speaker. Each pair of different
utterances is a trial. Treatments of a recording, whose offset and
rumble are gone, before the network: none, the energy detector of utils/audio/activity.py that the
scripts use, and other detectors if installed: webrtcvad (package webrtcvad-wheels) and silero
(packages silero-vad and onnxruntime), with the same 100 ms around speech. Less than 0.4 s of speech
is refused.

Conditions:
- clean: the recordings as they are.
- silence: 3 s before and 3 s after each, a room's noise of -60 dBFS over all of it.
- silence on one side: the clean recording against the one with silence.
- noise: the same 3 s before and after, with a room's noise 15 dB below the speech over all of it.
"""

import argparse
import datetime
import importlib.util
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.speaker_models import (
    P_TARGET,
    Crops,
    Item,
    cosine_scores,
    figure,
    progress,
    read_items,
)
from utils.arguments import make_parser, positive_int
from utils.arrays import FloatArray
from utils.audio.activity import BoolArray, remove_silence
from utils.audio.rumble import without_rumble
from utils.audio.waveform import SAMPLE_RATE
from utils.errors import DataListError, ModelError, run_script
from utils.files import write_text_atomically
from utils.model.encoder import MIN_SPEECH_S, WINDOW_S

PAUSE_S = 3.0
ROOM_DBFS = -60.0
SNR_DB = 15.0
PADDING_S = 0.1
"""Kept on each side of speech that the other detectors mark, as in utils/audio/activity.py."""

WEBRTC_FRAME = 480
"""30 ms, its longest frame."""

WEBRTC_MODE = 2
"""From 0, keeps most, to 3."""

SILERO_FRAME = 512
"""32 ms, its only frame at 16 kHz."""

SILERO_CONTEXT = 64
"""Samples of the previous frame that it expects again."""

SILERO_THRESHOLD = 0.5

RECORDED = ("clean", "silence", "noise")
TRIALS = {
    "clean": ("clean", "clean"),
    "silence": ("silence", "silence"),
    "silence on one side": ("clean", "silence"),
    "noise": ("noise", "noise"),
}
"""Enrolled and tested condition of each row."""

Treatment = Callable[[FloatArray], FloatArray]
"""From `(num_samples,)` at 16 kHz to the remaining samples."""


@dataclass
class Measured:
    """One treatment under one condition; a refused utterance is a row of NaN."""

    embeddings: list[FloatArray | None]
    num_samples: int = 0
    num_kept: int = 0
    treatment_s: float = 0.0
    network_s: float = 0.0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("list_path", help="table of utterances")
    add("--root", default=".", help="folder that the paths are relative to")
    add("--model_path", default="models/resnet34.keras")
    add("--treatments", nargs="+", choices=list(TREATMENTS), default=list(TREATMENTS))
    add("--conditions", nargs="+", choices=list(TRIALS), default=list(TRIALS))
    add("--every", type=positive_int, default=1, help="take only every so many utterances")
    add("--threads", type=positive_int, default=1)
    add("--output", help="file for the table, else it is only printed")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measures every treatment and writes the table."""
    args = parse_args(argv)
    items = read_items(args.list_path)[:: args.every]
    treatments: dict[str, Treatment] = {}
    missing = []
    for name in args.treatments:
        try:
            treatments[name] = TREATMENTS[name]()
        except ModelError as error:
            missing.append(f"Not measured: {error}.")
            print(f"left out: {error}", file=sys.stderr)
    embed = load_embedder(args.model_path, args.threads)
    needed = [c for c in RECORDED if any(c in TRIALS[row] for row in args.conditions)]
    measured = {
        condition: measure(items, args.root, condition, treatments, embed) for condition in needed
    }
    rows = [
        row(condition, name, measured, items)
        for condition in args.conditions
        for name in treatments
    ]
    text = markdown(args.list_path, items, rows, missing)
    print(text)
    if args.output:
        write_text_atomically(args.output, text)
    return 0


def load_embedder(model_path: str, num_threads: int) -> Callable[[FloatArray], FloatArray]:
    """Returns the model without the silence cutting of `SpeakerEncoder`.

    Raises:
        ModelError: As `load_network`.
    """
    from utils.model.keras import load_keras_network

    network = load_keras_network(model_path, num_threads)

    def embed(waveform: FloatArray) -> FloatArray:
        """Embeds in equal windows of at most 10 s, averaged, as the encoder does."""
        total = 0.0
        for window in np.array_split(waveform, -(-len(waveform) // round(WINDOW_S * SAMPLE_RATE))):
            total = total + len(window) * network(window)
        return np.asarray(total / np.linalg.norm(total), np.float32)

    return embed


def recorded(waveform: FloatArray, condition: str, seed: int) -> FloatArray:
    """Returns a recording under one of the conditions.

    Args:
        waveform: Shape `(num_samples,)`.
        condition: One of `RECORDED`.
        seed: Chooses the noise.
    """
    if condition == "clean":
        return waveform
    padded = np.pad(waveform, round(PAUSE_S * SAMPLE_RATE))
    level_db = ROOM_DBFS
    if condition == "noise":
        speech = remove_silence(waveform)
        level_db = 10 * np.log10(np.mean(np.square(speech), dtype=np.float64) + 1e-12) - SNR_DB
    return padded + room_noise(len(padded), level_db, seed)


def room_noise(num_samples: int, level_db: float, seed: int) -> FloatArray:
    """Returns noise whose power falls by 3 dB an octave, at a level in dBFS (root mean square)."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    bins = np.arange(len(spectrum))
    # Flat below 50 Hz: room noise has no unbounded low-frequency energy.
    spectrum /= np.sqrt(np.maximum(bins, 50 * num_samples / SAMPLE_RATE))
    noise = np.fft.irfft(spectrum, num_samples)
    gain = 10 ** (level_db / 20) / np.sqrt(np.mean(np.square(noise)))
    return np.asarray(gain * noise, np.float32)


def measure(
    items: Sequence[Item],
    root: str,
    condition: str,
    treatments: dict[str, Treatment],
    embed: Callable[[FloatArray], FloatArray],
) -> dict[str, Measured]:
    """Treats and embeds all recordings under one condition."""
    crops = Crops(items, root)
    result = {name: Measured([]) for name in treatments}
    for index in progress(range(len(items)), condition):
        seed = zlib.crc32(items[index].path.encode())
        waveform = without_rumble(recorded(crops.waveform(index, "full"), condition, seed))
        whole: tuple[FloatArray, float] | None = None  # for all treatments that keep everything
        for name, treat in treatments.items():
            one = result[name]
            start = time.perf_counter()
            kept = treat(waveform)
            one.treatment_s += time.perf_counter() - start
            one.num_samples += len(waveform)
            one.num_kept += len(kept)
            if len(kept) < MIN_SPEECH_S * SAMPLE_RATE:
                one.embeddings.append(None)
                continue
            if len(kept) == len(waveform) and whole is not None:
                embedding, seconds = whole
            else:
                start = time.perf_counter()
                embedding = embed(kept)
                seconds = time.perf_counter() - start
                if len(kept) == len(waveform):
                    whole = embedding, seconds
            one.embeddings.append(embedding)
            one.network_s += seconds
    return result


def row(
    condition: str, name: str, measured: dict[str, dict[str, Measured]], items: Sequence[Item]
) -> list[str]:
    """Returns one line of the table.

    Raises:
        DataListError: If no pair of one speaker, or none of two, is left.
    """
    enrolled, tested = (measured[side][name] for side in TRIALS[condition])
    left, right = stacked(enrolled.embeddings), stacked(tested.embeddings)
    scores = cosine_scores(left, right, standardize=False)
    result = figure(scores, np.ones(len(items), bool), items, symmetric=enrolled is tested)
    if result is None:
        raise DataListError(
            f"{condition}, {name}: no trials of both kinds left, expected several utterances of "
            "several speakers"
        )
    seconds = tested.num_samples / SAMPLE_RATE
    return [
        condition,
        name,
        f"{100 * result['eer']:.2f}",
        f"{result['min_dcf']:.3f}",
        f"{100 * tested.num_kept / tested.num_samples:.1f}",
        f"{sum(embedding is None for embedding in tested.embeddings)}",
        f"{1000 * tested.treatment_s / seconds:.2f}",
        f"{1000 * tested.network_s / seconds:.1f}",
    ]


def stacked(embeddings: Iterable[FloatArray | None]) -> FloatArray:
    """Returns shape `(num_utterances, embedding_size)`, NaN where there is no embedding."""
    rows = list(embeddings)
    size = max((len(row) for row in rows if row is not None), default=1)
    refused = np.full(size, np.nan, np.float32)
    return np.stack([refused if row is None else row for row in rows])


def markdown(
    list_path: str, items: Sequence[Item], rows: Sequence[Sequence[str]], notes: Sequence[str]
) -> str:
    """Returns the report: one table, one row per condition and treatment."""
    num_speakers = len({item.speaker for item in items})
    lines = [
        f"{len(items)} utterances of {num_speakers} speakers ({Path(list_path).name}), "
        f"{datetime.date.today().isoformat()}, `python benchmarks/silence.py`. EER in %, minDCF "
        f"with P(target) = {P_TARGET}, equal costs. Kept: share of the signal, in %. The last two "
        "columns: ms per second of the recording, of the treatment and of spectrogram and network.",
        "",
        "| condition | treatment | EER | minDCF | kept | refused | ms/s | network ms/s |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
        *(f"| {' | '.join(cells)} |" for cells in rows),
    ]
    if notes:
        lines += ["", *notes]
    return "\n".join(lines) + "\n"


# --- Treatments ----------------------------------------------------------------------------------


def load_none() -> Treatment:
    return lambda waveform: waveform


def load_energy() -> Treatment:
    return remove_silence


def load_webrtcvad() -> Treatment:
    """The detector of WebRTC: a Gaussian mixture over six bands.

    Raises:
        ModelError: If it is not installed.
    """
    try:
        import webrtcvad
    except ImportError as error:
        raise ModelError("webrtcvad (install webrtcvad-wheels)") from error

    def treat(waveform: FloatArray) -> FloatArray:
        detector = webrtcvad.Vad(WEBRTC_MODE)  # anew: it adapts to what it has heard
        frames = framed(waveform, WEBRTC_FRAME)
        samples = np.round(np.clip(frames, -1, 1) * 32767).astype("<i2")
        mask = [detector.is_speech(frame.tobytes(), SAMPLE_RATE) for frame in samples]
        return kept_frames(waveform, np.array(mask, bool), WEBRTC_FRAME)

    return treat


def load_silero() -> Treatment:
    """The recurrent network of silero-vad through onnxruntime; its own package needs PyTorch.

    Raises:
        ModelError: If one of the two is not installed.
    """
    spec = importlib.util.find_spec("silero_vad")
    folder = Path(spec.origin or "").parent if spec else Path()
    path = folder / "data" / "silero_vad.onnx"
    if not path.is_file() or importlib.util.find_spec("onnxruntime") is None:
        raise ModelError("silero (install onnxruntime and, with --no-deps, silero-vad)")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    rate = np.array(SAMPLE_RATE, np.int64)

    def treat(waveform: FloatArray) -> FloatArray:
        frames = framed(waveform, SILERO_FRAME)
        context = np.zeros(SILERO_CONTEXT, np.float32)
        state = np.zeros((2, 1, 128), np.float32)
        mask = []
        for frame in frames:
            fed = {"input": np.concatenate([context, frame])[None], "state": state, "sr": rate}
            probability, state = session.run(None, fed)
            mask.append(probability.item() >= SILERO_THRESHOLD)
            context = frame[-SILERO_CONTEXT:]
        return kept_frames(waveform, np.array(mask, bool), SILERO_FRAME)

    return treat


TREATMENTS: dict[str, Callable[[], Treatment]] = {
    "none": load_none,
    "energy": load_energy,
    "webrtcvad": load_webrtcvad,
    "silero": load_silero,
}


def framed(waveform: FloatArray, size: int) -> FloatArray:
    """Returns consecutive frames, `(num_frames, size)`, the last one filled up with zeros."""
    return np.pad(waveform, (0, -len(waveform) % size)).reshape(-1, size).astype(np.float32)


def kept_frames(waveform: FloatArray, mask: BoolArray, size: int) -> FloatArray:
    """Returns the marked frames, joined, with 100 ms on each side of each stretch."""
    padding = round(PADDING_S * SAMPLE_RATE / size)
    wide = np.convolve(mask.astype(int), np.ones(2 * padding + 1, int))
    wide = wide[padding : padding + len(mask)] > 0
    return waveform[np.repeat(wide, size)[: len(waveform)]]


if __name__ == "__main__":
    run_script(main)
