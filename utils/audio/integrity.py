"""What a recording's bytes are, where the sound begins, and whether the file was cut short.

The content decides, never a name. Decoders take a file that breaks off in the middle for a shorter
recording, and say nothing; the containers do tell how long they were meant to be. One rule for all
of them:

- **Unknown sizes** mean "to the end of the file": 0, negative ones, 0x7F000000 to 0xFFFFFFFF (which
  recorders and pipes write before they know: 0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFF, less a header),
  and 2^62 or more. So the size of a complete file between 2.1 and 4.3 GB is not judged.
- **Up to `SLACK_BYTES` too many** are the mistake of a writer who counted a header in; the file is
  complete.
- **More than that** is missing sound: the file is truncated.
- **A missing end mark alone** (the last page of an Ogg stream) is no damage if the last packet is
  whole.

What cannot be told: aac, amr and mp3 without a Xing header state no length, and an Ogg or FLAC
stream of unknown length may end between two of its packets.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

SLACK_BYTES = 512
"""Bytes that may be missing: 16 ms of 16-bit sound at 16 kHz, one frame of mp3."""

OGG_TAIL_BYTES = 65_536 + 512
"""The largest Ogg page has 65,307 bytes, so the last page begins inside this tail."""

OGG_END_OF_STREAM = 4
"""Bit of an Ogg page's flags on the last page of a stream (RFC 3533, section 6)."""

MAX_LEADING_ZEROS = 1 << 16
"""Bytes of zeros before the first frame of mp3 or aac that are passed over."""

MAX_TAGS = 4
"""ID3 tags one behind the other that are passed over."""

W64_GUID_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")
"""How the names of W64's chunks end, all but that of the file."""

ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")

QUICKTIME_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
"""First atoms of mp4, m4a, 3gp and QuickTime files."""

EBML_SEGMENT, EBML_CLUSTER = 0x18538067, 0x1F43B675
"""The elements of Matroska and WebM whose size may be unknown."""


@dataclass(frozen=True)
class Layout:
    """What a file is.

    Attributes:
        container: Such as "wav", "ogg" or "mov".
        start: Byte at which it begins, behind what was put before it.
        patches: Position -> bytes that mend sizes which were never written.
        is_regular: False if only a lenient decoder reads it.
        is_exact: Whether the stated number of samples is exact, not an estimate.
        defect: Such as "truncated: 3000 of 96044 bytes", or None.
    """

    container: str
    start: int = 0
    patches: Mapping[int, bytes] = field(default_factory=dict)
    is_regular: bool = True
    is_exact: bool = True
    defect: str | None = None


def find_layout(file: BinaryIO) -> Layout | None:
    """Looks at the structure of a file that is open for reading or held in memory.

    Returns:
        None if it is no kind of sound that is known here.
    """
    size = file.seek(0, os.SEEK_END)
    start = _find_start(file)
    file.seek(start)
    head = file.read(32)
    inspect = _inspector(head)
    return None if inspect is None else inspect(file, start, size)


def describe_truncation(file: BinaryIO) -> str | None:
    """Says how a file is cut short, or returns None if its structure is complete or unknown."""
    layout = find_layout(file)
    return None if layout is None else layout.defect


def _inspector(head: bytes) -> Callable[[BinaryIO, int, int], Layout] | None:
    """Returns what inspects files that begin like this."""
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return _inspect_wav
    if head[:4] == b"riff" and head[24:28] == b"wave":
        return _inspect_w64
    if head[:4] == b"FORM" and head[8:11] == b"AIF":
        return _inspect_aiff
    if head[4:8] in QUICKTIME_ATOMS:
        return _inspect_mov
    if head[:16] == ASF_HEADER:
        return _inspect_asf
    for start, inspect in (
        (b"caff", _inspect_caf),
        (b".snd", _inspect_au),
        (b"OggS", _inspect_ogg),
        (b"\x1a\x45\xdf\xa3", _inspect_matroska),
        (b"fLaC", lambda file, start, size: Layout("flac", start)),
        (b"NIST_1A", lambda file, start, size: Layout("nist", start)),
        (b"#!AMR", lambda file, start, size: Layout("amr", start, is_regular=False)),
    ):
        if head.startswith(start):
            return inspect
    # MPEG: 11 bits of synchronisation; layer 0 is ADTS, which MPEG audio does not have.
    if len(head) > 3 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        if head[1] & 0xF6 == 0xF0:
            return lambda file, start, size: Layout("aac", start, is_regular=False)
        if head[1] & 0x06 and head[2] & 0xF0 != 0xF0 and head[2] & 0x0C != 0x0C:
            return _inspect_mp3
    return None


