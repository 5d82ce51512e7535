"""Turns: who spoke from when to when; read from RTTM, written as RTTM, JSON, SRT and labels."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from utils.errors import DataListError


@dataclass(frozen=True)
class Turn:
    """A stretch of speech of one speaker.

    Attributes:
        start_s: Where it begins, in seconds.
        end_s: Where it ends, in seconds.
        speaker: Whose it is: a number as text, or a name.
        score: Cosine of the turn's embedding and its speaker's; None where the turn is too short.
    """

    start_s: float
    end_s: float
    speaker: str
    score: float | None = None

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.end_s - self.start_s


def speaking_seconds(turns: Sequence[Turn]) -> dict[str, float]:
    """Returns the seconds of each speaker, in the order of their first turns."""
    seconds: dict[str, float] = {}
    for turn in turns:
        seconds[turn.speaker] = seconds.get(turn.speaker, 0.0) + turn.duration_s
    return seconds


def format_rttm(turns: Sequence[Turn], recording: str) -> str:
    """Returns the lines of an RTTM file; blanks in names become `_`, since blanks part its columns.

    Source: NIST, Rich Transcription 2009 evaluation plan, appendix A.
    """
    name = "_".join(recording.split()) or "recording"
    return "".join(
        f"SPEAKER {name} 1 {turn.start_s:.3f} {turn.duration_s:.3f} <NA> <NA> "
        f"{'_'.join(turn.speaker.split())} <NA> <NA>\n"
        for turn in turns
    )


def read_rttm(path: str | Path) -> dict[str, list[Turn]]:
    """Reads an RTTM file.

    Returns:
        The turns of each recording that it names, in order of time.

    Raises:
        DataListError: If it cannot be read, or a line is none of RTTM.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataListError(f"{path}: cannot be read ({error}); expected an RTTM file") from error
    recordings: dict[str, list[Turn]] = {}
    for number, line in enumerate(lines, 1):
        columns = line.split()
        if not columns or columns[0] != "SPEAKER":
            continue  # RTTM knows other kinds of lines, comments among them
        try:
            start_s, duration_s = float(columns[3]), float(columns[4])
            turn = Turn(start_s, start_s + duration_s, columns[7])
        except (IndexError, ValueError):
            turn = Turn(0.0, -1.0, "")
        if not 0 <= turn.start_s <= turn.end_s < float("inf"):
            raise DataListError(
                f"{path}, line {number}: received {line[:80]!r}, expected SPEAKER RECORDING 1 "
                "START DURATION <NA> <NA> NAME <NA> <NA>, times in seconds"
            )
        recordings.setdefault(columns[1], []).append(turn)
    return {name: sorted(turns, key=lambda t: t.start_s) for name, turns in recordings.items()}


def format_json(
    turns: Sequence[Turn], recording: str, duration_s: float, overlap_share: float
) -> str:
    """Returns one JSON object: recording, length, overlaps, seconds of each speaker, turns."""
    report = {
        "audio_path": recording,
        "duration_s": round(duration_s, 3),
        "overlap_share": round(overlap_share, 3),
        "speakers": {name: round(s, 3) for name, s in speaking_seconds(turns).items()},
        "turns": [
            {
                key: round(value, 3) if isinstance(value, float) else value
                for key, value in row.items()
            }
            for row in map(asdict, turns)
        ],
    }
    return json.dumps(report, ensure_ascii=False)


def format_srt(turns: Sequence[Turn]) -> str:
    """Returns subtitles that name who speaks."""
    return "".join(
        f"{number}\n{_subtitle_time(turn.start_s)} --> {_subtitle_time(turn.end_s)}\n"
        f"{turn.speaker}\n\n"
        for number, turn in enumerate(turns, 1)
    )


def format_labels(turns: Sequence[Turn]) -> str:
    """Returns a label track of Audacity: start, end and text, parted by tabs."""
    return "".join(f"{turn.start_s:.3f}\t{turn.end_s:.3f}\t{turn.speaker}\n" for turn in turns)


def _subtitle_time(seconds: float) -> str:
    """Returns `HH:MM:SS,mmm`."""
    ms = round(seconds * 1000)
    return f"{ms // 3600000:02}:{ms // 60000 % 60:02}:{ms // 1000 % 60:02},{ms % 1000:03}"
