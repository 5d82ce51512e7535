"""serve.py with the fake encoder: a real service that starts in a second. Run as a script.

FAKE_DELAY_S in the environment is how long each encoding takes besides. While there is a file
`closed` in the current folder, no encoding ends.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import utils.model.encoder  # noqa: E402
import utils.model.header  # noqa: E402
from tests.support.fake_encoder import FakeEncoder  # noqa: E402


class FakeHeader:
    """What is read of a model file before it is loaded."""

    def with_score_norm(self, score_norm: str) -> "FakeHeader":
        return self


class SlowEncoder(FakeEncoder):
    """A fake encoder that takes its time."""

    def __init__(self, header: FakeHeader, num_threads: int | None = None) -> None:
        super().__init__()

    def embed_waveform(self, recording: Any, source: str = "recording") -> Any:
        time.sleep(float(os.environ.get("FAKE_DELAY_S", "0")))
        while Path("closed").exists():
            time.sleep(0.01)
        return super().embed_waveform(recording, source)


if __name__ == "__main__":
    utils.model.encoder.SpeakerEncoder = SlowEncoder  # type: ignore
    utils.model.header.read_header = FakeHeader  # type: ignore
    utils.model.header.read_header = lambda path: FakeHeader()  # type: ignore
    import serve
    from utils.errors import run_script

    sys.argv += ["--model_path", "fake"]
    run_script(serve.main)
