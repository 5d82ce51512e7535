"""The language of the scripts: one table of what they print, in English and Chinese.

The sources hold each text as it is printed unless `--lang` says otherwise: results and prompts of
the baseline in Chinese, all others in English. `messages.tsv` gives each of them in the other
language, `{}` stands for what varies.
"""

import locale
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

TABLE = Path(__file__).with_name("messages.tsv")
"""Lines `text<TAB>the same in the other language`; `#` begins a comment."""

LANGUAGES = ("zh", "en", "auto")

LOCALE_VARIABLES = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
"""Where the language of messages is looked up, in the order of GNU gettext."""

_chosen: "Translations | None" = None


class Translations:
    """Turns texts of the sources into one language."""

    def __init__(self, language: str) -> None:
        """Reads the table.

        Args:
            language: "zh" or "en"; texts that are in it already stay as they are.
        """
        is_zh = language == "zh"
        rows = {text: other for text, other in read_table() if is_chinese(other) == is_zh}
        self._texts = {text: other for text, other in rows.items() if "{}" not in text}
        # The most specific first: "{}: {}" fits many lines.
        patterns = sorted(
            (text for text in rows if "{}" in text), key=lambda text: -len(text.replace("{}", ""))
        )
        self._patterns = [(_pattern(text), rows[text]) for text in patterns]

    def translate(self, text: str) -> str:
        """Returns a text in the language, or as it is if the table lacks it."""
        if text in self._texts:
            return self._texts[text]
        for pattern, other in self._patterns:
            if match := pattern.fullmatch(text):
                return other.format(*map(self.translate, match.groups()))
        return text


def set_language(language: str, environment: Mapping[str, str] = os.environ) -> None:
    """Chooses the language of everything that is printed from now on.

    Args:
        language: "zh", "en", "auto" for the locale's, or "" for the sources' own words.
        environment: Where "auto" looks the locale up.
    """
    global _chosen
    language = locale_language(environment) if language == "auto" else language
    _chosen = Translations(language) if language in ("zh", "en") else None


def translate(text: str) -> str:
    """Returns a text as it shall be printed: in the language that was chosen."""
    return text if _chosen is None else _chosen.translate(text)


def wanted_language(words: Sequence[str]) -> str:
    """Returns what `--lang` says in a command line, before the other options are declared."""
    language = ""
    for number, word in enumerate(words):
        if word == "--lang":
            language = "".join(words[number + 1 : number + 2])
        elif word.startswith("--lang="):
            language = word.removeprefix("--lang=")
    return language


def locale_language(environment: Mapping[str, str]) -> str:
    """Returns "zh" where the locale is Chinese, else "en"."""
    found = (environment[name] for name in LOCALE_VARIABLES if environment.get(name))
    name = next(found, None) or locale.getlocale()[0] or ""
    return "zh" if name.lower().startswith(("zh", "chinese")) else "en"


def read_table() -> list[tuple[str, str]]:
    """Returns each text of the sources with its translation."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    rows = (line.split("\t") for line in lines if line and not line.startswith("#"))
    return [(text, other.replace("\\n", "\n")) for text, other in rows]


def is_chinese(text: str) -> bool:
    """Returns whether a text is Chinese: whether it has a Chinese character or full-width sign."""
    return any(unicodedata.east_asian_width(character) in "WF" for character in text)


def _pattern(text: str) -> "re.Pattern[str]":
    """Returns the pattern of a line in which `{}` stands for anything."""
    return re.compile("(.*?)".join(map(re.escape, text.split("{}"))), re.DOTALL)
