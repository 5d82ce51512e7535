"""Command-line options: checked where they are declared, printed as the seed prints them."""

import argparse
import math
from collections.abc import Sequence

HEADER = "-----------  Configuration Arguments -----------"
FOOTER = "------------------------------------------------"


def make_parser(doc: str | None) -> argparse.ArgumentParser:
    """Returns a parser whose `--help` text is the script's docstring, shown as it is written."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )


def positive_int(text: str) -> int:
    """Reads a whole number from 1 up, as an argparse type."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"received {text!r}, expected a whole number from 1 up")
    return value


def non_negative_int(text: str) -> int:
    """Reads a whole number from 0 up, as an argparse type."""
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"received {text!r}, expected a whole number from 0 up")
    return value


def positive_float(text: str) -> float:
    """Reads a finite number above 0, as an argparse type."""
    value = _number(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"received {text!r}, expected a number above 0")
    return value


def non_negative_float(text: str) -> float:
    """Reads a finite number from 0 up, as an argparse type."""
    value = _number(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"received {text!r}, expected a number from 0 up")
    return value


def score(text: str) -> float:
    """Reads a cosine score in [-1, 1], as an argparse type."""
    value = _number(text)
    if not -1 <= value <= 1:
        raise argparse.ArgumentTypeError(f"received {text!r}, expected a score from -1 to 1")
    return value


def channel(text: str) -> str:
    """Reads which channel of a recording is meant, as an argparse type."""
    if text not in ("left", "right", "mix") and not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(
            f"received {text!r}, expected left, right, mix or a number from 1"
        )
    return text


def fraction(text: str) -> float:
    """Reads a number in [0, 1], as an argparse type."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"received {text!r}, expected a number from 0 to 1")
    return value


def print_arguments(
    args: argparse.Namespace,
    always: Sequence[str],
    parser: argparse.ArgumentParser | None = None,
) -> None:
    """Prints the seed's block of arguments, sorted by name.

    Args:
        args: The parsed options.
        always: Names of the options that the seed prints; they are printed whatever their value.
        parser: If given, options that differ from this parser's defaults are printed too.
    """
    names = set(always)
    if parser is not None:
        names |= {name for name in vars(args) if getattr(args, name) != parser.get_default(name)}
    print(HEADER)
    for name in sorted(names):
        print(f"{name}: {getattr(args, name)}")
    print(FOOTER, flush=True)


def _number(text: str) -> float:
    """Reads a finite number; anything else becomes NaN, which fails every comparison."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
