"""What the tests of the web page have in common: its parts, and how its user handles them."""

from pathlib import Path

from tests.support.browser import Browser

RECOGNISE = "#recognise-capture .capture"
SLOT = "#enrol-slots > li:nth-child({}) .capture"
COMPARE = "#compare-pair > :nth-child({})"
TAB, ENTER, ESCAPE = "\ue004", "\ue007", "\ue00c"

FAKE_SOCKET = """
window.sockets = [];
window.WebSocket = class extends EventTarget {
  static OPEN = 1;
  constructor() {
    super();
    Object.assign(this, { readyState: 1, bufferedAmount: 0, sent: [] });
    sockets.push(this);
    setTimeout(() => this.dispatchEvent(new Event('open')));
  }
  send(data) {
    this.sent.push(data);
    if (this.sent.length === 1) this.say({ event: 'ready' });
    if (data === '{"end":true}') this.say({ event: 'end', heard_s: 1 });
  }
  say(event) { this.dispatchEvent(new MessageEvent('message', { data: JSON.stringify(event) })); }
  close() {}
  end(code, reason) { this.dispatchEvent(new CloseEvent('close', { code, reason })); }
};
"""
"""In place of the browser's WebSocket: a service that says what a test wants it to."""


def choose(browser: Browser, card: str, path: Path) -> None:
    """Chooses a file in a card, as the dialog of the browser would."""
    browser.one(f"{card} [data-part=file]").send_keys(str(path))


def choose_slots(browser: Browser, *paths: Path) -> None:
    """Chooses the recordings of an enrolment, and waits until all are checked."""
    for number, path in enumerate(paths, 1):
        choose(browser, SLOT.format(number), path)
        browser.wait_text(f"{SLOT.format(number)} .quality", "Speech")
    browser.wait(
        lambda: "being checked" not in browser.text("#enrol-hint"), "the recordings are checked"
    )


def wav_bytes(path: Path) -> tuple[str, bytes, str]:
    """A file of a form, as the client takes it."""
    return (path.name, path.read_bytes(), "audio/wav")


def answer(browser: Browser, *answers: str) -> None:
    """Lets the next requests get these answers, and those after them the service's."""
    browser.script(
        f"""const answers = [{", ".join(f"() => {text}" for text in answers)}];
        const real = window.fetch;
        window.fetch = (...request) => answers.length ? answers.shift()() : real(...request);"""
    )


def problem(code: str, status: int, retry_after: int) -> str:
    """The answer of a service that refuses something."""
    return (
        f"Promise.resolve(Response.json({{ type: '/problems/{code}', detail: 'its own words' }}, {{"
        f" status: {status}, headers: {{ 'Retry-After': '{retry_after}' }} }}))"
    )
