"""The page's view "Who is speaking now?": the microphone as a stream, and the name that follows."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.browser import Browser, Service, missing
from tests.support.page import FAKE_SOCKET, wav_bytes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

NAME, ERROR = "#live-name", "#live-error"
ERIC = "Eric"


@pytest.fixture(scope="module", autouse=True)
def eric(service: Service, root: Path) -> None:
    """One of the three voices of `audio/conversation.wav` is enrolled."""
    sent = [("file", wav_bytes(root / "audio" / f"a_{number}.wav")) for number in (1, 2)]
    service.post("v1/speakers", data={"name": ERIC}, files=sent)


@pytest.fixture(scope="module")
def conversation(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seconds 0 to 13 of the conversation: Eric's turns, then another voice's."""
    samples, rate = soundfile.read(root / "audio" / "conversation.wav", dtype="float32")
    path = tmp_path_factory.mktemp("live") / "conversation.wav"
    soundfile.write(path, samples[: 13 * rate], rate, subtype="PCM_16")
    return path


def test_the_name_follows_who_is_speaking(
    browser: Browser, service: Service, conversation: Path
) -> None:
    browser.script(
        """window.streams = [];
        const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = async (wanted) => {
          const stream = await open(wanted);
          streams.push(stream);
          return stream;
        };"""
    )
    browser.hear(conversation)
    browser.go("live")
    browser.click("#live-start")
    browser.wait_text(NAME, ERIC)
    browser.wait_text("#live-detail", "Score 0.")
    assert browser.shown("#live-card.speaks.voice-0")
    browser.wait_text(NAME, "Speaker 1")
    assert browser.text("#live-detail") == "Not enrolled."
    assert [row.text for row in browser.shown("#live-timeline .row-name")] == [ERIC, "Speaker 1"]
    # An unknown voice is enrolled while it is heard, and from then on has its name.
    browser.click("#live-voices .voice:nth-child(2) button")
    browser.fill("#voice-name", ERIC)
    browser.click("#name-form [type=submit]")
    browser.wait_text("#name-exists", f"{ERIC} is already enrolled")
    browser.fill("#voice-name", "Livia")
    browser.click("#name-form [type=submit]")
    browser.wait(lambda: not browser.shown("#name-dialog"), "the voice is enrolled")
    assert "Livia" in browser.text("#live-voices")
    assert service.get("v1/speakers", params={"query": "Livia"}).json()["total"] == 1
    browser.wait_text(NAME, "Livia")
    browser.click("#live-stop")
    browser.wait_text(NAME, "Stopped")
    assert browser.text(ERROR) == ""
    assert browser.script("return streams.map((s) => s.active)") == [False]
    # The whole is left to be looked at.
    assert len(browser.shown("#live-timeline .turns rect")) >= 2
    assert not browser.shown("#live-voices button")


def test_a_missing_microphone_is_told_and_no_stream_opened(browser: Browser) -> None:
    browser.script(FAKE_SOCKET)
    browser.script(
        "navigator.mediaDevices.getUserMedia ="
        " () => Promise.reject(new DOMException('', 'NotFoundError'))"
    )
    browser.go("live")
    browser.click("#live-start")
    browser.wait_text(ERROR, "No microphone was found.")
    assert browser.script("return sockets.length") == 0
    assert browser.shown("#live-start")


CLOSES = [
    (4503, "busy: 4 streams are open", "The service is too busy."),
    (4403, "missing-scope: identify", "Your token does not allow this."),
    (1012, "", "The service is stopping."),
    (1006, "", "The service does not answer."),
]


def test_a_stream_that_is_closed_says_why(browser: Browser, conversation: Path) -> None:
    browser.script(FAKE_SOCKET)
    browser.hear(conversation)
    browser.go("live")
    for code, reason, words in CLOSES:
        start(browser)
        browser.script("sockets.at(-1).end(...arguments)", code, reason)
        browser.wait_text(ERROR, words)
        browser.wait(lambda: browser.shown("#live-start"), "it can be started again")
    # What the service says before it closes counts most.
    start(browser)
    browser.script(
        """const problem = { type: '/problems/too-long', status: 413, detail: 'x' };
        sockets.at(-1).say({ event: 'error', ...problem });
        sockets.at(-1).end(4413, '');"""
    )
    browser.wait_text(ERROR, "The recording is too long.")
    start(browser)
    browser.script("sockets.at(-1).bufferedAmount = 1e6")
    browser.wait_text(ERROR, "The network is too slow")


