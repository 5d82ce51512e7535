"""The page's view that calibrates: from recordings of some people to a file of thresholds."""

import json
from pathlib import Path

import pytest

from service.settings import Settings
from tests.support.browser import Browser, Service, missing
from utils.verification.calibration_file import CalibrationFile

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

CARD = "#calibrate-capture .capture"
READY = "#calibrate-submit[aria-disabled=false]"


def choose_many(browser: Browser, *paths: Path) -> None:
    browser.one(f"{CARD} [data-part=file]").send_keys("\n".join(map(str, paths)))


def test_some_people_become_a_file_of_thresholds(
    browser: Browser, service: Service, root: Path, tmp_path: Path
) -> None:
    audio = root / "audio"
    browser.go("calibrate")
    browser.click("#calibrate-submit")
    assert "So far: 0." in browser.text("#calibrate-hint")
    assert not browser.one("#calibrate-next").is_enabled()
    browser.fill("#calibrate-name", "Anna")
    choose_many(browser, audio / "a_1.wav", audio / "a_2.wav")
    browser.wait_text("#calibrate-people [aria-current]", "Recordings: 2 · speech 8.9 s")
    assert not browser.shown(f"{CARD} [data-part=play]"), "the sound is let go"
    browser.click("#calibrate-next")
    # What can't be used is told, and ends the row of files.
    notes = tmp_path / "notes.wav"
    notes.write_text("no sound")
    choose_many(browser, audio / "b_1.wav", notes, audio / "b_2.wav")
    browser.wait_text(f"{CARD} .error", "no sound that the service can read")
    assert "415" in "".join(browser.complaints())
    browser.wait_text("#calibrate-people [aria-current]", "Person 2\nRecordings: 1")
    assert not browser.shown(READY)
    browser.record(CARD.replace(" .capture", ""), audio / "b_2.wav", seconds=3)
