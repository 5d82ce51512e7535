"""The baseline of the benchmarks: the system that this project follows, re-created.

Features and flow of eval.py, infer_contrast.py and the training follow that system's README:
librosa one file at a time, `model.predict` one crop at a time, Python loops. The network is of the
same family: a thin bottleneck ResNet34 whose first convolution runs at full resolution (7.5 million
parameters), with two outputs. Its weights are random, since only time and memory are measured.

    python benchmarks/baseline.py make model.keras
    python benchmarks/baseline.py compare model.keras audio/a_1.wav audio/b_2.wav
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FloatArray = np.ndarray[Any, np.dtype[np.float32]]

SPEC_LEN = 257
NUM_CLASSES = 3242
EMBEDDING_SIZE = 512

STAGES = ((48, 96, 2, 1), (96, 128, 3, 2), (128, 256, 3, 2), (256, 512, 3, 2))
"""Inner width, outer width, blocks and stride of the bottleneck stages."""


def load_audio(audio_path: str, mode: str = "infer") -> FloatArray:
    """Returns the normalised magnitude of one crop, shape `(257, 257)`."""
    import librosa

    wav, _ = librosa.load(audio_path, sr=16000)
    if mode == "train":
        extended_wav = np.append(wav, wav)
        if np.random.random() < 0.3:  # noqa: NPY002  the baseline's own way
            extended_wav = extended_wav[::-1]
    else:
        extended_wav = np.append(wav, wav[::-1])
    linear = librosa.stft(extended_wav, n_fft=512, win_length=400, hop_length=160)
    mag, _ = librosa.magphase(linear.T)
    mag_t = mag.T
    start = 0
    if mode == "train":
        start = np.random.randint(0, max(mag_t.shape[1] - SPEC_LEN, 1))  # noqa: NPY002
    spec_mag = mag_t[:, start : start + SPEC_LEN]
    mean = np.mean(spec_mag, 0, keepdims=True)
    std = np.std(spec_mag, 0, keepdims=True)
    return np.asarray((spec_mag - mean) / (std + 1e-5))


def build_network(num_classes: int = NUM_CLASSES, normalization: Any = None) -> Any:
    """Returns the network: input `(257, None, 1)`, outputs classification and embedding.

    Args:
        num_classes: Number of training speakers.
        normalization: Class of the batch normalisation, by default Keras's own.
    """
    import keras
    from keras import layers

    norm = normalization or layers.BatchNormalization

    def convolution(x: Any, width: int, size: int, stride: int = 1) -> Any:
        x = layers.Conv2D(width, size, stride, padding="same", use_bias=False)(x)
        return norm()(x)

    inputs = keras.Input((SPEC_LEN, None, 1))
    x = layers.ReLU()(convolution(inputs, 64, 7))
    x = layers.MaxPooling2D(2)(x)
    for inner, outer, blocks, stage_stride in STAGES:
        for block in range(blocks):
            stride = stage_stride if block == 0 else 1
            shortcut = x if block else convolution(x, outer, 1, stride)
            x = layers.ReLU()(convolution(x, inner, 1, stride))
            x = layers.ReLU()(convolution(x, inner, 3))
            x = layers.ReLU()(layers.Add()([convolution(x, outer, 1), shortcut]))
    x = layers.MaxPooling2D((3, 1), (2, 1))(x)
    x = layers.Conv2D(EMBEDDING_SIZE, (7, 1), activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    feature = layers.Dense(EMBEDDING_SIZE, activation="relu", dtype="float32", name="feature")(x)
    output = layers.Dense(num_classes, dtype="float32", name="output")(feature)
    return keras.Model(inputs, [output, feature])


def infer(model: Any, audio_path: str) -> FloatArray:
    """Returns the embedding of one file, through `model.predict` as the baseline does it."""
    data = load_audio(audio_path)[np.newaxis, :, :, np.newaxis]
    return np.asarray(model.predict(data, verbose=0)[1][0])


def compare(args: argparse.Namespace) -> int:
    """Is infer_contrast.py of the baseline."""
    import librosa  # noqa: F401
    import tensorflow as tf

    model = tf.keras.models.load_model(args.model_path, compile=False)
    print(f"==> successfully loading model {args.model_path}.\n")
    start = time.time()
    feature1, feature2 = infer(model, args.files[0]), infer(model, args.files[1])
    mean_time_ms = round((time.time() - start) / 2 * 1000)
    similarity = np.dot(feature1, feature2) / (np.linalg.norm(feature1) * np.linalg.norm(feature2))
    print(
        f"{args.files[0]} 和 {args.files[1]} 相似度为：{similarity:f}，预测时间：{mean_time_ms}ms"
    )
    return 0


def make(args: argparse.Namespace) -> int:
    """Writes a model file with random weights."""
    import keras

    keras.utils.set_random_seed(0)
    build_network().save(args.model_path)
    return 0


def embed(args: argparse.Namespace) -> int:
    """Embeds the files one by one as eval.py of the baseline; prints seconds a file."""
    import tensorflow as tf

    if args.one_core:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    model = tf.keras.models.load_model(args.model_path, compile=False)
    infer(model, args.files[0])  # compiles
    seconds = []
    for path in args.files:
        start = time.perf_counter()
        infer(model, path)
        seconds.append(time.perf_counter() - start)
    print(json.dumps(seconds))
    return 0


def generate(files: Sequence[str]) -> Iterator[tuple[FloatArray, int]]:
    """Yields crops for ever, the generator of the baseline's training."""
    while True:
        for path in files:
            yield load_audio(path, "train")[:, :, np.newaxis], 0


def dataset(files: Sequence[str], batch_size: int) -> Any:
    """Returns the baseline's input pipeline: `tf.data.Dataset.from_generator` of librosa."""
    import tensorflow as tf

    types = (
        tf.TensorSpec((SPEC_LEN, SPEC_LEN, 1), tf.float32),
        tf.TensorSpec((), tf.int64),
    )
    data = tf.data.Dataset.from_generator(lambda: generate(files), output_signature=types)
    return data.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def read(args: argparse.Namespace) -> int:
    """Reads batches; prints clips a second after the first batch."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    batches = iter(dataset(args.files, args.batch_size))
    next(batches)
    start = time.perf_counter()
    for _ in range(args.num_batches):
        features, _ = next(batches)
        features.numpy()
    print(json.dumps(args.num_batches * args.batch_size / (time.perf_counter() - start)))
    return 0


def parse_args(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for function in (make, compare, embed, read):
        command = commands.add_parser(function.__name__)
        command.set_defaults(run=function)
        if function is not read:
            command.add_argument("model_path")
        if function is not make:
            command.add_argument("files", nargs="+")
        if function is embed:
            command.add_argument("--one_core", action="store_true")
        if function is read:
            command.add_argument("--batch_size", type=int, default=32)
            command.add_argument("--num_batches", type=int, default=10)
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    args = parse_args(argv)
    if getattr(args, "one_core", False):
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
        from benchmarks.measuring import use_one_core

        use_one_core()
    status: int = args.run(args)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