def _find_start(file: BinaryIO) -> int:
    """Returns where the sound begins: behind ID3 tags, and zeros before MPEG frames."""
    start = 0
    for _ in range(MAX_TAGS):
        file.seek(start)
        head = file.read(10)
        if head[:3] != b"ID3" or len(head) < 10:
            break
        # Sizes in ID3 tags have 7 bits a byte; bit 4 of the flags tells of a footer.
        start += 10 + sum((byte & 0x7F) << (7 * (3 - i)) for i, byte in enumerate(head[6:]))
        start += 10 if head[5] & 0x10 else 0
    file.seek(start)
    if file.read(1) == b"\0":
        rest = file.read(MAX_LEADING_ZEROS)
        num_zeros = 1 + len(rest) - len(rest.lstrip(b"\0"))
        if rest[num_zeros - 1 : num_zeros] == b"\xff":
            return start + num_zeros
    return start


def _is_unknown(length: int) -> bool:
    """Tells whether a size was never written, or cannot be meant."""
    return length <= 0 or 0x7F000000 <= length <= 0xFFFFFFFF or length >= 1 << 62


def _cut(size: int, expected: int) -> str | None:
    """Describes a file of `size` bytes that should have `expected`, if sound is missing."""
    return f"truncated: {size} of {expected} bytes" if expected > size + SLACK_BYTES else None


def _without_sound(size: int) -> str:
    """Describes a file that ends before its sound begins."""
    return f"truncated: {size} bytes that end before the sound"


def _walk(
    file: BinaryIO, position: int, size: int, head: struct.Struct, even: int = 1
) -> dict[bytes, tuple[int, int]]:
    """Reads the chunks of a file as far as the first with sound in it.

    Returns:
        Name -> position of its header and length.
    """
    chunks: dict[bytes, tuple[int, int]] = {}
    while position + head.size <= size:
        file.seek(position)
        name, length = head.unpack(file.read(head.size))
        chunks.setdefault(name, (position, length))
        if name in (b"data", b"SSND", b"data" + W64_GUID_TAIL):
            break
        position += max(head.size if even == 8 else 0, length + (-length) % even)
        position += 0 if even == 8 else head.size  # W64 counts the header in
    return chunks


def _inspect_wav(file: BinaryIO, start: int, size: int) -> Layout:
    """RIFF with sizes of 32 bits, or RF64 with those of 64 bits in a chunk of their own."""
    file.seek(start)
    kind = file.read(4)
    order = ">" if kind == b"RIFX" else "<"
    head = struct.Struct(f"{order}4sI")
    chunks = _walk(file, start + 12, size, head, even=2)
    if b"data" not in chunks:
        return Layout("wav", start, defect=_without_sound(size))
    position, length = chunks[b"data"]
    begin = position + head.size
    if kind in (b"RF64", b"BW64") and b"ds64" in chunks and length == 0xFFFFFFFF:
        file.seek(chunks[b"ds64"][0] + 16)
        length = struct.unpack("<q", file.read(8).ljust(8, b"\0"))[0]
    if not _is_unknown(length):
        if begin + length <= size:
            return Layout("wav", start)
        defect = _cut(size, begin + length)
        if defect is not None:
            return Layout("wav", start, defect=defect)
    elif length == 0 and _are_chunks(file, begin, size, head):
        return Layout("wav", start)
    if size - start > 0xFFFFFFF0:
        return Layout("wav", start, is_regular=False)
    # Sizes of 32 bits are enough for what is there, also in a file that was meant to be larger.
    patches = {start: b"RIFX" if order == ">" else b"RIFF"}
    patches[start + 4] = struct.pack(f"{order}I", size - start - 8)
    patches[position + 4] = struct.pack(f"{order}I", size - begin)
    return Layout("wav", start, patches)


