"""How the web page looks: on a phone, with large letters, in the dark, and to a screen reader.

`axe-core` checks each view by the rules of WCAG 2.1 AA. Its script comes from a development
package; the tests put it into the page, which does not have it itself.
"""

import hashlib
import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import Browser, Service, missing
from tests.support.page import (
    COMPARE,
    FAKE_SOCKET,
    RECOGNISE,
    SLOT,
    answer,
    choose,
    wav_bytes,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

AXE_SHA256 = "697ea6c7edff0fe289b7bbecf1ff7b9015249bc834b409a348cd060df80aeba0"
"""Of axe.min.js 4.4.3, as the package axe-core-python 0.1.0 has it."""

LONG_NAME = "Elizabeth Featherstonehaugh-Cholmondeley"


@pytest.fixture(scope="module", autouse=True)
def enrolled(service: Service, root: Path) -> None:
    """Two voices of two recordings each, one with a long name; enough others for two pages."""
    for name, voice in ((LONG_NAME, "a"), ("王小明", "b")):
        sent = [("file", wav_bytes(root / "audio" / f"{voice}_{number}.wav")) for number in (1, 2)]
        service.post("v1/speakers", data={"name": name}, files=sent)
    with (root / "audio" / "conversation.wav").open("rb") as file:
        sent = {"file": ("meeting.wav", file)}
        path = service.post("v1/diarizations", files=sent).headers["Location"][1:]
    while (state := service.get(path).json()["state"]) in ("queued", "running"):
        time.sleep(0.2)
    assert state == "done"


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core, that very file."""
    spec = importlib.util.find_spec("axe_core_python")
    if spec is None or spec.origin is None:
        pytest.skip("axe-core-python is not installed: pip install -r requirements-dev.txt")
    source = (Path(spec.origin).parent / "axe.min.js").read_bytes()
    assert hashlib.sha256(source).hexdigest() == AXE_SHA256
    return source.decode()


def test_everything_has_a_name_for_screen_readers(browser: Browser, root: Path) -> None:
    browser.command("Accessibility.enable")
    for view in show_everything(browser, root):
        nodes = browser.command("Accessibility.getFullAXTree")["nodes"]
        roles = {"button", "link", "textbox", "searchbox", "radio", "combobox", "image", "group",
                 "navigation", "region", "dialog", "DisclosureTriangle", "alert"}  # fmt: skip
        seen = [node for node in nodes if not node["ignored"] and node["role"]["value"] in roles]
        assert len(seen) > (2 if view in ("naming", "removal") else 10)
        nameless = [
            node["role"]["value"]
            for node in seen
            if not node.get("name", {}).get("value") and node["role"]["value"] != "alert"
            and not is_details(browser, node)
        ]  # fmt: skip
        assert nameless == [], view
    browser.command("Accessibility.disable")


def is_details(browser: Browser, node: dict) -> bool:
    """Whether a group is a details element, which its summary names."""
    described = browser.command("DOM.describeNode", backendNodeId=node["backendDOMNodeId"])
    return described["node"]["nodeName"] == "DETAILS"


def show_everything(browser: Browser, root: Path, language: str = "en") -> Iterator[str]:
    """Leads through the views, each filled with what it can show."""

    def wait(selector: str) -> None:
        browser.wait(lambda: browser.shown(selector), f"{selector} is there")

    choose(browser, RECOGNISE, root / "audio" / "a_1.wav")
    wait("#recognise-result .match")
    if not browser.shown("#rates-chart"):
        browser.click("#rates summary")
    yield "recognise"
    browser.click("#question label:last-of-type")
    browser.fill("#claimed-name", LONG_NAME)
    browser.click("#challenge-choice")
    browser.script(  # a recording would end by itself meanwhile
        """const { Challenge } = await import('/static/challenge.js');
        await new Challenge().ask(arguments[0]);""",
        LONG_NAME,
    )
    wait("#challenge-digits")
    yield "challenge"
    browser.go("enrol")
    choose(browser, SLOT.format(1), root / "audio" / "a_1.wav")
    wait(SLOT.format(2))
    choose(browser, SLOT.format(2), root / "audio" / "b_2.wav")
    wait(".doubt:nth-of-type(3)")
    browser.click("#enrol-submit")
    yield "enrol"
    browser.go("compare")
    for i, voice in enumerate("ab", 1):
        choose(browser, COMPARE.format(i), root / "audio" / f"{voice}_1.wav")
    wait("#compare-result .refused")
    yield "compare"
    browser.go("conversation")
    yield "jobs"
    browser.click("#job-list button")
    wait("#conversation-result .voice")
    browser.click("#conversation-result .voice .buttons button")
    yield "naming"
    browser.click("#name-dialog [data-close]")
    yield "conversation"
    browser.script(FAKE_SOCKET)
    browser.hear(root / "audio" / "a_1.wav")
    browser.go("live")
    browser.click("#live-start")
    browser.wait(lambda: browser.script("return sockets[0]?.sent.length > 1"), "samples are sent")
    for number, name in enumerate((LONG_NAME, None), 1):
        event = {"event": "speaker", "turn": number, "start_s": 0.1 * number, "end_s": 0.2}
        event |= {"name": name, "number": number if name is None else None, "score": 0.7}
        browser.script("sockets[0].say(arguments[0])", event)
    yield "live"
    browser.go("speakers")
    browser.click("#people summary")
    browser.click("#people .recordings button:last-child")
    yield "removal"
    browser.click("#delete-dialog [data-close]")
    yield "speakers"
    browser.go("calibrate")
    recordings = [str(root / "audio" / f"{name}.wav") for name in ("a_1", "a_2", "b_1", "b_2")]
    for chosen in (recordings[:2], recordings[2:]):
        browser.one("#calibrate-capture [data-part=file]").send_keys("\n".join(chosen))
        wait("#calibrate-next:enabled")
        browser.click("#calibrate-next")
    browser.fill("#calibrate-name", LONG_NAME)
    yield "calibrate"
    browser.click("#calibrate-submit[aria-disabled=false]")
    wait("#calibrate-result .chart")
    yield "proposal"


CONTRASTS = """
const channels = (colour) => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d');
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const luminance = (rgb) => {
  const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const [r, g, b] = rgb.map((c) => linear(c / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const background = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const colour = channels(getComputedStyle(e).backgroundColor);
    if (colour[3] === 255) return colour.slice(0, 3);
  }
  return channels('Canvas').slice(0, 3);
};
const poor = [];
let count = 0;
for (const element of document.body.querySelectorAll('*')) {
  const hasText = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  if (!hasText || !element.checkVisibility() || element.matches('.unseen, [disabled]')) continue;
  const style = getComputedStyle(element);
  const isSvg = element instanceof SVGElement;
  const text = luminance(channels(isSvg ? style.fill : style.color).slice(0, 3));
  const behind = luminance(background(element));
  const ratio = (Math.max(text, behind) + 0.05) / (Math.min(text, behind) + 0.05);
  count += 1;
  if (ratio < 4.5) poor.push(`${element.textContent.slice(0, 40)}: ${ratio.toFixed(2)}`);
}
return [count, poor];
"""


AXE = """
const [done] = [...arguments].slice(-1);
const options = { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'] };
axe.run(document, options).then(({ violations, passes }) => done([passes.length, violations.map(
  ({ id, nodes }) => [id, nodes.map(({ html, failureSummary }) => html + failureSummary)])]));
"""


def test_meets_wcag_aa_in_light_and_dark(browser: Browser, root: Path, axe: str) -> None:
    browser.script(axe)
    for view in show_everything(browser, root):
        for scheme in ("light", "dark"):
            browser.set_scheme(scheme)
            # Of our own: axe leaves out what it cannot judge, such as text on a picture.
            count, poor = browser.script(CONTRASTS)
            assert count > 15
            assert poor == [], (view, scheme)
            num_passed, violations = browser.driver.execute_async_script(AXE)
            assert num_passed > 20
            assert violations == [], (view, scheme)
    browser.set_scheme("light")


def test_the_checker_of_wcag_finds_faults(browser: Browser, axe: str) -> None:
    browser.script(axe)
    browser.script(
        """document.querySelector('#view-recognise h1').style.color = '#aaa';
        document.querySelector('#claimed').hidden = false;
        document.querySelector('label[for=claimed-name]').remove();"""
    )
    _, violations = browser.driver.execute_async_script(AXE)
    assert {"color-contrast", "label"} <= {rule for rule, _ in violations}


BEYOND = """
return [...document.querySelectorAll('main *, header *, footer *')]
  .filter((e) => e.checkVisibility() && !e.closest('.unseen, .lane, .axis, .scroller'))
  .filter((e) => e.getBoundingClientRect().right > arguments[0] + 1)
  .map((e) => e.outerHTML.slice(0, 80));
"""

NARROW = """
const names = '.who, .person-name h2, .verdict h2 span, button span, .voice-name, .speaking';
return [...document.querySelectorAll(`${names}, .turn-name`)]
  .filter((e) => e.checkVisibility() && e.textContent.length > 4)
  .filter((e) => e.getBoundingClientRect().width < 3 * parseFloat(getComputedStyle(e).fontSize))
  .map((e) => e.outerHTML.slice(0, 80));
"""


@pytest.mark.parametrize(("width", "letters", "language"), [(360, 16, "en"), (390, 32, "zh")])
def test_fits_a_phone(
    browser: Browser, root: Path, width: int, letters: int, language: str
) -> None:
    browser.set_size(width, 740)
    browser.command("Page.setFontSizes", fontSizes={"standard": letters, "fixed": letters})
    if language == "zh":
        browser.click("#language")
    try:
        for view in show_everything(browser, root, language):
            for spacing in ("normal", "0.12em"):  # as much as the widest font
                browser.script("document.body.style.letterSpacing = arguments[0]", spacing)
                assert browser.script(BEYOND, width) == [], (view, spacing)
                across = browser.script("return document.documentElement.scrollWidth")
                assert across == width, (view, spacing)
                # A few letters a line are no names.
                assert browser.script(NARROW) == [], (view, spacing)
            small = browser.script(
                """return [...document.querySelectorAll('main button')]
                  .filter((e) => e.checkVisibility() && e.getBoundingClientRect().height < 44)
                  .map((e) => e.textContent)"""
            )
            assert small == [], view
    finally:
        if language == "zh":
            browser.click("#language")
            browser.script("localStorage.clear()")
        browser.command("Page.setFontSizes", fontSizes={"standard": 16, "fixed": 13})
        browser.set_size(1100, 900)


def test_buttons_of_the_pages_stay_whole_on_a_phone(browser: Browser) -> None:
    browser.set_size(390, 740)
    browser.click("#language")
    try:
        answer(browser, many_speakers(total=12345))
        browser.go("speakers")
        browser.wait_text("#page-range", "第 1 到 20 个，共 12345 个")
        for selector in ("#previous-page", "#next-page"):
            button = browser.one(selector)
            assert button.size["width"] > 1.2 * button.size["height"], "its words are in one line"
    finally:
        browser.click("#language")
        browser.script("localStorage.clear()")
        browser.set_size(1100, 900)


def many_speakers(total: int) -> str:
    """The service's answer with a first page of many speakers."""
    return f"""Promise.resolve(Response.json({{ total: {total}, speakers: Array.from(
        {{ length: 20 }},
        (_, i) => ({{ name: `Speaker ${{i}}`, recordings: [], created_at: '2026-01-01' }})) }}))"""
