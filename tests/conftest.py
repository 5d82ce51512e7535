"""Fixtures that more than one test file uses."""

import os
import signal
from pathlib import Path

import hypothesis
import pytest
from voices import write_speech_folder

# Before TensorFlow is imported by any test: quiet, and on the CPU.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

# The same examples every time, and no failure because a machine is busy.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's folder."""
    return ROOT


@pytest.fixture(scope="session")
def speech_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 3 synthetic speakers with 4 wav files of 2 s each. Shared: only read it."""
    folder = tmp_path_factory.mktemp("speech")
    write_speech_folder(folder)
    return folder


def pytest_configure() -> None:
    """Lets Ctrl-C through to the programs under test: background jobs begin with it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
