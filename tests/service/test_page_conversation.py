"""The page's view "Who spoke when?": a long recording, its turns, and the voices in it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile

from tests.support.browser import Browser, Service, missing
from tests.support.page import ESCAPE, answer, problem, wav_bytes
from tests.support.synthetic_voices import SAMPLE_RATE, write_wav

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

FILE = "#conversation-file"
ERROR = "#conversation-error"
RESULT = "#conversation-result"
ROWS = f"{RESULT} tbody tr"
ERIC, GRACE = "Eric O'Neill", "Grace 李"


@pytest.fixture(scope="module", autouse=True)
def eric(service: Service, root: Path) -> None:
    """One of the three voices of `audio/conversation.wav` is enrolled."""
    sent = [("file", wav_bytes(root / "audio" / f"a_{number}.wav")) for number in (1, 2)]
    service.post("v1/speakers", data={"name": ERIC}, files=sent)


@pytest.fixture(scope="module")
def conversation(root: Path) -> Path:
    return root / "audio" / "conversation.wav"


@pytest.fixture
def view(browser: Browser, service: Service) -> Iterator[Browser]:
    """The view, without jobs of other tests."""
    clear(service)
    browser.go("conversation")
    yield browser
    clear(service)


def clear(service: Service) -> None:
    for job in jobs(service):
        httpx.delete(f"{service.url}/v1/diarizations/{job['id']}").raise_for_status()


def jobs(service: Service) -> list[dict]:
    return service.get("v1/diarizations").json()["diarizations"]


def send(browser: Browser, path: Path) -> None:
    browser.one(FILE).send_keys(str(path))


def voices(browser: Browser) -> list[str]:
    return [element.text for element in browser.shown(f"{RESULT} .voice-name")]


def test_a_conversation_becomes_turns_that_can_be_heard_and_voices_that_can_be_enrolled(
    view: Browser, service: Service, conversation: Path
) -> None:
    send(view, conversation)
    view.wait_text(f"{RESULT} h2", "conversation: 0:40, speakers 3, turns")
    assert view.driver.switch_to.active_element.text.startswith("conversation")
    assert voices(view) == [ERIC, "Speaker 2", "Speaker 3"]
    (job,) = jobs(service)
    path = f"v1/diarizations/{job['id']}"
    turns = service.get(path).json()["result"]["turns"]

    # The timeline and the table show the same turns.
    assert len(view.shown(f"{RESULT} .turns rect")) == len(view.shown(ROWS)) == len(turns)
    first = view.one(f"{RESULT} .turns rect").get_attribute("x")
    assert float(first[:-1]) == pytest.approx(100 * turns[0]["start_s"] / 40.2, abs=0.1)
    lane = view.one(f"{RESULT} svg.turns")
    words = rf"{ERIC}: turns \d+, speech 0:\d\d\."
    assert re.fullmatch(words, lane.get_attribute("aria-label"))

    # A turn is played from its start to its end.
    number = next(i for i, turn in enumerate(turns) if turn["end_s"] - turn["start_s"] < 2.5)
    view.script(
        """window.heard = [];
        const stop = HTMLMediaElement.prototype.pause;
        HTMLMediaElement.prototype.pause = function () {
          heard.push(this.currentTime);
          stop.call(this);
        };"""
    )
    view.click(f"{ROWS}:nth-child({number + 1}) button")
    view.wait(lambda: view.shown(f"{ROWS}[aria-current]"), "it is played")
    view.wait(lambda: view.shown(f"{RESULT} .cursor"), "the timeline shows where")
    view.wait(lambda: not view.shown(f"{ROWS}[aria-current]"), "it is over")
    end = view.script("return heard.at(-1)")
    assert end == pytest.approx(turns[number]["end_s"], abs=0.25)
    # Another press stops it; so does leaving the view.
    view.click(f"{RESULT} .voice:nth-child(2) button")
    view.wait(lambda: view.shown(f"{ROWS}[aria-current]"), "the longest turn is played")
    view.go("compare")
    view.go("conversation")
    assert not view.shown(f"{ROWS}[aria-current]")

    # The files are the service's, as long as nobody was named.
    files = saved_files(view)
    assert files["conversation.rttm"] == service.get(f"{path}/rttm").text
    assert json.loads(files["conversation.json"]) == service.get(path).json()["result"]

    # A voice is named and enrolled.
    enrol = f"{RESULT} .voice:nth-child(2) .buttons button:last-child"
    view.click(enrol)
    assert view.text("#name-title") == "Who is Speaker 2?"
    view.press(ESCAPE)
    assert not view.shown("#name-dialog")
    view.click(enrol)
    view.click("#name-form [type=submit]")
    view.wait_text("#name-wrong", "Fill in a name.")
    view.fill("#voice-name", ERIC)
    view.click("#name-form [type=submit]")
    view.wait_text("#name-exists", f"this voice was not recognised as {ERIC}. Add it only if")
    view.fill("#voice-name", GRACE)
    assert not view.shown("#name-exists")
    view.click("#name-form [type=submit]")
    view.wait(lambda: not view.shown("#name-dialog"), "the voice is enrolled")
    assert voices(view) == [ERIC, GRACE, "Speaker 3"]
    assert GRACE in view.text(f"{RESULT} .row-name")
    assert GRACE in view.text(f"{RESULT} .turn-name")
    assert "Grace_李" in saved_files(view)["conversation.rttm"]
    assert service.get("v1/speakers", params={"query": GRACE}).json()["total"] == 1
    assert "409" in "".join(view.complaints())

    # The other language changes every word.
    view.click("#language")
    assert voices(view) == [ERIC, GRACE, "说话人3"]
    view.click("#language")
    view.script("localStorage.clear()")

    view.click(f"{RESULT} .danger-quiet")
    view.wait(lambda: view.shown("#conversation-form"), "it is removed")
    assert jobs(service) == []


def saved_files(browser: Browser) -> dict[str, str]:
    """Presses the buttons that save, and returns what the browser would have saved."""
    browser.script(
        """window.saved = {}; const blobs = new Map();
        URL.createObjectURL = (blob) => {
          blobs.set(`blob:${blobs.size}`, blob);
          return `blob:${blobs.size - 1}`;
        };
        HTMLAnchorElement.prototype.click = function () {
          const name = this.download;
          blobs.get(this.getAttribute('href')).text().then((text) => { saved[name] = text; });
        };"""
    )
    for number in (1, 2):
        browser.click(f"{RESULT} > :nth-child(3) button:nth-child({number})")
    return browser.wait(
        lambda: len(files := browser.script("return saved")) == 2 and files, "both are saved"
    )


def test_a_job_can_be_cancelled_and_nothing_is_left(
    view: Browser, service: Service, conversation: Path, tmp_path: Path
) -> None:
    samples, _ = soundfile.read(conversation, dtype="float32")
    send(view, write_wav(tmp_path / "long.wav", np.tile(samples, 12)))
    view.wait(lambda: jobs(service), "there is a job")
    view.click("#conversation-cancel")
    view.wait(lambda: view.shown("#conversation-form"), "it is cancelled")
    view.wait(lambda: jobs(service) == [], "it is removed")
    assert not view.shown("#conversation-jobs")
    assert view.text(ERROR) == ""


def test_sending_can_be_cancelled(view: Browser, conversation: Path) -> None:
    view.script(
        """const real = window.fetch;
        window.fetch = (url, options) => options.method === 'GET' ? real(url, options) :
          new Promise((_, reject) =>
            options.signal.addEventListener('abort', () => reject(options.signal.reason)));"""
    )
    send(view, conversation)
    view.wait_text("#conversation-state", "Sending conversation.wav")
    view.click("#conversation-cancel")
    view.wait_text(ERROR, "Cancelled.")
    assert view.shown("#conversation-form")


def test_what_cannot_be_used_is_told_in_words(
    view: Browser, conversation: Path, tmp_path: Path
) -> None:
    text = tmp_path / "notes.wav"
    text.write_text("no samples", encoding="utf-8")
    send(view, text)
    view.wait_text(ERROR, "no sound that the service can read")
    assert "415" in "".join(view.complaints())
    empty = tmp_path / "empty.wav"
    empty.touch()
    send(view, empty)
    view.wait_text(ERROR, "The file is empty.")
    send(view, write_wav(tmp_path / "silence.wav", np.zeros(SAMPLE_RATE * 3)))
    view.wait_text(ERROR, "This recording cannot be used.")
    view.fill("#num-speakers", "0")
    send(view, conversation)
    view.wait_text(ERROR, "a whole number from 1 to 100")
    view.fill("#num-speakers", "")
    lost = (
        "Promise.resolve(Response.json({ id: '0', state: 'lost', progress: 0.4,"
        " error: { type: '/problems/lost', status: 503, detail: 'its own words' } }))"
    )
    answer(view, lost)
    send(view, conversation)
    view.wait_text(ERROR, "The service ended before it was done. Send the recording again.")
    answer(view, problem("busy", 503, 60))
    send(view, conversation)
    view.wait_text(ERROR, "The service is too busy. Try again in 60 s.")


def test_a_result_outlives_the_page(
    view: Browser, service: Service, conversation: Path, tmp_path: Path
) -> None:
    with conversation.open("rb") as file:
        service.post(
            "v1/diarizations", data={"num_speakers": "2"}, files={"file": ("meeting.wav", file)}
        )
    view.go("compare")
    view.go("conversation")
    view.wait_text("#conversation-jobs", "Your recordings on the service")
    view.click("#job-list button")
    view.wait_text(f"{RESULT} h2", "meeting: 0:40, speakers 2")
    # The sound is not the service's to give.
    assert not view.shown(f"{ROWS} button")
    notes = tmp_path / "notes.txt"
    notes.write_text("no samples", encoding="utf-8")
    view.one("#heard-file").send_keys(str(notes))
    view.click(f"{ROWS} button")
    view.wait_text(f"{RESULT} .error", "The browser cannot play this file")
    view.one("#heard-file").send_keys(str(conversation))
    view.click(f"{ROWS} button")
    view.wait(lambda: view.shown(f"{ROWS}[aria-current]"), "it is played")
    assert not view.shown(f"{RESULT} .error")
    # The timeline shows less of the time, but more of each second.
    width = view.one(f"{RESULT} .lanes").size["width"]
    view.click(f"{RESULT} .timeline button:first-child")
    assert view.one(f"{RESULT} .lanes").size["width"] == pytest.approx(2 * width, abs=2)
    view.click(f"{RESULT} .timeline button:last-child")
    assert view.one(f"{RESULT} .lanes").size["width"] == pytest.approx(width, abs=2)
    view.click("#conversation-again")
    view.click("#job-list button:last-child")
    view.wait(lambda: not view.shown("#conversation-jobs"), "it is removed")
    assert jobs(service) == []
