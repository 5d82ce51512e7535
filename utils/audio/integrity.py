"""Truncated audio files, found by their structure.

Decoders take a wav, aiff or ogg file that breaks off in the middle for a shorter recording, and
say nothing. The containers do tell how long they were meant to be.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

OGG_TAIL_BYTES = 65_536 + 512
"""The largest Ogg page has 65,307 bytes, so the last page begins inside this tail."""

OGG_END_OF_STREAM = 4
"""Bit of an Ogg page's flags on the last page of a stream (RFC 3533, section 6)."""

UNKNOWN_SIZE = 0x7FFFF000
"""Bytes. Chunks of wav files that were streamed claim 0, or this or more (sox this, others 2^31 or
2^32 - 1, less a header): the real size was never written."""

MP3_SLACK_BYTES = 500
"""About one MPEG frame: encoders differ in whether the one with the header is counted."""


def describe_truncation(source: str | Path | BinaryIO) -> str | None:
    """Says how a file is cut short, or returns None if its structure is complete.

    Known are wav, aiff, ogg (vorbis, opus, flac) and mp3 with a Xing or Info header; anything
    else counts as complete here, because its decoder reports a truncated file itself.

    Args:
        source: An existing file, or one that is open for reading or held in memory.

    Returns:
        Such as "truncated: 3000 of 96044 bytes", or None.
    """
    if isinstance(source, str | Path):
        with Path(source).open("rb") as opened:
            return describe_truncation(opened)
    file = source
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(16)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        expected = _riff_end(file, size)
    elif head[:4] == b"FORM" and head[8:11] == b"AIF":
        expected = struct.unpack(">I", head[4:8])[0] + 8
    elif head[:4] == b"OggS":
        return _describe_ogg_end(file, size)
    elif head[:3] == b"ID3" or head[:1] == b"\xff":
        expected = _mp3_end(file) - MP3_SLACK_BYTES
    else:
        return None
    return f"truncated: {size} of {expected} bytes" if size < expected else None


def _riff_end(file: BinaryIO, size: int) -> int:
    """Returns where the data chunk should end; 0 if that is not known."""
    position = 12
    while position + 8 <= size:
        file.seek(position)
        name, length = struct.unpack("<4sI", file.read(8))
        if name == b"data":
            return 0 if length == 0 or length >= UNKNOWN_SIZE else position + 8 + length
        position += 8 + length + length % 2  # chunks are padded to an even length
    return position


def _describe_ogg_end(file: BinaryIO, size: int) -> str | None:
    """Checks that the last Ogg page is whole and carries the end mark."""
    tail_start = max(0, size - OGG_TAIL_BYTES)
    file.seek(tail_start)
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return "truncated: the last Ogg page is incomplete"
    expected = tail_start + tail.rfind(b"OggS") + 27 + page[26] + sum(page[27 : 27 + page[26]])
    if size < expected:
        return f"truncated: {size} of {expected} bytes"
    if not page[5] & OGG_END_OF_STREAM:
        return "truncated: the last Ogg page has no end mark"
    return None


def _mp3_end(file: BinaryIO) -> int:
    """Returns where the last MPEG frame should end by the Xing header; 0 without such a header."""
    file.seek(0)
    start = 0
    head = file.read(10)
    if head[:3] == b"ID3" and len(head) == 10:  # sizes in ID3 tags have 7 bits a byte
        start = 10 + sum((byte & 0x7F) << (7 * (3 - place)) for place, byte in enumerate(head[6:]))
    file.seek(start)
    frame = file.read(256)
    places = [place for place in (frame.find(b"Xing"), frame.find(b"Info")) if place >= 0]
    if not places:
        return 0
    header = frame[min(places) : min(places) + 16]
    flags = struct.unpack(">I", header[4:8])[0] if len(header) == 16 else 0
    if not flags & 2:  # bit 1: the number of bytes is given, behind the number of frames (bit 0)
        return 0
    place = 12 if flags & 1 else 8
    return start + int(struct.unpack(">I", header[place : place + 4])[0])
