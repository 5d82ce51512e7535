"""The web page in a real Chromium, against the real service and model; the microphone plays files.

One browser and one service serve most tests. Voices: `audio/a_*.wav` and `audio/b_*.wav` are
enrolled through the microphone; a synthetic one of `voices.py` is a stranger.
"""

import base64
import io
import re
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.edge.token_file import create_token, revoke_token
from tests.support.browser import Browser, Service, missing
from tests.support.page import (
    COMPARE,
    ENTER,
    ESCAPE,
    RECOGNISE,
    SLOT,
    TAB,
    answer,
    choose,
    problem,
    wav_bytes,
)
from tests.support.synthetic_voices import SAMPLE_RATE, synthetic_speech, write_wav

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


@pytest.fixture(scope="module")
def enrolled(service: Service, one_browser: Browser, root: Path) -> None:
    """Two voices of two recordings each: one's from the microphone, the other's from files."""
    voices = {
        voice: [root / "audio" / f"{voice}_{number}.wav" for number in (1, 2)] for voice in "ab"
    }
    sent = [("file", wav_bytes(path)) for path in voices["b"]]
    service.post("v1/speakers", data={"name": "Béatrice O'Neill"}, files=sent)
    one_browser.open("enrol")
    one_browser.fill("#enrol-name", "张三")
    for slot, path in enumerate(voices["a"], start=1):
        one_browser.record(SLOT.format(slot), path, seconds=3.5)
        one_browser.wait_text(f"{SLOT.format(slot)} .quality", "Speech")
    one_browser.wait_text("#enrol-similarity", "sound like one person")
    assert "1 and 2" in one_browser.text("#enrol-similarity .who")
    one_browser.wait_text("#enrol-hint", "Ready")
    one_browser.click("#enrol-submit")
    one_browser.wait_text("#enrol-result h2", "张三 is enrolled.")
    one_browser.click("#enrol-result button")


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    return write_wav(tmp_path / "stranger.wav", synthetic_speech(1, 0, duration_s=4.0))


# --- Recognition ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("enrolled")
@pytest.mark.parametrize(("voice", "name"), [("a_2", "张三"), ("b_2", "Béatrice O'Neill")])
def test_recognises_a_voice_from_the_microphone(
    browser: Browser, root: Path, voice: str, name: str
) -> None:
    browser.record(RECOGNISE, root / "audio" / f"{voice}.wav", seconds=3)
    browser.wait_text("#recognise-result h2", f"This is {name}.")
    assert "Probability of the same person: over 99.9 %" in browser.text("#recognise-result")
    assert browser.shown("#recognise-result .rows .who")[0].text == name
    lane = browser.one("#recognise-result .lane")
    assert lane.get_attribute("role") == "img"
    assert re.fullmatch(
        rf"{name}: score 0\.\d\d, threshold 0\.55\.", lane.get_attribute("aria-label")
    )
    # The dot of the score is right of the threshold's line.
    dot = float(lane.find_element("css selector", ".dot").get_attribute("cx")[:-1])
    line = float(lane.find_element("css selector", ".threshold").get_attribute("x1")[:-1])
    assert dot > line
    assert browser.one("#announcer").get_property("textContent") == f"This is {name}."


@pytest.mark.usefixtures("enrolled")
def test_refuses_a_stranger(browser: Browser, stranger: Path) -> None:
    browser.record(RECOGNISE, stranger, seconds=3)
    browser.wait_text("#recognise-result h2", "Nobody recognised.")
    assert "below the threshold 0.55" in browser.text("#recognise-result")
    assert browser.shown("#recognise-result .verdict.refused")
    assert not browser.all("#recognise-result .lane.above")


@pytest.mark.usefixtures("enrolled")
def test_verifies_a_claim_and_refuses_a_false_one(browser: Browser, root: Path) -> None:
    browser.click("#question label:last-of-type")
    choose(browser, RECOGNISE, root / "audio" / "a_2.wav")
    browser.wait_text("#recognise-result", "Fill in a name first.")
    browser.fill("#claimed-name", "张三" + TAB)
    browser.wait_text("#recognise-result h2", "Yes, this is 张三.")
    browser.fill("#claimed-name", "Béatrice O'Neill" + TAB)
    browser.wait_text("#recognise-result h2", "No, this is not Béatrice O'Neill.")
    browser.fill("#claimed-name", "Nobody" + TAB)
    browser.wait_text(f"{RECOGNISE} .error", "Nobody of this name is enrolled.")
    assert browser.text("#recognise-result") == ""
    assert "404" in "".join(browser.complaints())


