"""Takes the pictures of the web page in docs/web_page.md: the real service in a real Chromium.

    python tools/take_screenshots.py

Plays voices from audio/ and audio_db/ into the browser's microphone. Has the requirements of the
page's tests (tests/support/browser.py), and needs a Chinese font (Debian: fonts-noto-cjk).
"""

import argparse
import functools
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.browser import ROOT, Browser, Service, missing
from utils.arguments import make_parser
from utils.errors import VoiceprintError, run_script
from utils.files import atomic_path

DESKTOP = (760, 480)
PHONE = (360, 640)
"""Width and least height in CSS pixels."""

SCALE = 1.5
"""Pixels of the picture per CSS pixel, for sharp pictures on current screens."""

NUM_COLOURS = 256
"""One byte per pixel; the page has few colours, so nothing is lost."""

LISTEN_S = 1.5
"""Seconds of a voice after its name was found, so that the timeline shows more than a beginning."""

GAP = 24
"""Pixels between phones in one picture."""

LANGUAGES = {"en": "en-GB", "zh": "zh-CN"}
NAMES = {"en": ("Eric", "Xiaoyi"), "zh": ("李伟", "陈怡")}

CARD = "#recognise-capture .capture"
SLOT = "#enrol-slots > li:nth-child({}) .capture"


class Camera:
    """Takes full-height pictures of a browser's page."""

    def __init__(self, browser: Browser) -> None:
        """Takes the browser."""
        self.browser = browser
        self.size = DESKTOP

    def hold(self, size: tuple[int, int]) -> None:
        """Sets the page's width to that of a desktop window or a phone."""
        self.size = size
        self._set(size[1])

    def _set(self, height: int) -> None:
        width = self.size[0]
        self.browser.command(
            # As on a phone, scroll bars take no space.
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=SCALE, mobile=True,
        )  # fmt: skip

    def shoot(self) -> Any:
        """Returns a picture of the page from top to bottom, without the focus."""
        from PIL import Image

        self.browser.script("document.activeElement.blur(); scrollTo(0, 0)")
        self._set(self.size[1])
        self._set(self.browser.script("return document.documentElement.scrollHeight"))
        picture = Image.open(BytesIO(self.browser.driver.get_screenshot_as_png())).convert("RGB")
        self._set(self.size[1])
        return picture


def take_all(browser: Browser, language: str) -> Iterator[tuple[str, Any]]:
    """Walks through the page and yields the name and picture of each step."""
    camera = Camera(browser)
    audio = ROOT / "audio"
    first, second = NAMES[language]

    camera.hold(PHONE)
    browser.open("enrol")
    browser.fill("#enrol-name", first)
    browser.hear(audio / "a_1.wav")
    browser.click(f"{SLOT.format(1)} [data-part=record]")
    browser.wait(lambda: browser.left(SLOT.format(1)).startswith("4."), "it has recorded 3 s")
    phone_recording = camera.shoot()

    camera.hold(DESKTOP)
    browser.open("enrol")
    enrol(browser, first, [audio / "a_1.wav", audio / "a_2.wav", audio / "a_1.wav"])
    browser.click("#enrol-submit")
    browser.wait(lambda: browser.shown("#enrol-result .scale"), "the first is enrolled")
    browser.click("#enrol-result button")
    enrol(browser, second, [audio / "b_1.wav", audio / "b_2.wav", audio / "b_1.wav"])
    yield "enrol", camera.shoot()
    browser.click("#enrol-submit")
    browser.wait(lambda: browser.shown("#enrol-result .scale"), "the second is enrolled")

    browser.go("recognise")
    browser.record(CARD, audio / "b_1.wav", seconds=4.5)
    browser.wait(lambda: browser.shown("#recognise-result .match"), "the voice is recognised")
    yield "recognised", camera.shoot()
    browser.set_scheme("dark")
    yield "dark", camera.shoot()
    browser.set_scheme("light")
    camera.hold(PHONE)
    phone_match = camera.shoot()

    browser.record(CARD, ROOT / "audio_db" / "沙瑞金.wav", seconds=4)
    browser.wait(lambda: browser.shown("#recognise-result .refused"), "the stranger is refused")
    phone_refused = camera.shoot()
    yield "phone", side_by_side([phone_recording, phone_match, phone_refused])
    camera.hold(DESKTOP)
    yield "refused", camera.shoot()

    browser.open("recognise")
    browser.click("#question label:last-of-type")
    browser.fill("#claimed-name", second)
    browser.click("#challenge-choice")
    browser.click(f"{CARD} [data-part=record]")
    browser.wait(lambda: browser.shown("#challenge-digits"), "digits are asked for")
    browser.wait(lambda: browser.left(CARD).startswith("9."), "it has recorded 2 s")
    yield "challenge", camera.shoot()
    browser.click(f"{CARD} [data-part=cancel]")

    browser.go("speakers")
    browser.click("#people summary")
    yield "speakers", camera.shoot()

    browser.go("calibrate")
    for voice in "ab":
        chosen = "\n".join(str(audio / f"{voice}_{number}.wav") for number in (1, 2))
        browser.one("#calibrate-capture [data-part=file]").send_keys(chosen)
        browser.wait(lambda: browser.one("#calibrate-next").is_enabled(), "both are heard")
        browser.click("#calibrate-next")
    browser.click("#calibrate-submit")
    browser.wait(lambda: browser.shown("#calibrate-result .chart"), "thresholds are proposed")
    yield "calibrate", camera.shoot()

    conversation = audio / "conversation.wav"
    browser.go("conversation")
    browser.one("#conversation-file").send_keys(str(conversation))
    browser.wait(lambda: browser.shown("#conversation-result"), "the turns are found")
    yield "conversation", camera.shoot()
    camera.hold(PHONE)
    phone_conversation = camera.shoot()

    browser.hear(plain(conversation, browser.microphone_file.parent))
    browser.go("live")
    browser.click("#live-start")
    browser.wait(lambda: browser.shown("#live-voices .voice:nth-child(2)"), "two were heard")
    time.sleep(LISTEN_S)
    phone_live = camera.shoot()
    yield "phone_conversation", side_by_side([phone_conversation, phone_live])
    camera.hold(DESKTOP)
    yield "live", camera.shoot()
    browser.click("#live-stop")


