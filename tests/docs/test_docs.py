"""What the documents say holds: commands run, links lead somewhere, both READMEs show the same."""

import contextlib
import functools
import io
import json
import os
import re
import shlex
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote

import pytest
from packaging.requirements import Requirement

from tests.support.script_runs import run_here
from tests.support.synthetic_voices import synthetic_speech, write_speech_folder
from tests.support.tiny_model import write_tiny_model

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
README_ZH = ROOT / "README_zh.md"
FOLDERS = [".", "docs", "audio", "audio_db", "dataset", "models", "benchmarks", "tests", "tools"]
DOCUMENTS = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))

# Commands of the READMEs that are not run here, and what checks them instead.
CHECKED_ELSEWHERE = {
    "make demo": "test_setup.py, and test_make_demo_compares_the_recordings_of_the_readme",
    "make demo MIRROR=https://mirrors.aliyun.com/pypi/simple/": "test_setup.py, with a mirror",
    "python3 -m venv .venv": "the standard library's; test_setup.py has the same call",
    "source .venv/bin/activate": "the shell's",
    "pip install -r requirements.txt": "test_installed_packages_are_those_required",
    "pip install -r requirements.txt -i https://mirrors.aliyun.com/pypi/simple/": "the same",
    "pip install -r requirements-infer.txt": "test_infer_requirements.py",
    "python serve.py": "test_service_server.py and test_web_page.py start it",
    "python infer_recognition.py --live": "test_live.py, with a microphone",
    "make test": "is what runs this",
}

# What is added to a command here: little data and a small network, in place of hours.
QUICK = {
    "python create_data.py": "--test_every 4",
    "python create_data.py --dataset folders:my_speech --test_speakers 0.1": "--list_dir mine",
    "python train.py": "--num_epoch 1 --batch_size 4 --num_workers 0 --gpu cpu "
    "--widths 4 4 4 4 --num_blocks 1 1 1 1",
    # The shipped model is exported in test_export.py.
    "python export.py": "--model_path models/tiny.keras",
}

# What is typed into a command.
TYPED = {"python infer_recognition.py": "q\n"}


def blocks(path: Path, language: str = "") -> list[str]:
    """Returns the fenced blocks of a document that are marked with `language`."""
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"^```([^\n]*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [body for mark, body in found if mark.strip() == language]


def shell_commands(path: Path) -> list[str]:
    """Returns the lines of the shell blocks, continued lines joined."""
    lines = "\n".join(blocks(path, "shell")).replace("\\\n", " ").splitlines()
    return [re.sub(r"\s+", " ", line.split(" #")[0]).strip() for line in lines if line.strip()]


