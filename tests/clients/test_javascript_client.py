"""clients/javascript/voiceprint_client.js against the running service, in Node and in a browser."""

import base64
import functools
import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.routes import called_routes, documented_routes
from tests.support.browser import Browser, missing
from tests.support.service_client import TOKEN, speech
from tests.support.service_process import ROOT, service_process

NODE = shutil.which("node")
MODULE = "/tests/clients/scenario.mjs"
OPTIONS = ("--database", "sqlite:///v.sqlite3", "--keep_audio", "--rate_limit", "0")
SPEECH = [speech(1), speech(1, 1), speech(1, 2), speech(2)]

NODE_MAIN = """
const {{ runScenario, runFailures }} = await import({module});
const speech = {speech}.map((text) => Buffer.from(text, 'base64'));
await runFailures();
await runScenario({url}, {token}, speech);
"""

PAGE_MAIN = """
const done = arguments[arguments.length - 1];
const decode = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
import({module})
  .then(async (scenario) => {{
    await scenario.runFailures();
    await scenario.runScenario({url}, {token}, {speech}.map(decode));
  }})
  .then(() => done('passed'), (error) => done(String(error.stack)));
"""


def fill(script: str, module: str, url: str) -> str:
    """Puts address, token and recordings into a script."""
    recordings = [base64.b64encode(content).decode() for content in SPEECH]
    values = {"module": module, "url": url, "token": TOKEN, "speech": recordings}
    return script.format(**{name: json.dumps(value) for name, value in values.items()})


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_the_client_in_node(tmp_path: Path) -> None:
    with service_process(tmp_path, *OPTIONS, VOICEPRINT_TOKEN=TOKEN) as service:
        result = subprocess.run(
            [str(NODE), "--input-type=module", "-"],
            input=fill(NODE_MAIN, f"{ROOT}{MODULE}", service.url),
            capture_output=True,
            encoding="utf-8",
            timeout=120,
        )
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""
        assert called_routes(service.url) >= documented_routes(service.url)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves the files of the repository."""

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def other_origin() -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(ROOT))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_the_client_in_a_page_of_another_origin(tmp_path: Path, other_origin: str) -> None:
    options = (*OPTIONS, "--cors_origin", other_origin)
    with service_process(tmp_path, *options, VOICEPRINT_TOKEN=TOKEN) as service:
        browser = Browser(tmp_path, other_origin)
        try:
            browser.driver.get(f"{other_origin}/clients/")
            browser.driver.set_script_timeout(60)
            script = fill(PAGE_MAIN, f"{other_origin}{MODULE}", service.url)
            assert browser.driver.execute_async_script(script) == "passed"
        finally:
            browser.close()
