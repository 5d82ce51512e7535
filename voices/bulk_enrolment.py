"""Enrols the speakers of a file of embeddings in an SQL database, without their sound."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from utils.corpus.embedding_file import StoredEmbedding
from utils.errors import DatabaseError, SpeakerExistsError
from utils.model.header import ModelHeader
from voices.store import open_database


class SpeakerRow(NamedTuple):
    """What became of a speaker: enrolled now, or before, or not, with the reason."""

    speaker: str
    is_enrolled: bool
    is_present: bool
    reason: str
    recordings: list[str]


@dataclass
class BulkEnrolment:
    """What became of the speakers.

    Attributes:
        num_enrolled: Speakers who were enrolled now.
        num_present: Speakers who were enrolled before; they stay as they are.
        refused: `(speaker, reason)` of those who could not be.
    """

    num_enrolled: int = 0
    num_present: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)


def enrol_embeddings(
    target: str, header: ModelHeader, entries: Iterable[StoredEmbedding]
) -> BulkEnrolment:
    """Enrols speakers, each in one transaction: a second run goes on where one was stopped.

    Args:
        target: The address of an SQL database.
        header: Of the model that the embeddings are of.
        entries: Embeddings with their clips.

    Raises:
        DatabaseError: If the database can't be opened.
    """
    model: Any = header  # Nothing is embedded: its identity is all that the database asks for.
    database: Any = open_database(target, model)
    done = BulkEnrolment()
    try:
        for row in enrol_each(database, entries):
            done.num_enrolled += row.is_enrolled
            done.num_present += row.is_present
            if row.reason:
                done.refused.append((row.speaker, row.reason))
    finally:
        database.close()
    return done


def enrol_each(database: Any, entries: Iterable[StoredEmbedding]) -> Iterator[SpeakerRow]:
    """Enrols speakers in an open database, and yields what became of each.

    Those who are there already stay as they are.
    """
    from voices.sql.records import NewRecording

    people: dict[int, list[StoredEmbedding]] = {}
    for entry in entries:
        if entry.clip is not None:
            people.setdefault(entry.clip.label, []).append(entry)
    named: dict[str, int] = {}
    for label, own in people.items():
        name = own[0].clip.speaker if own[0].clip and own[0].clip.speaker else str(label)
        paths = [entry.clip.path for entry in own if entry.clip is not None]
        if named.setdefault(name, label) != label:
            reason = "two people of the list have this name; rename one"
            yield SpeakerRow(name, False, False, reason, paths)
            continue
        recordings = [NewRecording(e.embedding, e.speech_s, None, _seconds(e)) for e in own]
        try:
            database.enrol(name, recordings, if_exists="error")
        except SpeakerExistsError:
            yield SpeakerRow(name, False, True, "", paths)
        except DatabaseError as error:
            yield SpeakerRow(name, False, False, str(error), paths)
        else:
            yield SpeakerRow(name, True, False, "", paths)


def _seconds(entry: StoredEmbedding) -> float:
    """Returns the length of a recording; that of its speech if the list doesn't say."""
    seconds = entry.clip.seconds if entry.clip else None
    return entry.speech_s if seconds is None else seconds
