"""The web page warns before a voice goes where it doesn't belong, and judges a score only once."""

import math
import re
from pathlib import Path

import pytest

from tests.support.browser import Browser, Service, missing
from tests.support.page import (
    RECOGNISE,
    SLOT,
    TAB,
    answer,
    choose,
    choose_slots,
    problem,
    wav_bytes,
)
from tests.support.synthetic_voices import synthetic_speech, write_wav

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

READY = "#enrol-submit[aria-disabled=false]"
LENIENT, STRICT = "#strictness label:last-of-type", "#strictness label:first-of-type"


@pytest.fixture(scope="module")
def anna(service: Service, root: Path) -> str:
    """Anna is enrolled, with the voice of `audio/a_*.wav`."""
    sent = [("file", wav_bytes(root / "audio" / f"a_{number}.wav")) for number in (1, 2)]
    service.post("v1/speakers", data={"name": "Anna"}, files=sent)
    return "Anna"


def num_recordings(service: Service, name: str) -> int:
    speakers = service.get("v1/speakers", params={"query": name}).json()["speakers"]
    return sum(len(speaker["recordings"]) for speaker in speakers)


def test_two_people_are_not_enrolled_as_one_unless_confirmed(
    browser: Browser, service: Service, root: Path
) -> None:
    browser.go("enrol")
    browser.fill("#enrol-name", "Two in one")
    choose_slots(browser, root / "audio" / "b_1.wav", root / "audio_db" / "沙瑞金.wav")
    browser.wait_text("#enrol-similarity", "Recordings 1 and 2 don’t sound like one person.")
    assert browser.text("#enrol-hint") == "Confirm the doubts above, or record again."
    browser.click("#enrol-submit")
    assert num_recordings(service, "Two in one") == 0
    # A recording of the same person clears the doubt without a word.
    choose(browser, SLOT.format(2), root / "audio" / "b_2.wav")
    browser.wait_text("#enrol-hint", "Ready.")
    assert not browser.shown(".doubt")
    choose(browser, SLOT.format(2), root / "audio_db" / "沙瑞金.wav")
    browser.wait_text("#enrol-hint", "Confirm the doubts")
    browser.click(".doubt label")
    browser.wait(lambda: browser.shown(READY), "it was confirmed")
    browser.click("#enrol-submit")
    browser.wait_text(
        "#enrol-result h2", "is enrolled, but recordings 1 and 2 don’t sound like one person."
    )
    assert browser.shown("#enrol-result .unsure")
    assert not browser.all("#enrol-result .match")
    browser.go("speakers")
    browser.click("button[aria-label='Delete Two in one']")
    browser.click("#delete-form [type=submit]")
    browser.wait_text("#speakers-message", "Deleted Two in one.")


@pytest.mark.parametrize("way", ["add", "replace"])
def test_a_strangers_recording_is_not_added_unless_confirmed(
    browser: Browser, service: Service, root: Path, anna: str, way: str
) -> None:
    before = num_recordings(service, anna)
    browser.go("enrol")
    browser.fill("#enrol-name", anna)
    choose_slots(browser, root / "audio" / "b_1.wav", root / "audio" / "b_2.wav")
    browser.click("#enrol-submit")
    browser.click(f"#enrol-{way}")
    browser.wait_text(".doubt", "This doesn’t sound like Anna (recording 1, 2, score 0.")
    assert num_recordings(service, anna) == before
    assert not browser.shown(READY)
    assert "409" in "".join(browser.complaints())
    if way == "add":
        browser.click(".doubt label")
        browser.click("#enrol-add")
        browser.wait_text("#enrol-result", f"Recordings: {before + 2}.")
        for recording in service.get("v1/speakers").json()["speakers"][0]["recordings"][before:]:
            browser.script(
                "await (await import('/static/api.js')).removeRecording(...arguments)",
                anna, recording["id"],
            )  # fmt: skip


def test_a_voice_that_is_enrolled_under_another_name_is_noticed(
    browser: Browser, root: Path, anna: str
) -> None:
    browser.go("enrol")
    browser.fill("#enrol-name", "Hannah")
    choose_slots(browser, root / "audio" / "a_1.wav", root / "audio" / "a_2.wav")
    words = "This sounds like Anna, who is already enrolled (recording 1, 2, score 0.9"
    browser.wait_text(".doubt", words)
    assert not browser.shown(READY)
    browser.click(".doubt label")
    browser.wait(lambda: browser.shown(READY), "it was confirmed")
    # Of Anna's own recordings there is no doubt.
    browser.fill("#enrol-name", "ANNA")
    browser.wait(lambda: not browser.shown(".doubt"), "the doubt is gone")
    browser.fill("#enrol-name", "Hannah")
    browser.wait(lambda: not browser.shown(READY), "it is asked again")


