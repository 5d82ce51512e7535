"""The benchmarks of shards and hosts at a small size: tables, ratios, and the arithmetic."""

from pathlib import Path

import pytest

from benchmarks import hosts, identification, shards


def test_shards_are_faster_where_opening_takes_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--num_clips", "48", "--num_shards", "2", "--batch_size", "8"]
    assert shards.main([*options, "--latency_ms", "20"]) == 0
    shown = capsys.readouterr().out
    rates = {}
    for line in shown.splitlines()[2:]:
        if line.startswith("| "):
            name, rate = line.strip("| ").split(" | ")
            rates[name] = float(rate.replace(",", ""))
    assert list(rates) == ["files, no latency", "files", "shards, no latency", "shards"]
    assert rates["files"] < 1 / 0.04  # a clip is opened twice: for its length, and to be read
    assert rates["shards"] > 2 * rates["files"]
    assert "shards against files: " in shown


def test_hosts_prints_steps_and_arithmetic(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hosts, "measure", lambda folder, num_hosts, args: 40.0 * num_hosts**0.5)
    options = ["--num_hosts", "1", "4", "--batch_size", "4", "--gpu_step_ms", "100"]
    assert hosts.main([*options, "--num_weights", "1e7"]) == 0
    shown = capsys.readouterr().out
    assert "| 1 | 100 | 40.0 |" in shown
    assert "| 4 | 200 | 80.0 |" in shown
    # 40 MB of gradients: 2 * 7 / 8 of them at 10 Gbit/s take 56 ms.
    assert "| 8 | 10 | 70.0 | 56.0 | 64 % |" in shown
    assert "| 64 | 400 | 78.8 | 1.6 | 98 % |" in shown


def test_identification_compares_ways_and_prints_the_arithmetic(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--speakers", "300", "--queries", "5", "--baseline_speakers", "100"]
    assert identification.main([*options, "--ways", "memory", "sqlite"]) == 0
    shown = capsys.readouterr().out
    lines = [line.split("|") for line in shown.splitlines() if line.startswith("| ")]
    recall = {line[1].strip(): line[4].strip() for line in lines}
    assert recall["in memory, exact"] == recall["SQLite, searched in memory"] == "1.000"
    assert "The loop ran on 100 speakers and is scaled by 3." in shown
    # 192 numbers of 4 bytes and 32 links of 4: 896 bytes.
    assert "| 1,000,000,000 | 960.0 | 896.0 | 19 | 320.0 | 7 |" in shown