@pytest.mark.usefixtures("enrolled")
def test_a_lower_threshold_is_drawn_and_asked_for(browser: Browser, stranger: Path) -> None:
    choose(browser, RECOGNISE, stranger)
    browser.wait_text("#recognise-result h2", "Nobody recognised.")
    browser.click("#strictness label:last-of-type")
    browser.wait_text("#recognise-result", "threshold 0.42")


def test_compares_two_files(browser: Browser, root: Path) -> None:
    browser.go("compare")
    choose(browser, COMPARE.format(1), root / "audio" / "b_1.wav")
    choose(browser, COMPARE.format(2), root / "audio" / "b_2.wav")
    browser.wait_text("#compare-result h2", "The same person.")
    choose(browser, COMPARE.format(2), root / "audio" / "a_2.wav")
    browser.wait_text("#compare-result h2", "Two different people.")
    assert browser.text(".capture .quality").count("dBFS") == 2


# --- Enrolment ------------------------------------------------------------------------------------


def test_enrols_by_keyboard_alone(browser: Browser, root: Path) -> None:
    browser.hear(root / "audio_db" / "沙瑞金.wav")
    browser.press(TAB, ENTER)  # "Skip to the content"
    assert active(browser)["id"] == "main"
    browser.open()
    tab_to(browser, "nav a", "Enrol")
    browser.press(ENTER)
    browser.wait(lambda: active(browser)["id"] == "enrol-title", "the heading has the focus")
    tab_to(browser, "#enrol-name")
    browser.press(*"Keyboard")
    for slot in (1, 2):
        tab_to(browser, f"{SLOT.format(slot)} [data-part=record]")
        browser.press(ENTER)
        browser.wait(lambda: active(browser)["part"] == "done", "Done has the focus")
        browser.wait(lambda slot=slot: float(browser.left(SLOT.format(slot))) < 5.5, "2.5 s")
        browser.press(ENTER)
        browser.wait(lambda: active(browser)["part"] == "play", "Play has the focus")
        browser.wait_text(f"{SLOT.format(slot)} .quality", "Speech")
    browser.wait_text("#enrol-hint", "Ready")
    tab_to(browser, "#enrol-submit")
    browser.press(ENTER)
    browser.wait_text("#enrol-result h2", "Keyboard is enrolled.")
    assert active(browser)["text"] == "Keyboard is enrolled."
    browser.go("speakers")
    delete(browser, "Keyboard")


def active(browser: Browser) -> dict[str, str]:
    """What has the focus; fails if that can't be seen."""
    state = browser.script(
        """const element = document.activeElement;
        const shown = element.matches('.segments input') ? element.nextSibling : element;
        const style = getComputedStyle(shown);
        return { id: element.id, part: element.dataset.part ?? '', text: element.textContent.trim(),
                 focusable: element.tabIndex >= 0, outline: style.outlineStyle };"""
    )
    assert not state["focusable"] or state["outline"] != "none", f"no visible focus: {state}"
    return state


def tab_to(browser: Browser, selector: str, text: str = "") -> None:
    """Presses Tab until an element has the focus."""
    for _ in range(40):
        browser.press(TAB)
        if text in active(browser)["text"] and browser.script(
            "return document.activeElement.matches(arguments[0])", selector
        ):
            return
    raise AssertionError(f"Tab doesn't lead to {selector}")


def test_the_bar_shows_how_complete_an_enrolment_is(browser: Browser, root: Path) -> None:
    browser.go("enrol")
    assert not browser.shown("#enrol-progress")
    assert browser.text("#enrol-hint") == "Begin with the first recording."
    choose(browser, SLOT.format(1), root / "audio" / "a_1.wav")
    browser.wait_text("#enrol-progress", "Speech: 4.6 of 4 s. Recordings: 1 of 2.")
    assert browser.one("#enrol-bar").get_property("value") == 0.5
    browser.wait_text("#enrol-hint", "Go on with recording 2.")
    # What the service has forgotten meanwhile is sent anew.
    enrolment = browser.script(
        """const { name } = performance.getEntriesByType('resource').findLast(
          (entry) => entry.name.endsWith('/recordings'));
        const path = name.replace('/recordings', '');
        await fetch(path, { method: 'DELETE' });
        return path;"""
    )
    choose(browser, SLOT.format(2), root / "audio" / "a_2.wav")
    browser.wait_text("#enrol-progress", "Enough: 8.9 s of speech in 2 recordings.")
    assert browser.one("#enrol-bar").get_property("value") == 1
    assert "404" in "".join(browser.complaints())
    browser.wait_text("#enrol-hint", "Fill in a name.")
    assert "optional" in browser.text(SLOT.format(3))
    # A recording that is made again takes the place of the one before.
    choose(browser, SLOT.format(2), root / "audio" / "b_1.wav")
    browser.wait_text("#enrol-progress", "Speech: 0.0 of 4 s. Recordings: 0 of 2.")
    choose(browser, SLOT.format(3), root / "audio" / "a_2.wav")
    browser.wait_text("#enrol-similarity", "Recordings 2 and 3 don’t sound like one person.")
    browser.wait_text("#enrol-progress", "Enough: 8.9 s of speech in 2 recordings.")
    browser.wait_text("#enrol-hint", "Fill in a name.")
    # Who leaves the page leaves nothing on the service.
    newest = browser.script(
        """return performance.getEntriesByType('resource').findLast(
          (entry) => entry.name.endsWith('/recordings')).name.replace('/recordings', '')"""
    )
    assert newest != enrolment
    assert httpx.get(newest).status_code == 200
    browser.open()
    browser.wait(lambda: httpx.get(newest).status_code == 404, "it is given up")


