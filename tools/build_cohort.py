r"""Gives a model a cohort for AS-norm: --score_norm asnorm of the scripts.

    python tools/build_cohort.py dataset/train_list.txt --list_path strangers
    python infer_contrast.py --model_path with_cohort/campplus.onnx --score_norm asnorm

LIST names recordings of many people (1,000 are enough) who are like those whom the model will
compare: of their languages, on such microphones. A cohort of other people makes scores worse.
The mean embedding of each, in 8 bits, goes into the file: embeddings are data of real people, so
mind whom you give the file to. Either list may be a file that embed.py wrote, --list_path one with
--for_calibration. --list_path, a folder with a folder per person, a data list, or a
table, names others, strangers to both, for the thresholds of the normalised scores.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.calibrate import read_headers
from utils.arguments import make_parser, positive_int
from utils.corpus.clip_lists import read_clips
from utils.corpus.lists import LabelledClip
from utils.errors import DataListError, run_script
from utils.files import atomic_path
from utils.model.archive import update_metadata
from utils.model.header import ASNORM
from utils.verification.cohort import TOP, Cohort
from utils.verification.conditions import embed_conditions
from utils.verification.embedding import ClipEncoder, mean_embedding
from utils.verification.embedding_store import EmbeddingStore
from utils.verification.evaluation import embed_clips
from utils.verification.report import make_folder, name_defects
from utils.verification.thresholds import calibrate, calibration_entries, describe

FEWEST_PEOPLE = 20
"""A cohort of fewer tells nothing of the scores of strangers."""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("cohort_list", metavar="LIST", help="people of the cohort: data list, table or folder")
    add("--list_path", required=True, help="strangers to calibrate on: data list, table or folder")
    add("--model_path", nargs="+", help="the model; further files of the same model get the same")
    add("--num_people", type=positive_int, default=1000, help="people of the cohort")
    add("--num_recordings", type=positive_int, default=3, help="recordings of each")
    add("--top", type=positive_int, default=TOP, help="people who count for a recording")
    add("--output_dir", default="with_cohort", help="folder to write to, under the same names")
    add("--num_threads", type=positive_int, help="processor threads to use (default: all)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Embeds the cohort, calibrates and writes; returns the exit status."""
    args = parse_args(argv)
    people = read_clips(args.cohort_list)
    strangers = read_clips(args.list_path)
    headers = read_headers(args.model_path)
    make_folder(args.output_dir)

    from utils.model.encoder import SpeakerEncoder

    encoder = SpeakerEncoder(headers[0], args.num_threads)
    chosen = choose_recordings(people, args.num_people, args.num_recordings)
    sources = (args.cohort_list, args.list_path)
    stores = [EmbeddingStore.of_source(source, encoder.model_id) for source in sources]
    cohort = embed_cohort(encoder, chosen, args.top, stores[0])
    conditioned = embed_conditions(encoder, strangers, stores[1])
    groups = conditioned.groups(cohort)
    calibration = calibrate(groups)
    print(f"cohort: {len(cohort.embeddings)} people")
    for line in describe(groups, calibration):
        print(line)
    entries = {
        "top": args.top,
        "cohort": {"list": Path(args.cohort_list).name, "num_people": len(cohort.embeddings)},
        **calibration_entries(args.list_path, strangers, groups, calibration),
    }
    for header in headers:
        target = Path(args.output_dir) / Path(header.path).name
        with atomic_path(target) as path:
            shutil.copyfile(header.path, path)
            update_metadata(path, {ASNORM: entries}, cohort)
        print(f"written: {target}")
    return 0


def choose_recordings(
    people: Sequence[LabelledClip], num_people: int, num_recordings: int
) -> list[LabelledClip]:
    """Returns some recordings of some people, those with the most first, else at random."""
    random = np.random.default_rng(0)
    recordings: dict[int, list[LabelledClip]] = {}
    for index in random.permutation(len(people)):
        clip = people[index]
        recordings.setdefault(clip.label, []).append(clip)
    order = sorted(recordings.values(), key=lambda clips: -min(len(clips), num_recordings))
    return [clip for clips in order[:num_people] for clip in clips[:num_recordings]]


def embed_cohort(
    encoder: ClipEncoder,
    chosen: Sequence[LabelledClip],
    top: int,
    store: EmbeddingStore | None = None,
) -> Cohort:
    """Returns the cohort; recordings that can't be used are told on stderr.

    Args:
        encoder: The model.
        chosen: The recordings.
        top: People who count for a recording.
        store: Embeddings that are there already.

    Raises:
        DataListError: If fewer than 20 people remain.
    """
    from tqdm import tqdm

    with tqdm(total=len(chosen), desc="cohort") as bar:
        clips = embed_clips(encoder, [clip.path for clip in chosen], store, bar.update)
    name_defects(clips)
    rows: dict[int, list[int]] = {}
    for clip in chosen:
        if clip.path in clips.rows:
            rows.setdefault(clip.label, []).append(clips.rows[clip.path])
    if len(rows) < FEWEST_PEOPLE:
        raise DataListError(
            f"{len(rows)} people with usable recordings for the cohort, expected {FEWEST_PEOPLE} "
            "at least, better 1,000"
        )
    means = [mean_embedding(list(clips.embeddings[own])) for own in rows.values()]
    return Cohort(np.stack(means), top)


if __name__ == "__main__":
    run_script(main)
