"""The hidden file of a voice folder: what was taken over from it, and what is being done to it."""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from utils.errors import DatabaseError
from utils.files import write_text_atomically
from utils.speaker_names import clean_name, fold_name

RECORD_NAME = ".service.json"
"""Hidden file of the folder that tells which of its files were taken over, as which recordings."""

Taken = dict[str, dict[str, list[Any]]]
"""Speaker -> file (relative to the folder) -> size, time of change in ns, id of the recording, and
`PENDING` if it is not known whether it is enrolled."""

PENDING = "pending"

OLD_LABEL = "//{}"
"""In the place of a file: a recording, by its id, whose file is gone or has changed since."""

RECORDING_ID = re.compile("[0-9A-Za-z-]{1,64}")

INTENT_FIELDS = {"action", "name", "new_name", "recordings", "files"}

INTENT = "//intent in {}"
"""Key of the list of what is being done to files and a database; no address has this form."""


class FolderRecord:
    """What a folder's hidden file tells of one database; each write is on the disk, or absent.

    Attributes:
        recording_ids: Recordings of the database whose sound is in a file of the folder.
    """

    def __init__(self, folder: Path, database: str) -> None:
        """Takes the folder and the database's address; nothing is read before it is asked for."""
        self.recording_ids: set[str] = set()
        self._folder = folder
        self._database = database

    def read(self) -> Taken:
        """Returns what was taken over into this database."""
        taken = self._read().get(self._database)
        return taken if isinstance(taken, dict) else {}

    def write(self, taken: Taken) -> None:
        """Writes what was taken over into this database."""
        taken = {name: files for name, files in taken.items() if files}
        self.recording_ids = {entry[2] for files in taken.values() for entry in files.values()}
        if self.read() != taken:
            self._write({self._database: taken})

    def find(self, recording_id: str) -> dict[str, list[int]]:
        """Returns the file of a recording with its size and time of change, if it has one."""
        entries = [entry for files in self.read().values() for entry in files.items()]
        return {
            label: entry[:2]
            for label, entry in entries
            if entry[2] == recording_id and label != OLD_LABEL.format(recording_id)
        }

    def adopt(self, owners: Callable[[], dict[str, str]]) -> None:
        """Goes on with what is noted under another address, if that means the same database.

        The recordings tell: entry and intents are taken over from the address that fits best, which
        is its own if none fits better. The other entry stays: it may be that of a copy.

        Args:
            owners: Returns the speaker of each recording of the database by the recording's id.
        """
        record = self._read()
        addresses = {key.removeprefix(INTENT.format("")) for key in record} - {self._database}
        if not addresses:
            return
        speakers = owners()

        def rank(address: str) -> tuple[int, ...]:
            taken, intents = record.get(address) or {}, record.get(INTENT.format(address)) or []
            pairs = {(name, entry[2]) for name, files in taken.items() for entry in files.values()}
            ids = {id_ for _, id_ in pairs}
            to_change = {id_ for intent in intents for id_ in intent["recordings"]}
            # The deletion of the only one who had files leaves no recording to know it by.
            is_last = any(intent["action"] == "delete" for intent in intents) and ids <= to_change
            if (
                address != self._database
                and not is_last
                and speakers.keys().isdisjoint(ids | to_change)
            ):
                return (-1,)
            found = [(name, speakers[id_]) for name, id_ in pairs if id_ in speakers]
            num_same = sum(fold_name(name) == fold_name(other) for name, other in found)
            return len(found), num_same, bool(intents), address == self._database

        best = max([self._database, *sorted(addresses)], key=rank)
        if best == self._database:
            return
        taken = {
            name: {label: entry for label, entry in files.items() if entry[2] in speakers}
            for name, files in (record.get(best) or {}).items()
        }
        changes: dict[str, Any] = {self._database: taken}
        if intents := record.get(INTENT.format(best)):
            changes[INTENT.format(self._database)] = intents
            noted = {id_ for intent in intents for id_ in intent["recordings"]}
            if any(taken.values()) or not noted.isdisjoint(speakers):
                changes[INTENT.format(best)] = None  # It is the same database, or a copy of it.
        self._write(changes)

    def change(self, change: Callable[[Taken], None]) -> None:
        """Changes what was taken over; for one thread at a time."""
        taken = self.read()
        change(taken)
        self.write(taken)

    def read_intents(self) -> list[dict[str, Any]]:
        """Returns what is being done, the oldest first."""
        intents = self._read().get(INTENT.format(self._database))
        return intents if isinstance(intents, list) else []

    def add_intent(self, intent: dict[str, Any]) -> None:
        """Notes what is to be done."""
        self._write({INTENT.format(self._database): [*self.read_intents(), intent]})

    def remove_intent(self, intent: dict[str, Any]) -> None:
        """Notes that something is settled."""
        others = [other for other in self.read_intents() if other != intent]
        self._write({INTENT.format(self._database): others or None})

    def left_of(self, name: str) -> list[str]:
        """Returns the files that a removal of a speaker has left."""
        intents = [each for each in self.read_intents() if each["action"] == "delete"]
        theirs = [each for each in intents if spellings([each["name"]], name)]
        return [label for intent in theirs for label in intent["files"]]

    def rename(self, name: str, new_name: str, moves: dict[str, str]) -> None:
        """Gives a speaker's files to the new name; `moves` are old and new names at the top."""

        def move(taken: Taken) -> None:
            moved = [taken.pop(spelling) for spelling in spellings(taken, name)]
            for label, entry in [item for entries in moved for item in entries.items()]:
                top, slash, rest = label.partition("/")
                top = moves.get(top, f"{new_name}{'' if slash else Path(label).suffix}")
                taken.setdefault(new_name, {})[f"{top}{slash}{rest}"] = entry

        self.change(move)

    def drop(self, labels: Iterable[str]) -> None:
        """Forgets files."""

        def remove(taken: Taken) -> None:
            for entries in taken.values():
                for label in entries.keys() & set(labels):
                    del entries[label]

        self.change(remove)

    def defects(self) -> list[tuple[str, str]]:
        """Returns `(path, reason)` if the file holds what this program cannot have written."""
        record = self._load()
        if record is None or record == _usable(record):
            return []
        return [(str(self._folder / RECORD_NAME), "parts of it were changed from outside")]

    def _read(self) -> dict[str, Any]:
        """Reads the usable part of the record of all databases; empty if there is none.

        Raises:
            DatabaseError: If there is one that cannot be read now.
        """
        return _usable(self._load())

    def _load(self) -> Any:
        """Returns what the file holds, None if there is no file."""
        path = self._folder / RECORD_NAME
        try:
            return json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            # Taken for empty, it would be written anew without what it holds.
            raise DatabaseError(f"{path}: cannot be read ({error.strerror})") from error
        except (ValueError, RecursionError):
            return False

    def _write(self, changes: dict[str, Any]) -> None:
        """Writes entries of the record at once; those that are None are removed."""
        if not self._folder.is_dir():
            return
        path = self._folder / RECORD_NAME
        changed = {**self._read(), **changes}
        record = {key: value for key, value in changed.items() if value is not None}
        try:
            write_text_atomically(path, json.dumps(record))
        except OSError as error:
            raise DatabaseError(f"{path}: cannot be written ({error.strerror})") from error


