"""Enrols the speakers of a file of embeddings in an SQL database, without their sound."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from utils.corpus.embedding_file import StoredEmbedding
from utils.errors import DatabaseError, SpeakerExistsError
from utils.model.header import ModelHeader
from voices.store import open_database


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

    from voices.sql.records import NewRecording

    done = BulkEnrolment()
    people: dict[int, list[StoredEmbedding]] = {}
    for entry in entries:
        if entry.clip is not None:
            people.setdefault(entry.clip.label, []).append(entry)
    named: dict[str, int] = {}
    try:
        for label, own in people.items():
            name = own[0].clip.speaker if own[0].clip and own[0].clip.speaker else str(label)
            if named.setdefault(name, label) != label:
                done.refused.append((name, "two people of the list have this name; rename one"))
                continue
            recordings = [NewRecording(e.embedding, e.speech_s, None, _seconds(e)) for e in own]
            try:
                database.enrol(name, recordings, if_exists="error")
                done.num_enrolled += 1
            except SpeakerExistsError:
                done.num_present += 1
            except DatabaseError as error:
                done.refused.append((name, str(error)))
    finally:
        database.close()
    return done


def _seconds(entry: StoredEmbedding) -> float:
    """Returns the length of a recording; that of its speech if the list doesn't say."""
    seconds = entry.clip.seconds if entry.clip else None
    return entry.speech_s if seconds is None else seconds
