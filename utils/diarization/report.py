"""What a diarization prints and writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.diarization.names import FoundSpeaker
from utils.diarization.timeline import plot_timeline
from utils.diarization.turns import (
    Turn,
    format_json,
    format_labels,
    format_rttm,
    format_srt,
    speaking_seconds,
)
from utils.errors import VoiceprintError
from utils.files import write_text_atomically
from utils.messages import translate

CROWDED_SHARE = 0.4
"""Share of the speech with several voices at once from which the turns deserve a warning: lively
meetings stay below, and who is hardly ever heard alone has no turns."""


@dataclass(frozen=True)
class Report:
    """A recording and what was found in it.

    Attributes:
        path: The recording.
        duration_s: Its length in seconds.
        overlap_share: Share of the speech in which several people speak at once.
        turns: In order of time, with the speakers' labels.
        speakers: In the order in which they first speak.
    """

    path: str
    duration_s: float
    overlap_share: float
    turns: Sequence[Turn]
    speakers: Sequence[FoundSpeaker]

    def lines(self) -> list[str]:
        """Returns what is printed: a line a turn, a line a speaker, a warning of many overlaps."""
        lines = [
            f"{turn_time(turn.start_s)}  {turn_time(turn.end_s)}  {turn.speaker}"
            + ("" if turn.score is None else f"  {turn.score:.3f}")
            for turn in self.turns
        ]
        seconds = speaking_seconds(self.turns)
        whole = max(sum(seconds.values()), 1e-9)
        lines.append(translate(f"{self.path}：共{len(seconds)}个说话人"))
        for speaker in self.speakers:
            if speaker.label not in seconds:
                continue
            spoken = seconds[speaker.label]
            count = sum(turn.speaker == speaker.label for turn in self.turns)
            who, share = speaker.label, 100 * spoken / whole
            line = f"{who}：{spoken:.1f}秒，{share:.1f}%，{count}段"
            if speaker.score is not None:
                line = (
                    f"{who}：{spoken:.1f}秒，{share:.1f}%，{count}段，"
                    f"与声纹库最高相似度{speaker.score:.3f}"
                )
            lines.append(translate(line))
        if self.overlap_share >= CROWDED_SHARE:
            lines.append(
                translate(
                    f"警告：{100 * self.overlap_share:.0f}%的语音中有多人同时说话，"
                    "说话人数和发言可能不准；请让每人靠近各自的话筒，或轮流发言"
                )
            )
        return lines

    def json(self) -> str:
        """Returns one JSON object."""
        return format_json(self.turns, self.path, self.duration_s, self.overlap_share)


def _write_rttm(report: Report, path: Path) -> None:
    write_text_atomically(path, format_rttm(report.turns, Path(report.path).stem))


def _write_srt(report: Report, path: Path) -> None:
    write_text_atomically(path, format_srt(report.turns))


def _write_labels(report: Report, path: Path) -> None:
    write_text_atomically(path, format_labels(report.turns))


def _write_plot(report: Report, path: Path) -> None:
    plot_timeline(report.turns, report.duration_s, path, Path(report.path).name)


WRITERS: dict[str, tuple[Callable[[Report, Path], None], str, str]] = {
    "rttm": (_write_rttm, ".rttm", "write the turns as RTTM: a file, or a folder/ for several"),
    "srt": (_write_srt, ".srt", "write subtitles that say who speaks"),
    "labels": (_write_labels, ".txt", "write a label track of Audacity"),
    "plot": (_write_plot, ".png", "draw the timeline as a PNG file"),
}
"""Options that write a file: how, its suffix, and the option's help."""


def plan_outputs(
    recordings: Sequence[str], wishes: Mapping[str, str | None]
) -> dict[str, list[tuple[str, Path]]]:
    """Says which files each recording will get.

    Args:
        recordings: Their paths.
        wishes: For each of `WRITERS`, the path given. It is a folder if there are several
            recordings, if it ends with a slash, or if there is such a folder.

    Returns:
        For each recording, names of writers and files.

    Raises:
        VoiceprintError: If two recordings would write the same file.
    """
    planned: dict[str, list[tuple[str, Path]]] = {recording: [] for recording in recordings}
    taken: dict[Path, str] = {}
    for option, wish in wishes.items():
        if not wish:
            continue
        is_folder = len(planned) > 1 or wish.endswith(("/", "\\")) or Path(wish).is_dir()
        for recording, files in planned.items():
            name = Path(recording).stem + WRITERS[option][1]
            path = Path(wish) / name if is_folder else Path(wish)
            if path in taken:
                raise VoiceprintError(
                    f"--{option} {wish}: {taken[path]} and {recording} would both be written to "
                    f"{path}; give recordings different names"
                )
            taken[path] = recording
            files.append((option, path))
    return planned


def write_outputs(report: Report, files: Sequence[tuple[str, Path]]) -> None:
    """Writes the files that `plan_outputs` planned for a recording.

    Raises:
        VoiceprintError: If one cannot be written.
    """
    for option, path in files:
        try:
            WRITERS[option][0](report, path)
        except OSError as error:
            raise VoiceprintError(
                f"--{option} {path}: cannot be written ({error.strerror}); choose another place"
            ) from error


def turn_time(seconds: float) -> str:
    """Returns a time as `h:mm:ss.ss`."""
    hundredths = round(seconds * 100)
    minutes, rest = divmod(hundredths, 6000)
    return f"{minutes // 60}:{minutes % 60:02}:{rest // 100:02}.{rest % 100:02}"
