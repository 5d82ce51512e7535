"""Networks on ONNX Runtime: the one way in which a file of ours is loaded."""

from pathlib import Path
from typing import Any

from utils.errors import ModelError


def open_session(path: str | Path, num_threads: int = 1) -> Any:
    """Loads a network.

    Args:
        path: An `.onnx` file.
        num_threads: Threads that share one computation, the calling one among them.

    Returns:
        An `onnxruntime.InferenceSession`, safe to run from several threads.

    Raises:
        ModelError: If ONNX Runtime is missing, or cannot load the file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(
            f"{path}: the package onnxruntime is missing, expected it for .onnx files; "
            "pip install -r requirements-infer.txt"
        ) from error
    onnxruntime.set_default_logger_severity(3)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    # One shape after the other, never the same: plans and pools for them only cost memory.
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = False
    # Threads that wait actively would take the cores from other callers.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no base of their own
        raise ModelError(
            f"{path}: the network cannot be loaded ({str(error).splitlines()[0][:160]}); "
            "copy it again, or write it again with export.py"
        ) from error
