"""Draws what each augmentation of training does to a voice, for docs/augmentation.md.

python tools/plot_augmentations.py
python tools/plot_augmentations.py --audio my.wav --others you.wav him.wav --output mine.png
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.arguments import make_parser
from utils.arrays import FloatArray
from utils.audio.activity import remove_silence
from utils.audio.decode import load_audio
from utils.audio.spectrogram import CROP_SAMPLES, extend, magnitude
from utils.crops.augment import (
    AUGMENTATIONS,
    AugmentContext,
    AugmentSettings,
    change_speed,
    spectrogram_mask,
)
from utils.files import atomic_path

SEEDS = {
    "reverb": 4,
    "noise": 3,
    "babble": 0,
    "equalizer": 7,
    "gain": 8,
    "clipping": 10,
    "telephone": 2,
    "codec": 1,
}
"""Seeds that show an augmentation clearly, neither at its weakest nor at its strongest."""

SPEED = 0.8

MASK_SEED = 7

RANGE_DB = 75.0
"""Range between the brightest and the darkest colour, in dB."""

NUM_COLOURS = 64
"""Colours of the PNG: a third of the size without a visible difference."""

Picture = tuple[str, FloatArray]


def draw(waveform: FloatArray, others: list[FloatArray]) -> list[Picture]:
    """Returns a title and the magnitudes, `(257, num_frames)`, of each panel."""
    crop = extend(waveform, CROP_SAMPLES)
    context = AugmentContext(
        AugmentSettings(snr_db=(5.0, 5.0), babble_snr_db=(5.0, 5.0)), others=others
    )
    pictures = [("unchanged", magnitude(crop))]
    for name, function in AUGMENTATIONS.items():
        changed = function(crop, np.random.default_rng(SEEDS[name]), context)
        pictures.append((f"--{name}", magnitude(np.clip(changed, -1.0, 1.0))))
    slow = change_speed(waveform[: round(CROP_SAMPLES * SPEED) + 1], SPEED)
    pictures.append((f"--speeds {SPEED}", magnitude(extend(slow, CROP_SAMPLES))))
    pictures.append(("--flip", magnitude(crop[::-1])))
    masked = magnitude(crop)
    first_bin, end_bin, first_frame, end_frame = spectrogram_mask(
        np.random.default_rng(MASK_SEED), 1.0, masked.shape[1]
    )
    masked[first_bin:end_bin] = np.nan
    masked[:, first_frame:end_frame] = np.nan
    pictures.append(("--spec_mask", masked))
    return pictures


def plot(pictures: list[Picture], path: Path) -> None:
    """Writes the panels as one PNG; all share one scale of colours, axes of time and frequency."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    colours = plt.get_cmap("magma").with_extremes(bad="0.75")
    loudest = float(pictures[0][1].max())
    figure, panels = plt.subplots(
        -(-len(pictures) // 3), 3, figsize=(12, 10.4), sharex=True, sharey=True,
        layout="constrained",
    )  # fmt: skip
    for panel, (title, magnitudes) in zip(panels.flat, pictures, strict=False):
        num_bins, num_frames = magnitudes.shape
        image = panel.imshow(
            decibels(magnitudes, loudest), origin="lower", aspect="auto", cmap=colours,
            vmin=-RANGE_DB, vmax=0.0, interpolation="nearest",
            extent=(0.0, num_frames / 100, 0.0, (num_bins - 1) / 32),
        )  # fmt: skip
        panel.set_title(title, family="monospace", fontsize=13)
    for panel in panels[-1]:
        panel.set_xlabel("time (s)")
    for panel in panels[:, 0]:
        panel.set_ylabel("frequency (kHz)")
    figure.colorbar(
        image,
        ax=panels,
        label="level (dB relative to the loudest sound of the unchanged voice)",
        aspect=60,
        pad=0.01,
    )
    save(figure, path)
    plt.close(figure)


def save(figure: object, path: Path) -> None:
    """Writes a figure with few colours, whole or not at all."""
    from io import BytesIO

    from PIL import Image

    memory = BytesIO()
    figure.savefig(memory, dpi=100, format="png")  # type: ignore[attr-defined]
    few = Image.open(memory).convert("RGB").quantize(NUM_COLOURS, dither=Image.Dither.NONE)
    with atomic_path(path) as temporary:
        few.save(temporary, optimize=True)


def decibels(magnitudes: FloatArray, reference: float) -> FloatArray:
    """Returns levels in dB relative to a magnitude."""
    return np.asarray(20 * np.log10(magnitudes / reference + 1e-6))


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Declares and reads the options."""
    parser = make_parser(__doc__)
    parser.add_argument("--audio", type=Path, default=Path("audio/a_1.wav"))
    parser.add_argument(
        "--others", type=Path, nargs="+", help="other voices, for babble",
        default=[Path("audio/b_1.wav"), Path("audio/b_2.wav"), Path("audio/a_2.wav")],
    )  # fmt: skip
    parser.add_argument("--output", type=Path, default=Path("docs/images/augmentations.png"))
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Draws the picture."""
    args = parse_args(argv)
    waveform, *others = (remove_silence(load_audio(p)) for p in (args.audio, *args.others))
    plot(draw(waveform, others), args.output)
    print(f"{args.output}: {args.output.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
