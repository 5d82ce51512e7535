"""One browser and one service for each file of the web page's tests."""

from collections.abc import Iterator

import pytest

from tests.support.browser import Browser, Service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The real service with the shipped model."""
    with Service(tmp_path_factory.mktemp("service"), "--keep_audio") as running:
        yield running


@pytest.fixture(scope="module")
def one_browser(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The browser, for fixtures of the module."""
    browser = Browser(tmp_path_factory.mktemp("browser"), service.url)
    yield browser
    browser.close()


@pytest.fixture
def browser(one_browser: Browser) -> Iterator[Browser]:
    """The browser; the page may complain of nothing and ask nobody but the service."""
    one_browser.open()
    yield one_browser
    assert one_browser.complaints() == []
    assert one_browser.hosts() == {"127.0.0.1"}
