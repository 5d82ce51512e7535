"""Names in the form in which they are compared."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.errors import DatabaseError
from utils.speaker_names import clean_name, look_alikes, plain_name, report_spellings


@pytest.mark.parametrize(
    ("text", "name"),
    [("Tom ", "Tom"), ("Jose\u0301", "José"), ("\u3000李 雷\xa0", "李 雷"), ("a\u3000b", "a b")],
)
def test_one_form(text: str, name: str) -> None:
    assert plain_name(text) == clean_name(text) == unicodedata.normalize("NFC", name)


@given(st.text(max_size=20))
def test_a_plain_name_is_its_own(text: str) -> None:
    assert plain_name(plain_name(text)) == plain_name(text)


def test_names_that_only_look_the_same() -> None:
    others = ["Ann", "Ａｎｎ", "Аnn", "ANN", "Anna", "Bob", "Вова", "李雷"]
    assert look_alikes("ann", others) == ["Ａｎｎ", "Аnn"]
    assert look_alikes("Аnn", others) == ["Ann", "Ａｎｎ", "ANN"]
    assert look_alikes("Bова", others) == ["Вова"]  # a Latin B, then Cyrillic
    assert look_alikes("李雷", others) == []
    assert look_alikes("Tοm", ["Tom"]) == ["Tom"]  # a Greek omicron


def test_lost_bytes_are_no_name() -> None:
    with pytest.raises(DatabaseError, match=r"U\+FFFD, the mark of lost bytes"):
        clean_name("Jos\ufffd")


def test_spellings_are_reported_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    report_spellings("audio_db", {"Tom": {"Tom"}, "Ann": ["Ann"]})
    assert capsys.readouterr().err == ""
    report_spellings("audio_db", {"Tom": {"Tom"}, "José": {"Jos\u00e9", "Jose\u0301"}, "A": "ab"})
    assert capsys.readouterr().err == (
        "note: audio_db: 2 speakers are written in several ways and are one person each; "
        "the first, José: 'Jose\\u0301', 'Jos\\xe9'\n"
    )
