"""Writes a trained network as SavedModel and as TFLite: raw samples in, the unit embedding out.

Like the ONNX file of `utils.export.onnx`, both include the spectrogram and its normalisation, and
repeat clips shorter than a crop. The TFLite file uses only built-in operators, which every phone
has.
"""

import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from utils.arrays import FloatArray
from utils.audio.spectrogram import EPSILON, HOP_LENGTH, N_FFT, padded_window
from utils.errors import ModelError
from utils.export.onnx import exported_metadata
from utils.export.onnx_graph import OUTPUT_NAME
from utils.model.archive import load_network
from utils.model.backend import stderr_closed
from utils.model.header import read_header
from utils.model.onnx import INPUT_NAME, METADATA_NAME
from utils.networks import filterbank as kaldi
from utils.networks.features import LEAST_SAMPLES

EXACT_WEIGHTS = {"CONV_2D": 2**14, "FULLY_CONNECTED": 2**16}
"""Layers with fewer weights than this keep them in 32 bits in the int8 file. In the shipped model
these are the first convolution and the first stage, whose errors affect everything, and the last
layer, whose whitening magnifies rounding errors: 0.3 MB. The worst cosine to the original over
1,423 clips is 0.9994; with only the last layer in 32 bits it is 0.9984."""

TFLITE_KINDS = ("float16", "int8")


def write_saved_model(model_path: str | Path, folder: str | Path) -> None:
    """Writes the embedding part of a model file as a SavedModel.

    Its signature `serving_default` takes `waveform`, float32 `(1, num_samples)`, 16 kHz mono with
    silence removed, and returns `embedding`, float32 `(1, embedding_size)`, unit length. The folder
    holds the model's metadata and identity as `voiceprint.json`.

    Args:
        model_path: A `.keras` file of this toolkit.
        folder: Folder to write to; it may exist.

    Raises:
        ModelError: If the file is not a model of this toolkit, or Keras runs on another backend.
    """
    _save(_embedding_network(model_path), folder)
    (Path(folder) / METADATA_NAME).write_text(_metadata(model_path), encoding="utf-8")


def write_tflite(model_path: str | Path, output_path: str | Path, kind: str) -> None:
    """Writes the embedding part of a model file for LiteRT, formerly TensorFlow Lite.

    The signature is that of `write_saved_model`. The metadata is attached in TFLite's way, as a zip
    archive after the model: `unzip -p FILE voiceprint.json` and Python's zipfile read it.

    Args:
        model_path: A `.keras` file of this toolkit.
        output_path: The file to write.
        kind: "float16" stores the weights in 16 bits. "int8" stores them in 8 bits and computes
            the convolutions in 8 bits, with ranges found at run time; the spectrogram has no
            weights and stays in 32 bits.

    Raises:
        ModelError: As `write_saved_model`.
        ValueError: If `kind` is unknown.
    """
    if kind not in TFLITE_KINDS:
        raise ValueError(f"kind is {kind!r}, expected one of {', '.join(TFLITE_KINDS)}")
    network = _embedding_network(model_path)
    with tempfile.TemporaryDirectory() as folder:
        _save(network, folder)
        with stderr_closed():
            data = _convert(folder, kind)
            if kind == "int8":
                data = _with_exact_weights(data, _convert(folder, "float32"))
    Path(output_path).write_bytes(data)
    with zipfile.ZipFile(output_path, "a") as archive:
        archive.writestr(METADATA_NAME, _metadata(model_path))


def _embedding_network(model_path: str | Path) -> Any:
    """Returns the Keras model from features to embeddings."""
    network = load_network(model_path)
    if keras.backend.backend() != "tensorflow":
        raise ModelError(
            f"{model_path}: Keras runs on {keras.backend.backend()}, expected TensorFlow, which "
            "writes SavedModel and TFLite; unset KERAS_BACKEND, or use --formats onnx"
        )
    return keras.Model(network.inputs, network.outputs[1])


