"""The trained network of a `.keras` file, run by Keras on TensorFlow or another backend."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from utils.arrays import FloatArray
from utils.model.archive import load_network
from utils.networks.features import compute_features


def load_keras_network(path: str | Path, num_threads: int) -> Any:
    """Returns a function from a stretch of speech to its embedding, as `load_onnx_network` does.

    Args:
        path: A file of train.py.
        num_threads: Threads that share one computation, unless TensorFlow has started already.

    Returns:
        A function from samples, `(num_samples,)`, to the unit embedding, `(embedding_size,)`;
        safe to call from several threads.

    Raises:
        ModelError: As `load_network`.
    """
    network = load_network(path)
    front_end = network.inputs[0].name
    embed_features = _compile(network, num_threads)

    def embed(waveform: FloatArray) -> FloatArray:
        features = compute_features(front_end, waveform)
        return np.asarray(embed_features(features[None, :, :, None])[0])

    return embed


def limit_threads(num_threads: int) -> None:
    """Sets TensorFlow's threads, as long as it has not started."""
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):  # It has: its threads can no longer be changed.
        tf.config.threading.set_intra_op_parallelism_threads(num_threads)
        tf.config.threading.set_inter_op_parallelism_threads(num_threads)


def _compile(network: Any, num_threads: int) -> Any:
    """Returns a function from features, `(batch, num_bins, num_frames, 1)`, to embeddings."""
    import keras

    embedder = keras.Model(network.inputs, network.outputs[1])
    if keras.backend.backend() != "tensorflow":
        return lambda features: keras.ops.convert_to_numpy(embedder(features, training=False))
    import tensorflow as tf

    limit_threads(num_threads)
    signature = tf.TensorSpec((None, *network.input_shape[1:]), tf.float32)
    function = tf.function(lambda x: embedder(x, training=False), input_signature=[signature])
    return lambda features: function(features).numpy()
