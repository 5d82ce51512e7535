"""The sound of recordings as bytes in a database: FLAC in, 16 kHz mono out."""

import io

from utils.arrays import FloatArray
from utils.audio.decode import load_audio
from utils.audio.fidelity import encode
from utils.audio.waveform import SAMPLE_RATE, within_full_scale


def encode_flac(waveform: FloatArray) -> bytes:
    """Returns a waveform as 16-bit FLAC, to be heard: half the size of wav, with the same samples.

    What is kept of a voice goes through `utils.audio.fidelity.encode_faithfully` instead.

    Args:
        waveform: Shape `(num_samples,)`, 16 kHz; divided by its peak if beyond full scale.
    """
    return encode(within_full_scale(waveform), "PCM_16", "FLAC")


def decode(content: bytes, file_name: str = "") -> FloatArray:
    """Returns the waveform of a stored recording, shape `(num_samples,)`, 16 kHz.

    Args:
        content: Bytes of an audio file of any kind.
        file_name: Its name or suffix; some kinds can only be told by it.

    Raises:
        AudioError: If they are not audio that can be read.
    """
    return load_audio(content, name="the recording")


def to_playable(content: bytes, file_name: str = "") -> bytes:
    """Returns a stored recording as FLAC or WAV of 16 kHz mono, unchanged if it is that already."""
    return content if _is_plain(content) else encode(decode(content, file_name), "PCM_16")


def suffix_of(content: bytes) -> str:
    """Returns the usual suffix of a file with this content: .flac or .wav."""
    return ".flac" if content[:4] == b"fLaC" else ".wav"


def _is_plain(content: bytes) -> bool:
    """Tells whether these are FLAC or 16-bit WAV of 16 kHz mono."""
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            kind = (file.format, file.subtype, file.samplerate, file.channels)
    except (soundfile.LibsndfileError, OSError, RuntimeError, TypeError):
        return False
    return kind[0] in ("FLAC", "WAV") and kind[1:] == ("PCM_16", SAMPLE_RATE, 1)
