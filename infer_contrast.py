"""Tells whether two recordings are of the same person.

    python infer_contrast.py --audio_path1=audio/a_1.wav --audio_path2=audio/b_2.wav

The similarity is the cosine of the two embeddings, in [-1, 1]. From the threshold up the answer is
"the same person"; by default it is the one at which the model errs as often in either direction.
"""

import argparse
import json
import time

from utils.arguments import make_parser, print_arguments, score
from utils.audio import FloatArray, load_audio
from utils.encoder import SpeakerEncoder, read_calibration
from utils.errors import run_script
from utils.model_file import default_model_path
from utils.speech import speech_seconds


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Reads the options."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    for number, default in ((1, "audio/a_1.wav"), (2, "audio/b_2.wav")):
        spellings = (f"--audio_path{number}", f"--audio{number}_path")
        add(*spellings, dest=f"audio{number}_path", default=default, help="a recording")
    add("--model_path", default=default_model_path(), help="speaker model")
    add("--threshold", type=score, help="least score of the same person (default: the model's)")
    add("--json", action="store_true", help="print one JSON object and nothing else")
    return parser.parse_args(argv)


def infer(encoder: SpeakerEncoder, waveform: FloatArray, path: str) -> FloatArray:
    """Returns the embedding of a recording, unit length, shape `(embedding_size,)`."""
    return encoder.embed_waveform(waveform, source=path)


def describe_probability(probability: float) -> str:
    """Writes a probability in percent; no model is so sure that 0 or 100 would be honest."""
    if probability < 0.001:
        return "小于0.1%"
    return "大于99.9%" if probability > 0.999 else f"{probability:.1%}"


def main(argv: list[str] | None = None) -> int:
    """Compares two recordings and prints the answer."""
    args = parse_args(argv)
    if args.threshold is None:
        args.threshold = read_calibration(args.model_path).threshold
    if not args.json:
        print_arguments(args, ["audio1_path", "audio2_path", "model_path", "threshold"])
    paths = [args.audio1_path, args.audio2_path]
    # A file that cannot be read is told now, not after the seconds that the model takes to load.
    waveforms = [load_audio(path) for path in paths]
    encoder = SpeakerEncoder(args.model_path)
    if not args.json:
        print(f"==> successfully loading model {args.model_path}.\n", flush=True)
    infer(encoder, waveforms[0], paths[0])  # the first run prepares the network and is not timed
    start = time.perf_counter()
    embedding1, embedding2 = map(infer, [encoder] * 2, waveforms, paths)
    mean_time_ms = round((time.perf_counter() - start) / 2 * 1000)
    similarity = float(max(-1.0, min(1.0, embedding1 @ embedding2)))
    is_same = similarity >= args.threshold
    probability = encoder.probability(similarity) if encoder.is_calibrated else None
    if args.json:
        report = {
            "audio1_path": paths[0],
            "audio2_path": paths[1],
            "model_path": args.model_path,
            "threshold": args.threshold,
            "score": similarity,
            "is_same_speaker": is_same,
            "probability": probability,
            "mean_time_ms": mean_time_ms,
            "speech_s": [round(speech_seconds(waveform), 2) for waveform in waveforms],
        }
        print(json.dumps(report, ensure_ascii=False))
        return 0
    verdict = "为同一个人，相似度为" if is_same else "不是同一个人，相似度仅为"
    pair = f"{paths[0]} 和 {paths[1]}"
    print(f"{pair} {verdict}：{similarity:f}，平均预测时间：{mean_time_ms}ms")
    if probability is not None:
        print(f"按模型的校准，两段录音为同一个人的概率：{describe_probability(probability)}")
    return 0


if __name__ == "__main__":
    run_script(main)