def _convert(folder: str, kind: str) -> bytes:
    """Returns a SavedModel as a TFLite file of built-in operators."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    if kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    return bytes(converter.convert())


def _with_exact_weights(quantised: bytes, exact: bytes) -> bytes:
    """Puts the 32-bit weights of small layers back into a quantised TFLite file.

    The converter quantises all layers or none, but the file stores a type for each weight.

    Args:
        quantised: The model with 8-bit weights.
        exact: The same model with 32-bit weights, whose tensors have the same names.
    """
    from tensorflow.lite.tools import flatbuffer_utils

    model, source = map(flatbuffer_utils.convert_bytearray_to_object, (quantised, exact))
    originals = {tensor.name: tensor for tensor in source.subgraphs[0].tensors}
    graph = model.subgraphs[0]
    for operator in graph.operators:
        kind = flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex)
        weights = graph.tensors[operator.inputs[1]] if kind in EXACT_WEIGHTS else None
        if weights is None or np.prod(weights.shape) >= EXACT_WEIGHTS[kind]:
            continue
        original = originals[weights.name]
        model.buffers[weights.buffer].data = source.buffers[original.buffer].data
        weights.type, weights.quantization = original.type, None
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _save(network: Any, folder: str | Path) -> None:
    """Writes the graph from samples to embedding as a SavedModel."""
    import tensorflow as tf

    # Constants instead of variables, which the TFLite converter would leave empty.
    trained = [tf.constant(variable.numpy()) for variable in network.trainable_variables]
    fixed = [tf.constant(variable.numpy()) for variable in network.non_trainable_variables]

    name = network.inputs[0].name
    front_end = FRONT_ENDS[name]

    def embed(waveform: Any) -> dict[str, Any]:
        features = front_end(_repeated(waveform[0], LEAST_SAMPLES[name]))
        embedding, _ = network.stateless_call(trained, fixed, [features], training=False)
        return {OUTPUT_NAME: embedding}

    module = tf.Module()
    signature = tf.TensorSpec((1, None), tf.float32, name=INPUT_NAME)
    module.embed = tf.function(embed, input_signature=[signature])
    with stderr_closed():
        tf.saved_model.save(module, str(folder), signatures={"serving_default": module.embed})


def _repeated(waveform: Any, least: int) -> Any:
    """Repeats samples, `(num_samples,)`, until they are `least`."""
    import tensorflow as tf

    size = tf.shape(waveform)[0]
    wanted = tf.maximum(size, least)
    return tf.tile(waveform, [(wanted + size - 1) // size])[:wanted]


def _spectrogram(waveform: Any) -> Any:
    """Computes `utils.audio.spectrogram.spectrogram` of samples, `(num_samples,)`.

    Returns:
        Shape `(1, 257, num_frames, 1)`.
    """
    import tensorflow as tf

    num_frames = 1 + tf.shape(waveform)[0] // HOP_LENGTH
    frames = _windowed(_frames(waveform, num_frames, N_FFT, N_FFT // 2), padded_window())
    magnitudes = tf.abs(tf.signal.rfft(frames, [N_FFT]))
    centred = magnitudes - tf.reduce_mean(magnitudes, axis=1, keepdims=True)
    deviation = tf.sqrt(tf.reduce_mean(tf.square(centred), axis=1, keepdims=True))
    return tf.transpose(centred / (deviation + np.float32(EPSILON)))[None, :, :, None]


def _filterbank(waveform: Any) -> Any:
    """Computes `utils.networks.filterbank.filterbank` of samples, `(num_samples,)`.

    Step by step, since TFLite would quantise the weights of a single matrix.

    Returns:
        Shape `(1, 80, num_frames, 1)`.
    """
    import tensorflow as tf

    num_frames = 1 + (tf.shape(waveform)[0] - kaldi.FRAME_LENGTH) // kaldi.FRAME_SHIFT
    frames = _frames(waveform, num_frames, kaldi.FRAME_LENGTH, 0)
    frames = frames - tf.reduce_mean(frames, axis=1, keepdims=True)
    before = tf.concat([frames[:, :1], frames[:, :-1]], axis=1)
    frames = _windowed(frames - kaldi.PRE_EMPHASIS * before, kaldi.povey_window())
    power = tf.square(tf.abs(tf.signal.rfft(frames, [kaldi.FFT_LENGTH])))
    energies = tf.matmul(power, tf.constant(kaldi.mel_filters()))
    levels = tf.math.log(tf.maximum(energies, kaldi.LOG_FLOOR))
    return tf.transpose(levels - tf.reduce_mean(levels, axis=0, keepdims=True))[None, :, :, None]


def _frames(waveform: Any, num_frames: Any, length: int, padding: int) -> Any:
    """Cuts samples, with zeros before them, into overlapping frames, `(num_frames, length)`.

    Frames are assembled from slices of one hop each: TFLite has an operator for the Fourier
    transform, but none that cuts a signal of any length into overlapping frames.
    """
    import tensorflow as tf

    pieces_per_frame = -(-length // HOP_LENGTH)
    end = (num_frames + pieces_per_frame - 1) * HOP_LENGTH
    # Samples beyond the last frame's last piece belong to no frame.
    padded = tf.pad(waveform, [[padding, pieces_per_frame * HOP_LENGTH]])[:end]
    pieces = tf.reshape(padded, [-1, HOP_LENGTH])
    joined = tf.concat([pieces[k : num_frames + k] for k in range(pieces_per_frame)], axis=1)
    return joined[:, :length]


def _windowed(frames: Any, window: FloatArray) -> Any:
    """Multiplies frames by a window, in two parts, since the float16 file rounds constants.

    With an 11-bit window, leakage from strong frequencies would mask weak ones.
    """
    coarse = window.astype(np.float16).astype(np.float32)
    return frames * coarse + frames * (window - coarse)


FRONT_ENDS = {"spectrogram": _spectrogram, "filterbank": _filterbank}
"""The front ends of `utils.networks.front_ends` in TFLite's built-in operators."""


def _metadata(model_path: str | Path) -> str:
    """Returns the exported file's metadata as JSON."""
    metadata = exported_metadata(read_header(model_path))
    return json.dumps(metadata, ensure_ascii=False, indent=1)
