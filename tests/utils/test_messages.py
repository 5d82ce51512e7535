"""The languages of the scripts: the table is complete, and follows what the sources say."""

import argparse
import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from utils import messages
from utils.arguments import make_parser
from utils.errors import AudioError, run_script
from utils.messages import (
    Translations,
    is_chinese,
    locale_language,
    read_table,
    set_language,
    translate,
    wanted_language,
)

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py"))
TOOLS = sorted(f"tools.{path.stem}" for path in (ROOT / "tools").glob("*.py"))
SOURCES = [
    path
    for folder in (".", "utils", "voices", "service", "tools")
    for path in (ROOT.glob("*.py") if folder == "." else (ROOT / folder).rglob("*.py"))
]


@pytest.fixture(autouse=True)
def own_words() -> Iterator[None]:
    yield
    set_language("")


def texts_in_sources() -> set[str]:
    """All texts and f-strings of the sources, with `{}` for what varies."""
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "{}" for v in node.values]
                found.add("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def chinese_results() -> set[str]:
    """What the sources hand to `translate`, and the results that are put together before."""
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if not (is_call and node.func.id == "translate" and node.args):
                continue
            if isinstance(node.args[0], ast.Constant):
                found.add(node.args[0].value)
            if isinstance(node.args[0], ast.JoinedStr):
                values = node.args[0].values
                found.add("".join(v.value if isinstance(v, ast.Constant) else "{}" for v in values))
    return found


def helps() -> set[str]:
    """All that the options of the scripts say in --help."""
    found: set[str] = set()

    class Read(Exception):
        pass

    def read(parser: argparse.ArgumentParser, *args: object) -> None:
        found.update(action.help for action in parser._actions if action.help)
        raise Read

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", read)
        for name in SCRIPTS + TOOLS:
            with pytest.raises(Read):
                importlib.import_module(name).main([])
    return found


@pytest.mark.slow
def test_every_text_of_the_table_stands_in_the_sources() -> None:
    texts = texts_in_sources()
    lines = {line for text in texts for line in text.splitlines()[:1]}
    # What varies may be a part of a text that is put together from two.
    whole = "\n".join(texts)
    own = {"usage: {}", "positional arguments", "options", "show this help message and exit"}
    argparse_says = {
        "argument {}: {}", "the following arguments are required: {}", "default {}",
        "unrecognized arguments: {}", "expected one argument", "expected at least one argument",
        "expected {} arguments", "invalid choice: {} (choose from {})", "invalid {} value: {}",
        "not allowed with argument {}",
    }  # fmt: skip
    for text, _ in read_table():
        known = text in texts | lines | own | argparse_says
        pieces = [piece for piece in re.split(r"\{\}", text) if len(piece) > 2]
        assert known or all(piece in whole for piece in pieces), text


def test_both_languages_have_as_many_places_for_what_varies() -> None:
    rows = read_table()
    assert len({text for text, _ in rows}) == len(rows)
    for text, other in rows:
        assert text.count("{}") == other.count("{}"), text
        assert is_chinese(text) != is_chinese(other), text


@pytest.mark.slow
def test_every_result_and_prompt_is_in_the_table() -> None:
    known = {text for text, _ in read_table()}
    # Put together of texts that are in the table themselves.
    whole = {"{}，平均预测时间：{}ms", "{}: {}", "threshold {}: {}", "stopped; {}"}
    assert chinese_results() <= known | whole


def test_every_help_is_in_the_table() -> None:
    translations = Translations("zh")
    untouched = {text for text in helps() if translations.translate(text) == text}
    assert not untouched


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_is_in_the_language(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(name)
    shown = {}
    for words in ([], ["--lang=en"], ["--lang", "zh"]):
        with pytest.raises(SystemExit):
            module.main([*words, "--help"])
        shown[tuple(words)] = capsys.readouterr().out
    assert shown[()] == shown["--lang=en",]
    assert shown["--lang", "zh"].startswith("用法：")
    for line in (module.__doc__ or "").splitlines():
        assert line in shown[()]
    summary = (module.__doc__ or "").splitlines()[0]
    assert summary not in shown["--lang", "zh"]
    assert f"python {name}.py" in shown["--lang", "zh"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_version_is_printed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    from utils.version import __version__

    with pytest.raises(SystemExit) as stop:
        importlib.import_module(name).main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.split()[-1] == __version__


def test_default_is_the_sources_own_words() -> None:
    set_language("")
    assert translate("声纹库中共有2个用户") == "声纹库中共有2个用户"
    assert translate("a.wav: empty; record it again") == "a.wav: empty; record it again"


def test_english() -> None:
    set_language("en")
    assert translate("声纹库中共有2个用户") == "2 speakers enrolled"
    line = "识别说话的为：夜雨飘零，相似度为：0.920434"
    assert translate(line) == "Recognised speaker: 夜雨飘零, similarity: 0.920434"
    assert translate("a.wav: empty; record it again") == "a.wav: empty; record it again"


def test_chinese() -> None:
    set_language("zh")
    assert translate("声纹库中共有2个用户") == "声纹库中共有2个用户"
    line = "a.wav: too short: 0.10 s, expected at least 0.30 s; record it again"
    assert translate(line) == "a.wav：太短：0.10秒，至少需要0.30秒；请重新录音"
    assert translate("nobody knows this") == "nobody knows this"


@pytest.mark.parametrize(
    ("variables", "language"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "en_US.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "de_DE.UTF-8"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "zh_TW.UTF-8"}, "zh"),
        ({"LANGUAGE": "zh:en", "LC_ALL": "en_US.UTF-8"}, "zh"),
        ({"LANG": "C.UTF-8"}, "en"),
    ],
)
def test_auto_follows_the_locale(variables: dict[str, str], language: str) -> None:
    assert locale_language(variables) == language
    set_language("auto", variables)
    assert (translate("empty") == "是空的") == (language == "zh")


def test_auto_without_variables_asks_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages.locale, "getlocale", lambda: ("Chinese (Simplified)_China", "936"))
    assert locale_language({}) == "zh"
    monkeypatch.setattr(messages.locale, "getlocale", lambda: (None, None))
    assert locale_language({}) == "en"


@pytest.mark.parametrize(
    ("words", "language"),
    [([], ""), (["--lang", "en"], "en"), (["x", "--lang=zh"], "zh"), (["--lang"], "")],
)
def test_language_is_read_before_the_options(words: list[str], language: str) -> None:
    assert wanted_language(words) == language


def test_options_hold_no_language(capsys: pytest.CaptureFixture[str]) -> None:
    parser = make_parser(None)
    assert vars(parser.parse_args(["--lang", "en"])) == {}
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--lang", "fr"])
    assert stop.value.code == 2
    capsys.readouterr()
    with pytest.raises(SystemExit):
        parser.parse_args(["--lang=zh", "--nothing"])
    assert capsys.readouterr().err.endswith("错误：无法识别的参数：--nothing\n")


def test_error_line_is_in_the_language(capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: list[str] | None) -> int:
        set_language("zh")
        raise AudioError("a.wav: no such file, expected an audio file; check the path")

    with pytest.raises(SystemExit) as stop:
        run_script(main)
    assert stop.value.code == 2
    expected = "错误：a.wav：没有这个文件，需要一个音频文件；请检查路径\n"
    assert capsys.readouterr().err == expected
