r"""Turns training checkpoints into a finished model: small, calibrated, self-contained.

    python tools/finish_model.py models/resnet34-27.keras --list_path dataset/dev_list.txt \
        --whitening_list dataset/train_list.txt --output models/resnet34.keras

The weights of several checkpoints are averaged. Training state goes, weights are stored in 16 bits.
With --whitening_list a last layer moves the embeddings' mean to zero and evens out their directions
in part: those in which all speakers differ much tell them apart less well than they seem to.
The thresholds and the probability come from the list's speakers, who must be strangers to the
training, in the way of tools/calibrate.py.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.arguments import fraction, make_parser, positive_int
from utils.audio.activity import speech_seconds
from utils.audio.decode import load_audio
from utils.corpus.clip_lists import read_clips
from utils.corpus.lists import Utterance, read_data_list
from utils.errors import AudioError, DataListError, ModelError, run_script
from utils.files import atomic_path
from utils.messages import translate
from utils.model.archive import load_network, update_metadata, write_model
from utils.model.header import read_header
from utils.verification.conditions import embed_conditions
from utils.verification.thresholds import calibrate, calibration_entries, describe

MIN_SAMPLE_S = 1.5
"""Least seconds of speech to learn the whitening from."""

MAX_SAMPLE_S = 10.0
"""Seconds of a clip to embed for the whitening."""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = make_parser(__doc__)
    parser.add_argument("checkpoints", nargs="+", help="checkpoints to average")
    parser.add_argument(
        "--list_path", required=True, help="strangers to calibrate on: data list, table or folder"
    )
    parser.add_argument(
        "--whitening_list", default="", help="data list to learn the last layer from"
    )
    parser.add_argument(
        "--whitening",
        type=fraction,
        default=0.4,
        help="0: centre only, 1: full whitening",
    )
    parser.add_argument("--whitening_clips", type=positive_int, default=3000)
    parser.add_argument("--description", default="", help="description of the training data")
    parser.add_argument("--output", default="models/resnet34.keras")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Averages, strips, stores and calibrates; returns the exit status."""
    args = parse_args(argv)
    strangers = read_clips(args.list_path)
    clips = read_data_list(args.whitening_list) if args.whitening_list else []
    network, metadata = average_checkpoints(args.checkpoints)
    network, metadata = without_speed_classes(network, metadata)
    if args.whitening_list:
        network = with_whitening(network, clips, args.whitening, args.whitening_clips)
    training = metadata.get("training", {})
    for options in (
        training,
        training.get("reader", {}),
        training.get("reader", {}).get("augment", {}),
    ):
        for name in ("model_dir", "teacher", "noise_dir", "rir_dir"):
            if options.get(name):
                # Where a file lay on the machine of the training is nobody else's business.
                options[name] = Path(options[name]).name
    metadata = {
        "architecture": metadata.get("architecture", "resnet34"),
        "network": metadata["network"],
        "embedding_size": metadata["embedding_size"],
        "num_classes": metadata["num_classes"],
        "num_speed_classes": 1,
        "training": training,
        "progress": metadata.get("progress", {}),
        "description": args.description,
    }
    from utils.model.encoder import SpeakerEncoder

    # If the list cannot be scored, the old model stays, rather than one without thresholds.
    with atomic_path(args.output) as path:
        write_model(path, network, metadata, half_precision=True)
        groups = embed_conditions(SpeakerEncoder(path), strangers).groups()
        calibration = calibrate(groups)
        update_metadata(path, calibration_entries(args.list_path, strangers, groups, calibration))
    size_mb = Path(args.output).stat().st_size / 1e6
    num_millions = network.count_params() / 1e6
    print(translate(f"{args.output}: {size_mb:.1f} MB, {num_millions:.2f} M parameters"))
    for line in describe(groups, calibration):
        print(translate(line))
    return 0


def average_checkpoints(paths: list[str]) -> tuple[Any, dict[str, Any]]:
    """Returns the mean network of some checkpoints and the metadata of the last.

    Raises:
        ModelError: If one is no checkpoint of a training, or they differ in shape.
    """
    metadata = read_header(paths[-1]).metadata
    if not {"network", "num_classes"} <= metadata.keys():
        raise ModelError(
            f"{paths[-1]}: does not tell the shape of its network, expected a checkpoint that "
            "train.py wrote"
        )
    network = load_network(paths[-1])
    mean = [np.asarray(weight, dtype=np.float64) for weight in network.weights]
    shapes = [total.shape for total in mean]
    for path in paths[:-1]:
        weights = load_network(path).weights
        if [tuple(weight.shape) for weight in weights] != shapes:
            raise ModelError(
                f"{path}: its network differs in shape from that of {paths[-1]}, expected "
                "checkpoints of one training"
            )
        for total, weight in zip(mean, weights, strict=True):
            total += np.asarray(weight)
    for weight, total in zip(network.weights, mean, strict=True):
        weight.assign((total / len(paths)).astype(np.float32))
    return network, metadata


