"""Tells whether two recordings are of the same person.

    python infer_contrast.py --audio_path1=audio/a_1.wav --audio_path2=audio/b_2.wav
    python infer_contrast.py --trials trials.txt --scores scores.tsv     compares many pairs

The similarity is the cosine of the two embeddings, in [-1, 1]. From the threshold up the answer is
"the same person"; by default it is the one that at most 5 % of strangers should reach.
"""

import argparse
import json

from utils.arguments import channel, make_parser, positive_int, print_arguments, score, segment
from utils.arrays import FloatArray
from utils.audio.recording import Recording
from utils.corpus.trials import read_pair_list
from utils.diarization.voices import note_voices
from utils.errors import run_script
from utils.messages import translate
from utils.model.encoder import SpeakerEncoder
from utils.model.header import ModelHeader, choose_threshold, read_header
from utils.verification.cohort import SCORE_NORMS
from utils.verification.contrast import contrast_pairs, contrast_recordings
from utils.verification.embedding import Encoder


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Reads the options."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    for number, default in ((1, "audio/a_1.wav"), (2, "audio/b_2.wav")):
        spellings = (f"--audio_path{number}", f"--audio{number}_path")
        add(*spellings, dest=f"audio{number}_path", default=default, help="a recording")
        add(
            f"--segment{number}", type=segment, metavar="FROM-TO", help="compare these seconds only"
        )
    add("--strict_single_speaker", action="store_true", help="refuse recordings of several voices")
    add("--channel", type=channel, default="mix", help="left, right, mix, or a number from 1")
    add("--model_path", help="speaker model")
    add("--threshold", type=score, help="least score of the same person (default: the model's)")
    add("--score_norm", choices=SCORE_NORMS, default="none", help="asnorm: by the model's cohort")
    add("--json", action="store_true", help="print one JSON object and nothing else")
    add("--trials", metavar="FILE", help="pairs to compare: two paths a line, or a trial list")
    add("--trials_root", metavar="DIR", help="folder that the paths of --trials start from")
    add("--scores", default="scores.tsv", metavar="FILE", help="where the scores of --trials go")
    add("--embeddings", metavar="FILE.npz", help="keep embeddings of --trials here, and reuse them")
    add("--num_threads", type=positive_int, help="processor threads to use (default: all)")
    args = parser.parse_args(argv)
    alone = args.channel != "mix" or args.segment1 or args.segment2 or args.strict_single_speaker
    if args.trials and alone:
        parser.error(
            "--channel, --segment and --strict_single_speaker are for two recordings, not for a "
            "list of --trials"
        )
    return args


def infer(encoder: Encoder, recording: Recording) -> FloatArray:
    """Returns the embedding of a recording, unit length, shape `(embedding_size,)`."""
    return encoder.embed_waveform(recording)


def contrast_list(args: argparse.Namespace, header: ModelHeader) -> int:
    """Compares the pairs of a list and writes their scores."""
    print_arguments(args, ["trials", "model_path", "threshold", "scores"])
    pairs = read_pair_list(args.trials, args.trials_root)
    encoder = SpeakerEncoder(header, args.num_threads)
    print(f"==> successfully loading model {args.model_path}.\n", flush=True)
    left_out = contrast_pairs(encoder, pairs, args.threshold, args.scores, args.embeddings)
    line = f"written: {args.scores} ({len(pairs)} pairs, {left_out} of them left out)"
    print(translate(line))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Compares two recordings and prints the answer."""
    args = parse_args(argv)
    header = read_header(args.model_path).with_score_norm(args.score_norm)
    args.model_path = header.path
    args.threshold = choose_threshold(header, args.threshold)
    if args.trials:
        return contrast_list(args, header)
    shown = ["audio1_path", "audio2_path", "model_path", "threshold"]
    shown += ["score_norm"] if header.cohort else []
    if not args.json:
        print_arguments(args, shown)
    paths = [args.audio1_path, args.audio2_path]
    # Mistakes are told before the model loads.
    recordings = [Recording.load(path, channel=args.channel) for path in paths]
    segments = [args.segment1, args.segment2]
    recordings = [r.part(*s) if s else r for r, s in zip(recordings, segments, strict=True)]
    encoder = SpeakerEncoder(header, args.num_threads)
    if not args.json:
        print(f"==> successfully loading model {args.model_path}.\n", flush=True)
    note_voices(encoder, recordings, args.strict_single_speaker)
    contrast = contrast_recordings(encoder, recordings, args.threshold, infer)
    if args.json:
        report = {name: getattr(args, name) for name in shown} | vars(contrast)
        print(json.dumps(report, ensure_ascii=False))
    else:
        print(*contrast.describe(*paths), sep="\n")
    return 0


if __name__ == "__main__":
    run_script(main)
