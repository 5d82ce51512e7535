"""The Keras backend, started without chatter."""

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator

from utils.errors import VoiceprintError


def start_backend() -> None:
    """Imports Keras and its backend without the lines that TensorFlow writes at every start.

    They tell of oneDNN and of missing GPUs and come from C++, before its log level is read. An
    error of the import is raised as always. VOICEPRINT_VERBOSE=1 lets the lines through.

    Raises:
        VoiceprintError: If Keras is not installed.
    """
    if importlib.util.find_spec("keras") is None:
        raise VoiceprintError(
            "the package keras is missing, expected it for training and for .keras models; "
            "pip install -r requirements.txt, or use an .onnx model"
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if os.environ.get("VOICEPRINT_VERBOSE"):
        import keras

        return
    with stderr_closed():
        import keras

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.config.list_physical_devices("GPU")


@contextlib.contextmanager
def stderr_closed() -> Iterator[None]:
    """Sends what is written to standard error, by C++ too, nowhere for a while."""
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # There is no standard error, as under a service: nothing to keep quiet.
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
