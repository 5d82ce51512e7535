"""The service with the shipped model, for clients whose answers depend on real voices."""

from collections.abc import Iterator

import pytest

from tests.support.service_client import TOKEN
from tests.support.service_process import ROOT, ServiceProcess, service_process
from utils.model.header import DEFAULT_MODELS


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("service")
    options = ["--database", "sqlite:///v.sqlite3"]
    options += ["--model_path", str(ROOT / f"{DEFAULT_MODELS[0]}.onnx")]
    with service_process(folder, *options, script="serve.py", VOICEPRINT_TOKEN=TOKEN) as process:
        yield process
