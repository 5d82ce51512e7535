r"""Gives a model the thresholds and probabilities of your people and your microphone.

    python tools/calibrate.py recordings --output_dir calibrated --plot calibration.png
    python infer_contrast.py --model_path calibrated/campplus.onnx

RECORDINGS is a folder with a folder of recordings per person, a data list (path<TAB>label), a
table with the columns path, speaker and, where known, corpus, gender and language, or a file that
embed.py --for_calibration wrote. The people must be strangers to the training of the model.
A calibration.json that the service's web page saved holds thresholds already: they are applied.

Trials are the pairs of recordings within a corpus and a sex, whole and cut to 3 s; all groups count
alike. At the default threshold at most 5 % of the strangers of the worst group pass, at the strict
one 0.2 %, both with a margin for groups that nobody has measured if there is more than one
corpus. With several corpora each is left out in turn, and what the others promise for it is told.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.arguments import make_parser, positive_int
from utils.corpus.clip_lists import read_clips
from utils.errors import ModelError, run_script
from utils.files import atomic_path
from utils.messages import translate
from utils.model.archive import update_metadata
from utils.model.header import ASNORM, ModelHeader, read_header
from utils.verification.calibration import Calibration
from utils.verification.calibration_file import SUFFIX, CalibrationFile
from utils.verification.cohort import SCORE_NORMS
from utils.verification.conditions import embed_conditions
from utils.verification.embedding_store import EmbeddingStore
from utils.verification.report import make_folder
from utils.verification.thresholds import calibrate, calibration_entries, describe, measured


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("recordings", help="folder with a folder per person, data list, table, or file of embed.py")
    add(
        "--model_path",
        nargs="+",
        help="the model; further files of the same model get the same thresholds",
    )
    add("--output_dir", default="calibrated", help="folder to write to, under the same names")
    add("--score_norm", choices=SCORE_NORMS, default="none", help="scores to calibrate")
    add("--plot", metavar="FILE.png", help="draw errors against the threshold")
    add("--embeddings", metavar="FILE.npz", help="keep embeddings here and reuse them from here")
    add("--num_threads", type=positive_int, help="processor threads to use (default: all)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Calibrates a model; returns the exit status."""
    args = parse_args(argv)
    if args.recordings.endswith(SUFFIX):
        return apply(args)
    clips = read_clips(args.recordings)
    headers = read_headers(args.model_path, args.score_norm)
    make_folder(args.output_dir)

    from utils.model.encoder import SpeakerEncoder

    encoder = SpeakerEncoder(headers[0], args.num_threads)
    store = EmbeddingStore.of_source(args.recordings, encoder.model_id)
    if args.embeddings and store is None:
        store = EmbeddingStore(args.embeddings, encoder.model_id)
        if store.is_of_other_model:
            note = f"{store.path} is of another model and is made anew"
            print(translate(note), file=sys.stderr)
    groups = embed_conditions(encoder, clips, store).groups(headers[0].cohort)
    calibration = calibrate(groups)
    for line in describe(groups, calibration):
        print(translate(line))
    if args.plot:
        from utils.verification.plots import plot_thresholds

        plot_thresholds(measured(groups), calibration, args.plot)
        print(translate(f"written: {args.plot}"))
    changes = calibration_entries(args.recordings, clips, groups, calibration)
    write_models(headers, changes, args.output_dir)
    return 0


def apply(args: argparse.Namespace) -> int:
    """Gives models the thresholds of a file that the web page saved; returns the exit status.

    Raises:
        ModelError: If they are another model's, or the file is something else.
    """
    if args.plot or args.embeddings:
        raise ModelError(
            f"{args.recordings}: holds thresholds, no recordings; leave out --plot and --embeddings"
        )
    found = CalibrationFile.read(args.recordings)
    headers = read_headers(args.model_path, found.score_norm)
    if found.model_id != headers[0].model_id:
        raise ModelError(
            f"{args.recordings}: for the model {found.model_id[:8]}, {headers[0].path} is "
            f"{headers[0].model_id[:8]}; give the model that the service used as --model_path"
        )
    make_folder(args.output_dir)
    calibration = Calibration.from_dict(found.entries)
    print(translate(f"threshold {calibration.threshold:.4f}: {calibration.rates}"))
    print(
        translate(
            f"strict threshold {calibration.strict_threshold:.4f}: {calibration.strict_rates}"
        )
    )
    write_models(headers, found.entries, args.output_dir)
    return 0


def write_models(
    headers: Sequence[ModelHeader], changes: Mapping[str, Any], output_dir: str
) -> None:
    """Writes copies of models with other thresholds into a folder."""
    if headers[0].score_norm == ASNORM:
        changes = {ASNORM: {**headers[0].metadata[ASNORM], **changes}}
    for header in headers:
        target = Path(output_dir) / Path(header.path).name
        with atomic_path(target) as path:
            shutil.copyfile(header.path, path)
            update_metadata(path, changes)
        print(translate(f"written: {target}"))


def read_headers(paths: Sequence[str] | None, score_norm: str = "none") -> list[ModelHeader]:
    """Returns the headers of files that are forms of one model; None is the shipped model.

    Raises:
        ModelError: If one can't be used, is of another model than the first, or lacks the cohort
            of the score norm.
    """
    chosen: Sequence[str | None] = paths or [None]
    headers = [read_header(path).with_score_norm(score_norm) for path in chosen]
    for header in headers:
        if header.model_id != headers[0].model_id:
            raise ModelError(
                f"{header.path}: another model than {headers[0].path}, expected the same in "
                "another form; calibrate it on its own"
            )
    return headers


if __name__ == "__main__":
    run_script(main)
