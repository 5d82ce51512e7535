"""Command-line options: checked where they are declared, printed as the baseline prints them."""

import argparse
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from utils.errors import EXIT_USER_ERROR
from utils.messages import LANGUAGES, set_language, translate, wanted_language
from utils.version import __version__

T = TypeVar("T")

HEADER = "-----------  Configuration Arguments -----------"
FOOTER = "------------------------------------------------"


class _Parser(argparse.ArgumentParser):
    """A parser that speaks the language of `--lang`, which holds for what the script prints too."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Chooses the language before anything is read or printed."""
        set_language(wanted_language(sys.argv[1:] if args is None else args))
        return super().parse_known_args(args, namespace)

    def format_help(self) -> str:
        """Returns the help in the language."""
        summary, _, rest = (self.description or "").strip().partition("\n")
        # The translation of its first line stands for the whole description.
        whole = (
            f"{summary}\n{rest}".strip() if translate(summary) == summary else translate(summary)
        )
        self.description = whole or None
        for group in self._action_groups:
            group.title = translate(group.title or "")
        for action in self._actions:
            action.help = action.help and translate(action.help)
        return translate(super().format_help())

    def format_usage(self) -> str:
        """Returns the usage in the language."""
        return translate(super().format_usage())

    def error(self, message: str) -> NoReturn:
        """Prints an error in the language, and ends."""
        self.print_usage(sys.stderr)
        line = translate("error: ") + translate(message)
        self.exit(EXIT_USER_ERROR, f"{self.prog}: {line}\n")


class _Language(argparse.Action):
    """Checks `--lang`, which `parse_known_args` has acted on; leaves nothing among the options."""

    def __call__(self, *args: Any, **options: Any) -> None:
        """Does nothing."""


def make_parser(doc: str | None) -> argparse.ArgumentParser:
    """Returns a parser whose `--help` text is the script's docstring, shown as it is written."""
    parser = _Parser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--lang",
        choices=LANGUAGES,
        action=_Language,
        default=argparse.SUPPRESS,
        help="language: zh, en, or auto for the locale's (default: results in Chinese, helps and "
        "errors in English)",
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"%(prog)s {__version__}",
        help="show the version and exit",
    )
    return parser


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


def segment(text: str) -> tuple[float, float]:
    """Reads a part of a recording, `FROM-TO` in seconds, as an argparse type."""
    start, _, end = text.partition("-")
    start_s, end_s = _number(start), _number(end)
    if not 0 <= start_s < end_s:
        raise argparse.ArgumentTypeError(
            f"received {text!r}, expected seconds from and to, as 12.5-18.0"
        )
    return start_s, end_s


def fraction(text: str) -> float:
    """Reads a number in [0, 1], as an argparse type."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"received {text!r}, expected a number from 0 to 1")
    return value


def gpus(text: str) -> str:
    """Reads which GPUs to use, as an argparse type."""
    if not re.fullmatch(r"|\d+(,\d+)*|cpu(:[1-9]\d*)?", text):
        raise argparse.ArgumentTypeError(f"received {text!r}, expected 0 or 0,1 or cpu or cpu:2")
    return text


CHECKS = {
    "float": float,
    "fraction": fraction,
    "gpus": gpus,
    "non_negative_float": non_negative_float,
    "non_negative_int": non_negative_int,
    "path": Path,
    "positive_float": positive_float,
    "positive_int": positive_int,
    "score": score,
}
"""Functions that read an option's text, by the `check` of its field."""


def option_name(item: "Field[Any]") -> str:
    """Returns the name of the option that sets a field made by `utils.settings.option`."""
    return str(item.metadata.get("name", item.name))


def add_option(group: Any, item: "Field[Any]") -> None:
    """Declares the option that sets a field made by `utils.settings.option`."""
    declared = {key: value for key, value in item.metadata.items() if key != "name"}
    default = declared.pop("preset", item.default)
    check = declared.pop("check")
    if isinstance(default, bool):
        declared = {"action": "store_true", "help": declared["help"]}
    else:
        declared["default"] = list(default) if isinstance(default, tuple) else default
        if check:
            declared["type"] = CHECKS[check]
    group.add_argument(f"--{option_name(item)}", **declared)


def read_settings(kind: type[T], args: argparse.Namespace, **others: Any) -> T:
    """Returns settings with the values of their options, and of `others` that no option sets."""
    for item in fields(kind):  # type: ignore[arg-type]
        if item.metadata:
            value = getattr(args, option_name(item))
            value = tuple(value) if isinstance(value, list) else value
            others[item.name] = not value if item.default is True else value
    return kind(**others)


def print_arguments(
    args: argparse.Namespace,
    always: Sequence[str],
    parser: argparse.ArgumentParser | None = None,
) -> None:
    """Prints the baseline's block of arguments, sorted by name.

    Args:
        args: The parsed options.
        always: Names of the options that the baseline prints; they are printed with any value.
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
