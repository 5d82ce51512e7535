"""Variables whose value may be in a file."""

from pathlib import Path

import pytest

from utils.environment import read_variable
from utils.errors import VoiceprintError

NAME = "VOICEPRINT_KEY"


def test_the_value_is_in_the_variable_or_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key"
    path.write_text(" abc\n", encoding="utf-8")
    assert read_variable(NAME, {}) == ""
    assert read_variable(NAME, {NAME: "abc\n"}) == "abc"
    assert read_variable(NAME, {f"{NAME}_FILE": str(path)}) == "abc"
    # Compose sets what is not given to nothing.
    assert read_variable(NAME, {NAME: "", f"{NAME}_FILE": str(path)}) == "abc"
    assert read_variable(NAME, {NAME: "abc", f"{NAME}_FILE": ""}) == "abc"
    monkeypatch.setenv(f"{NAME}_FILE", str(path))
    assert read_variable(NAME) == "abc"


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(VoiceprintError, match="cannot be read"):
        read_variable(NAME, {f"{NAME}_FILE": str(path)})
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(VoiceprintError, match="not UTF-8"):
        read_variable(NAME, {f"{NAME}_FILE": str(path)})
    path.write_text("\n")
    with pytest.raises(VoiceprintError, match="is empty"):
        read_variable(NAME, {f"{NAME}_FILE": str(path)})
    with pytest.raises(VoiceprintError, match="both set") as caught:
        read_variable(NAME, {NAME: "secret", f"{NAME}_FILE": str(path)})
    assert "secret" not in str(caught.value)
