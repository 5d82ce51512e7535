r"""Takes a speaker model of wespeaker, 3D-Speaker, NeMo or sherpa-onnx's releases: FILE.onnx.

    python tools/import_model.py voxceleb_resnet34_LM.onnx --list_path recordings
    python infer_contrast.py --model_path models/voxceleb_resnet34_LM.onnx

These files take features; the features that the model was trained with are put into the file, so
that it takes samples as ours do. Which ones that are stands in the metadata of sherpa-onnx's
releases or follows from the name of the input (feats: wespeaker, feature: 3dspeaker, audio_signal:
nemo); otherwise say it with --front_end. The result is compared with the two steps one after the
other: features by kaldi-native-fbank, or by librosa for NeMo, then the original file.

Thresholds and probabilities come from recordings of people: --list_path is a folder with a folder
per person, a data list, or a table, as for tools/calibrate.py, which can add them later.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.arguments import make_parser
from utils.arrays import FloatArray
from utils.audio.decode import load_audio
from utils.corpus.clip_lists import read_clips
from utils.corpus.lists import LabelledClip
from utils.errors import AudioError, ModelError, run_script
from utils.export.public_features import FRONT_ENDS
from utils.export.public_join import check_joined, write_public_model
from utils.export.public_model import PublicModel, read_public_model
from utils.files import atomic_path
from utils.model.archive import update_metadata
from utils.verification.conditions import embed_conditions
from utils.verification.thresholds import calibrate, calibration_entries, describe

NUM_CHECKED = 20
"""Recordings on which the result is compared with the two steps."""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("file", metavar="FILE.onnx", help="the public model")
    add("--front_end", choices=FRONT_ENDS, help="features of the model, if the file doesn't tell")
    add("--output_name", help="output that holds the embedding, if the file has several")
    add("--list_path", help="people to calibrate on: folder, data list or table")
    add("--description", default="", help="what the file says of its origin")
    add("--output", metavar="FILE.onnx", help="the file to write (default: its name in models/)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Joins, checks and calibrates; returns the exit status."""
    args = parse_args(argv)
    public = read_public_model(args.file, args.front_end, args.output_name)
    output = Path(args.output or Path("models") / f"{Path(args.file).stem}.onnx")
    if output.suffix.lower() != ".onnx":
        raise ModelError(f"--output {output}: expected a name that ends in .onnx")
    if output.resolve() == Path(args.file).resolve():
        raise ModelError(f"--output {output}: the public model itself, expected another file")
    clips = read_clips(args.list_path) if args.list_path else []
    # If the check or the list fails, an older file of this name stays.
    with atomic_path(output) as path:
        write_public_model(public, path, args.description)
        checked = check(public, path, clips)
        lines = calibrated(path, args.list_path, clips) if clips else []
    print(
        f"{output}: features of {public.front_end}, {output.stat().st_size / 1e6:.1f} MB; {checked}"
    )
    for line in lines:
        print(line)
    if not clips:
        print(f"not calibrated yet: python tools/calibrate.py RECORDINGS --model_path {output}")
    return 0


def check(public: PublicModel, path: Path, clips: list[LabelledClip]) -> str:
    """Compares with the two steps on recordings of the list or of audio/; says how close it is."""
    paths = [clip.path for clip in clips] or sorted(map(str, Path("audio").glob("*.wav")))
    waveforms = list(_waveforms(paths[:NUM_CHECKED]))
    if not waveforms:
        return "not compared with the two steps: no recordings in audio/"
    try:
        lowest = check_joined(public, path, waveforms)
    except ImportError as error:
        return f"not compared with the two steps: pip install {error.name}"
    return f"equal to the two steps on {len(waveforms)} recordings (lowest cosine {lowest:.6f})"


def _waveforms(paths: list[str]) -> Iterator[FloatArray]:
    """Yields up to 10 s of each recording that can be read."""
    for path in paths:
        try:
            yield load_audio(path, duration_s=10.0)
        except AudioError as error:
            print(f"left out: {error}", file=sys.stderr)


def calibrated(path: Path, source: str, clips: list[LabelledClip]) -> list[str]:
    """Gives a model thresholds and probabilities, and returns the lines that tell of them."""
    from utils.model.encoder import SpeakerEncoder

    groups = embed_conditions(SpeakerEncoder(path), clips).groups()
    calibration = calibrate(groups)
    update_metadata(path, calibration_entries(source, clips, groups, calibration))
    return describe(groups, calibration)


if __name__ == "__main__":
    run_script(main)
