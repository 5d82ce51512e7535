"""The page's view of events: what happened to the voices, and by whose token."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import Browser, Service, missing
from tests.support.page import answer, problem, wav_bytes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


@pytest.fixture
def view(browser: Browser, service: Service, root: Path) -> Iterator[Browser]:
    sent = [("file", wav_bytes(root / "audio" / "a_1.wav"))]
    service.post("v1/speakers", data={"name": "Erna"}, files=sent)
    # Every 10 s is too slow for a test.
    browser.script(
        """const real = window.setInterval;
        window.setInterval = (work, pause) => real(work, pause / 50);"""
    )
    browser.go("events")
    yield browser
    browser.open()  # no more questions


def test_events_are_followed(view: Browser, service: Service) -> None:
    view.wait(lambda: view.text("#event-list li:first-child").startswith("Erna was"), "enrolment")
    count = len(view.shown("#event-list li"))
    view.script("await (await import('/static/api.js')).rename('Erna', 'Berta')")
    view.wait_text("#event-list li:first-child", "Erna was renamed.")
    assert "to Berta" in view.text("#event-list li:first-child")
    assert "token local" in view.text("#event-list li:first-child")
    view.script("await (await import('/static/api.js')).remove('Berta')")
    view.wait_text("#event-list li:first-child", "Berta was deleted.")
    assert len(view.shown("#event-list li")) == count + 2
    view.click("#language")
    assert "Berta已删除。" in view.text("#event-list li:first-child")
    view.click("#language")
    view.script("localStorage.clear()")


def test_only_the_newest_are_shown_and_unknown_actions_too(view: Browser) -> None:
    many = """Promise.resolve(Response.json({ next: 9e9, events: Array.from({ length: 300 },
        (_, i) => ({ at: '2026-12-01T13:00:00Z', actor: 'door', action: 'new thing',
                     speaker: `Speaker ${i}`, outcome: '' })) }))"""
    answer(view, many)
    view.wait_text("#event-list li:first-child", "new thing: Speaker 299")
    assert len(view.all("#event-list li")) == 200


def test_a_token_that_may_not_read_is_told_once(view: Browser) -> None:
    answer(view, problem("missing-scope", 403, 1))
    view.wait_text("#events-error", "Your token does not allow this.")
    view.script("window.asked = 0; window.fetch = () => { asked += 1; }")
    # A second would have brought five more questions.
    view.script("await new Promise((resolve) => setTimeout(resolve, 1000))")
    assert view.script("return asked") == 0