def _are_chunks(file: BinaryIO, position: int, size: int, head: struct.Struct) -> bool:
    """Tells whether the rest of a file is nothing, or chunks that end where it ends."""
    while position + head.size <= size:
        file.seek(position)
        name, length = head.unpack(file.read(head.size))
        if not name.isascii() or not name.decode().isprintable():
            return False
        position += head.size + length + length % 2
    return size <= position <= size + 1


def _inspect_w64(file: BinaryIO, start: int, size: int) -> Layout:
    """Sony Wave64: names of 16 bytes and sizes of 64 bits that count their own header in."""
    head = struct.Struct("<16sq")
    chunks = _walk(file, start + 40, size, head, even=8)
    if b"data" + W64_GUID_TAIL not in chunks:
        return Layout("w64", start, defect=_without_sound(size))
    position, length = chunks[b"data" + W64_GUID_TAIL]
    if not _is_unknown(length) and length > head.size:
        if position + length <= size:
            return Layout("w64", start)
        defect = _cut(size, position + length)
        if defect is not None:
            return Layout("w64", start, defect=defect)
    patches = {start + 16: struct.pack("<q", size - start)}
    patches[position + 16] = struct.pack("<q", size - position)
    return Layout("w64", start, patches)


def _inspect_aiff(file: BinaryIO, start: int, size: int) -> Layout:
    """AIFF and AIFF-C; libsndfile counts the samples that are there by itself."""
    head = struct.Struct(">4sI")
    chunks = _walk(file, start + 12, size, head, even=2)
    if b"SSND" not in chunks:
        return Layout("aiff", start, defect=_without_sound(size))
    position, length = chunks[b"SSND"]
    expected = 0 if _is_unknown(length) else position + head.size + length
    return Layout("aiff", start, defect=_cut(size, expected))


def _inspect_caf(file: BinaryIO, start: int, size: int) -> Layout:
    """Apple's Core Audio Format; -1 is the unknown size that its definition names."""
    head = struct.Struct(">4sq")
    chunks = _walk(file, start + 8, size, head)
    if b"data" not in chunks:
        return Layout("caf", start, defect=_without_sound(size))
    position, length = chunks[b"data"]
    begin = position + head.size
    if not _is_unknown(length):
        if begin + length <= size:
            return Layout("caf", start)
        defect = _cut(size, begin + length)
        if defect is not None:
            return Layout("caf", start, defect=defect)
    return Layout("caf", start, {position + 4: struct.pack(">q", size - begin)})


def _inspect_au(file: BinaryIO, start: int, size: int) -> Layout:
    """Sun's format: one header with the place and the length of the sound."""
    file.seek(start + 4)
    fields = file.read(8)
    if len(fields) < 8:
        return Layout("au", start, defect=_without_sound(size))
    begin, length = struct.unpack(">II", fields)
    begin += start
    if not _is_unknown(length):
        if begin + length <= size:
            return Layout("au", start)
        defect = _cut(size, begin + length)
        if defect is not None:
            return Layout("au", start, defect=defect)
    return Layout("au", start, {start + 8: struct.pack(">I", max(size - begin, 0) % (1 << 32))})


