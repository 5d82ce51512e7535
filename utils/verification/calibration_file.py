"""A file of thresholds that the web page proposed, which tools/calibrate.py applies."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from utils.errors import ModelError
from utils.verification.calibration import Calibration
from utils.verification.cohort import SCORE_NORMS

SUFFIX = ".json"


@dataclass(frozen=True)
class CalibrationFile:
    """Thresholds for a model, of certain people.

    Attributes:
        model_id: The model that embedded their recordings.
        score_norm: The scores that were calibrated, one of `SCORE_NORMS`.
        entries: What the model's metadata are to say, as `calibration_entries` returns it.
    """

    model_id: str
    score_norm: str
    entries: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Returns its content."""
        return asdict(self)

    @classmethod
    def read(cls, path: str | Path) -> "CalibrationFile":
        """Reads a file.

        Raises:
            ModelError: If it cannot be read, or is something else.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            found = cls(**content)
            Calibration.from_dict(found.entries)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ModelError(
                f"{path}: no calibration that the web page saved ({error}); save it again"
            ) from error
        if found.score_norm not in SCORE_NORMS:
            raise ModelError(
                f"{path}: for the score norm {found.score_norm!r}, expected one of "
                f"{', '.join(SCORE_NORMS)}"
            )
        return found
