"""Options are checked where they are declared, and printed in the form of the block."""

import argparse
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils import arguments
from utils.arguments import make_parser, print_arguments

# Reader, texts that it takes with their values, texts that it refuses, what it expects.
READERS = [
    ("positive_int", {"1": 1, "64": 64}, ["0", "-1", "1.5", "", "x"], "a whole number from 1 up"),
    ("non_negative_int", {"0": 0, "7": 7}, ["-1", "0.5", "", "x"], "a whole number from 0 up"),
    ("positive_float", {"1e-3": 1e-3, "2": 2.0}, ["0", "-1", "inf", "x"], "a number above 0"),
    ("non_negative_float", {"0": 0.0, "2.5": 2.5}, ["-0.1", "inf", "x"], "a number from 0 up"),
    ("score", {"-1": -1.0, "0.7": 0.7, "1": 1.0}, ["1.01", "-1.01", "x"], "a score from -1 to 1"),
    (
        "segment",
        {"12.5-18.0": (12.5, 18.0), "0-1": (0, 1)},
        ["", "5", "5-", "-5", "8-2", "1-1", "a-b", "1-inf"],
        "seconds from and to, as 12.5-18.0",
    ),
    ("fraction", {"0": 0.0, "0.5": 0.5, "1": 1.0}, ["1.01", "-0.1", "x"], "a number from 0 to 1"),
]


@pytest.mark.parametrize(("name", "good", "bad", "expected"), READERS, ids=lambda row: str(row)[:9])
def test_reader_takes_and_refuses(
    name: str, good: dict[str, object], bad: list[str], expected: str
) -> None:
    read = getattr(arguments, name)
    for text, value in good.items():
        assert read(text) == value
        assert type(read(text)) is type(value)
    for text in [*bad, "nan", "-inf", "1e999", "二"]:
        with pytest.raises(argparse.ArgumentTypeError) as error:
            read(text)
        assert str(error.value) == f"received {text!r}, expected {expected}"


@pytest.mark.slow
@given(st.text(max_size=30), st.sampled_from([row[0] for row in READERS]))
def test_wild_text_is_a_finite_number_or_refused(text: str, name: str) -> None:
    try:
        assert math.isfinite(getattr(arguments, name)(text))
    except argparse.ArgumentTypeError as error:
        assert repr(text) in str(error)


def parser() -> argparse.ArgumentParser:
    made = make_parser("Does a thing.\n\n    python thing.py --rate 3\n")
    made.add_argument("--rate", type=arguments.positive_int, default=1)
    made.add_argument("--noise", default="")
    made.add_argument("--audio_path", default="a.wav")
    return made


def test_help_is_the_docstring_as_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(["--help"])
    assert stop.value.code == 0
    assert "Does a thing.\n\n    python thing.py --rate 3\n" in capsys.readouterr().out


@pytest.mark.parametrize("line", [["--rate", "0"], ["--rat", "3"], ["--other"], ["x"]])
def test_wrong_option_ends_with_2_and_says_why(
    line: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(line)
    assert stop.value.code == 2
    assert line[0] in capsys.readouterr().err


def test_help_without_a_docstring() -> None:
    assert make_parser(None).format_help().startswith("usage:")


def test_block_is_sorted_and_shows_what_it_always_shows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_arguments(parser().parse_args(["--noise", "dir"]), ["rate", "audio_path"])
    assert capsys.readouterr().out == (
        "-----------  Configuration Arguments -----------\n"
        "audio_path: a.wav\n"
        "rate: 1\n"
        "------------------------------------------------\n"
    )


def test_block_shows_changed_options_too(capsys: pytest.CaptureFixture[str]) -> None:
    options = parser()
    print_arguments(options.parse_args(["--noise", "dir"]), ["rate"], options)
    assert capsys.readouterr().out.splitlines()[1:-1] == ["noise: dir", "rate: 1"]
