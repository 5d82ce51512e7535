"""A real browser for the page: headless Chromium whose microphone plays a file.

Needs Chromium and its driver (Debian: `apt-get install chromium chromium-driver`) and selenium.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

WAIT_S = 20.0
"""How long to wait for the page, on a busy machine too."""

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    # Nothing of the browser's own goes out.
    "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-default-apps", "--no-proxy-server",
    "--mute-audio", "--use-fake-device-for-media-stream",
)  # fmt: skip

MICROPHONES = {
    "granted": ("--use-fake-ui-for-media-stream",),
    "refused": ("--deny-permission-prompts",),
}


def missing() -> str | None:
    """Returns what this machine lacks for a browser, or None."""
    if CHROMIUM is None or DRIVER is None:
        return "chromium and chromedriver are not installed"
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed"
    return None


class Service:
    """The real service with the shipped model, on a free port, with an empty database.

    Use as a context manager; `url` has no slash at its end.
    """

    script = ROOT / "serve.py"

    def __init__(self, folder: Path, *options: str, token: str | None = None) -> None:
        """Prepares a service whose database and log are in `folder`."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder / "service.log"
        self._command = [
            sys.executable, str(self.script), "--port", str(port), "--rate_limit", "0",
            "--database", f"sqlite:///{folder / 'voiceprints.sqlite3'}", *options,
        ]  # fmt: skip
        self._environment = {k: v for k, v in os.environ.items() if k != "VOICEPRINT_TOKEN"}
        self._environment["OMP_NUM_THREADS"] = "1"
        if token is not None:
            self._environment["VOICEPRINT_TOKEN"] = token

    def __enter__(self) -> "Service":
        """Starts it, and waits until it is ready."""
        import httpx

        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                if httpx.get(f"{self.url}/health/ready").is_success:
                    return self
            except httpx.TransportError:
                pass
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise AssertionError(f"the service doesn't start:\n{self._log.read_text()}")
            time.sleep(0.1)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops it."""
        self._process.terminate()
        self._process.wait(30)

    def get(self, path: str, **options: Any) -> Any:
        """Asks the service directly."""
        import httpx

        return httpx.get(f"{self.url}/{path}", timeout=30, **options).raise_for_status()

    def post(self, path: str, **options: Any) -> Any:
        """Sends a form to the service directly."""
        import httpx

        return httpx.post(f"{self.url}/{path}", timeout=30, **options).raise_for_status()


class Browser:
    """A browser with one page of the service.

    The file that the microphone plays can be changed from recording to recording: the browser opens
    it anew, and plays it in a loop.
    """

    def __init__(
        self,
        folder: Path,
        base_url: str,
        *,
        language: str = "en-GB",
        microphone: str = "granted",
        width: int = 1100,
        height: int = 900,
    ) -> None:
        """Starts a browser with an empty profile in `folder`."""
        from selenium import webdriver

        self.base_url = base_url
        self.microphone_file = folder / "microphone.wav"
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in (*FLAGS, *MICROPHONES[microphone]):
            options.add_argument(flag)
        options.add_argument(f"--use-file-for-fake-audio-capture={self.microphone_file}")
        options.add_argument(f"--user-data-dir={folder / 'profile'}")
        options.add_argument(f"--window-size={width},{height}")
        options.add_argument(f"--lang={language}")
        options.add_experimental_option("prefs", {"intl.accept_languages": language})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = webdriver.ChromeService(executable_path=DRIVER)
        self.driver = webdriver.Chrome(options=options, service=service)
        self.set_size(width, height)
        self.set_scheme("light")
        self.driver.get("about:blank")
        self.hosts()  # those of the browser's own first page

    def command(self, name: str, **parameters: Any) -> Any:
        """Sends a command of the Chrome DevTools Protocol."""
        return self.driver.execute_cdp_cmd(name, parameters)

    def set_size(self, width: int, height: int) -> None:
        """Gives the page a size in CSS pixels; up to 600 wide, it is a phone's."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width <= 600,
        )  # fmt: skip

    def set_scheme(self, scheme: str) -> None:
        """Prefers "light" or "dark" colours; never wants motion."""
        wanted = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in wanted.items()]
        self.command("Emulation.setEmulatedMedia", features=features)

    def close(self) -> None:
        """Ends the browser."""
        self.driver.quit()

    def open(self, view: str = "") -> None:
        """Loads the page, at a view such as "enrol"."""
        self.driver.get("about:blank")
        self.driver.get(f"{self.base_url}/#{view}")
        self.wait(lambda: self.all(".view:not([hidden])"), "the page is there")

    def go(self, view: str) -> None:
        """Follows the link to a view."""
        self.click(f"nav a[href='#{view}']")
        self.wait(lambda: self.one(f"#view-{view}").is_displayed(), f"the view {view} is there")

    def one(self, selector: str) -> Any:
        """Returns the element of a CSS selector."""
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        """Returns the elements of a CSS selector."""
        return self.driver.find_elements("css selector", selector)

    def shown(self, selector: str) -> list[Any]:
        """Returns the visible elements of a CSS selector."""
        return [element for element in self.all(selector) if element.is_displayed()]

    def text(self, selector: str) -> str:
        """Returns the visible text of all elements of a CSS selector."""
        return "\n".join(element.text for element in self.shown(selector))

    def click(self, selector: str) -> None:
        """Clicks on the first visible element of a CSS selector, once there is one."""
        element = self.wait(lambda: self.shown(selector), f"{selector} can be seen")[0]
        self.script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def fill(self, selector: str, text: str) -> None:
        """Types a text into an empty field."""
        element = self.one(selector)
        element.clear()
        element.send_keys(text)

    def script(self, source: str, *arguments: Any) -> Any:
        """Runs JavaScript, by the way that a page's security policy doesn't concern."""
        return self.driver.execute_script(source, *arguments)

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """Waits until a condition is true, and returns its value."""
        from selenium.common.exceptions import (
            NoSuchElementException,
            StaleElementReferenceException,
            TimeoutException,
        )
        from selenium.webdriver.support.ui import WebDriverWait

        gone = (NoSuchElementException, StaleElementReferenceException)
        waiting = WebDriverWait(self.driver, WAIT_S, 0.05, ignored_exceptions=gone)
        try:
            return waiting.until(lambda _: condition())
        except TimeoutException:
            page = self.one("body").text
            raise AssertionError(f"waited {WAIT_S:.0f} s until {what}; the page:\n{page}") from None

    def wait_text(self, selector: str, text: str) -> None:
        """Waits until a text is in what a CSS selector shows."""
        self.wait(lambda: text in self.text(selector), f"{text!r} is in {selector}")

    def hear(self, path: Path) -> None:
        """Lets the microphone play a file from now on."""
        shutil.copyfile(path, self.microphone_file)

    def record(self, card: str, path: Path, seconds: float | None = None) -> None:
        """Records a file into a card; pressed Done after `seconds`, or until it ends by itself."""
        self.hear(path)
        self.click(f"{card} [data-part=record]")
        self.wait(lambda: self.shown(f"{card} [data-part=done]"), "it records")
        if seconds is not None:
            longest = float(self.left(card))
            self.wait(
                lambda: not self.left(card) or float(self.left(card)) <= longest - seconds,
                f"{seconds} s are recorded",
            )
            # On a busy machine it may have ended by itself.
            for button in self.shown(f"{card} [data-part=done]"):
                button.click()
        self.wait(lambda: self.shown(f"{card} [data-part=play]"), "the recording is there")

    def left(self, card: str) -> str:
        """Returns the seconds that a recording has left, or an empty text."""
        words = self.text(f"{card}[data-state=recording] [data-part=seconds]").split()
        return next((word for word in words if word[0].isdigit()), "")

    def press(self, *keys: str) -> None:
        """Presses keys, wherever the focus is."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def complaints(self) -> list[str]:
        """Returns what the console got since the last call: errors, warnings, refused content."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] in ("SEVERE", "WARNING")
        ]

    def hosts(self) -> set[str]:
        """Returns the hosts that the page asked anything of since the last call.

        Its own files in memory (`blob:`) are no host's.
        """
        hosts = set()
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated"):
                parameters = message["params"]
                url = parameters.get("url") or parameters["request"]["url"]
                hosts.add(urlsplit(url).hostname or urlsplit(url).scheme)
        return hosts - {"about", "blob"}
