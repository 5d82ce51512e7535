"""Measures how well a model tells speakers apart, on all pairs of a data list or on given trials.

    python eval.py --list_path=dataset/test_list.txt --report_dir=report

All clips of the list are compared with each other, and the best of the thresholds 0.00 to 0.99 is
told with its accuracy. Nearly all pairs are of different speakers, so that accuracy is close to 1
for any model: compare models by the EER and minDCF in the lines after it.

A list is a data list (path<TAB>label), a table whose header names path, speaker and, where known,
corpus, gender, language and seconds, a folder with a folder per person, or a file of embeddings
that embed.py wrote, whose recordings need not be there. Of a table each group is told too.
"""

import argparse
from dataclasses import replace

from tqdm import tqdm

from utils.arguments import make_parser, positive_int, print_arguments
from utils.corpus.embedding_file import is_embedding_file
from utils.errors import run_script
from utils.messages import translate
from utils.model.header import read_header
from utils.verification import evaluation
from utils.verification.cohort import SCORE_NORMS
from utils.verification.embedding_store import EmbeddingStore
from utils.verification.report import describe, make_folder, name_defects, write_report
from utils.verification.scoring import SWEEP_STEPS, sweep_accuracy


def make_options() -> argparse.ArgumentParser:
    """Declares the options."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add(
        "--list_path",
        default="dataset/test_list.txt",
        help="data list, table, folder, or file of embed.py",
    )
    add("--model_path", help="model to measure")
    add("--score_norm", choices=SCORE_NORMS, default="none", help="asnorm: by the model's cohort")
    add("--include_self_pairs", action="store_true", help="pair each clip with itself too")
    add("--trials", metavar="FILE", help="trials (1 a.wav b.wav) in place of all pairs of a list")
    add("--trials_root", metavar="DIR", help="folder that the paths of --trials start from")
    add("--embeddings", metavar="FILE.npz", help="keep embeddings here and reuse them from here")
    add("--num_threads", type=positive_int, help="processor threads to use (default: all)")
    add("--report_dir", metavar="DIR", help="write report.json and pictures to this folder")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the script and returns its exit status."""
    parser = make_options()
    args = parser.parse_args(argv)
    if args.trials_root and not args.trials:
        parser.error("--trials_root needs --trials")
    if args.embeddings and is_embedding_file(args.list_path):
        parser.error(
            "--embeddings: --list_path names a file of embeddings already; give one of them"
        )
    if args.trials and args.include_self_pairs:
        parser.error("--include_self_pairs goes with the pairs of a list, not with --trials")
    # Mistakes in the list are told before the model is loaded, which takes seconds.
    chosen = evaluation.EvaluationSet.read(args.list_path, args.trials, args.trials_root)
    if args.report_dir:
        make_folder(args.report_dir)
    header = read_header(args.model_path)
    args.model_path = header.path
    header = header.with_score_norm(args.score_norm)
    print_arguments(args, ["trials" if args.trials else "list_path", "model_path"], parser)

    from utils.model.encoder import SpeakerEncoder

    encoder = SpeakerEncoder(header, args.num_threads)
    print(f"==> successfully loading model {args.model_path}.\n")
    store = EmbeddingStore.of_source(args.list_path, encoder.model_id)
    if args.embeddings:
        store = EmbeddingStore(args.embeddings, encoder.model_id)
    print(translate("开始提取全部的音频特征..."), flush=True)
    with tqdm(total=len(chosen.paths)) as bar:
        clips = evaluation.embed_clips(encoder, chosen.paths, store, bar.update)
    name_defects(clips)
    if header.cohort:
        clips = replace(clips, statistics=header.cohort.statistics(clips.embeddings))

    print(translate("开始两两对比音频特征..."), flush=True)
    with tqdm(total=chosen.num_rounds(clips)) as bar:
        histogram = chosen.score(clips, args.include_self_pairs, bar.update)
    report = evaluation.measure(histogram, encoder)
    log_odds = None
    if encoder.is_calibrated:
        log_odds = chosen.log_odds(clips, encoder)
        report |= log_odds.figures()
    report["groups"] = chosen.groups(clips, encoder)
    accuracy, threshold = sweep_accuracy(histogram, tqdm(range(SWEEP_STEPS)))
    print(translate(f"当阈值为{threshold:f}, 准确率最大，准确率为：{accuracy:f}"))
    report |= {
        "best_accuracy": accuracy,
        "best_threshold": threshold,
        "model": args.model_path,
        "model_id": encoder.model_id,
        "list": args.trials or args.list_path,
        "include_self_pairs": args.include_self_pairs,
        "num_speakers": None if args.trials else len(set(chosen.labels(clips))),
        "num_clips": len(clips.rows),
        "left_out": clips.defects,
    }
    if args.score_norm != "none":
        report["score_norm"] = args.score_norm
    for line in describe(report):
        print(translate(line))
    if args.report_dir:
        for path in write_report(args.report_dir, report, histogram, log_odds):
            print(translate(f"written: {path}"))
    return 0


if __name__ == "__main__":
    run_script(main)
