"""People of a list become the cohort of a model's files, and the scripts use it."""

import json
from pathlib import Path

import numpy as np
import pytest

import eval as evaluate
import infer_contrast
import infer_recognition
from tests.support.synthetic_voices import write_speech_folder
from tests.support.tiny_model import write_tiny_model
from tools import build_cohort, calibrate
from utils.corpus.lists import LabelledClip
from utils.errors import DataListError, ModelError
from utils.export.onnx import write_onnx
from utils.model.archive import update_metadata
from utils.model.encoder import SpeakerEncoder
from utils.model.header import ASNORM, read_header
from voices.folder import FolderVoiceStore


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strangers")
    write_speech_folder(folder, 3, 2, 1.6, first_speaker=30)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, strangers: Path) -> Path:
    """A folder of a model with a cohort of at least 20 people, as .keras and as .onnx."""
    place = tmp_path_factory.mktemp("models")
    people = place / "people"
    write_speech_folder(people, 24, 1, 1.0)  # now and then one is taken for a tone
    path = write_tiny_model(place / "tiny.keras")
    write_onnx(path, path.with_suffix(".onnx"))
    models = ["--model_path", str(path.with_suffix(".onnx")), str(path)]
    options = ["--list_path", str(strangers), "--top", "5", "--output_dir", str(place / "made")]
    assert build_cohort.main([str(people), *models, *options]) == 0
    return place / "made"


def test_both_files_hold_the_same_cohort(folder: Path) -> None:
    headers = [read_header(folder / f"tiny.{kind}") for kind in ("keras", "onnx")]
    plain = headers[0].calibration
    for header in headers:
        assert header.cohort is None and header.calibration == plain
        normed = header.with_score_norm("asnorm")
        assert normed.cohort is not None and normed.cohort.top == 5
        assert normed.cohort.embeddings.shape == (
            header.metadata[ASNORM]["cohort"]["num_people"],
            16,
        )
        assert normed.model_id == headers[0].model_id
        assert normed.calibration != plain and normed.calibration.rates is not None
    first, second = (header.with_score_norm("asnorm").cohort for header in headers)
    assert first is not None and second is not None
    np.testing.assert_array_equal(first.embeddings, second.embeddings)


def test_an_export_keeps_the_cohort(folder: Path, tmp_path: Path) -> None:
    write_onnx(folder / "tiny.keras", tmp_path / "again.onnx")
    found = read_header(tmp_path / "again.onnx").with_score_norm("asnorm")
    kept = read_header(folder / "tiny.keras").with_score_norm("asnorm").cohort
    assert found.cohort is not None and kept is not None
    np.testing.assert_array_equal(found.cohort.embeddings, kept.embeddings)


