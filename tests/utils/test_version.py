"""One version: the newest release of the changelog is the one that the scripts print."""

import re
from pathlib import Path

from utils.version import __version__

ROOT = Path(__file__).resolve().parents[2]


def test_newest_release_of_the_changelog_is_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d{2}-\d{2})$", text, re.M)
    assert releases[0][0] == __version__
    versions = [tuple(map(int, version.split("."))) for version, _ in releases]
    assert versions == sorted(versions, reverse=True)
    assert [date for _, date in releases] == sorted((d for _, d in releases), reverse=True)
