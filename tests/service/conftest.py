"""One browser and one service for all tests of the web page that a process runs."""

from collections.abc import Iterator

import httpx
import pytest

from tests.support.browser import Browser, Service


@pytest.fixture(scope="session", autouse=True)
def quick_databases(ready_databases: None) -> None:
    """New databases are copies."""


@pytest.fixture(scope="session")
def one_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The real service with the shipped model."""
    options = ["--keep_audio", "--enrolment_speech_s", "4"]  # two of our recordings
    with Service(tmp_path_factory.mktemp("service"), *options) as running:
        yield running


@pytest.fixture(scope="module")
def service(one_service: Service) -> Service:
    """The service, without what the tests of another file left there."""
    for speaker in one_service.get("v1/speakers", params={"limit": 500}).json()["speakers"]:
        path = httpx.URL(f"{one_service.url}/v1/speakers/").join(httpx.URL(path=speaker["name"]))
        httpx.delete(path).raise_for_status()
    return one_service


@pytest.fixture(scope="session")
def one_browser(
    one_service: Service, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Browser]:
    """The browser, for fixtures of a whole file."""
    browser = Browser(tmp_path_factory.mktemp("browser"), one_service.url)
    yield browser
    browser.close()


@pytest.fixture
def browser(service: Service, one_browser: Browser) -> Iterator[Browser]:
    """The browser; the page may complain of nothing and ask nobody but the service."""
    one_browser.open()
    yield one_browser
    assert one_browser.complaints() == []
    assert one_browser.hosts() == {"127.0.0.1"}
