"""Speakers' names: the one form of each, and which names are the same."""

import re
import sys
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from utils.audio.suffixes import AUDIO_SUFFIXES
from utils.errors import DatabaseError
from utils.messages import translate

MAX_NAME_BYTES = 120
"""Bytes of a name in UTF-8 (40 Chinese characters): fits every file system with room for the
temporary name; encrypted home folders allow only 143."""

FORBIDDEN_CHARACTERS = '/\\<>:"|?*'
"""Separators and wildcards of some file system."""

FORBIDDEN_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories refused in names: controls, direction and zero-width marks, surrogates, and
code points without a meaning. Two names that look the same must be the same."""

REPLACEMENT_CHARACTER = "\ufffd"
"""What decoders put in the place of bytes that are not UTF-8: the name is lost."""

INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
"""Characters without a picture that Unicode counts as letters, marks or symbols."""

DEFAULT_GROUP = "default"
"""The group of speakers of whoever names none: the scripts, audio_db/, tokens without a group."""

GROUP_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")

RESERVED_NAMES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {
    f"{device}{number}" for device in ("COM", "LPT") for number in "0123456789¹²³"
}
"""Device names of Windows, with any suffix: opening "nul.wav" there opens no file."""

LOOK_ALIKES = str.maketrans(
    "авеікмнорстухјѕԁһԛԝ" + "αβεζηικμνορτυχ" + "ıɑɡ",
    "abeikmhopctyxjsdhqw" + "abezhikmnoptyx" + "iag",
)
"""Letters of Cyrillic, Greek and the phonetic alphabet, small or as capitals, that look Latin."""


def plain_name(text: str) -> str:
    """Returns a name in the form in which names are compared, whatever it is made of.

    Unicode normal form C, outer blanks removed, every space a plain one: "Tom" and "Tom " are one
    person, and so are both encodings of "José". It is its own `plain_name`.
    """
    if text.isascii():
        return text.strip(" ")
    spaced = "".join(" " if unicodedata.category(c) == "Zs" else c for c in text)
    return unicodedata.normalize("NFC", spaced.strip(" "))


def report_spellings(where: str, spellings: Mapping[str, Collection[str]]) -> None:
    """Says on stderr, in one line, which names are written in several ways.

    Args:
        where: The list or folder with the names.
        spellings: Name -> how it is written.
    """
    several = {name: written for name, written in spellings.items() if len(written) > 1}
    if several:
        name, written = next(iter(several.items()))
        shown = ", ".join(ascii(text) for text in sorted(written))
        note = (
            f"note: {where}: {len(several)} speakers are written in several ways and are one "
            f"person each; the first, {name}: {shown}"
        )
        print(translate(note), file=sys.stderr)


def clean_name(text: str) -> str:
    """Brings a speaker's name into its one form, or says why it cannot be one.

    Args:
        text: What somebody typed or the stem of a file.

    Returns:
        The name in Unicode normal form C, outer spaces removed, every space a plain one. It is
        its own `clean_name`, and as a file name it stays in its folder on every system.

    Raises:
        DatabaseError: If the name is empty, over-long, hidden, reserved, ends like an audio file,
            or holds a separator, control, invisible or undefined character.
    """
    name = plain_name(text)
    if not name:
        raise DatabaseError("the name is empty, expected at least one character")
    for character in name:
        category = unicodedata.category(character)
        is_invisible = category in FORBIDDEN_CATEGORIES or INVISIBLE.match(character)
        if character == REPLACEMENT_CHARACTER:
            raise DatabaseError("the name holds U+FFFD, the mark of lost bytes; send it as UTF-8")
        if is_invisible or character in FORBIDDEN_CHARACTERS:
            shown = f"U+{ord(character):04X}" if is_invisible else character
            raise DatabaseError(
                f"the name holds {shown}, which is not allowed in names; use letters, digits, "
                "spaces, - and _"
            )
    if name[0] == "." or name[-1] == ".":
        raise DatabaseError(f"received the name {name}, expected one without outer dots")
    num_bytes = len(name.encode("utf-8"))
    if num_bytes > MAX_NAME_BYTES:
        raise DatabaseError(
            f"the name has {num_bytes} bytes, expected at most {MAX_NAME_BYTES} (about "
            f"{MAX_NAME_BYTES // 3} Chinese or {MAX_NAME_BYTES} Latin characters); shorten it"
        )
    if name.split(".")[0].rstrip(" ").upper() in RESERVED_NAMES:
        raise DatabaseError(f"the name {name} is reserved by Windows; choose another one")
    if Path(name).suffix.lower() in AUDIO_SUFFIXES:
        raise DatabaseError(f"received the name {name}, expected it without {Path(name).suffix}")
    return name


def fold_name(name: str) -> str:
    """Returns the form in which names are compared: "Tom" and "tom" are one speaker."""
    return unicodedata.normalize("NFC", name.casefold())


def shape_of(name: str) -> str:
    """Returns what a name looks like: one text for Ann, full-width Ａｎｎ and half-Cyrillic Аnn."""
    return fold_name(unicodedata.normalize("NFKC", name)).translate(LOOK_ALIKES)


def look_alikes(name: str, others: Iterable[str]) -> list[str]:
    """Returns which other names look like a name, though they are other people's."""
    shape, own = shape_of(name), fold_name(name)
    return [other for other in others if shape_of(other) == shape and fold_name(other) != own]


def clean_group(text: str) -> str:
    """Returns the name of a group of speakers, or says why it cannot be one.

    Raises:
        DatabaseError: If it is not 1 to 40 small letters, digits, _ and -.
    """
    if not GROUP_NAME.fullmatch(text):
        raise DatabaseError(
            f"received the group {text[:50]!r}, expected 1 to 40 small letters a-z, digits, _ or -"
        )
    return text


def is_storable(text: str) -> bool:
    """Tells whether a database can look for a text: no NUL and no half of a surrogate pair."""
    return not any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text)
