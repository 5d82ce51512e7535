"""The programs of docs/deploy.md run as they stand there, and find the toolkit's own scores."""

import functools
import http.server
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.support.synthetic_voices import synthetic_speech, write_wav
from utils.audio.activity import remove_silence
from utils.audio.decode import load_audio
from utils.files import atomic_path
from utils.model.encoder import SpeakerEncoder

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
MODEL = ROOT / "models" / "campplus.onnx"
RECORDINGS = [ROOT / "audio" / "a_1.wav", ROOT / "audio" / "b_2.wav"]

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--no-proxy-server",
]  # fmt: skip


def block(language: str) -> str:
    """Returns the one program in a language."""
    (program,) = re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    return program


@pytest.fixture(scope="module")
def encoder() -> SpeakerEncoder:
    if not MODEL.is_file():
        pytest.skip(f"{MODEL.relative_to(ROOT)} is not there; python export.py --formats onnx")
    return SpeakerEncoder(MODEL)


@pytest.fixture(scope="module")
def expected_score(encoder: SpeakerEncoder) -> float:
    first, second = map(encoder.embed_file, RECORDINGS)
    return float(first @ second)


@pytest.fixture(scope="module")
def python_names(encoder: SpeakerEncoder) -> dict[str, Any]:
    """What the Python program defines."""
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        exec(block("python"), names)
    return names


# --- Python ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_python_program_runs_without_the_toolkit(
    encoder: SpeakerEncoder, expected_score: float, tmp_path: Path
) -> None:
    for folder, files in {"models": [MODEL], "audio": RECORDINGS}.items():
        (tmp_path / folder).mkdir()
        for file in files:
            shutil.copy(file, tmp_path / folder)
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", block("python")],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    printed = re.fullmatch(r"score (-?[\d.]+), same person: (True|False)\n", result.stdout)
    assert printed, result.stdout
    assert float(printed[1]) == pytest.approx(expected_score, abs=1e-3)
    assert printed[2] == str(expected_score >= encoder.threshold)


@pytest.mark.slow
@pytest.mark.parametrize("offset", [0.0, 0.02])
def test_python_program_cuts_silence_as_the_toolkit_does(
    python_names: dict[str, Any], offset: float
) -> None:
    waveforms = [load_audio(path) for path in RECORDINGS]
    silence = np.zeros(12345, np.float32)
    speech = synthetic_speech(0, 0, 1.337).astype(np.float32)
    waveforms.append(np.concatenate([silence, speech, silence, speech, silence]))
    for waveform in waveforms:
        waveform = waveform + np.float32(offset)
        kept = python_names["cut_silence"](waveform)
        np.testing.assert_array_equal(kept, remove_silence(waveform))
        assert len(kept) < len(waveform)


def test_python_program_refuses_what_the_toolkit_refuses(
    python_names: dict[str, Any], tmp_path: Path
) -> None:
    write_wav(tmp_path / "silent.wav", np.zeros(16000))
    soundfile.write(tmp_path / "cd.wav", np.zeros(44100), 44100)
    with pytest.raises(ValueError, match=r"silent\.wav: less than 0\.4 s of speech"):
        python_names["embed"](str(tmp_path / "silent.wav"))
    with pytest.raises(ValueError, match="44100 Hz, expected 16000"):
        python_names["embed"](str(tmp_path / "cd.wav"))


# --- Browser --------------------------------------------------------------------------------------


def test_threshold_of_the_page_is_the_models(encoder: SpeakerEncoder) -> None:
    (threshold,) = re.findall(r"const THRESHOLD = ([\d.]+);", block("html"))
    assert float(threshold) == pytest.approx(encoder.threshold, abs=1e-4)


