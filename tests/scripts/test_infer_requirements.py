"""requirements-infer.txt alone is enough to compare, recognise and evaluate from files."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.support.synthetic_voices import synthetic_speech, write_wav

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python(
    tmp_path_factory: pytest.TempPathFactory, root: Path, request: pytest.FixtureRequest
) -> Path:
    """The interpreter of an environment with requirements-infer.txt and nothing else.

    CI makes a fresh one each time; elsewhere pytest's cache keeps it as long as the file and the
    Python stay the same.
    """
    requirements = root / "requirements-infer.txt"
    program = Path("Scripts" if os.name == "nt" else "bin") / "python"
    cache = getattr(request.config, "cache", None)
    kept: Path | None = None
    if cache is not None and "VOICEPRINT_CI" not in os.environ:
        version = sys.version.encode() + sys.executable.encode()
        key = hashlib.sha256(requirements.read_bytes() + version).hexdigest()[:16]
        kept = cache.mkdir("infer") / key
        if (kept / program).exists():
            return kept / program
    folder = tmp_path_factory.mktemp("infer") / "environment"
    venv.create(folder)
    # By this environment's pip, and compiled is only what is imported.
    command = [sys.executable, "-m", "pip", "--python", folder / program, "install", "-q"]
    command += ["--no-compile", "--disable-pip-version-check", "-r", requirements]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0 and "VOICEPRINT_CI" not in os.environ:
        pytest.skip(f"the packages can't be downloaded here: {result.stderr.strip()[-200:]}")
    assert result.returncode == 0, result.stderr
    if kept is not None and not kept.exists():
        # Beside its place first: another worker may do the same.
        beside = kept.with_name(f"{kept.name}-{os.getpid()}")
        shutil.move(folder, beside)
        with contextlib.suppress(OSError):
            beside.rename(kept)
        return kept / program
    return folder / program


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """A copy of what using a model takes."""
    folder = tmp_path_factory.mktemp("project")
    for script in ("infer_contrast.py", "infer_recognition.py", "eval.py", "embed.py"):
        shutil.copy(root / script, folder)
    for name in ("utils", "voices", "audio", "audio_db"):
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "models").mkdir()
    for name in ("resnet34.onnx", "silero_vad.onnx"):
        shutil.copy(root / "models" / name, folder / "models")
    return folder


def run(python: Path, project: Path, *arguments: str) -> str:
    result = subprocess.run(
        [python, *arguments],
        cwd=project,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONPATH": ""},
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout


def test_there_is_no_framework(python: Path, project: Path) -> None:
    code = "import importlib.util as u; print([n for n in NAMES if u.find_spec(n)])"
    names = ["tensorflow", "keras", "jax", "torch", "librosa", "pyaudio", "matplotlib"]
    assert run(python, project, "-c", code.replace("NAMES", repr(names))) == "[]\n"


def test_compares(python: Path, project: Path) -> None:
    shown = run(python, project, "infer_contrast.py")
    assert "model_path: models/resnet34.onnx\n" in shown
    assert "audio/a_1.wav 和 audio/b_2.wav 不是同一个人，相似度仅为：0.132" in shown
    (project / "pairs.txt").write_text("audio/a_1.wav audio/a_2.wav\n")
    assert "1 pairs, 0 of them left out" in run(
        python, project, "infer_contrast.py", "--trials", "pairs.txt"
    )


def test_enrols_and_recognises(python: Path, project: Path) -> None:
    script = "infer_recognition.py"
    assert "已注册夜雨飘零" in run(
        python, project, script, "--register", "夜雨飘零", "audio/b_1.wav"
    )
    assert "识别说话的为：夜雨飘零" in run(python, project, script, "--recognize", "audio/b_2.wav")
    assert "夜雨飘零（1段录音）" in run(python, project, script, "--list")


def test_evaluates(python: Path, project: Path) -> None:
    lines = []
    for number in range(4):
        path = write_wav(project / f"{number}.wav", synthetic_speech(number // 2, number, 3.0))
        lines.append(f"{path}\t{number // 2}\n")
    (project / "list.txt").write_text("".join(lines))
    assert "EER: " in run(python, project, "eval.py", "--list_path", "list.txt")
    shown = run(python, project, "embed.py", "list.txt")
    assert "embeddings.npz: 4 embeddings of 4 recordings, 0 left out" in shown
    assert "EER: " in run(python, project, "eval.py", "--list_path", "embeddings.npz")