@pytest.mark.slow
def test_scripts_score_with_it(
    folder: Path, strangers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = f"--model_path={folder / 'tiny.onnx'}"
    paths = sorted(strangers.rglob("*.wav"))[:2]
    clips = [f"--audio_path{number}={path}" for number, path in enumerate(paths, start=1)]
    reports = []
    for norm in ("asnorm", "none"):
        assert infer_contrast.main([*clips, model, f"--score_norm={norm}", "--json"]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    assert reports[0]["score_norm"] == "asnorm" and "score_norm" not in reports[1]
    header = read_header(folder / "tiny.onnx").with_score_norm("asnorm")
    assert reports[0]["threshold"] == header.calibration.threshold
    assert reports[0]["score"] != reports[1]["score"]
    # The same score in a list of pairs and in an evaluation of trials.
    pairs = tmp_path / "pairs.txt"
    pairs.write_text(f"1 {paths[0]} {paths[1]}\n", encoding="utf-8")
    scores = tmp_path / "scores.tsv"
    options = [f"--trials={pairs}", f"--scores={scores}", model, "--score_norm=asnorm"]
    assert infer_contrast.main(options) == 0
    written = scores.read_text(encoding="utf-8").splitlines()[1].split("\t")[0]
    assert float(written) == pytest.approx(reports[0]["score"], abs=1e-5)
    report_dir = tmp_path / "report"
    options = [f"--list_path={strangers}", f"--report_dir={report_dir}", model]
    assert evaluate.main([*options, "--score_norm=asnorm"]) == 0
    report = json.loads((report_dir / "report.json").read_text(encoding="utf-8"))
    assert report["score_norm"] == "asnorm"
    assert report["model_threshold"]["threshold"] == header.calibration.threshold
    shown = capsys.readouterr().out
    assert "score_norm: asnorm" in shown


def test_recognition_ranks_with_it(
    folder: Path, strangers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recordings = [str(sorted(person.glob("*.wav"))[0]) for person in sorted(strangers.iterdir())]
    options = [f"--audio_db={tmp_path / 'voices'}", f"--model_path={folder / 'tiny.onnx'}"]
    for number, path in enumerate(recordings[:2]):
        assert infer_recognition.main([*options, "--register", f"person{number}", path]) == 0
    asked = recordings[2]
    ranked = {}
    for norm in ("none", "asnorm"):
        encoder = SpeakerEncoder(read_header(folder / "tiny.onnx").with_score_norm(norm))
        store = FolderVoiceStore(tmp_path / "voices", encoder)
        store.load()
        ranked[norm] = dict(store.rank(encoder.embed_file(asked)))
    first, second = (encoder.embed_file(path) for path in (asked, recordings[0]))
    assert encoder.cohort is not None
    assert ranked["asnorm"]["person0"] == pytest.approx(encoder.cohort.score(first, second))
    assert ranked["asnorm"] != pytest.approx(ranked["none"])
    capsys.readouterr()
    infer_recognition.main([*options, "--recognize", asked, "--score_norm=asnorm"])
    shown = capsys.readouterr()
    assert "score_norm: asnorm" in shown.out
    assert f"{max(ranked['asnorm'].values()):.5f}"[:6] in shown.out


def test_own_recordings_calibrate_the_normalised_scores(
    folder: Path, strangers: Path, tmp_path: Path
) -> None:
    options = ["--score_norm", "asnorm", "--output_dir", str(tmp_path)]
    model = ["--model_path", str(folder / "tiny.onnx")]
    assert calibrate.main([str(strangers), *model, *options]) == 0
    old, new = read_header(folder / "tiny.onnx"), read_header(tmp_path / "tiny.onnx")
    assert new.calibration == old.calibration
    assert new.metadata[ASNORM]["top"] == 5 and new.metadata[ASNORM]["calibrated_on"]
    assert new.with_score_norm("asnorm").cohort is not None


def test_a_model_without_a_cohort_says_how_to_get_one(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "tiny.keras")
    write_onnx(path, path.with_suffix(".onnx"))
    for name in (path, path.with_suffix(".onnx")):
        with pytest.raises(ModelError, match=r"holds no cohort.*tools/build_cohort\.py"):
            read_header(name).with_score_norm("asnorm")
        with pytest.raises(ModelError, match="holds no cohort"):
            infer_contrast.main([f"--model_path={name}", "--score_norm=asnorm"])


def test_a_damaged_cohort_is_told(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    path.write_bytes((folder / "tiny.onnx").read_bytes())
    update_metadata(path, {ASNORM: {"top": "many"}})
    with pytest.raises(ModelError, match=r"its cohort is damaged .*make it anew"):
        read_header(path).with_score_norm("asnorm")


def test_a_cohort_of_a_few_people_is_refused(strangers: Path, tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "tiny.keras")
    options = ["--list_path", str(strangers), "--model_path", str(path)]
    with pytest.raises(DataListError, match="3 people with usable recordings for the cohort"):
        build_cohort.main([str(strangers), *options, "--output_dir", str(tmp_path / "made")])


def test_people_with_several_recordings_come_first() -> None:
    people = [LabelledClip(f"{label}/{number}", label) for label in (0, 1, 2) for number in (0, 1)]
    people += [LabelledClip(f"{label}/0", label) for label in (3, 4)]
    chosen = build_cohort.choose_recordings(people, 4, 2)
    assert len(chosen) == 7
    assert {clip.label for clip in chosen} > {0, 1, 2}
    assert len(build_cohort.choose_recordings(people, 2, 1)) == 2