def start(browser: Browser) -> None:
    """Starts, and waits until samples are sent."""
    before = browser.script("return sockets.length")
    browser.click("#live-start")
    browser.wait(
        lambda: browser.script(f"return sockets[{before}]?.sent.length > 1"), "samples are sent"
    )


def test_leaving_the_view_stops_listening(browser: Browser, conversation: Path) -> None:
    browser.script(FAKE_SOCKET)
    browser.hear(conversation)
    browser.go("live")
    start(browser)
    first = browser.script("return JSON.parse(sockets[0].sent[0])")
    assert first == {"sample_rate": 16000}
    browser.go("compare")
    browser.wait(
        lambda: browser.script("return sockets[0].sent.at(-1)") == '{"end":true}', "it is ended"
    )
    browser.go("live")
    assert browser.text(NAME) == "Stopped"


def test_corrections_and_names_change_what_was_heard(browser: Browser) -> None:
    drawn, speakers = browser.script(
        """const { Talk } = await import('/static/talk.js');
        const talk = new Talk();
        const hear = (event, turn, start_s, end_s, name, number) =>
          talk.take({ event, turn, start_s, end_s, name, number, score: 0.5 });
        hear('speech-start', 1, 0);
        hear('speaker', 1, 0, 1, null, 1);
        talk.advance(3);
        hear('speech-end', 1, 0, 2.5, null, 1);
        hear('speech-start', 2, 3);
        hear('speaker', 2, 3, 4, null, 2);
        hear('speaker-corrected', 2, 3, 5, 'Ann', null);
        hear('speech-end', 2, 3, 6, 'Ann', null);
        hear('speech-start', 3, 7);
        hear('speech-end', 3, 7, 7.2, null, null);
        talk.take({ event: 'enrolled', number: 1, name: 'Ann' });
        const nameOf = (turn) => talk.nameOf(turn.speaker)();
        const drawn = talk.drawn.map((turn) => [turn.start_s, turn.end_s, nameOf(turn)]);
        return [drawn, [...talk.speakers.values()].map((each) => [each.name, each.number])];"""
    )
    assert drawn == [[0, 2.5, "Ann"], [3, 6, "Ann"]]
    assert speakers == [["Ann", None]], "who turned out to be somebody else is gone"


def test_samples_are_resampled_without_aliases(browser: Browser) -> None:
    for rate in (48000, 44100, 96000, 16000, 8000):
        (low, high), pieces = browser.script(
            """const { Resampler } = await import('/static/resampler.js');
            const [rate] = arguments;
            const at = (hertz) => (_, n) => Math.sin(2 * Math.PI * hertz * n / rate);
            const tone = (hertz) => Float32Array.from({ length: rate }, at(hertz));
            const make = (hertz) => [...new Resampler(rate, 16000).push(tone(hertz))];
            const [cut, samples] = [new Resampler(rate, 16000), tone(1000)];
            const pieces = [];
            for (let from = 0; from < rate; from += 1024) {
              pieces.push(...cut.push(samples.subarray(from, from + 1024)));
            }
            return [[make(1000), make(12000)], pieces];""",
            rate,
        )
        assert 15900 < len(low) <= 16000, rate
        assert pieces == low, rate
        inner = np.arange(200, len(low) - 200)
        wanted = np.sin(2 * np.pi * 1000 * inner / 16000)
        assert np.abs(np.array(low)[inner] - wanted).max() < 2e-3, rate
        if rate > 24000:  # else the second tone isn't there to begin with
            assert np.sqrt(np.mean(np.array(high)[inner] ** 2)) < 1e-3, rate
