"""Tells whether two recordings are of the same person.

    python infer_contrast.py --audio_path1=audio/a_1.wav --audio_path2=audio/b_2.wav
    python infer_contrast.py --trials trials.txt --scores scores.tsv     compares many pairs

The similarity is the cosine of the two embeddings, in [-1, 1]. From the threshold up the answer is
"the same person"; by default it is the one that at most 5 % of strangers should reach.
"""

import argparse
import json
import sys
import time

from utils.arguments import channel, make_parser, positive_int, print_arguments, score
from utils.arrays import FloatArray
from utils.audio.recording import Recording
from utils.corpus.lists import read_pair_list
from utils.errors import run_script
from utils.messages import translate
from utils.model.encoder import SpeakerEncoder
from utils.model.header import ModelHeader, read_header
from utils.verification.calibration import describe_probability
from utils.verification.cohort import SCORE_NORMS, Cohort
from utils.verification.verdict import cosine_score, verdict


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Reads the options."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    for number, default in ((1, "audio/a_1.wav"), (2, "audio/b_2.wav")):
        spellings = (f"--audio_path{number}", f"--audio{number}_path")
        add(*spellings, dest=f"audio{number}_path", default=default, help="a recording")
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
    if args.trials and args.channel != "mix":
        parser.error("--channel chooses a channel of two recordings, not of a list of --trials")
    return args


def infer(encoder: SpeakerEncoder, recording: Recording) -> FloatArray:
    """Returns the embedding of a recording, unit length, shape `(embedding_size,)`."""
    return encoder.embed_waveform(recording)


def contrast_list(args: argparse.Namespace, header: ModelHeader, cohort: Cohort | None) -> int:
    """Compares the pairs of a list and writes their scores."""
    from utils.verification.contrast import contrast_pairs

    print_arguments(args, ["trials", "model_path", "threshold", "scores"])
    pairs = read_pair_list(args.trials, args.trials_root)
    encoder = SpeakerEncoder(header, args.num_threads)
    print(f"==> successfully loading model {args.model_path}.\n", flush=True)
    left_out = contrast_pairs(encoder, pairs, args.threshold, args.scores, args.embeddings, cohort)
    line = f"written: {args.scores} ({len(pairs)} pairs, {left_out} of them left out)"
    print(translate(line))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Compares two recordings and prints the answer."""
    args = parse_args(argv)
    header = read_header(args.model_path)
    args.model_path = header.path
    cohort = None
    if args.score_norm != "none":
        header = header.with_score_norm(args.score_norm)
        cohort = header.cohort
    if args.threshold is None:
        args.threshold = header.calibration.threshold
        if header.calibration.rates:
            note = f"threshold {args.threshold}: {header.calibration.rates}"
            print(translate(note), file=sys.stderr)
    if args.trials:
        return contrast_list(args, header, cohort)
    shown = ["audio1_path", "audio2_path", "model_path", "threshold"]
    shown += ["score_norm"] if cohort else []
    if not args.json:
        print_arguments(args, shown)
    paths = [args.audio1_path, args.audio2_path]
    # Mistakes are told before the model loads.
    recordings = [Recording.load(path, channel=args.channel) for path in paths]
    encoder = SpeakerEncoder(header, args.num_threads)
    if not args.json:
        print(f"==> successfully loading model {args.model_path}.\n", flush=True)
    infer(encoder, recordings[0])  # The first run prepares the network.
    start = time.perf_counter()
    embedding1, embedding2 = (infer(encoder, recording) for recording in recordings)
    mean_time_ms = round((time.perf_counter() - start) / 2 * 1000)
    score_pair = cohort.score if cohort else cosine_score
    similarity = score_pair(embedding1, embedding2)
    is_same = verdict(similarity, args.threshold)
    speech_s = recordings[0].speech_s, recordings[1].speech_s
    probability = encoder.probability(similarity, speech_s) if encoder.is_calibrated else None
    if args.json:
        report = {name: getattr(args, name) for name in shown} | {
            "score": similarity,
            "is_same_speaker": is_same,
            "probability": probability,
            "mean_time_ms": mean_time_ms,
            "speech_s": [round(seconds, 2) for seconds in speech_s],
            "level_dbfs": [round(recording.level_dbfs, 2) for recording in recordings],
        }
        print(json.dumps(report, ensure_ascii=False))
        return 0
    names = f"{paths[0]} 和 {paths[1]}"
    answer = f"{names} 不是同一个人，相似度仅为：{similarity:f}"
    if is_same:
        answer = f"{names} 为同一个人，相似度为：{similarity:f}"
    print(translate(f"{answer}，平均预测时间：{mean_time_ms}ms"))
    if probability is not None:
        text = describe_probability(probability)
        print(translate(f"按模型的校准，两段录音为同一个人的概率：{text}"))
    return 0


if __name__ == "__main__":
    run_script(main)
