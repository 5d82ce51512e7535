"""eval.py as a user runs it, with an encoder that needs no model: the clip's name is its voice."""

import json
import re
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

import eval as eval_script
from tests.support.fake_encoder import FakeHeader
from tests.support.script_runs import run_here
from utils.errors import AudioError, DataListError, ModelError, VoiceprintError
from utils.verification.calibration import Calibration

ROOT = Path(__file__).resolve().parents[2]
MODEL = "models/resnet34-51.keras"


class FakeEncoder:
    """Gives `speaker_clip.wav` an embedding near the axis of its speaker, without reading it."""

    model_id = "model-1"
    is_calibrated = True
    threshold = 0.5
    strict_threshold = 0.9
    calibration = Calibration(0.5, 0.9, 20.0, -10.0)
    calls: list[str] = []  # noqa: RUF012

    def __init__(self, model: object, num_threads: int | None = None) -> None:
        pass

    def embed_files(
        self, paths: Sequence[str], *, on_error: str = "raise"
    ) -> Iterator[tuple[int, np.ndarray | AudioError]]:
        assert on_error == "skip"
        for position, path in enumerate(paths):
            self.calls.append(path)
            if "broken" in path:
                yield position, AudioError(f"{path}: not audio")
                continue
            speaker, clip = map(int, Path(path).stem.split("_"))
            embedding = np.zeros(16, np.float32)
            embedding[speaker] = 1
            embedding[15] = 0.1 * clip
            yield position, embedding / np.linalg.norm(embedding)


def read_fake_header(path: str | None) -> FakeHeader:
    if path is not None and "missing" in path:
        raise ModelError(f"{path}: no such model")
    return FakeHeader(path)


@pytest.fixture(autouse=True)
def fake_encoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[FakeEncoder]:
    module = types.ModuleType("utils.model.encoder")
    module.SpeakerEncoder = FakeEncoder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "utils.model.encoder", module)
    monkeypatch.setattr(eval_script, "read_header", read_fake_header)
    monkeypatch.setattr(FakeEncoder, "calls", [])
    monkeypatch.setattr(FakeEncoder, "model_id", "model-1")
    monkeypatch.chdir(tmp_path)
    return FakeEncoder