def python_commands(path: Path) -> list[tuple[str, str]]:
    """Returns `(script, options)` of all `python FILE.py ...` in a document, wherever it stands."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(r"\bpython3? ((?:[\w-]+/)*[\w-]+\.py)([^\n`|]*)", text)


@functools.cache
def help_text(script: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        assert run_here(ROOT / script, ["--help"]) == 0
    return shown.getvalue()


def slug(heading: str) -> str:
    """Returns the anchor that a heading gets: lower case, no punctuation, dashes for spaces."""
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def without_fences(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", without_fences(path), re.M)}


def document_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# --- Every document ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCUMENTS, ids=document_name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_fences(path)):
        if re.match(r"(https?|mailto):", target):
            continue
        file, _, anchor = unquote(target).partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), f"{document_name(path)} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(linked), f"{document_name(path)}: no heading for {target}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=document_name)
def test_python_commands_have_their_script_and_options(path: Path) -> None:
    for script, options in python_commands(path):
        assert (ROOT / script).is_file(), f"{document_name(path)} calls {script}"
        for option in re.findall(r"(?<!\S)--[\w-]+", options):
            assert option in help_text(script), f"{script} has no {option}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=document_name)
def test_make_targets_exist(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"(?:^|`)make ([a-z][\w-]*)", text, re.M):
        assert re.search(rf"^{target}:", makefile, re.M), f"{document_name(path)}: make {target}"


# --- The READMEs ---------------------------------------------------------------------------------


def test_both_readmes_show_the_same() -> None:
    for language in ["shell", "python", ""]:
        assert blocks(README, language) == blocks(README_ZH, language)
    headings = [re.findall(r"^#+(?= )", without_fences(path), re.M) for path in (README, README_ZH)]
    assert headings[0] == headings[1]


def test_both_readmes_have_the_same_figures_and_links() -> None:
    def tables(path: Path) -> list[str]:
        rows = re.findall(r"^\| *`[^\n]*$", without_fences(path), re.M)
        return [re.sub(r"[^\x00-\x7f]", "", row) for row in rows]

    def links(path: Path) -> set[str]:
        targets = re.findall(r"\]\(([^)\s]+)\)", without_fences(path))
        shown = {target for target in targets if target[0] != "#" and "README" not in target}
        return {target.replace("_zh.png", "_en.png") for target in shown}

    assert len(tables(README)) == len(tables(README_ZH))
    assert links(README) == links(README_ZH)


def test_tables_of_commands_have_no_leftovers() -> None:
    commands = set(shell_commands(README))
    assert set(CHECKED_ELSEWHERE) <= commands
    assert set(QUICK) <= commands
    assert set(TYPED) <= commands


@pytest.mark.slow
def test_make_demo_compares_the_recordings_of_the_readme() -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    # The variables are those of the `make test` that runs this.
    environment = {name: os.environ[name] for name in os.environ if not name.startswith("MAKE")}
    result = subprocess.run(
        ["make", "-n", "demo"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    shown = result.stdout.splitlines()[-1].removeprefix(".venv/bin/")
    assert shown in shell_commands(README)
    assert (ROOT / "audio" / "a_1.wav").is_file()


def requirement_lines(name: str) -> list[str]:
    """Returns the lines of a requirements file and of those that it names."""
    found = []
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        found += requirement_lines(line[3:].strip()) if line.startswith("-r ") else [line]
    return found


def test_installed_packages_are_those_required() -> None:
    for line in requirement_lines("requirements.txt"):
        text, _, reason = line.partition("#")
        if not text.strip():
            continue
        assert reason.strip(), f"there is no reason for {text}"
        requirement = Requirement(text.strip())
        assert "<" in str(requirement.specifier), f"{requirement} has no ceiling"
        assert ">=" in str(requirement.specifier), f"{requirement} has no floor"
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue  # for other versions of Python
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            assert requirement.name == "pyaudio", f"{requirement.name} is not installed"
            continue
        assert requirement.specifier.contains(version), f"{requirement.name} {version}"


@pytest.mark.slow
def test_recipe_of_the_readme_is_what_the_spectrogram_does() -> None:
    import librosa
    import numpy as np

    from utils.audio.decode import load_audio
    from utils.audio.spectrogram import spectrogram

    (recipe,) = blocks(README, "python")
    path = str(ROOT / "audio" / "a_1.wav")
    names = {"librosa": librosa, "np": np, "audio_path": path}
    exec(recipe, names)
    np.testing.assert_allclose(
        spectrogram(load_audio(path))[:, :257], names["magnitude"], atol=1e-4
    )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with a tiny zhvoice of 3 synthetic speakers in it."""
    import soundfile

    folder = tmp_path_factory.mktemp("workspace")
    for script in ROOT.glob("*.py"):
        shutil.copy(script, folder)
    for name in ["utils", "voices", "service", "models", "audio", "audio_db", "tools"]:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    zhvoice = folder / "dataset" / "zhvoice"
    rows = []
    for number in range(24):
        speaker, utterance = divmod(number, 8)
        row = {
            "index": f"zhsynthetic/{speaker}/{utterance}.mp3",
            "speaker": f"zhsynthetic_{speaker}",
            "duration_ms": 1500,
            "text": "",
        }
        path = zhvoice / str(row["index"])
        path.parent.mkdir(parents=True, exist_ok=True)
        speech = synthetic_speech(speaker, utterance, duration_s=1.5)
        soundfile.write(path, speech, 16000, format="MP3")
        rows.append(row)
    (zhvoice / "text").mkdir()
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (zhvoice / "text" / "infodata.json").write_text(lines, encoding="utf-8")
    write_speech_folder(folder / "my_speech", num_speakers=10, num_utterances=2, duration_s=1.5)
    write_tiny_model(folder / "models" / "tiny.keras")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [c for c in shell_commands(README) if c not in CHECKED_ELSEWHERE]
)
def test_readme_command_runs(
    command: str,
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    arguments = shlex.split(f"{command} {QUICK.get(command, '')}")
    assert arguments[0] == "python", f"{command}: run it here or name its check in the table"
    monkeypatch.chdir(workspace)
    status = run_here(arguments[1], arguments[2:], TYPED.get(command, ""))
    shown = capfd.readouterr()
    assert status == 0, shown.err
    assert "Traceback" not in shown.err
    assert shown.out


@pytest.mark.slow
def test_python_of_the_faq_runs(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    for block in blocks(ROOT / "docs" / "faq.md", "python"):
        exec(block, {"__name__": "__main__"})