@pytest.mark.parametrize("question", ["identify", "verify"])
def test_another_threshold_judges_the_score_that_is_there(
    browser: Browser, root: Path, anna: str, tmp_path: Path, question: str
) -> None:
    stranger = write_wav(tmp_path / "stranger.wav", synthetic_speech(1, 0, duration_s=4.0))
    browser.script(
        """window.asked = 0; const real = window.fetch;
        window.fetch = (url, options) => {
          asked += options.method === 'POST';
          return real(url, options);
        };"""
    )
    if question == "verify":
        browser.click("#question label:last-of-type")
        browser.fill("#claimed-name", anna + TAB)
    choose(browser, RECOGNISE, stranger)
    browser.wait(lambda: browser.shown("#recognise-result .refused"), "it is refused")
    for _ in range(8):  # more than failed verifications may be
        browser.click(LENIENT)
        browser.wait_text("#recognise-result", "below the threshold 0.42")
        browser.click(STRICT)
        browser.wait_text("#recognise-result", "below the threshold 0.55")
    assert browser.script("return asked") == 1
    assert not browser.shown(f"{RECOGNISE} .error")


def test_what_the_strict_threshold_refuses_may_be_likely_all_the_same(
    browser: Browser, root: Path
) -> None:
    def matches(score: float, probability: float) -> str:
        quality = (
            "{speech_s: 4, level_dbfs: -20, clipped_fraction: 0, snr_db: 30, heard: 'speech',"
            " warnings: []}"
        )
        return (
            f"Promise.resolve(Response.json({{ name: null, quality: {quality}, matches: [{{"
            f" name: 'Anna', score: {score}, probability: {probability} }}] }}))"
        )

    answer(browser, matches(0.5, 0.88))
    choose(browser, RECOGNISE, root / "audio" / "a_1.wav")
    browser.wait_text("#recognise-result h2", "Perhaps Anna, but not certain enough.")
    assert "88 %" in browser.text("#recognise-result")
    assert browser.shown("#recognise-result .unsure")
    browser.click(LENIENT)
    browser.wait_text("#recognise-result h2", "This is Anna.")
    browser.click(STRICT)
    browser.wait_text("#recognise-result h2", "Perhaps Anna")
    browser.click("#language")
    browser.wait_text("#recognise-result h2", "可能是Anna，但还不能确定。")
    browser.click("#language")
    answer(browser, matches(0.2, 0.04))
    choose(browser, RECOGNISE, root / "audio" / "a_2.wav")
    browser.wait_text("#recognise-result h2", "Nobody recognised.")


def test_what_the_thresholds_promise_is_drawn(browser: Browser, service: Service) -> None:
    strict, lenient = service.get("v1/info").json()["rates"]
    browser.click("#rates summary")
    lanes = browser.shown("#rates-chart .lane")
    for lane, rates, promise in zip(lanes, (strict, lenient), (0.003, 0.05), strict=True):
        words = lane.get_attribute("aria-label")
        assert f"{100 * rates['miss_rate']:.1f} %" in words
        assert f"at most {100 * promise:.2g}" in words
        # The measured rates lie within the promise, also in the worst group.
        edge = float(lane.find_element("css selector", ".same").get_attribute("width")[:-1])
        worst = float(lane.find_element("css selector", ".worst").get_attribute("cx")[:-1])
        assert edge == pytest.approx(100 * (1 + math.log10(promise) / 4), abs=0.1)
        assert worst == pytest.approx(100 * (1 + math.log10(rates["worst_rate"]) / 4), abs=0.1)
        assert worst < edge


def test_scores_that_are_no_cosines_have_a_wider_scale(browser: Browser) -> None:
    drawn = browser.script(
        """const { makeScale } = await import('/static/scale.js');
        return [[4.5, [12.3, -2.5]], [0.5, [0.9, -0.4]]].map(([threshold, scores]) => {
          const scale = makeScale(threshold, scores.map((score) => ({ name: 'Anna', score })));
          const of = (selector, attribute) => [...scale.querySelectorAll(selector)]
            .map((each) => parseFloat(each.getAttribute(attribute)));
          const ticks = [...scale.querySelectorAll('.axis text:not(.threshold-text)')];
          const words = ticks.map((each) => each.textContent);
          return [of('.dot', 'cx'), of('.lane .threshold', 'x1')[0], words];
        });"""
    )
    (dots, line, ticks), (cosines, middle, usual) = drawn
    assert dots == pytest.approx([100 * 15.3 / 16, 100 * 0.5 / 16], abs=0.01)
    assert line == pytest.approx(100 * 7.5 / 16, abs=0.01)
    assert ticks == ["0", "10"], "one at 5 would touch the threshold's line"
    # A cosine's scale is always the same; what is left of it stays at the edge.
    assert cosines == pytest.approx([100 * 1.1 / 1.2, 0], abs=0.01)
    assert middle == pytest.approx(100 * 0.7 / 1.2, abs=0.01)
    assert usual == ["0", "0.2", "0.4", "0.6", "0.8", "1"]