def _inspect_ogg(file: BinaryIO, start: int, size: int) -> Layout:
    """Checks that the last Ogg page is whole, and so is the last packet on it."""
    tail_start = max(start, size - OGG_TAIL_BYTES)
    file.seek(tail_start)
    tail = file.read()
    place = tail.rfind(b"OggS")
    page = tail[place:] if place >= 0 else b""
    if len(page) < 27 or len(page) < 27 + page[26]:
        return Layout("ogg", start, defect="truncated: the last Ogg page is incomplete")
    segments = page[27 : 27 + page[26]]
    expected = tail_start + place + 27 + len(segments) + sum(segments)
    if size < expected:
        return Layout("ogg", start, defect=f"truncated: {size} of {expected} bytes")
    if segments and segments[-1] == 255 and not page[5] & OGG_END_OF_STREAM:
        return Layout("ogg", start, defect="truncated: the last Ogg packet is incomplete")
    return Layout("ogg", start, is_regular=bool(page[5] & OGG_END_OF_STREAM))


def _inspect_mp3(file: BinaryIO, start: int, size: int) -> Layout:
    """Compares the file with the number of bytes in the Xing or Info header, if it has one."""
    file.seek(start)
    frame = file.read(256)
    places = [place for place in (frame.find(b"Xing"), frame.find(b"Info")) if place >= 0]
    header = frame[min(places) : min(places) + 16] if places else b""
    flags = struct.unpack(">I", header[4:8])[0] if len(header) == 16 else 0
    defect = None
    if flags & 2:  # bit 1: the number of bytes is given, behind the number of frames (bit 0)
        place = 12 if flags & 1 else 8
        defect = _cut(size, start + int(struct.unpack(">I", header[place : place + 4])[0]))
    return Layout("mp3", start, is_exact=bool(flags & 1), defect=defect)


def _inspect_mov(file: BinaryIO, start: int, size: int) -> Layout:
    """Mp4, m4a, 3gp and QuickTime: no atom of the file may pass its end."""
    position = start
    defect = None
    while position + 8 <= size:
        file.seek(position)
        length, name = struct.unpack(">I4s", file.read(8))
        if length == 1:
            length = struct.unpack(">Q", file.read(8).ljust(8, b"\0"))[0]
        if length < 8 or not name.isalnum():
            break  # 0 is "to the end"; anything else is no atom but what somebody put behind them
        position += length
        defect = _cut(size, position)
    return Layout("mov", start, is_regular=False, defect=defect)


def _inspect_asf(file: BinaryIO, start: int, size: int) -> Layout:
    """Windows media: no object of the file may pass its end."""
    position = start
    defect = None
    while position + 24 <= size:
        file.seek(position + 16)
        length = struct.unpack("<q", file.read(8))[0]
        if length < 24 or _is_unknown(length):
            break
        position += length
        defect = _cut(size, position)
    return Layout("asf", start, is_regular=False, defect=defect)


def _inspect_matroska(file: BinaryIO, start: int, size: int) -> Layout:
    """WebM and Matroska: neither the segment nor a cluster or block may pass the end."""
    position = start
    defect = None
    while position < size and defect is None:
        file.seek(position)
        head = file.read(12)
        id_length = _vint_length(head, 0)
        length = _vint_length(head, id_length)
        if not id_length or not length or id_length > 4:
            break
        element = int.from_bytes(head[:id_length], "big")
        ones = (1 << 7 * length) - 1
        content = int.from_bytes(head[id_length : id_length + length], "big") & ones
        is_master = element in (EBML_SEGMENT, EBML_CLUSTER)
        position += id_length + length
        if content != ones:
            defect = _cut(size, position + content)
            # A segment is entered also where its size is known: its clusters may be at fault.
            position += 0 if element == EBML_SEGMENT else content
        elif not is_master:
            break
    return Layout("matroska", start, is_regular=False, defect=defect)


def _vint_length(head: bytes, place: int) -> int:
    """Returns how many bytes an EBML number has, by the zeros before its first one; 0 if none."""
    if place >= len(head) or head[place] == 0:
        return 0
    return 9 - head[place].bit_length()
