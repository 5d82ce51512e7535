"""What a stored recording keeps of what was heard: its samples, its channels and its embedding."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from utils.arrays import FloatArray
from utils.audio.channels import MIN_CHANNEL_SHARE
from utils.audio.decode import load_audio
from utils.audio.waveform import SAMPLE_RATE, within_full_scale
from utils.errors import AudioError

Embed = Callable[[FloatArray], FloatArray]
"""From a waveform, `(num_samples,)`, 16 kHz, to its unit embedding; AudioError without speech."""

MIN_COSINE = 0.999
"""Cosine of the embeddings of what was heard and of what is stored."""

SUBTYPES = ("PCM_16", "PCM_24")
"""16 bits, and 24 where these are too few: mp3 leaves bands so quiet that the noise of rounding
fills them, which moves the embedding of 7 recordings of 10 to a cosine of 0.983 to 0.999."""

MAX_ROUNDING = 1e-5
"""Power of what rounding to 16 bits changes, relative to the sound: -50 dB."""


def audible_in_16_bits(waveform: FloatArray) -> FloatArray:
    """Makes a waveform louder, by powers of two, that rounding to 16 bits would change audibly.

    Quiet recordings of 24 bits or floating-point numbers lose their voice otherwise; one that has
    16 bits itself is rounded to what it is, and stays as it is.

    Args:
        waveform: Shape `(num_samples,)`, in [-1, 1].

    Returns:
        The same shape, in [-1, 1].
    """
    peak = float(np.abs(waveform).max(initial=0.0))
    error = waveform - np.round(waveform * 2**15) / 2**15
    if not 0 < peak < 0.5 or np.mean(error**2) <= MAX_ROUNDING * np.var(waveform):
        return waveform
    return np.asarray(waveform * np.float32(2.0 ** int(-np.log2(peak))), dtype=np.float32)


def encode(waveform: FloatArray, subtype: str, container: str = "WAV", comment: str = "") -> bytes:
    """Returns a waveform as the bytes of a file, 16 kHz mono.

    Args:
        waveform: Shape `(num_samples,)`, in [-1, 1].
        subtype: One of `SUBTYPES`.
        container: "WAV" or "FLAC".
        comment: Text that the file carries.
    """
    import soundfile

    memory = io.BytesIO()
    with soundfile.SoundFile(memory, "w", SAMPLE_RATE, 1, subtype, format=container) as file:
        if comment:
            file.comment = comment
        file.write(waveform)
    return memory.getvalue()


def encode_faithfully(
    waveform: FloatArray, embedding: FloatArray, embed: Embed, container: str = "WAV"
) -> bytes:
    """Returns a waveform as the bytes of a file that gives the same embedding.

    Args:
        waveform: What was heard, shape `(num_samples,)`, 16 kHz; divided by its peak if beyond
            full scale.
        embedding: Its embedding.
        embed: The speaker model.
        container: "WAV" or "FLAC".

    Raises:
        AudioError: If neither 16 nor 24 bits give the embedding.
    """
    loss = None
    audible = audible_in_16_bits(within_full_scale(waveform))
    for subtype in SUBTYPES:
        content = encode(audible, subtype, container)
        stored = load_audio(content)
        if np.array_equal(stored, waveform):
            return content
        loss = _loss(embedding, stored, embed)
        if loss is None:
            return content
    raise AudioError(f"what would be stored is not what was heard: {loss}; record it again")


def loss_of_copy(heard: FloatArray, stored: FloatArray, embed: Embed) -> str | None:
    """Says what a copy of a waveform lost, or returns `None` if it gives the same embedding.

    Args:
        heard: What was decoded, shape `(num_samples,)`, 16 kHz.
        stored: What is read back, 16 kHz.
        embed: The speaker model.
    """
    if heard.shape == stored.shape and np.array_equal(heard, stored):
        return None
    try:
        embedding = embed(heard)
    except AudioError as error:
        return f"no embedding to compare ({error})"
    return _loss(embedding, stored, embed)


def _loss(embedding: FloatArray, stored: FloatArray, embed: Embed) -> str | None:
    """Returns what a copy lost of an embedding, or None."""
    try:
        cosine = float(embedding @ embed(stored))
    except AudioError as error:
        return f"no embedding to compare ({error})"
    if not cosine >= MIN_COSINE:  # NaN is a loss too.
        return f"cosine {cosine:.4f} to what was heard, expected at least {MIN_COSINE}"
    return None


def loss_of_file(source: str | Path, stored: FloatArray, embed: Embed) -> str | None:
    """Says what a mono copy of a file lost, or returns `None` if it gives the same embedding.

    Each channel that is not silent has to give the embedding of the copy: of a call with a person
    on each channel, a mono file is no copy.

    Args:
        source: The file, as it was before.
        stored: What is read back of the copy, 16 kHz.
        embed: The speaker model.

    Raises:
        AudioError: If the source cannot be read.
    """
    loss = loss_of_copy(load_audio(source), stored, embed)
    channels = list(_channels(source))
    if loss is not None or len(channels) == 1:
        return loss
    powers = [float(np.var(channel)) for channel in channels]
    for number, (channel, power) in enumerate(zip(channels, powers, strict=True), start=1):
        if power >= MIN_CHANNEL_SHARE * max(powers):
            loss = loss_of_copy(channel, stored, embed)
            if loss is not None:
                return f"channel {number} would be lost: {loss}"
    return None


def _channels(source: str | Path) -> Iterator[FloatArray]:
    """Yields the channels of a file, one after the other."""
    yield load_audio(source, channel="1")
    number = 2
    while True:
        try:
            channel = load_audio(source, channel=str(number))
        except AudioError:  # There is no such channel; a damaged file has failed before.
            return
        yield channel
        number += 1