def write_list(*lines: str) -> str:
    Path("test_list.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return "test_list.txt"


def three_speakers(*more: str) -> str:
    clips = [f"{speaker}_{clip}.wav\t{speaker}" for speaker in range(3) for clip in range(2)]
    return write_list(*clips, *more)


def test_prints_what_the_seed_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert eval_script.main([f"--list_path={three_speakers()}", f"--model_path={MODEL}"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[:8] == [
        "-----------  Configuration Arguments -----------",
        "list_path: test_list.txt",
        "model_path: models/resnet34-51.keras",
        "------------------------------------------------",
        "==> successfully loading model models/resnet34-51.keras.",
        "",
        "开始提取全部的音频特征...",
        "开始两两对比音频特征...",
    ]
    # Different speakers score up to 0.01 / 1.01, clips of one speaker 0.995.
    assert out.splitlines()[8] == "当阈值为0.010000, 准确率最大，准确率为：1.000000"
    bars = re.findall(r"100%\|█+\| (\d+/\d+) \[", err)
    assert bars == ["6/6", "6/6", "100/100"]


def test_prints_the_figures_that_the_seed_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    eval_script.main([f"--list_path={three_speakers()}"])
    assert capsys.readouterr().out.splitlines()[9:] == [
        "EER: 0.000 % at threshold 0.5025",
        "minDCF: 0.0000 at threshold 0.5025 (p_target 0.01, c_miss 1, c_fa 1)",
        "Misses at 0.1 % false accepts: 0 % at threshold 0.5025",
        'Accuracy of always answering "different": 0.800000',
        "Speakers: 3, clips: 6, target trials: 3, non-target trials: 12",
        "Model's threshold 0.5000: 0 % false accepts, 0 % misses",
        "Model's strict threshold 0.9000: 0 % false accepts, 0 % misses",
        # Log-odds of about 9.9 and -9.9: log2(1 + e^-9.9) = 0.0001.
        "Cllr: 0.0001, min Cllr: 0.0000, actual DCF: 0.0000",
    ]


def test_self_pairs_come_back_with_the_seeds_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    eval_script.main([f"--list_path={three_speakers()}", "--include_self_pairs"])
    out = capsys.readouterr().out
    assert "include_self_pairs: True" in out
    assert "target trials: 9, non-target trials: 12" in out


@pytest.mark.slow
def test_report_holds_figures_and_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    eval_script.main([f"--list_path={three_speakers()}", "--report_dir=a/report"])
    report = json.loads(Path("a/report/report.json").read_text(encoding="utf-8"))
    strict_point = report.pop("strict_point")
    assert strict_point == {
        "threshold": pytest.approx(0.5025, abs=1e-3),
        "false_accept_rate": 0.0,
        "miss_rate": 0.0,
    }
    own = Calibration.from_dict(report)
    assert own.threshold == own.strict_threshold == report["eer_threshold"]
    assert own.probability(0.0) < 0.5 < own.probability(0.9)
    for name in own.to_dict():
        del report[name]
    assert report == {
        "eer": 0.0,
        "eer_threshold": pytest.approx(0.5025, abs=1e-3),
        "min_dcf": 0.0,
        "min_dcf_threshold": pytest.approx(0.5025, abs=1e-3),
        "p_target": 0.01,
        "c_miss": 1.0,
        "c_fa": 1.0,
        "best_accuracy": 1.0,
        "best_threshold": 0.01,
        "always_different_accuracy": 0.8,
        "num_speakers": 3,
        "num_clips": 6,
        "num_target_trials": 3,
        "num_nontarget_trials": 12,
        "include_self_pairs": False,
        "left_out": {},
        "list": "test_list.txt",
        "model": "models/resnet34.keras",
        "model_id": "model-1",
        "cllr": pytest.approx(7e-5, abs=2e-5),
        "min_cllr": 0.0,
        "actual_dcf": 0.0,
        "groups": {},
        "model_threshold": {"threshold": 0.5, "false_accept_rate": 0.0, "miss_rate": 0.0},
        "model_strict_threshold": {"threshold": 0.9, "false_accept_rate": 0.0, "miss_rate": 0.0},
    }
    out = capsys.readouterr().out
    for name in ("det.png", "scores.png", "reliability.png"):
        assert Path("a/report", name).read_bytes().startswith(b"\x89PNG")
        assert f"written: {Path('a/report', name)}\n" in out


@pytest.mark.slow
def test_trials_of_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    Path("trials.txt").write_text(
        "1 0_0.wav 0_1.wav\n1 1_0.wav 1_1.wav\n0 0_0.wav 1_1.wav\n0 0_0.wav 2_0.wav\n"
        "1 0_0.wav broken.wav\n",
        encoding="utf-8",
    )
    eval_script.main(["--trials=trials.txt", "--trials_root=vox", "--report_dir=report"])
    out, err = capsys.readouterr()
    assert "trials: trials.txt\ntrials_root: vox\n" in out
    assert "list_path" not in out
    assert "Speakers: unknown, clips: 5, target trials: 2, non-target trials: 2" in out
    assert "left out 1 of 6 clips:\n  vox/broken.wav: not audio" in err
    assert "left out 1 of 5 trials" in err
    report = json.loads(Path("report/report.json").read_text(encoding="utf-8"))
    assert report["num_speakers"] is None
    assert report["list"] == "trials.txt"
    assert FakeEncoder.calls[0] == "vox/0_0.wav"


def test_unusable_clips_are_counted_named_and_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    broken = [f"broken_{number}.wav\t{number}" for number in range(7)]
    eval_script.main([f"--list_path={three_speakers(*broken)}", "--report_dir=report"])
    out, err = capsys.readouterr()
    assert "Speakers: 3, clips: 6," in out
    assert "left out 7 of 13 clips:\n  broken_0.wav: not audio\n" in err
    assert err.count("not audio") == 5
    assert "... and 2 more" in err
    left_out = json.loads(Path("report/report.json").read_text(encoding="utf-8"))["left_out"]
    assert len(left_out) == 7


def test_embeddings_are_kept_and_reused(capsys: pytest.CaptureFixture[str]) -> None:
    list_path = three_speakers()
    for speaker in range(3):
        for clip in range(2):
            Path(f"{speaker}_{clip}.wav").write_bytes(b"sound")
    command = [f"--list_path={list_path}", "--embeddings=kept/list.npz"]
    eval_script.main(command)
    first = capsys.readouterr().out
    assert len(FakeEncoder.calls) == 6
    eval_script.main(command)
    second, err = capsys.readouterr()
    assert len(FakeEncoder.calls) == 6, "nothing is computed again"
    assert second == first
    assert "6/6" in err
    Path("1_1.wav").write_bytes(b"another sound")
    eval_script.main(command)
    assert FakeEncoder.calls[6:] == ["1_1.wav"], "only the changed clip is"


def test_an_interrupted_run_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    list_path = three_speakers()
    Path("0_0.wav").write_bytes(b"sound")

    def stop_after_one(
        self: FakeEncoder, paths: Sequence[str], *, on_error: str
    ) -> Iterator[tuple[int, np.ndarray]]:
        yield 0, np.ones(16, np.float32)
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeEncoder, "embed_files", stop_after_one)
    with pytest.raises(KeyboardInterrupt):
        eval_script.main([f"--list_path={list_path}", "--embeddings=list.npz"])
    with np.load("list.npz") as archive:
        assert archive["path"].tolist() == ["0_0.wav"]


def test_embeddings_of_another_model_are_not_reused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [f"--list_path={three_speakers()}", "--embeddings=list.npz"]
    for name in ("0_0.wav", "0_1.wav"):
        Path(name).write_bytes(b"sound")
    eval_script.main(command)
    monkeypatch.setattr(FakeEncoder, "model_id", "model-2")
    capsys.readouterr()
    eval_script.main(command)
    assert "list.npz is of another model and is made anew" in capsys.readouterr().err
    assert len(FakeEncoder.calls) == 12
    with np.load("list.npz") as archive:
        assert str(archive["model_id"]) == "model-2"
        # A clip that is no file has no state to compare with and is not kept.
        assert archive["path"].tolist() == ["0_0.wav", "0_1.wav"]
        assert archive["embedding"].dtype == np.float32


def test_a_repeated_line_counts_once(capsys: pytest.CaptureFixture[str]) -> None:
    eval_script.main([f"--list_path={three_speakers('0_0.wav	0')}"])
    out, err = capsys.readouterr()
    assert "target trials: 3, non-target trials: 12" in out
    assert "1 lines repeat a clip" in err


@pytest.mark.parametrize(
    ("lines", "error", "message"),
    [
        (["0_0.wav\t0", "0_0.wav\t1"], DataListError, "labels 0 and 1, expected one speaker"),
        (["0_0.wav\t0", "0_1.wav\t0"], DataListError, "1 target and 0 non-target trials"),
        (["0_0.wav\t0", "1_0.wav\t1"], DataListError, "0 target and 1 non-target trials"),
        (["broken.wav\t0"], AudioError, "none of the 1 clips can be used; the first: broken.wav"),
        (["no label"], DataListError, "line 1"),
    ],
)
def test_useless_lists(lines: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        eval_script.main([f"--list_path={write_list(*lines)}"])


def test_trials_without_a_usable_clip_of_one_kind() -> None:
    Path("trials.txt").write_text("1 0_0.wav 0_1.wav\n0 0_0.wav broken.wav\n", encoding="utf-8")
    with pytest.raises(DataListError, match="1 target and 0 non-target trials"):
        eval_script.main(["--trials=trials.txt"])


def test_missing_model() -> None:
    with pytest.raises(ModelError, match="no such model"):
        eval_script.main([f"--list_path={three_speakers()}", "--model_path=missing.keras"])


@pytest.mark.parametrize("option", ["--report_dir=file/a", "--embeddings=file/a/b.npz"])
def test_place_that_cannot_be_written(option: str) -> None:
    Path("file").write_text("", encoding="utf-8")
    with pytest.raises(VoiceprintError, match="can't be"):
        eval_script.main([f"--list_path={three_speakers()}", option])


def test_a_foreign_file_is_not_overwritten() -> None:
    Path("notes.npz").write_text("mine", encoding="utf-8")
    with pytest.raises(VoiceprintError, match="left as it is"):
        eval_script.main([f"--list_path={three_speakers()}", "--embeddings=notes.npz"])
    assert Path("notes.npz").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    "options", [["--trials_root=vox"], ["--trials=a.txt", "--include_self_pairs"], ["--lst=a"]]
)
def test_options_that_make_no_sense(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        eval_script.main(options)
    assert stop.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_script_tells_a_mistake_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(ROOT / "eval.py", ["--list_path=nowhere.txt"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: nowhere.txt")


@pytest.mark.slow
def test_groups_of_a_table_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["path\tspeaker\tseconds\tlanguage\tgender"]
    for speaker, (corpus, sex) in enumerate((c, s) for c in ("x", "y") for s in "mmff"):
        rows += [
            f"{speaker}_{clip}.wav\t{corpus}/{speaker}\t{clip + 1}\tzh\t{sex}" for clip in (0, 2)
        ]
    eval_script.main([f"--list_path={write_list(*rows)}", "--report_dir=report"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Group ")]
    right = "EER 0 %; threshold 0 % false accepts, 0 % misses; strict 0 % false accepts, 0 % misses"
    assert lines == [
        f"Group {name}: {right}"
        for name in (
            "corpus x", "corpus y", "sex female", "sex male", "corpus and sex x, female",
            "corpus and sex x, male", "corpus and sex y, female", "corpus and sex y, male",
        )
    ]  # fmt: skip
    groups = json.loads(Path("report/report.json").read_text(encoding="utf-8"))["groups"]
    assert groups["corpus x"]["num_target_trials"] == 4
    assert groups["corpus x"]["num_nontarget_trials"] == 24


def test_trials_tell_cllr_too(capsys: pytest.CaptureFixture[str]) -> None:
    Path("trials.txt").write_text("1 0_0.wav 0_1.wav\n0 0_0.wav 1_0.wav\n", encoding="utf-8")
    eval_script.main(["--trials=trials.txt"])
    assert "Cllr: 0.0001, min Cllr: 0.0000" in capsys.readouterr().out
