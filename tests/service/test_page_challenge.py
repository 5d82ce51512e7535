"""The page asks for digits to be read: shown when the recording begins, sent with it, used once."""

import re
from pathlib import Path

import pytest

from tests.support.browser import Browser, Service, missing
from tests.support.page import RECOGNISE, TAB, answer, problem, wav_bytes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

ERROR = f"{RECOGNISE} .error"


@pytest.fixture
def asked(browser: Browser, service: Service, root: Path) -> Browser:
    """Digits are asked for, of Anna, who is enrolled."""
    if not service.get("v1/speakers").json()["total"]:
        sent = [("file", wav_bytes(root / "audio" / f"a_{number}.wav")) for number in (1, 2)]
        service.post("v1/speakers", data={"name": "Anna"}, files=sent)
    browser.click("#question label:last-of-type")
    browser.click("#challenge-choice")
    browser.fill("#claimed-name", "Anna" + TAB)
    assert not browser.shown(f"{RECOGNISE} [data-part=choose]"), "no file is of these digits"
    return browser


def read(browser: Browser, path: Path) -> str:
    """Records a file for 3 s; returns the digits that were shown meanwhile."""
    browser.hear(path)
    browser.click(f"{RECOGNISE} [data-part=record]")
    browser.wait(lambda: browser.left(RECOGNISE) and float(browser.left(RECOGNISE)) < 9, "3 s")
    digits = browser.text("#challenge-digits")
    assert re.fullmatch(r"\d( \d){5}", digits)
    assert re.fullmatch(r"\d+ s left", browser.text("#challenge-time"))
    words = browser.text("#challenge-words")
    assert len(words.split()) == 6
    assert browser.one("#announcer").get_property("textContent")
    browser.click(f"{RECOGNISE} [data-part=done]")
    return digits


def test_digits_are_read_once(asked: Browser, root: Path) -> None:
    first = read(asked, root / "audio" / "a_1.wav")
    asked.wait_text("#recognise-result h2", "Yes, this is Anna.")
    assert "Sent in time, and never before." in asked.text("#recognise-result")
    assert not asked.shown("#challenge"), "they are used"
    # What was sent before is refused, with other digits too.
    assert read(asked, root / "audio" / "a_1.wav") != first
    asked.wait_text(ERROR, "This recording was sent before. Say it anew.")
    assert not asked.shown("#recognise-result .verdict")
    assert "409" in "".join(asked.complaints())


def test_each_reason_of_a_failure_is_told(asked: Browser, root: Path) -> None:
    asked.script(
        """const real = window.fetch;
        window.refusals = [];
        window.fetch = (url, options) => String(url).endsWith('/verify') && refusals.length
          ? Promise.resolve(refusals.shift()) : real(url, options);
        window.refuse = (code, status) => refusals.push(Response.json(
          { type: `/problems/${code}`, detail: 'its own words' }, { status }));"""
    )
    asked.script("refuse('not-read', 422)")
    digits = read(asked, root / "audio" / "a_2.wav")
    asked.wait_text(ERROR, "The recording is too short for the digits. Read all of them.")
    assert asked.text("#challenge-digits") == digits, "they still count"
    asked.script("refuse('bad-challenge', 409)")
    assert read(asked, root / "audio" / "a_2.wav") == digits
    asked.wait_text(ERROR, "These digits no longer count. Ask for others.")
    assert not asked.shown("#challenge")

    # Too late: the page says so, and does not verify without them.
    short = "{ id: '0', digits: '123456', text: 'one', language: 'en', expires_in_s: 0.5 }"
    answer(asked, f"Promise.resolve(Response.json({short}))")
    asked.click(f"{RECOGNISE} [data-part=record]")
    asked.wait_text("#challenge-time", "These digits no longer count. Press Record for others.")
    asked.click(f"{RECOGNISE} [data-part=done]")
    asked.wait_text(ERROR, "These digits no longer count.")
    # Without digits there is no recording.
    answer(asked, problem("too-many-requests", 429, 30))
    asked.click(f"{RECOGNISE} [data-part=record]")
    asked.wait_text(ERROR, "Too many requests.")
    asked.fill("#claimed-name", TAB)
    asked.click(f"{RECOGNISE} [data-part=record]")
    asked.wait_text(ERROR, "Fill in a name first.")
    asked.wait(lambda: not asked.shown(f"{RECOGNISE} [data-part=done]"), "nothing is recorded")
