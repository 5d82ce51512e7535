"""The trained network as an ONNX file, run by ONNX Runtime without Keras and TensorFlow."""

import base64
import json
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from utils.arrays import FloatArray
from utils.errors import ModelError
from utils.files import atomic_path
from utils.onnx_session import open_session

METADATA_PROPS = 14
"""Number of the field of `ModelProto` that holds pairs of texts (onnx.proto)."""

METADATA_NAME = "voiceprint.json"
"""Name of our metadata among these pairs, and in a `.keras` archive."""

COHORT_NAME = "cohort.npy"
"""Name of the cohort of AS-norm in both kinds of file; in an ONNX file, a text in base64."""

INPUT_NAME = "waveform"


def read_onnx_metadata(path: str | Path) -> dict[str, Any]:
    """Returns the metadata that export.py wrote into an ONNX file, without loading the network.

    The file is a protocol buffer: fields follow each other, each with its number and its length,
    so that the few bytes of metadata are found without the megabytes of weights before them.

    Raises:
        ModelError: If the file is damaged or was not written by export.py.
    """
    texts = _read_texts(path)
    try:
        metadata = json.loads(texts[METADATA_NAME])
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"{path}: an ONNX file without {METADATA_NAME}, expected a model of this toolkit; "
            "use one that export.py wrote"
        ) from error
    return metadata if isinstance(metadata, dict) else {}


def read_onnx_cohort(path: str | Path) -> bytes | None:
    """Returns the cohort in an ONNX file, None if there is none.

    Raises:
        ModelError: If the file is damaged.
    """
    text = _read_texts(path).get(COHORT_NAME)
    return None if text is None else base64.b64decode(text)


def _read_texts(path: str | Path) -> dict[str, bytes]:
    """Returns the pairs of texts in an ONNX file."""
    texts: dict[str, bytes] = {}
    try:
        # Mapped into memory, only the pages that are looked at are read.
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for number, start, end in _fields(data, 0, len(data)):
                if number == METADATA_PROPS:
                    pair = {key: data[a:b] for key, a, b in _fields(data, start, end)}
                    # An empty text takes no field.
                    texts[pair[1].decode()] = pair.get(2, b"")
    except (IndexError, KeyError, ValueError, OSError) as error:
        raise ModelError(
            f"{path}: damaged or no ONNX file, expected a complete .onnx file of export.py; "
            "copy it again"
        ) from error
    return texts


def write_onnx_metadata(
    path: str | Path, metadata: dict[str, Any], cohort: bytes | None = None
) -> None:
    """Replaces the metadata in an ONNX file in one step; the network stays byte by byte.

    Args:
        path: The file.
        metadata: The new ones.
        cohort: The new cohort, if that is to be replaced too.

    Raises:
        ModelError: As `read_onnx_metadata`.
    """
    read_onnx_metadata(path)
    texts = {METADATA_NAME.encode(): json.dumps(metadata, ensure_ascii=False).encode()}
    if cohort is not None:
        texts[COHORT_NAME.encode()] = base64.b64encode(cohort)
    data = Path(path).read_bytes()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        position = 0
        for number, start, end in _fields(data, 0, len(data)):
            is_ours = number == METADATA_PROPS and any(
                key == 1 and data[a:b] in texts for key, a, b in _fields(data, start, end)
            )
            if is_ours:
                # The tag and the length stand before the content.
                head = len(_field(METADATA_PROPS, data[start:end])) - (end - start)
                file.write(data[position : start - head])
                position = end
        file.write(data[position:])
        for name, text in texts.items():
            file.write(_field(METADATA_PROPS, _field(1, name) + _field(2, text)))


def _field(number: int, content: bytes) -> bytes:
    """Returns a field of a message: tag, length, content."""
    return _as_varint(number << 3 | 2) + _as_varint(len(content)) + content


def _as_varint(value: int) -> bytes:
    """Returns a number in base 128, lowest digits first."""
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def load_onnx_network(path: str | Path, num_threads: int) -> Any:
    """Returns a function from a stretch of speech to its embedding.

    Args:
        path: A file of export.py.
        num_threads: Threads that share one computation, the calling one among them.

    Returns:
        A function from samples, `(num_samples,)`, to the unit embedding, `(embedding_size,)`;
        safe to call from several threads.

    Raises:
        ModelError: If ONNX Runtime is missing or cannot load the file.
    """
    session = open_session(path, num_threads)

    def embed(waveform: FloatArray) -> FloatArray:
        samples = np.ascontiguousarray(waveform, dtype=np.float32)[None]
        (embedding,) = session.run(None, {INPUT_NAME: samples})
        return np.asarray(embedding[0], dtype=np.float32)

    return embed


def _fields(data: mmap.mmap | bytes, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yields `(number, start, end)` of the fields of a message that have a length.

    Source: Protocol Buffers, "Encoding": wire types 0 (varint), 1 and 5 (fixed), 2 (length).
    """
    while position < end:
        tag, position = _varint(data, position)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            _, position = _varint(data, position)
            continue
        if kind == 2:
            size, position = _varint(data, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if position + size > end:
            raise ValueError("the last field is cut off")
        if kind == 2:
            yield number, position, position + size
        position += size


def _varint(data: mmap.mmap | bytes, position: int) -> tuple[int, int]:
    """Returns a number in base 128, lowest digits first, and where it ends."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
