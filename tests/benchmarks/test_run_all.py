"""All benchmarks in turn: figures reach the document, and what cannot run keeps what it had."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import run_all
from benchmarks.run_all import Part, rewrite
from utils.errors import VoiceprintError

SCRIPT = """
import json, sys
path = sys.argv[sys.argv.index("--json") + 1]
print("measured", *sys.argv[1:-2])
results = {{"overview": [["{name}", "10 s", "{ours}", "10x", ">= 8x"]],
           "details": "details of {name}: {ours}", "versions": ["numpy"], "missing": {missing}}}
open(path, "w").write(json.dumps(results))
sys.exit({status})
"""
PARTS = [
    Part("reading", "reading.py"),
    Part("long", "reading.py", ("--num=9",), full=True),
    Part("peers", "peers_part.py"),
]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two benchmarks and a document with places for their figures."""
    monkeypatch.setattr(run_all, "ROOT", tmp_path)
    monkeypatch.setattr(run_all, "PARTS", PARTS)
    monkeypatch.setenv("VOICEPRINT_PEERS", sys.executable)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "docs").mkdir()
    names = ["overview", *(part.name for part in PARTS)]
    places = "".join(f"## {n}\n\n<!-- bench:{n} -->\n<!-- /bench:{n} -->\n\n" for n in names)
    document(tmp_path).write_text(f"# Results\n\n{places}The end.\n", encoding="utf-8")
    write(tmp_path, "reading.py", "1 s")
    write(tmp_path, "peers_part.py", "2 s")
    return tmp_path


def document(project: Path) -> Path:
    return project / "docs" / "results.md"


def write(project: Path, name: str, ours: str, status: int = 0, missing: str = "[]") -> None:
    text = SCRIPT.format(name=name, ours=ours, status=status, missing=missing)
    (project / "benchmarks" / name).write_text(text, encoding="utf-8")


def run(project: Path, *options: str) -> int:
    paths = ["--document", str(document(project)), "--results", str(project / "results.json")]
    return run_all.main([*paths, *options])


def block(project: Path, name: str) -> str:
    text = document(project).read_text(encoding="utf-8")
    return text.split(f"<!-- bench:{name} -->")[1].split(f"<!-- /bench:{name} -->")[0]


def test_figures_reach_the_document(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(project) == 0
    out = capfd.readouterr().out
    assert "== reading: python benchmarks/reading.py\nmeasured\n" in out
    assert "| reading.py | 10 s | 1 s | 10x | >= 8x |" in out
    assert "| reading.py | 10 s | 1 s | 10x | >= 8x |" in block(project, "overview")
    assert "| peers_part.py | 10 s | 2 s | 10x | >= 8x |" in block(project, "overview")
    reading = block(project, "reading")
    assert "```shell\npython benchmarks/reading.py\n```" in reading
    assert "details of reading.py: 1 s" in reading
    assert ", numpy " in reading
    assert block(project, "long").strip() == ""
    text = document(project).read_text(encoding="utf-8")
    assert text.startswith("# Results\n\n## overview\n")
    assert text.endswith("The end.\n")


def test_a_second_run_replaces_the_figures(project: Path) -> None:
    assert run(project) == 0
    write(project, "reading.py", "0.5 s")
    assert run(project, "--only", "reading") == 0
    assert "0.5 s" in block(project, "reading")
    assert ": 1 s" not in document(project).read_text(encoding="utf-8")
    assert "details of peers_part.py: 2 s" in block(project, "peers")
    assert document(project).read_text(encoding="utf-8").count("bench:reading") == 2


def test_long_ones_run_only_when_asked(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(project, "--full", "--only", "long") == 0
    assert "measured --num=9\n" in capfd.readouterr().out
    assert "python benchmarks/reading.py --num=9" in block(project, "long")


@pytest.mark.parametrize(
    ("status", "told", "result"),
    [(2, "it cannot run here", 0), (1, "it failed with status 1", 1)],
)
def test_what_cannot_run_keeps_its_figures(
    project: Path, capfd: pytest.CaptureFixture[str], status: int, told: str, result: int
) -> None:
    assert run(project) == 0
    write(project, "reading.py", "0 s", status=status)
    assert run(project) == result
    assert f"reading: {told}" in capfd.readouterr().out
    assert "details of reading.py: 1 s" in block(project, "reading")


def test_a_missing_benchmark_is_told(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (project / "benchmarks" / "reading.py").unlink()
    assert run(project) == 0
    assert "reading: reading.py is not there" in capfd.readouterr().out
    assert block(project, "reading").strip() == ""


def test_a_missing_peer_keeps_the_figures_with_it(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(project) == 0
    write(project, "peers_part.py", "3 s", missing='["Peer is left out: no torch"]')
    assert run(project) == 0
    assert "peers: Peer is left out: no torch; its figures are those of before" in (
        capfd.readouterr().out
    )
    assert ": 2 s" in block(project, "peers")
    # Where there were none with it, those without it are better than nothing.
    (project / "results.json").unlink()
    assert run(project) == 0
    assert ": 3 s" in block(project, "peers")


def test_the_children_find_the_peers(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = "import os; print(os.environ['VOICEPRINT_PEERS'], os.environ['VOICEPRINT_CAMPPLUS'])\n"
    script = project / "benchmarks" / "reading.py"
    script.write_text(text + script.read_text(encoding="utf-8"), encoding="utf-8")
    assert (
        run(project, "--only", "reading", "--peers", "/other/python", "--campplus", "/c.onnx") == 0
    )
    assert "/other/python /c.onnx" in capfd.readouterr().out


def test_a_document_without_the_place(project: Path) -> None:
    document(project).write_text("# Results\n", encoding="utf-8")
    with pytest.raises(VoiceprintError, match="expected the lines <!-- bench:overview -->"):
        run(project)


def test_the_real_document_has_a_place_for_each_part(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (root / "docs" / "results.md").read_text(encoding="utf-8")
    copy = tmp_path / "results.md"
    copy.write_text(text, encoding="utf-8")
    figures = {
        "command": "python x.py", "date": "2026-01-01", "machine": "M", "versions": "V",
        "missing": [], "overview": [["a", "b", "c", "d", "e"]], "details": "D",
    }  # fmt: skip
    rewrite(copy, {part.name: figures for part in run_all.PARTS})
    assert copy.read_text(encoding="utf-8").count("python x.py") == len(run_all.PARTS)


def test_the_document_shows_the_kept_figures(root: Path, tmp_path: Path) -> None:
    """Nobody has edited a figure by hand."""
    path = root / "benchmarks" / "results.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    copy = tmp_path / "results.md"
    text = (root / "docs" / "results.md").read_text(encoding="utf-8")
    copy.write_text(text, encoding="utf-8")
    if known:
        rewrite(copy, known)
    assert copy.read_text(encoding="utf-8") == text
