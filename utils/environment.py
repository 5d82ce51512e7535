"""Environment variables whose value may be in a file, as secrets of containers and services are."""

import os
from collections.abc import Mapping
from pathlib import Path

from utils.errors import VoiceprintError


def read_variable(name: str, environment: Mapping[str, str] | None = None) -> str:
    """Returns the value of a variable, or the text of the file that NAME_FILE names.

    Args:
        name: Such as VOICEPRINT_KEY.
        environment: Where to look, the process's own if None.

    Returns:
        The value without blanks around it; empty if there is neither.

    Raises:
        VoiceprintError: If both are set, or the file cannot be read or is empty.
    """
    environment = os.environ if environment is None else environment
    value = environment.get(name, "").strip()
    path = environment.get(f"{name}_FILE", "")
    if not path:
        return value
    if value:
        raise VoiceprintError(f"{name} and {name}_FILE are both set, expected one of them")
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise VoiceprintError(f"{name}_FILE: {path} cannot be read ({reason})") from error
    if not text:
        raise VoiceprintError(f"{name}_FILE: {path} is empty, expected the value of {name}")
    return text
