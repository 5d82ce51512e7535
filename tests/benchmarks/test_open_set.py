"""How many strangers are named among N people: worked examples."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import open_set
from benchmarks.open_set import compare, measured_share, share_above, threshold_for
from utils.corpus.embedding_file import EmbeddingFile, StoredEmbedding, pack
from utils.corpus.lists import LabelledClip
from utils.errors import DataListError, ModelError
from utils.model.header import DEFAULT_MODELS, read_header

ROOT = Path(__file__).resolve().parents[2]


def content(model_id: str, num_speakers: int = 60, size: int = 192) -> EmbeddingFile:
    """Speakers of two corpora, five recordings each, around directions of their own."""
    generator = np.random.default_rng(0)
    entries = {}
    for label in range(num_speakers):
        centre = generator.standard_normal(size)
        for number in range(5):
            embedding = centre + 0.5 * generator.standard_normal(size)
            path = f"{label}-{number}.wav"
            entries[path] = StoredEmbedding(
                (1,),
                "",
                (embedding / np.linalg.norm(embedding)).astype(np.float32),
                clip=LabelledClip(path, label, corpus="ab"[label % 2]),
            )
    return EmbeddingFile(model_id, entries)


def test_who_is_compared_with_whom() -> None:
    scores = compare(content("m"), 3)
    whole, alike = scores["all"], scores["their own corpus"]
    assert whole.own.shape == (120,)  # two recordings of each speaker enrolled nobody
    assert len(whole.strangers) == 120 * 59
    assert len(alike.strangers) == 120 * 29
    assert whole.own.min() > 0.7 > whole.strangers.max()
    assert np.all(np.diff(whole.strangers) >= 0)


def test_the_share_of_strangers_among_few_is_counted() -> None:
    scores = compare(content("m"), 3)["all"]
    assert measured_share(scores, 59, -1.0) == 1
    assert measured_share(scores, 59, 1.0) == 0
    assert measured_share(scores, 60, 0.0) is None
    # All of the others at once: a stranger is named if the best of them reaches the threshold.
    best = np.nanmax(scores.others, axis=1)
    threshold = float(np.median(best))
    assert measured_share(scores, 59, threshold) == np.mean(best >= threshold)
    one = measured_share(scores, 1, threshold)
    assert one == pytest.approx(share_above(scores.strangers, threshold), rel=0.3)


def test_the_tail_is_that_of_an_exponential_distribution() -> None:
    generator = np.random.default_rng(1)
    strangers = np.sort(np.tanh(0.05 * generator.exponential(size=400_000)))
    for share in (0.1, 0.01, 1e-4, 1e-6):
        threshold = threshold_for(strangers, share)
        assert np.arctanh(threshold) == pytest.approx(0.05 * np.log(1 / share), rel=0.03)
        assert share_above(strangers, threshold) == pytest.approx(share, rel=0.01)


def test_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(ROOT / f"{DEFAULT_MODELS[0]}.onnx")
    path = tmp_path / "dev.npz"
    path.write_bytes(pack(content(read_header(model).model_id)))
    assert open_set.main([str(path), "--model_path", model]) == 0
    printed = capsys.readouterr().out
    assert "Among all:" in printed
    assert "Among their own corpus:" in printed
    rows = [line.split("|")[1:-1] for line in printed.splitlines() if line.startswith("| 10,000 ")]
    assert len(rows) == 2
    assert all(row[3].strip().endswith("*") for row in rows)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(DataListError, match="received 0 speakers"):
        compare(content("m"), 5)
    with pytest.raises(DataListError, match="expected at least 2000"):
        compare(content("m", 20), 3)
    path = tmp_path / "other.npz"
    path.write_bytes(pack(content("another model")))
    with pytest.raises((DataListError, ModelError), match="another model"):
        open_set.main([str(path), "--model_path", str(ROOT / f"{DEFAULT_MODELS[0]}.onnx")])