def test_a_service_that_hangs_can_be_left(browser: Browser, root: Path) -> None:
    hang = """(_, { signal }) => new Promise((_, reject) =>
        signal.addEventListener('abort', () => reject(new DOMException('', 'AbortError'))))"""
    browser.script(f"window.real = window.fetch; window.fetch = {hang};")
    choose(browser, RECOGNISE, root / "audio" / "a_1.wav")
    browser.wait_text("#waiting", "The service has not answered yet.")
    browser.click("#stop-waiting")
    browser.wait_text(f"{RECOGNISE} .error", "Cancelled.")
    assert not browser.shown("#waiting")
    assert not browser.shown(f"{RECOGNISE} [data-part=busy]")
    # Also while a busy service is waited for; what may have been done is said.
    busy = problem("busy", 503, 15)
    browser.script(f"window.fetch = () => {busy}")
    browser.click("nav a[href='#speakers']")
    browser.wait_text("#waiting", "Trying again in 15 s.")
    browser.click("#stop-waiting")
    browser.wait_text("#speakers-message", "Cancelled.")
    words = browser.script(
        f"""window.fetch = {hang};
        const api = await import('/static/api.js');
        const removal = api.remove('Anna').catch((error) => error.mayHaveChanged);
        api.cancelAll();
        const done = await removal;
        window.fetch = real;
        return done;"""
    )
    assert words is True


def test_errors_in_chinese_have_no_english_line(browser: Browser, root: Path) -> None:
    answer(browser, problem("locked", 429, 300))
    choose(browser, RECOGNISE, root / "audio" / "a_2.wav")
    browser.wait_text(f"{RECOGNISE} .error", "The service says: its own words")
    browser.click("#language")
    try:
        shown = browser.text(f"{RECOGNISE} .error")
        assert "请 300 秒后再试" in shown
        assert not re.search("[A-Za-z]", shown), shown
        browser.click(f"{RECOGNISE} .error summary")
        browser.wait_text(f"{RECOGNISE} .error", "its own words")
    finally:
        browser.click("#language")


def test_a_token_that_may_only_enrol_does_so_unchecked(
    browser: Browser, service: Service, root: Path
) -> None:
    refusal = problem("missing-scope", 403, 1)
    browser.script(
        f"""const real = window.fetch;
        window.fetch = (url, options) =>
          /identify|compare|speakers[?]/.test(url) ? {refusal} : real(url, options);"""
    )
    browser.go("recognise")  # suggests no names, and doesn't complain of it
    browser.go("enrol")
    browser.fill("#enrol-name", "Unchecked")
    choose_slots(browser, root / "audio" / "b_1.wav", root / "audio" / "b_2.wav")
    browser.wait_text("#enrol-unchecked", "Your token does not allow searching voices")
    browser.wait(lambda: browser.shown(READY), "it can be enrolled")
    browser.click("#enrol-submit")
    browser.wait_text("#enrol-result h2", "Unchecked is enrolled.")


def test_speakers_who_cannot_be_recognised_are_marked(browser: Browser) -> None:
    answer(
        browser,
        """Promise.resolve(Response.json({ total: 3, speakers: [
          ['Fine', false, [true, false]], ['Broken', true, []], ['Old', false, [false]],
        ].map(([name, is_damaged, comparable]) => ({
          name, is_damaged, created_at: '0001-01-01T00:00:00+00:00',
          recordings: comparable.map((is_comparable) => ({
            id: '0', created_at: '2026-12-01', speech_s: 3, has_audio: false, is_comparable,
          })) })) }))""",
    )
    browser.go("speakers")
    browser.wait(lambda: len(browser.shown(".person")) == 3, "three are listed")
    fine, broken, old = [person.text for person in browser.shown(".person")]
    assert "damaged" not in fine and "model" not in fine
    assert "What is stored of this speaker is damaged." in broken
    assert "Enrolled with another model" in old
