"""The page's view that calibrates: from recordings of some people to a file of thresholds."""

from pathlib import Path

import pytest

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
    browser.hear(audio / "b_2.wav")
    browser.click(f"{CARD} [data-part=record]")
    browser.wait(lambda: browser.left(CARD) and float(browser.left(CARD)) < 5, "3 s are recorded")
    browser.click(f"{CARD} [data-part=done]")
    browser.wait_text("#calibrate-people [aria-current]", "Person 2\nRecordings: 2")
    browser.click(READY)
    browser.wait_text("#calibrate-result h2", "What the recordings show")
    assert browser.script("return document.activeElement.textContent") == "What the recordings show"
    words = browser.text("#calibrate-result")
    assert (
        "2 people are too few to promise 0.3 % false accepts: at most 95 % with 95 % confidence."
    ) in words
    strict, lenient = [
        line for line in words.splitlines() if line.startswith(("Strict:", "Lenient:"))
    ]
    info = service.get("v1/info").json()
    for line, name in ((strict, "strict_threshold"), (lenient, "threshold")):
        assert f"{info[name]:.2f}" in line and "lower" not in line
    assert (
        browser.one("#calibrate-result .chart svg")
        .get_attribute("aria-label")
        .startswith("Rates against the threshold. Strict, 0.")
    )
    assert len(browser.all("#calibrate-result .chart .line")) == 2


def test_the_proposed_thresholds_are_saved(browser: Browser, tmp_path: Path) -> None:
    """The answer of a service whose thresholds are too low for these people."""
    limits = [[1, 0.9, 1], [0.1, 0.05, 0.2], [0, 0, 0.05]]
    one = {"promised": 0.003, "is_promised": False, "in_use": 0.55, "found": 0.61}
    one |= {"proposed": 0.61, "false_accepts": limits[2], "misses": limits[1]}
    lenient = one | {"promised": 0.05, "in_use": 0.42, "found": 0.31, "proposed": 0.42}
    entries = {
        "threshold": 0.42,
        "strict_threshold": 0.61,
        "calibration": {"slope": 9, "offset": -4},
    }
    proposal = {
        "num_people": 12, "num_pairs": 66, "num_recordings": 24, "confidence": 0.95,
        "strict": one, "default": lenient,
        "curve": {"thresholds": [-0.1, 0.4, 0.9], "false_accepts": limits, "misses": limits[::-1]},
        "file": {"model_id": "abc", "score_norm": "none", "entries": entries},
        "commands": ["python tools/calibrate.py calibration.json", "python serve.py"],
    }  # fmt: skip
    browser.go("calibrate")
    saved = browser.script(
        """const { showProposal } = await import('/static/proposal.js');
        const place = document.querySelector('#calibrate-result');
        showProposal(place, arguments[0]);
        let blob;
        URL.createObjectURL = (given) => { blob = given; return 'data:,'; };
        HTMLAnchorElement.prototype.click = () => {};
        place.querySelector('button').click();
        return await blob.text();""",
        proposal,
    )
    path = tmp_path / "calibration.json"
    path.write_text(saved, encoding="utf-8")
    assert CalibrationFile.read(path).entries == entries
    words = browser.text("#calibrate-result")
    assert "Strict: raise from 0.55 to 0.61." in words
    assert "Lenient: keep 0.42. 0.31 would do for these people, but they are too few" in words
    assert words.endswith("python tools/calibrate.py calibration.json\npython serve.py")
    # What is in use is drawn beside what is proposed.
    assert len(browser.all("#calibrate-result .chart line.mark")) == 3
    top = browser.script(
        """return [...document.querySelectorAll('.chart .line')].map((line) =>
          line.getAttribute('d'))"""
    )
    assert top == ["M0.0 1000.0L500.0 250.0L1000.0 0.0", "M0.0 0.0L500.0 250.0L1000.0 1000.0"]


def test_recordings_are_forgotten(browser: Browser, root: Path) -> None:
    browser.go("calibrate")
    choose_many(browser, root / "audio" / "a_1.wav")
    browser.wait_text("#calibrate-people", "Recordings: 1")
    browser.go("recognise")
    browser.go("calibrate")
    assert "Recordings: 1" in browser.text("#calibrate-people")
    browser.click("#calibrate-forget")
    assert "Recordings: 0" in browser.text("#calibrate-people")
    assert not browser.shown("#calibrate-forget")
    assert browser.script("return document.activeElement.id") == "calibrate-title"
