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
from utils.export.onnx_graph import OUTPUT_NAME
from utils.model.backend import stderr_closed
from utils.model.keras import limit_threads
from utils.model.onnx import INPUT_NAME

Embed = Callable[[FloatArray], FloatArray]


def load_saved_model(folder: str | Path, num_threads: int) -> Embed:
    """Returns the function of a SavedModel."""
    import tensorflow as tf

    limit_threads(num_threads)
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