def test_recordings_of_two_people_are_noticed(browser: Browser, root: Path) -> None:
    browser.go("enrol")
    choose(browser, SLOT.format(1), root / "audio" / "a_1.wav")
    browser.wait_text(f"{SLOT.format(1)} .quality", "Speech")
    choose(browser, SLOT.format(2), root / "audio" / "b_1.wav")
    browser.wait_text("#enrol-similarity", "Recordings 1 and 2 don’t sound like one person.")
    browser.wait_text("#enrol-hint", "Fill in a name.")


@pytest.mark.usefixtures("enrolled")
def test_a_known_name_can_get_more_recordings(browser: Browser, root: Path) -> None:
    browser.go("enrol")
    browser.fill("#enrol-name", "张三")
    for slot in (1, 2):
        choose(browser, SLOT.format(slot), root / "audio" / f"a_{slot}.wav")
        browser.wait_text(f"{SLOT.format(slot)} .quality", "Speech")
    browser.wait_text("#enrol-hint", "Ready")
    browser.click("#enrol-submit")
    browser.wait_text("#enrol-exists", "张三 is already enrolled.")
    browser.click("#enrol-add")
    browser.wait_text("#enrol-result", "Recordings: 4.")
    assert "409" in "".join(browser.complaints())


def test_a_poor_recording_gets_advice(browser: Browser, root: Path, tmp_path: Path) -> None:
    with wave.open(str(root / "audio" / "a_1.wav")) as file:
        samples = np.frombuffer(file.readframes(SAMPLE_RATE * 3 // 2), np.int16) / 32768
    browser.go("enrol")
    choose(browser, SLOT.format(1), write_wav(tmp_path / "loud.wav", np.clip(samples * 30, -1, 1)))
    browser.wait_text(f"{SLOT.format(1)} .advice", "Too loud")
    choose(browser, SLOT.format(1), write_wav(tmp_path / "quiet.wav", samples / 40))
    browser.wait_text(f"{SLOT.format(1)} .advice", "Too quiet")
    assert "Too little speech" in browser.text(f"{SLOT.format(1)} .advice")
    assert browser.shown(".quality .poor")


def test_what_is_no_speech_is_refused_in_words(browser: Browser, tmp_path: Path) -> None:
    text = tmp_path / "notes.wav"
    text.write_text("these are no samples", encoding="utf-8")
    choose(browser, RECOGNISE, text)
    browser.wait_text(f"{RECOGNISE} .error", "no sound that the service can read")
    choose(browser, RECOGNISE, write_wav(tmp_path / "silence.wav", np.zeros(SAMPLE_RATE * 2)))
    browser.wait_text(f"{RECOGNISE} .error", "This recording cannot be used.")
    browser.wait_text(f"{RECOGNISE} .advice", "Too little speech")
    empty = tmp_path / "empty.wav"
    empty.touch()
    choose(browser, RECOGNISE, empty)
    browser.wait_text(f"{RECOGNISE} .error", "The file is empty.")
    assert browser.text("#recognise-result") == ""
    complaints = "".join(browser.complaints())
    assert "415" in complaints
    assert "422" in complaints


# --- Dropped files --------------------------------------------------------------------------------


DROP = """
const [target, files] = arguments;
const dataTransfer = new DataTransfer();
for (const [name, content] of files) {
  const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
  dataTransfer.items.add(new File([bytes], name));
}
const send = (type) => {
  const event = new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer });
  target.dispatchEvent(event);
  return event.defaultPrevented;
};
send('dragenter');
// Only where dragover is taken does a browser send drop instead of showing the file.
const isTaken = send('dragover');
const isMarked = target.closest('.dropping') !== null;
return [isTaken, isMarked, send('drop'), document.querySelector('.dropping') === null];
"""


def drop(browser: Browser, place: str, *contents: tuple[str, bytes]) -> None:
    """Drops files of the page's own making on an element, as a mouse would."""
    files = [(name, base64.b64encode(content).decode()) for name, content in contents]
    browser.wait(lambda: browser.shown(place), f"{place} can be seen")
    assert browser.script(DROP, browser.one(place), files) == [True, True, True, True]


@pytest.fixture
def sample(root: Path) -> Callable[[str], tuple[str, bytes]]:
    """Our own recordings, by name."""
    return lambda name: (f"{name}.wav", (root / "audio" / f"{name}.wav").read_bytes())


Sample = Callable[[str], tuple[str, bytes]]
NOTES = ("notes.txt", "这不是声音。".encode())
ONE_AT_A_TIME = "Drop one file at a time."


@pytest.mark.usefixtures("enrolled")
def test_a_dropped_file_is_recognised_and_verified(browser: Browser, sample: Sample) -> None:
    # On a child of the card: what is dropped there belongs to the card too.
    drop(browser, f"{RECOGNISE} [data-part=drop]", sample("a_1"))
    browser.wait_text("#recognise-result h2", "This is 张三.")
    assert browser.text(f"{RECOGNISE} [data-part=seconds]") == "4.9 s"
    browser.click("#question label:last-of-type")
    browser.fill("#claimed-name", "Béatrice O'Neill" + TAB)
    browser.wait_text("#recognise-result h2", "No, this is not Béatrice O'Neill.")
    drop(browser, RECOGNISE, sample("b_1"))
    browser.wait_text("#recognise-result h2", "Yes, this is Béatrice O'Neill.")


def test_dropped_files_are_compared(browser: Browser, sample: Sample) -> None:
    browser.go("compare")
    drop(browser, COMPARE.format(1), sample("a_1"))
    browser.wait_text(f"{COMPARE.format(1)} .quality", "Speech")
    drop(browser, COMPARE.format(2), sample("a_2"))
    browser.wait_text("#compare-result h2", "The same person.")
    drop(browser, COMPARE.format(1), sample("b_1"))
    browser.wait_text("#compare-result h2", "Two different people.")


def test_dropped_files_are_enrolled(browser: Browser, sample: Sample) -> None:
    browser.go("enrol")
    browser.fill("#enrol-name", "Dropped")
    for slot in (1, 2, 3):
        drop(browser, SLOT.format(slot), sample("../audio_db/沙瑞金"))
        browser.wait_text(f"{SLOT.format(slot)} .quality", "Speech")
    browser.wait_text("#enrol-similarity", "sound like one person")
    browser.wait_text("#enrol-hint", "Ready")
    browser.click("#enrol-submit")
    browser.wait_text("#enrol-result h2", "Dropped is enrolled.")
    browser.wait_text("#enrol-result", "Recordings: 3")
    browser.go("speakers")
    delete(browser, "Dropped")


@pytest.mark.parametrize(
    ("view", "card"),
    [("recognise", RECOGNISE), ("enrol", SLOT.format(1)), ("compare", COMPARE.format(2))],
)
def test_what_cannot_be_taken_is_refused_in_words_where_it_is_dropped(
    browser: Browser, sample: Sample, view: str, card: str
) -> None:
    browser.go(view)
    drop(browser, card, sample("a_1"), sample("a_2"))
    browser.wait_text(f"{card} .error", ONE_AT_A_TIME)
    assert browser.shown(f"{card} [data-part=record]")
    assert not browser.shown(f"{card} [data-part=sound]")
    drop(browser, card)
    browser.wait_text(f"{card} .error", "This is no file.")
    drop(browser, card, ("empty.wav", b""))
    browser.wait_text(f"{card} .error", "The file is empty.")
    assert browser.complaints() == []
    drop(browser, card, NOTES)
    browser.wait_text(f"{card} .error", "no sound that the service can read")
    assert "415" in "".join(browser.complaints())
    # What was there before stays until something better comes, and the words go with it.
    drop(browser, card, sample("a_1"))
    browser.wait(lambda: not browser.shown(f"{card} .error"), "the words are gone")
    browser.wait(lambda: browser.shown(f"{card} [data-part=play]"), "it can be played")
    drop(browser, card, sample("a_1"), NOTES)
    browser.wait_text(f"{card} .error", ONE_AT_A_TIME)
    assert browser.shown(f"{card} [data-part=play]")


def test_a_folder_that_is_dropped_is_told(browser: Browser, tmp_path: Path) -> None:
    place = browser.one(RECOGNISE).rect
    where = {"x": place["x"] + 20, "y": place["y"] + 20}
    # A drag of the browser's own, from the file manager.
    data = {"items": [], "files": [str(tmp_path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.command("Input.dispatchDragEvent", type=kind, data=data, **where)
    browser.wait_text(f"{RECOGNISE} .error", "The file cannot be read.")
    assert not browser.shown(".dropping")


def test_nothing_is_taken_while_it_records(browser: Browser, root: Path, sample: Sample) -> None:
    browser.go("compare")
    browser.hear(root / "audio" / "b_1.wav")
    browser.click(f"{COMPARE.format(1)} [data-part=record]")
    browser.wait(lambda: browser.shown(f"{COMPARE.format(1)} [data-part=done]"), "it records")
    drop(browser, COMPARE.format(2), sample("a_1"))
    browser.wait_text(f"{COMPARE.format(2)} .error", "A recording is in progress.")
    browser.click(f"{COMPARE.format(1)} [data-part=cancel]")
    drop(browser, COMPARE.format(2), sample("a_1"))
    browser.wait_text(f"{COMPARE.format(2)} .quality", "Speech")
    assert not browser.shown(f"{COMPARE.format(2)} .error")


def test_beside_a_card_nothing_is_dropped(browser: Browser, sample: Sample) -> None:
    files = [(name, base64.b64encode(content).decode()) for name, content in [sample("a_1")]]
    taken = browser.script(DROP, browser.one("h1"), files)
    assert taken == [True, False, True, True], "the browser would leave the page"
    assert not browser.shown(f"{RECOGNISE} [data-part=play]")


# --- Speakers -------------------------------------------------------------------------------------


def test_renames_plays_and_deletes_a_speaker(
    browser: Browser, service: Service, root: Path
) -> None:
    files = [("file", wav_bytes(root / "audio" / f"b_{i}.wav")) for i in (1, 2)]
    service.post("v1/speakers", data={"name": "R&D #1 100%"}, files=files)
    browser.go("speakers")
    browser.fill("#search", "r&d")
    browser.wait_text("#speakers-total", "Found: 1")
    assert browser.text(".person h2") == "R&D #1 100%"
    browser.click(".person .buttons button")
    browser.fill("#new-name", "Tëmporäry %41")
    browser.click("#rename-form [type=submit]")
    browser.wait_text("#speakers-message", "R&D #1 100% is now called Tëmporäry %41.")
    browser.fill("#search", "MPOR")
    browser.wait_text("#speakers-total", "Found: 1")
    browser.click("summary")
    browser.click(".recordings li:first-child button")
    browser.wait_text(".recordings li:first-child button", "Stop")
    browser.click(".recordings li:first-child button")
    browser.wait_text(".recordings li:first-child button", "Play")
    browser.click(".recordings li:last-child button:last-child")
    browser.wait_text("#delete-title", "Remove a recording of Tëmporäry %41?")
    browser.click("#delete-dialog [data-close]")
    assert len(browser.shown(".recordings li")) == 2
    browser.click(".recordings li:last-child button:last-child")
    browser.click("#delete-form [type=submit]")
    browser.wait_text("#speakers-message", "Removed a recording of Tëmporäry %41.")
    delete(browser, "Tëmporäry %41")
    assert re.search(r"Removed: voiceprints \d, recordings 1\.", browser.text("#speakers-message"))
    assert not browser.all("#speakers-message li"), "what the database calls its rows is no news"
    browser.wait_text("#speakers-total", "Found: 0")
    assert service.get("v1/speakers", params={"query": "MPOR"}).json()["total"] == 0


def delete(browser: Browser, name: str) -> None:
    """Deletes a speaker of the list; Escape and Cancel leave it alone."""
    button = f"button[aria-label='Delete {name}']"
    browser.click(button)
    browser.press(ESCAPE)
    browser.click(button)
    browser.click("#delete-dialog [data-close]")
    assert browser.shown(button)
    browser.click(button)
    assert browser.text("#delete-title") == f"Delete {name}?"
    browser.click("#delete-form [type=submit]")
    browser.wait_text("#speakers-message", f"Deleted {name}.")
    assert not browser.shown(button)


def test_turns_pages(browser: Browser) -> None:
    browser.script(
        """const real = window.fetch;
        window.fetch = (url, options) => {
          if (!String(url).includes('/v1/speakers?')) return real(url, options);
          const offset = Number(new URL(url).searchParams.get('offset'));
          const speakers = Array.from({ length: offset ? 3 : 20 }, (_, i) => ({
            name: `Speaker ${offset + i}`, recordings: [], created_at: '2026-01-01T00:00:00Z' }));
          return Promise.resolve(Response.json({ speakers, total: 23 }));
        };"""
    )
    browser.go("speakers")
    browser.wait_text("#page-range", "1 to 20 of 23")
    assert not browser.one("#previous-page").is_enabled()
    browser.click("#next-page")
    browser.wait_text("#page-range", "21 to 23 of 23")
    assert len(browser.shown(".person")) == 3
    assert not browser.one("#next-page").is_enabled()


# --- Microphone -----------------------------------------------------------------------------------


def test_the_microphone_is_raw_and_let_go(browser: Browser, root: Path) -> None:
    watch_microphone(browser)
    browser.record(RECOGNISE, root / "audio" / "a_1.wav", seconds=1)
    wanted, states = browser.script(
        "return [wanted, streams.map((s) => s.getTracks()[0].readyState)]"
    )
    assert wanted == [
        {"audio": {"channelCount": 1, "echoCancellation": False, "noiseSuppression": False,
                   "autoGainControl": False}},
    ]  # fmt: skip
    assert states == ["ended"]
    browser.click(f"{RECOGNISE} [data-part=record]")
    browser.click(f"{RECOGNISE} [data-part=cancel]")
    browser.wait(lambda: browser.shown(f"{RECOGNISE} [data-part=record]"), "it is cancelled")
    browser.wait(
        lambda: not browser.script("return streams.filter((s) => s.active).length"), "it is let go"
    )


def watch_microphone(browser: Browser) -> None:
    browser.script(
        """window.streams = []; window.wanted = [];
        const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = async (constraints) => {
          wanted.push(constraints);
          const stream = await open(constraints);
          streams.push(stream);
          return stream;
        };"""
    )


def test_records_without_audio_worklets(browser: Browser, root: Path) -> None:
    browser.script(
        "Object.defineProperty(BaseAudioContext.prototype, 'audioWorklet', { value: undefined })"
    )
    browser.go("enrol")
    browser.record(SLOT.format(1), root / "audio" / "a_1.wav", seconds=1.5)
    browser.wait_text(f"{SLOT.format(1)} .quality", "Speech")
    assert float(browser.text(f"{SLOT.format(1)} [data-part=seconds]").split()[0]) >= 1.5
    complaints = browser.complaints()
    assert all("ScriptProcessorNode is deprecated" in text for text in complaints)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("NotFoundError", "No microphone was found."),
        ("OverconstrainedError", "No microphone was found."),
        ("NotReadableError", "another program may be using it"),
        ("NotAllowedError", "The browser refuses the microphone"),
        ("TypeError", "could not be opened (TypeError)"),
    ],
)
def test_a_microphone_that_fails_is_told_in_words(
    browser: Browser, broken: str, words: str
) -> None:
    browser.script(
        "const name = arguments[0]; navigator.mediaDevices.getUserMedia ="
        " () => Promise.reject(new DOMException('', name))",
        broken,
    )
    browser.click(f"{RECOGNISE} [data-part=record]")
    browser.wait_text(f"{RECOGNISE} .error", words)
    assert browser.script("return document.activeElement.dataset.part") == "record"


def test_an_insecure_page_says_why_it_cannot_record(browser: Browser) -> None:
    browser.script("Object.defineProperty(window, 'isSecureContext', { value: false })")
    browser.click(f"{RECOGNISE} [data-part=record]")
    browser.wait_text(f"{RECOGNISE} .error", "only over https")
    assert browser.base_url in browser.text(f"{RECOGNISE} .error")


def test_an_unplugged_or_muted_microphone_is_noticed(browser: Browser, tmp_path: Path) -> None:
    watch_microphone(browser)
    browser.hear(write_wav(tmp_path / "silence.wav", np.zeros(SAMPLE_RATE)))
    record = f"{RECOGNISE} [data-part=record]"
    browser.click(record)
    browser.wait(lambda: browser.shown(f"{RECOGNISE} [data-part=done]"), "it records")
    browser.script("streams[0].getTracks()[0].dispatchEvent(new Event('ended'))")
    browser.wait_text(f"{RECOGNISE} .error", "disconnected while recording")
    browser.click(record)
    browser.click(f"{RECOGNISE} [data-part=done]")
    browser.wait_text(f"{RECOGNISE} .error", "nothing but silence")


def test_a_microphone_that_sends_nothing_is_not_waited_for(browser: Browser) -> None:
    browser.script(
        "AudioContext.prototype.createMediaStreamSource = () => ({ connect: (node) => node })"
    )
    browser.click(f"{RECOGNISE} [data-part=record]")
    browser.wait_text(f"{RECOGNISE} .error", "another program may be using it")


def test_samples_become_a_wav_file(browser: Browser) -> None:
    encoded = browser.script(
        """const { encodeWav } = await import('/static/waveform.js');
        const blob = encodeWav(new Float32Array([0, 0.5, -0.5, 1, -1, 2, -2]), 44100);
        return btoa(String.fromCharCode(...new Uint8Array(await blob.arrayBuffer())));"""
    )
    with wave.open(io.BytesIO(base64.b64decode(encoded))) as file:
        assert file.getparams()[:4] == (1, 2, 44100, 7)
        samples = np.frombuffer(file.readframes(7), "<i2")
    assert samples.tolist() == [0, 16384, -16384, 32767, -32768, 32767, -32768]


# --- The service's answers ------------------------------------------------------------------------


@pytest.mark.usefixtures("enrolled")
def test_a_busy_service_is_asked_again(browser: Browser, root: Path) -> None:
    answer(browser, problem("busy", 503, 1), problem("too-many-requests", 429, 1))
    choose(browser, RECOGNISE, root / "audio" / "a_2.wav")
    browser.wait_text("#waiting", "Trying again in 1 s.")
    browser.wait_text("#recognise-result h2", "This is 张三.")
    assert browser.text("#waiting") == ""


def test_a_long_wait_is_left_to_the_user(browser: Browser, root: Path) -> None:
    answer(browser, problem("locked", 429, 300))
    choose(browser, RECOGNISE, root / "audio" / "a_2.wav")
    browser.wait_text(f"{RECOGNISE} .error", "checking is locked. Try again in 300 s.")
    assert "The service says: its own words" in browser.text(f"{RECOGNISE} .error")


def test_a_service_that_is_gone_is_told_in_words(browser: Browser, root: Path) -> None:
    answer(browser, "Promise.reject(new TypeError('Failed to fetch'))")
    choose(browser, RECOGNISE, root / "audio" / "a_2.wav")
    browser.wait_text(f"{RECOGNISE} .error", "The service does not answer.")


def test_asks_for_a_token_and_keeps_it_in_the_tab(
    one_browser: Browser, tmp_path: Path, root: Path
) -> None:
    from selenium.webdriver.support.ui import Select

    token = "a-token-for-this-test-only"
    path = tmp_path / "tokens.txt"
    boss, _ = create_token("boss", path, group="*")
    shop, _ = create_token("shop", path, group="shop", scopes=["identify", "verify"])
    with Service(tmp_path, "--token_file", str(path), token=token) as service:
        home, one_browser.base_url = one_browser.base_url, service.url
        try:
            one_browser.open("speakers")
            one_browser.wait_text("h1", "This service needs a token")
            one_browser.fill("#token", "wrong" + ENTER)
            one_browser.wait_text("#token-wrong", "does not accept this token")
            one_browser.fill("#token", token + ENTER)
            one_browser.wait_text("h1", "Speakers")
            one_browser.wait_text("#speakers-total", "Nobody is enrolled yet.")
            one_browser.driver.refresh()
            one_browser.wait_text("h1", "Speakers")
            stored = one_browser.script("return [Object.values(sessionStorage), {...localStorage}]")
            assert stored == [[token], {}]
            answer(one_browser, problem("unauthorized", 401, 1))  # as if it had been withdrawn
            one_browser.click("nav a[href='#recognise']")
            one_browser.wait_text("h1", "This service needs a token")
            one_browser.fill("#token", token + ENTER)
            one_browser.wait_text("h1", "Who is speaking?")
            assert not one_browser.shown("#group"), "there is only the usual one"
            one_browser.click("#forget-token")
            one_browser.wait_text("h1", "This service needs a token")

            # A token of one group says which; views that its scopes make pointless are left out.
            one_browser.fill("#token", shop + ENTER)
            one_browser.wait_text("#group", "Group: shop")
            views = [link.text for link in one_browser.shown("nav a")]
            assert "Enrol" in views and not {"Events", "Calibrate"} & set(views)
            one_browser.click("#forget-token")
            one_browser.wait_text("h1", "This service needs a token")

            # One of all groups chooses, until the tab is closed.
            one_browser.fill("#token", boss + ENTER)
            one_browser.wait_text("h1", "Who is speaking?")
            sent = {"file": wav_bytes(root / "audio" / "a_1.wav")}
            headers = {"Authorization": f"Bearer {boss}", "Voiceprint-Group": "shop"}
            service.post("v1/speakers", data={"name": "Ann"}, files=sent, headers=headers)
            choice = Select(one_browser.one("#group-choice"))
            assert [option.text for option in choice.options] == ["default", "shop"]
            one_browser.go("speakers")
            one_browser.wait_text("#speakers-total", "Nobody is enrolled yet.")
            choice.select_by_visible_text("shop")
            one_browser.wait_text("#people", "Ann")
            assert Select(one_browser.one("#group-choice")).first_selected_option.text == "shop"
            revoke_token("shop", path)  # and with it the group is gone
            one_browser.wait(
                lambda: not knows_groups(service, boss), "the service has read the file"
            )
            one_browser.driver.refresh()
            one_browser.wait_text("#speakers-total", "Nobody is enrolled yet.")
            assert not one_browser.shown("#group")
        finally:
            one_browser.base_url = home
            one_browser.complaints()


def knows_groups(service: Service, token: str) -> bool:
    """Whether the service still knows more than the usual group."""
    headers = {"Authorization": f"Bearer {token}"}
    return len(service.get("v1/info", headers=headers).json()["groups"]) > 1


# --- The page itself ------------------------------------------------------------------------------


def test_both_languages_have_every_text(browser: Browser, root: Path) -> None:
    strings = browser.script("return (await import('/static/strings.js')).STRINGS")
    english, chinese = strings["en"], strings["zh"]
    assert english.keys() == chinese.keys()
    for key, text in english.items():
        assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", chinese[key])), key
        if key not in ("other_language",):
            assert not re.search("[\u4e00-\u9fff]", text), key
    latin = {key for key, text in chinese.items() if not re.search("[\u4e00-\u9fff]", text)}
    assert latin == {"other_language", "echo", "quality_dbfs", "quality_percent", "probability_is"}

    static = root / "service" / "static"
    page = (static / "index.html").read_text(encoding="utf-8")
    used = set(re.findall(r'data-t(?:-label)?="(\w+)"', page))
    assert used <= english.keys()
    scripts = "".join(path.read_text(encoding="utf-8") for path in static.glob("*.js"))
    listed = re.sub(r"^const (en|zh) = {$.*?^};$", "", scripts, flags=re.DOTALL | re.MULTILINE)
    made = (
        "error_",
        "microphone_",
        "advice_",
        "sentence_",
        "rename_",
        "doubt_",
        "event_",
        "job_",
        "rates_",
        "turn_",
    )  # keys that are put together
    unused = {
        key
        for key in english.keys() - used
        if f"'{key}'" not in listed and not key.startswith(made)
    }
    assert unused == set()


def test_every_problem_of_the_service_has_words(browser: Browser) -> None:
    from service.answers.problems import PROBLEMS

    keys = browser.script("return Object.keys((await import('/static/strings.js')).STRINGS.en)")
    assert {f"error_{code.replace('-', '_')}" for code in PROBLEMS} <= set(keys)


def test_every_module_is_loaded_ahead(root: Path) -> None:
    static = root / "service" / "static"
    page = (static / "index.html").read_text(encoding="utf-8")
    ahead = set(re.findall(r'modulepreload" href="static/(.+?)"', page))
    alone = {"app.js", "docs.js", "microphone-worklet.js"}
    assert ahead | alone == {path.name for path in static.glob("*.js")}


def test_switches_the_language_and_remembers_it(browser: Browser, root: Path) -> None:
    assert browser.script("return document.documentElement.lang") == "en"
    browser.go("compare")
    choose(browser, COMPARE.format(1), root / "audio" / "a_1.wav")
    choose(browser, COMPARE.format(2), root / "audio" / "b_1.wav")
    browser.wait_text("#compare-result h2", "Two different people.")
    browser.click("#language")
    assert browser.text("#compare-result h2") == "是两个不同的人。"  # what was there is kept
    assert browser.driver.title == "是同一个人吗？ · 声纹"
    browser.driver.refresh()
    browser.wait_text("h1", "是同一个人吗？")
    assert browser.script("return document.documentElement.lang") == "zh-CN"
    assert browser.script("return {...localStorage}") == {"voiceprint.language": "zh"}
    browser.click("#language")
    browser.script("localStorage.clear()")


@pytest.fixture
def start_browser(service: Service, tmp_path: Path) -> Iterator[Callable[..., Browser]]:
    browsers = []

    def start(**options: str | int) -> Browser:
        browsers.append(Browser(tmp_path, service.url, **options))
        return browsers[-1]

    yield start
    for browser in browsers:
        browser.close()


def test_a_refused_microphone_leaves_files_in_the_browsers_language(
    start_browser: Callable[..., Browser], root: Path
) -> None:
    browser = start_browser(language="zh-CN", microphone="refused")
    browser.open("compare")
    browser.wait_text("h1", "是同一个人吗？")
    browser.click(f"{COMPARE.format(1)} [data-part=record]")
    browser.wait_text(f"{COMPARE.format(1)} .error", "浏览器拒绝本页面使用麦克风")
    choose(browser, COMPARE.format(1), root / "audio" / "a_1.wav")
    choose(browser, COMPARE.format(2), root / "audio" / "a_2.wav")
    browser.wait_text("#compare-result h2", "是同一个人。")
    assert browser.shown(f"{COMPARE.format(1)} .error") == []
    assert browser.complaints() == []
