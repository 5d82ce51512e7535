"""Runs a model in each format of export.py, as a function from speech to embedding.

Each takes samples, `(num_samples,)`, 16 kHz mono with silence removed, and returns the unit
embedding, `(embedding_size,)`.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from utils.arrays import FloatArray
from utils.audio.spectrogram import CROP_SAMPLES, extend, spectrogram
from utils.export.onnx import OUTPUT_NAME
from utils.model.archive import load_network
from utils.model.backend import stderr_closed
from utils.model.onnx import INPUT_NAME

Embed = Callable[[FloatArray], FloatArray]


def load_keras(path: str | Path, num_threads: int) -> Embed:
    """Returns the function of the original, the reference for the other formats.

    Its features come from `utils.audio.spectrogram`, in NumPy, outside the network.

    Raises:
        ModelError: If the file is not a model of this toolkit.
    """
    network = load_network(path)
    import keras

    embedder = keras.Model(network.inputs, network.outputs[1])
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        _limit_threads(num_threads)
        signature = [tf.TensorSpec((1, *embedder.input_shape[1:]), tf.float32)]
        call = tf.function(lambda x: embedder([x], training=False), input_signature=signature)
    else:

        def call(features: FloatArray) -> Any:
            return embedder([features], training=False)

    def embed(waveform: FloatArray) -> FloatArray:
        features = spectrogram(extend(waveform, max(len(waveform), CROP_SAMPLES)))
        (embedding,) = call(features[None, :, :, None])
        return np.asarray(keras.ops.convert_to_numpy(embedding))

    return embed


def load_saved_model(folder: str | Path, num_threads: int) -> Embed:
    """Returns the function of a SavedModel."""
    import tensorflow as tf

    _limit_threads(num_threads)
    with stderr_closed():
        # The object must outlive its signature.
        model = tf.saved_model.load(str(folder))
    signature = model.signatures["serving_default"]

    def embed(waveform: FloatArray, model: Any = model) -> FloatArray:
        outputs = signature(**{INPUT_NAME: tf.constant(waveform[None], tf.float32)})
        return np.asarray(outputs[OUTPUT_NAME].numpy()[0])

    return embed


def load_tflite(path: str | Path, num_threads: int) -> Embed:
    """Returns the function of a TFLite file; it serves one thread at a time."""
    import tensorflow as tf

    with stderr_closed(), warnings.catch_warnings():
        # The warning: the interpreter moves to the package ai-edge-litert, with the same interface.
        warnings.simplefilter("ignore")
        # Read, not mapped: Windows cannot rename a file in use.
        content = Path(path).read_bytes()
        interpreter = tf.lite.Interpreter(model_content=content, num_threads=num_threads)
    (inputs,), (outputs,) = interpreter.get_input_details(), interpreter.get_output_details()
    size = 0

    def embed(waveform: FloatArray) -> FloatArray:
        nonlocal size
        if len(waveform) != size:
            size = len(waveform)
            interpreter.resize_tensor_input(inputs["index"], [1, size])
            with stderr_closed():
                interpreter.allocate_tensors()
        interpreter.set_tensor(inputs["index"], np.asarray(waveform[None], np.float32))
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(outputs["index"])[0])

    return embed


def _limit_threads(num_threads: int) -> None:
    """Sets TensorFlow's threads, if it has not started yet."""
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(num_threads)
        tf.config.threading.set_inter_op_parallelism_threads(num_threads)
    except RuntimeError:
        pass  # It has started, in a test for instance: too late to change its threads.
