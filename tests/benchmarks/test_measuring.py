"""What the benchmarks share: children are timed and weighed, results written, machines named."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import measuring
from benchmarks.measuring import BenchmarkError, Row, run_command, run_json, write_results

PYTHON = sys.executable


def test_a_child_is_timed_and_weighed() -> None:
    small = run_command([PYTHON, "-c", "print('answer')"])
    assert small.output == "answer\n"
    code = "import time; x = b'1' * 300_000_000; time.sleep(0.3); print(len(x))"
    large = run_command([PYTHON, "-c", code])
    assert large.output == "300000000\n"
    assert large.seconds > 0.3
    # What this process holds, hundreds of MB after other tests, does not count.
    assert small.peak_mb < 60
    assert 300 < large.peak_mb < 400


@pytest.mark.slow
def test_time_ends_with_the_answer() -> None:
    run = run_command([PYTHON, "-c", "import time; print('answer'); time.sleep(2.0)"])
    assert run.seconds < 2.0


def test_last_line_is_json() -> None:
    assert run_json([PYTHON, "-c", "print('note'); print('[1, 2.5]')"]) == [1, 2.5]


def test_environment_reaches_the_child() -> None:
    run = run_command([PYTHON, "-c", "import os; print(os.environ['SHADE'])"], {"SHADE": "blue"})
    assert run.output == "blue\n"


def test_a_failed_child_is_told_in_its_last_line(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys; print('first\\nlast', file=sys.stderr); sys.exit(3)")
    with pytest.raises(BenchmarkError, match=r"^script\.py: last$"):
        run_command([PYTHON, script])
    script.write_text("raise SystemExit(1)")
    with pytest.raises(BenchmarkError, match="no message"):
        run_command([PYTHON, script])


def test_a_missing_program_is_told() -> None:
    with pytest.raises(BenchmarkError, match="no_such_program cannot be started: FileNotFound"):
        run_command(["no_such_program", "option"])


def test_results(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    row = Row("reading", "10 s", "1 s", "10x", ">= 8x")
    write_results(str(path), [row], "\ntext\n", ["numpy"], ["peer is left out"])
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "overview": [["reading", "10 s", "1 s", "10x", ">= 8x"]],
        "details": "text",
        "versions": ["numpy"],
        "missing": ["peer is left out"],
    }
    write_results(None, [row], "text")


def test_table() -> None:
    assert measuring.table(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |"


def test_machine_and_versions() -> None:
    assert f"({measuring.num_cores()} cores" in measuring.machine()
    assert "GiB" in measuring.machine()
    versions = measuring.versions(["numpy", "no-such-package"])
    assert versions.startswith("Python 3.")
    assert ", numpy " in versions
    assert "no-such" not in versions
