"""Containers that soundfile does not write, made with PyAV."""

import io

import numpy as np


def encode_with_av(waveform: np.ndarray, container: str, codec: str, rate: int = 48000) -> bytes:
    """Returns a mono waveform, shape `(num_samples,)`, as the bytes of a file."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = 64_000
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(waveform[None], np.float32), "fltp", "mono"
        )
        frame.sample_rate = rate
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()
