"""Folders in the form of Kaldi: `wav.scp` and `utt2spk`."""

from collections.abc import Iterator
from pathlib import Path

from utils.corpus.lists import line_error, read_lines
from utils.corpus.paths import local_path
from utils.errors import DataListError


def is_kaldi_folder(folder: Path) -> bool:
    """Tells whether a folder holds a wav.scp."""
    return (folder / "wav.scp").is_file()


def read_recordings(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Reads wav.scp and utt2spk.

    Paths start from the working directory, as in Kaldi, or from the folder.

    Yields:
        `(utterance, path, speaker)`; the path is relative to the folder, or absolute.

    Raises:
        DataListError: If a file is missing, a line has another form, an utterance has no speaker,
            or a recording is the output of a command.
    """
    if (folder / "segments").is_file():
        raise DataListError(
            f"{(folder / 'segments').as_posix()}: utterances that are parts of recordings are not "
            "read; cut them into files of their own"
        )
    speakers = dict(_read_pairs(folder / "utt2spk", "an utterance and its speaker"))
    for utterance, path in _read_pairs(folder / "wav.scp", "an utterance and the path of a file"):
        if utterance not in speakers:
            raise DataListError(
                f"{(folder / 'utt2spk').as_posix()}: no speaker for {utterance}, which is in "
                "wav.scp; add a line with both"
            )
        yield utterance, _place(path, folder), speakers[utterance]


def _read_pairs(path: Path, expected: str) -> Iterator[tuple[str, str]]:
    """Yields the two fields of each line; the second may hold blanks."""
    for number, line in read_lines(path, "expected wav.scp and utt2spk in a folder of Kaldi"):
        fields = line.split(maxsplit=1)
        if len(fields) != 2:
            raise line_error(path.as_posix(), number, line, expected)
        second = fields[1].strip()
        if second.endswith("|") or second.startswith("|"):
            raise line_error(
                path.as_posix(), number, line,
                "the path of a file: commands are not run; write their output into a file",
            )  # fmt: skip
        yield fields[0], second


def _place(text: str, folder: Path) -> str:
    """Returns a path relative to the folder, or absolute if it starts from elsewhere."""
    path = local_path(text, folder)
    if Path(path).is_absolute() or (folder / path).is_file():
        return path
    return Path(path).resolve().as_posix() if Path(path).is_file() else path