def printable(text: str) -> str:
    """Returns the name of a file as text; bytes in it that are not UTF-8 become question marks."""
    return text.encode("utf-8", "replace").decode()


def _usable(record: Any) -> dict[str, Any]:
    """Returns what is as this program writes it: nothing else may choose files to be changed."""
    usable: dict[str, Any] = {}
    for key, value in record.items() if isinstance(record, dict) else ():
        if key.startswith(INTENT.format("")):
            if isinstance(value, list):
                usable[key] = [intent for intent in value if _is_intent(intent)]
        elif isinstance(value, dict):
            usable[key] = {
                name: {label: entry for label, entry in files.items() if _is_entry(label, entry)}
                for name, files in value.items()
                if _is_name(name) and isinstance(files, dict)
            }
    return usable


def _is_name(name: Any) -> bool:
    try:
        return isinstance(name, str) and bool(clean_name(name))
    except DatabaseError:
        return False


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and RECORDING_ID.fullmatch(value) is not None


def _is_label(label: Any) -> bool:
    """Tells whether a text names a file in the folder, and none outside."""
    if not isinstance(label, str) or not label or "\0" in label:
        return False
    path = Path(label)
    is_inside = not path.anchor and ".." not in path.parts and not label.startswith(".")
    return is_inside and path.as_posix() == label


def _is_stamp(stamp: Any) -> bool:
    return isinstance(stamp, list) and len(stamp) == 2 and all(type(n) is int for n in stamp)


def _is_entry(label: Any, entry: Any) -> bool:
    """Tells whether these are a file, its stamp, and its recording."""
    return (
        isinstance(entry, list)
        and _is_stamp(entry[:2])
        and len(entry) > 2
        and _is_id(entry[2])
        and entry[3:] in ([], [PENDING])
        and (label == OLD_LABEL.format(entry[2]) or _is_label(label))
    )


def _is_intent(intent: Any) -> bool:
    """Tells whether this is what `VoiceFolder` notes before it changes files."""
    if not isinstance(intent, dict) or intent.keys() != INTENT_FIELDS:
        return False
    ids, files = intent["recordings"], intent["files"]
    if not isinstance(ids, list) or not all(map(_is_id, ids)) or not isinstance(files, dict):
        return False
    if not (_is_name(intent["name"]) and _is_name(intent["new_name"])):
        return False
    if intent["action"] == "rename":
        return all(_is_label(name) and "/" not in name for pair in files.items() for name in pair)
    stamps = all(stamp == [] or _is_stamp(stamp) for stamp in files.values())
    return intent["action"] in ("replace", "delete") and stamps and all(map(_is_label, files))


def spellings(names: Iterable[str], name: str) -> list[str]:
    """Returns those of some names that are the same as a name."""
    return [other for other in names if fold_name(other) == fold_name(name)]


def stamp_of(path: Path) -> list[int]:
    """Returns what changes when a file is written; nothing where there is none."""
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]