def without_speed_classes(network: Any, metadata: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Drops the classes of changed speeds, which are not real speakers."""
    num_speeds = int(metadata.get("num_speed_classes", 1))
    if num_speeds == 1:
        return network, metadata
    from utils.networks.catalogue import NETWORKS

    build = NETWORKS[metadata.get("architecture", "resnet34")]
    shape = {**metadata["network"], "num_classes": metadata["num_classes"]}
    smaller = build(**shape)
    for target, source in zip(smaller.weights, network.weights, strict=True):
        value = np.asarray(source)
        is_head = "classification" in target.path
        target.assign(value[..., ::num_speeds] if is_head else value)
    return smaller, {**metadata, "network": shape}


def with_whitening(
    network: Any, utterances: list[Utterance], strength: float, num_clips: int
) -> Any:
    """Appends centring and partial whitening, learned from embeddings of training utterances.

    With the covariance's eigenvalues d and eigenvectors V the new embedding is the direction of
    V diag(d^(-strength / 2)) V' (x - mean): ZCA whitening for strength 1.

    Raises:
        DataListError: If too few of the utterances can be used.
        ModelError: If the network has such a layer already.

    Source: Kessy et al., Optimal Whitening and Decorrelation (2018), equation 5.
    """
    import keras

    from utils.resnet import UnitLength

    if any(layer.name == "whitening" for layer in network.layers):
        raise ModelError(
            "the model is whitened already, expected a checkpoint of train.py; "
            "leave --whitening_list out"
        )
    embeddings = np.stack(embed_sample(network, utterances, num_clips)).astype(np.float64)
    mean = embeddings.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov((embeddings - mean).T))
    # The floor keeps directions without variance from being amplified.
    scales = (values / values.max() + 1e-3) ** (-strength / 2)
    kernel = (vectors * scales) @ vectors.T
    layer = keras.layers.Dense(len(mean), dtype="float32", name="whitening")
    classification, embedding = network.outputs
    outputs = UnitLength(name="whitened_embedding")(layer(embedding))
    layer.set_weights([kernel.astype(np.float32), (-mean @ kernel).astype(np.float32)])
    return keras.Model(network.input, [classification, outputs], name=network.name)


def embed_sample(network: Any, utterances: list[Utterance], num_clips: int) -> list[Any]:
    """Returns embeddings of a random sample, at most two utterances per speaker, none short.

    Raises:
        DataListError: If there are at most twice as many as an embedding has elements.
    """
    from tqdm import tqdm

    from utils.model.encoder import SpeakerEncoder

    num_of: dict[int, int] = {}
    embeddings: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.keras"
        write_model(path, network, {"embedding_size": network.output_shape[1][-1]})
        encoder = SpeakerEncoder(path)
        order = np.random.default_rng(0).permutation(len(utterances))
        for index in tqdm(order, desc="whitening"):
            utterance = utterances[int(index)]
            if num_of.get(utterance.label, 0) >= 2:
                continue
            try:
                waveform = load_audio(utterance.path, duration_s=MAX_SAMPLE_S)
                if speech_seconds(waveform) < MIN_SAMPLE_S:
                    continue
                embeddings.append(encoder.embed_waveform(waveform, source=utterance.path))
            except AudioError as error:
                print(translate(f"left out: {error}"), file=sys.stderr)
                continue
            num_of[utterance.label] = num_of.get(utterance.label, 0) + 1
            if len(embeddings) >= num_clips:
                break
    expected = 2 * network.output_shape[1][-1] + 1
    if len(embeddings) < expected:
        raise DataListError(
            f"{len(embeddings)} clips of at least {MIN_SAMPLE_S} s of speech to learn the "
            f"whitening from, at most two of a speaker; expected at least {expected}, twice the "
            "size of an embedding; leave --whitening_list out"
        )
    return embeddings


if __name__ == "__main__":
    run_script(main)
