"""Embeds every recording of a list or folder into one file, on one machine or a cluster.

    python embed.py dataset/test_list.txt --output embeddings.parquet
    python embed.py people --output people.npz --for_calibration
    python embed.py dataset/test_list.txt --engine dask://scheduler:8786

eval.py --list_path, tools/calibrate.py and tools/build_cohort.py read the file in place of the
list, without its recordings. --enrol puts the speakers into a database too; the word "env" stands
for the address in the variable VOICEPRINT_DATABASE. A run that was stopped goes on where it was
when started again. docs/scaling.md tells how to start a cluster.
"""

import argparse
import os
import sys
from contextlib import closing

from tqdm import tqdm

from utils.arguments import make_parser, positive_int, print_arguments
from utils.bulk_embedding import (
    MIN_PARALLEL_CLIPS,
    Embedded,
    EmbeddingTask,
    embed_all,
    journal_path,
)
from utils.corpus.clip_lists import read_clips
from utils.corpus.embedding_file import PARQUET, is_embedding_file
from utils.corpus.lists import LabelledClip
from utils.engine.choice import HELP, engine_address, open_engine
from utils.environment import read_variable
from utils.errors import EXIT_USER_ERROR, AudioError, run_script
from utils.messages import translate
from utils.model.header import read_header
from utils.parquet import import_pyarrow
from utils.processors import num_processors
from utils.verification.embedding_store import EmbeddingStore
from utils.verification.evaluation import distinct_labels
from utils.verification.report import tell_defects
from voices.bulk_enrolment import enrol_embeddings
from voices.store import DATABASE_VARIABLE, public_name


def parse_args(argv: list[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Declares and reads the options."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("list_path", metavar="LIST", help="data list, table or folder with a folder per person")
    add(
        "--output",
        default="embeddings.npz",
        metavar="FILE",
        help="the .npz or .parquet file to write",
    )
    add("--model_path", help="speaker model")
    add("--for_calibration", action="store_true", help="embed 3 s and 1 s of speech of each too")
    add("--enrol", metavar="DATABASE", help="enrol the speakers in sqlite:///PATH, "
        "postgresql://... or env, without their sound")  # fmt: skip
    add("--engine", type=engine_address, default="local", help=HELP)
    add("--num_workers", type=positive_int, default=num_processors(), help="local processes")
    args = parser.parse_args(argv)
    if not is_embedding_file(args.output):
        parser.error(f"--output {args.output}: expected a name that ends with .npz or .parquet")
    if args.enrol == "env":
        args.enrol = read_variable(DATABASE_VARIABLE)
    if args.enrol is not None and "://" not in args.enrol:
        parser.error("--enrol: expected the address of a database, sqlite:///PATH and the like")
    return parser, args


def main(argv: list[str] | None = None) -> int:
    """Embeds, writes the file, and enrols; returns the exit status."""
    parser, args = parse_args(argv)
    listed = read_clips(args.list_path)
    distinct_labels(listed)
    clips = {clip.path: clip for clip in listed}
    header = read_header(args.model_path)
    args.model_path = header.path
    if args.output.lower().endswith(PARQUET):
        import_pyarrow()  # told now, not after hours
    shown = argparse.Namespace(**vars(args) | {"enrol": args.enrol and public_name(args.enrol)})
    print_arguments(shown, ["list_path", "model_path", "output"], parser)
    task = EmbeddingTask(os.path.abspath(header.path), header.model_id, args.for_calibration)  # noqa: PTH100
    store = EmbeddingStore(args.output, header.model_id)
    if store.is_of_other_model:
        print(translate(f"{store.path} is of another model and is made anew"), file=sys.stderr)
    found = embed_missing(args, task, store, clips)
    tell_defects(found.defects, len(clips))
    for path, entry in found.entries.items():
        entry.clip = clips[path]
        store.insert(path, entry)
    store.put_in_order(clips)
    store.save()
    journal_path(args.output).unlink(missing_ok=True)
    summary = (
        f"{args.output}: {store.num_recordings} embeddings of {len(clips)} recordings, "
        f"{len(found.defects)} left out"
    )
    print(translate(summary))
    if args.enrol is None:
        return 0
    enrolment = enrol_embeddings(args.enrol, header, found.entries.values())
    for name, reason in enrolment.refused:
        print(translate(f"not enrolled: {name}: {reason}"), file=sys.stderr)
    summary = (
        f"{public_name(args.enrol)}: {enrolment.num_enrolled} speakers enrolled, "
        f"{enrolment.num_present} were there already, {len(enrolment.refused)} not enrolled"
    )
    print(translate(summary))
    return EXIT_USER_ERROR if enrolment.refused else 0


def embed_missing(
    args: argparse.Namespace,
    task: EmbeddingTask,
    store: EmbeddingStore,
    clips: dict[str, LabelledClip],
) -> Embedded:
    """Embeds what the store lacks; what it has gets the list's words.

    Raises:
        AudioError: If not one recording can be used.
    """
    known = {path: store.find(path) for path in clips}
    kept = {path: e for path, e in known.items() if e and e.has_embedding and task.holds(e)}
    todo = [path for path in clips if path not in kept]
    num_workers = args.num_workers if len(todo) >= MIN_PARALLEL_CLIPS else 1
    with (
        closing(open_engine(args.engine, num_workers)) as engine,
        tqdm(total=len(clips), initial=len(kept), desc="embedding", unit="clip") as bar,
    ):
        found = embed_all(engine, task, todo, args.output, bar.update)
    found.entries.update(kept)
    if not found.entries:
        first = next(iter(found.defects.values()))
        raise AudioError(f"none of the {len(clips)} clips can be used; the first: {first}")
    return found


if __name__ == "__main__":
    run_script(main)