def fetch_runtime(cache: Path) -> Path:
    """Returns a folder with the runtime that the document names; it is fetched into `cache`."""
    (package,) = re.findall(r"`npm pack (onnxruntime-web@[\d.]+)`", DOCUMENT)
    files = [name for name in re.findall(r"`(ort[\w.-]+)`", DOCUMENT) if "." in name]
    assert len(files) == 3
    folder = cache / package.replace("@", "-")
    if not all((folder / name).is_file() for name in files):
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("npm is not installed: it fetches onnxruntime-web for the page")
        with tempfile.TemporaryDirectory() as packed_folder:
            result = subprocess.run(
                [npm, "pack", "--silent", package],
                cwd=packed_folder,
                capture_output=True,
                encoding="utf-8",
                timeout=300,
            )
            if result.returncode:
                pytest.skip(f"npm could not fetch {package}: {result.stderr.strip()[-200:]}")
            (archive,) = Path(packed_folder).glob("*.tgz")
            folder.mkdir(parents=True, exist_ok=True)
            with tarfile.open(archive) as packed:
                for name in files:
                    member = packed.extractfile(f"package/dist/{name}")
                    assert member is not None
                    with atomic_path(folder / name) as path:
                        path.write_bytes(member.read())
    return folder


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    extensions_map = {  # noqa: RUF012
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is served."""
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def page(
    encoder: SpeakerEncoder,
    folder: Path,
    request: pytest.FixtureRequest,
    all_workers_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Any]:
    """The page of the document in Chromium, served as the document says."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver_path = shutil.which("chromedriver")
    if chromium is None or driver_path is None:
        pytest.skip("chromium and chromedriver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver")
    (folder / "index.html").write_text(block("html"), encoding="utf-8")
    cache = getattr(request.config, "cache", None)  # none with -p no:cacheprovider
    runtime = fetch_runtime(cache.mkdir("runtime") if cache else all_workers_folder)
    for file in [*runtime.iterdir(), MODEL, *RECORDINGS]:
        shutil.copy(file, folder)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(QuietHandler, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    driver = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(executable_path=driver_path)
    )
    try:
        driver.set_script_timeout(120)
        driver.get(f"http://127.0.0.1:{server.server_port}/index.html")
        yield driver
    finally:
        driver.quit()
        server.shutdown()
        server.server_close()


EMBED = """
const done = arguments[1];
fetch(arguments[0]).then(response => response.blob()).then(embed)
    .then(embedding => done(Array.from(embedding)), error => done(String(error)));
"""


@pytest.mark.slow
@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name)
def test_page_computes_the_embedding_of_the_toolkit(
    page: Any, encoder: SpeakerEncoder, path: Path
) -> None:
    embedding = page.execute_async_script(EMBED, path.name)
    assert isinstance(embedding, list), embedding
    assert float(np.array(embedding) @ encoder.embed_file(path)) >= 0.9999


def test_page_resamples_and_mixes_other_recordings(
    page: Any, folder: Path, encoder: SpeakerEncoder
) -> None:
    import soxr

    speech = soxr.resample(load_audio(RECORDINGS[0]), 16000, 44100)
    soundfile.write(folder / "stereo.flac", np.stack([speech, 0.5 * speech], axis=1), 44100)
    embedding = page.execute_async_script(EMBED, "stereo.flac")
    assert isinstance(embedding, list), embedding
    # The document says 0.99: the browser's resampler rolls off the highest frequencies.
    assert float(np.array(embedding) @ encoder.embed_file(folder / "stereo.flac")) >= 0.98


@pytest.mark.slow
def test_page_answers_for_two_chosen_files(
    page: Any, encoder: SpeakerEncoder, expected_score: float
) -> None:
    for name, path in zip(["first", "second"], RECORDINGS, strict=True):
        page.find_element("id", name).send_keys(str(path))
    answer = wait_for_answer(page)
    printed = re.fullmatch(r"score (-?[\d.]+), same person: (true|false)", answer)
    assert printed, answer
    assert float(printed[1]) == pytest.approx(expected_score, abs=1e-3)
    assert printed[2] == json.dumps(expected_score >= encoder.threshold)


@pytest.mark.slow
def test_page_says_what_is_wrong_with_a_file(page: Any, tmp_path: Path) -> None:
    page.refresh()
    silent = write_wav(tmp_path / "silent.wav", np.zeros(16000))
    for name, path in {"first": silent, "second": RECORDINGS[0]}.items():
        page.find_element("id", name).send_keys(str(path))
    assert wait_for_answer(page) == "less than 0.4 s of speech"


def wait_for_answer(page: Any) -> str:
    from selenium.webdriver.support.ui import WebDriverWait

    def answer(driver: Any) -> str:
        return driver.find_element("id", "answer").text.strip(".")

    return str(WebDriverWait(page, 120).until(answer))