def plain(path: Path, folder: Path) -> Path:
    """Returns a recording as 16-bit samples, which is all that the browser's microphone plays."""
    import soundfile

    samples, rate = soundfile.read(path, dtype="int16")
    soundfile.write(folder / "plain.wav", samples, rate, subtype="PCM_16")
    return folder / "plain.wav"


def enrol(browser: Browser, name: str, paths: list[Path]) -> None:
    """Fills in the enrolment page with recordings from the microphone."""
    browser.fill("#enrol-name", name)
    for i, path in enumerate(paths, 1):
        card = SLOT.format(i)
        browser.record(card, path, seconds=4.5)
        quality = f"{card} .quality"
        browser.wait(functools.partial(browser.shown, quality), "its quality is there")
    ready = "#enrol-submit[aria-disabled=false]"
    browser.wait(lambda: browser.shown(ready), "the voice can be enrolled")


def side_by_side(pictures: list[Any]) -> Any:
    """Returns one picture of several, as high as the highest."""
    from PIL import Image

    width = sum(picture.width for picture in pictures) + GAP * (len(pictures) - 1)
    height = max(picture.height for picture in pictures)
    joined = Image.new("RGB", (width, height), "#d5d9d3")
    left = 0
    for picture in pictures:
        joined.paste(picture, (left, 0))
        left += picture.width + GAP
    return joined


def save(picture: Any, path: Path) -> None:
    """Writes a picture with few colours, whole or not at all."""
    from PIL import Image

    # k-means iterations preserve rare colours, for example a red word's.
    few = picture.quantize(NUM_COLOURS, kmeans=3, dither=Image.Dither.NONE)
    with atomic_path(path) as temporary:
        few.save(temporary, optimize=True)
    print(f"{path}: {picture.width}x{picture.height}, {path.stat().st_size / 1000:.0f} kB")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Declares and reads the options."""
    parser = make_parser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/images"), help="folder")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Takes the pictures in both languages."""
    args = parse_args(argv)
    reason = missing()
    if reason is not None:
        raise VoiceprintError(reason)
    for language, tag in LANGUAGES.items():
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
            Service(Path(folder), "--keep_audio") as service,
            closing(Browser(Path(folder), service.url, language=tag)) as browser,
        ):
            for name, picture in take_all(browser, language):
                save(picture, args.output / f"web_{name}_{language}.png")
    return 0


if __name__ == "__main__":
    run_script(main)
