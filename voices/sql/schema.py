"""The tables of the SQL voice database, the same on SQLite and PostgreSQL.

migrations/ makes them; a test compares the two.
"""

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from pgvector.sqlalchemy import VECTOR
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
)

from utils.speaker_names import DEFAULT_GROUP

VERSION_TABLE = "voiceprint_schema"
"""Where Alembic notes the schema's version; the usual name may be another program's."""

POSTGRESQL_TABLES = {
    "voiceprint_model_vectors", "voiceprint_vectors", "voiceprint_rates", "voiceprint_attempts"
}  # fmt: skip
"""Tables that only PostgreSQL has."""

OF_BEFORE = {
    "voiceprint_vectors",
    "voiceprint_info.embedding_size",
    "voiceprint_speakers.model_id",
    "voiceprint_speakers.embedding",
    "voiceprint_speakers.voiceprint_speakers_name",
    "voiceprint_speakers.voiceprint_speakers_folded_name",
    "voiceprint_recordings.model_id",
    "voiceprint_recordings.embedding",
    "voiceprint_recordings.voiceprint_recordings_model",
}
"""Tables, columns and indexes that only replicas of version 2.2 use, beside which this one starts;
PostgreSQL keeps them for one release (see the fifth migration)."""


UNREADABLE_TIME = datetime.min.replace(tzinfo=timezone.utc)
"""Stands for a time that another program has overwritten with something else."""

UNREADABLE = "\u2bd1"
"""Stands in a text for bytes that are no UTF-8: the sign for uncertainty, which a name may hold, so
that who is called so can be asked for and removed."""


def read_text(raw: bytes) -> str:
    """Returns a text of SQLite; bytes that are no UTF-8 damage it, not each query that meets it."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace").replace("\ufffd", UNREADABLE)


class UtcTime(TypeDecorator[datetime]):
    """A moment, kept as whole microseconds since 1970 in UTC; one damaged row stops no query."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Turns a moment with a time zone into microseconds."""
        return None if value is None else round(value.timestamp() * 1_000_000)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Turns microseconds into a moment in UTC."""
        if value is None:
            return None
        try:
            seconds, microseconds = divmod(int(value), 1_000_000)
            moment = datetime.fromtimestamp(seconds, timezone.utc)
        except (ValueError, OverflowError, OSError):
            return UNREADABLE_TIME
        return moment.replace(microsecond=microseconds)


class StoredText(TypeDecorator[str]):
    """A text; SQLite lets other programs put bytes there."""

    impl = Text
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        """Returns the text, with `UNREADABLE` in it if there is something else."""
        return f"{read_text(value)}{UNREADABLE}" if isinstance(value, bytes) else value


class Seconds(TypeDecorator[float]):
    """A length; NaN if SQLite has something else there."""

    impl = Float(53)
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> float | None:
        """Returns the number."""
        return float(value) if isinstance(value, int | float) else float("nan")


class Position(TypeDecorator[int]):
    """A place in an order; the first if SQLite has something else there."""

    impl = Integer
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        """Returns the number."""
        return value if isinstance(value, int) else 0


class Sealed(LargeBinary):
    """What `seal` made.

    SQLite lets other programs put a text or a number there: that is read as nothing, which cannot
    be opened, instead of stopping every query.
    """

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], bytes | None]:
        """Returns what turns the driver's value into bytes."""

        def process(value: Any) -> bytes | None:
            if value is None:
                return None
            return bytes(value) if isinstance(value, bytes | bytearray | memoryview) else b""

        return process


SortedText = StoredText().with_variant(Text(collation="C"), "postgresql")
"""Text in the order of its code points, as Python and SQLite have it."""

BigId = BigInteger().with_variant(Integer(), "sqlite")
"""A number given by the database; SQLite counts only columns of exactly this type."""

metadata = MetaData()

info = Table(
    "voiceprint_info",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    # The model that opened the database last.
    Column("model_id", String(64)),
    Column("key_check", LargeBinary),
    # Counts the writes: whoever knows an older number has something to read.
    Column("change_number", BigInteger, nullable=False),
    # Of an index outside of the database, which notes whose speakers it holds.
    Column("database_id", String(32)),
    Column("index_address", Text),
    comment="One row about the whole database",
)

models = Table(
    "voiceprint_models",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("embedding_size", Integer, nullable=False),
    comment="Models whose embeddings the database may hold",
)

# Rows are appended and overwritten in place, never moved and never deleted: no copy of a key can
# stay behind in a page that was rearranged.
keys = Table(
    "voiceprint_keys",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("stored", Sealed, nullable=False),
    comment="Keys of the voice records; zeros where the record was removed",
    sqlite_autoincrement=True,
)

speakers = Table(
    "voiceprint_speakers",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", SortedText, nullable=False),
    Column("folded_name", SortedText, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    # Of the key that seals the means of all models.
    Column("key_id", BigId, ForeignKey("voiceprint_keys.id"), nullable=False),
    Column("change_number", BigInteger, nullable=False),
    # Set while the files of the speaker go; the next start of the service finishes it.
    Column("is_being_deleted", Boolean, nullable=False, server_default=false()),
    Column("group_name", SortedText, nullable=False, server_default=DEFAULT_GROUP),
    UniqueConstraint("group_name", "folded_name", name="voiceprint_speakers_group_folded_name"),
    Index("voiceprint_speakers_group_name", "group_name", "name"),
    Index("voiceprint_speakers_group_change", "group_name", "change_number"),
    Index("voiceprint_speakers_change", "change_number"),
    comment="Who is enrolled",
)

recordings = Table(
    "voiceprint_recordings",
    metadata,
    Column("id", String(32), primary_key=True),
    Column(
        "speaker_id",
        String(32),
        ForeignKey("voiceprint_speakers.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("position", Position, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("speech_s", Seconds, nullable=False),
    Column("duration_s", Seconds, nullable=False),
    Column("file_name", StoredText, nullable=False),
    # Of the key that seals sound and embeddings.
    Column("key_id", BigId, ForeignKey("voiceprint_keys.id"), nullable=False),
    # Tells whether the same file is sent again; nobody can compute it without the record's key.
    Column("content_mark", LargeBinary),
    Index("voiceprint_recordings_speaker", "speaker_id"),
    comment="The recordings of the speakers",
)

embeddings = Table(
    "voiceprint_embeddings",
    metadata,
    Column(
        "recording_id",
        String(32),
        ForeignKey("voiceprint_recordings.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("model_id", String(64), primary_key=True),
    Column("embedding", Sealed, nullable=False),
    comment="The embeddings of the recordings, by each model",
)

means = Table(
    "voiceprint_means",
    metadata,
    Column(
        "speaker_id",
        String(32),
        ForeignKey("voiceprint_speakers.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("model_id", String(64), primary_key=True),
    Column("embedding", Sealed, nullable=False),
    comment="The normalised mean of a speaker's embeddings, by each model",
)

audio = Table(
    "voiceprint_audio",
    metadata,
    Column(
        "recording_id",
        String(32),
        ForeignKey("voiceprint_recordings.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("content", Sealed, nullable=False),
    comment="The sound of recordings, where it is kept",
)

inbox = Table(
    "voiceprint_inbox",
    metadata,
    Column("path", Text, primary_key=True),
    Column("sha256", String(64), nullable=False),
    Column(
        "recording_id",
        String(32),
        ForeignKey("voiceprint_recordings.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Index("voiceprint_inbox_recording", "recording_id"),
    comment="Files of the service's inbox that were enrolled, by their place in it",
)

removals = Table(
    "voiceprint_removals",
    metadata,
    Column("change_number", BigInteger, primary_key=True, autoincrement=False),
    Column("speaker_id", String(32), nullable=False),
    comment="Ids that went lately, so that other processes forget them too",
)

audit = Table(
    "voiceprint_audit",
    metadata,
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("at", UtcTime, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("speaker", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("score", Float(53)),
    Column("group_name", Text, nullable=False, server_default=DEFAULT_GROUP),
    comment="Who did what and when; triggers refuse to change or remove a row",
    sqlite_autoincrement=True,
)

enrolments = Table(
    "voiceprint_enrolments",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("group_name", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("key_id", BigId, ForeignKey("voiceprint_keys.id"), nullable=False),
    Column("wish", Sealed, nullable=False),
    Index("voiceprint_enrolments_actor", "group_name", "actor"),
    comment="Enrolments that are under way",
)

parts = Table(
    "voiceprint_parts",
    metadata,
    Column(
        "enrolment_id",
        String(32),
        ForeignKey("voiceprint_enrolments.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("content", Sealed, nullable=False),
    comment="The recordings of enrolments that are under way",
)

challenges = Table(
    "voiceprint_challenges",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("group_name", Text, nullable=False),
    Column("actor", Text, nullable=False),
    # The folded name of the only speaker that it is for; empty for any of the group.
    Column("speaker", Text, nullable=False),
    Column("digits", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("used_at", UtcTime),
    Index("voiceprint_challenges_expires_at", "expires_at"),
    comment="Digits that somebody was asked to read, for a time",
)

uploads = Table(
    "voiceprint_uploads",
    metadata,
    Column("id", String(32), primary_key=True),
    Column(
        "speaker_id",
        String(32),
        ForeignKey("voiceprint_speakers.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("created_at", UtcTime, nullable=False),
    # One for all rows of a speaker.
    Column("key_id", BigId, ForeignKey("voiceprint_keys.id"), nullable=False),
    Column("content", Sealed, nullable=False),
    Index("voiceprint_uploads_speaker", "speaker_id", "created_at"),
    Index("voiceprint_uploads_created_at", "created_at"),
    comment="Prints of recordings that were sent in a speaker's name, so that none is sent twice",
)

jobs = Table(
    "voiceprint_jobs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("group_name", Text, nullable=False),
    Column("actor", Text, nullable=False),
    # Which process works on it: its own number since its start.
    Column("worker", String(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("progress", Float(53), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    # The worker's last sign of life; where the job is over, when it ended.
    Column("seen_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("error", Text),
    Column("key_id", BigId, ForeignKey("voiceprint_keys.id")),
    Column("result", Sealed),
    Column("voices", Sealed),
    Index("voiceprint_jobs_actor", "group_name", "actor"),
    comment="Recordings of several people that the service works on, and what it found, for a time",
)

requests = Table(
    "voiceprint_requests",
    metadata,
    Column("group_name", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("at", UtcTime, nullable=False),
    Column("action", Text, nullable=False),
    Column("answer", Text, nullable=False),
    Index("voiceprint_requests_at", "at"),
    comment="Keys of requests that were carried out lately, so that a retry is not done twice",
)

token_uses = Table(
    "voiceprint_token_uses",
    metadata,
    Column("fingerprint", String(12), primary_key=True),
    Column("used_at", UtcTime, nullable=False),
    comment="When which token was used last",
)

rates = Table(
    "voiceprint_rates",
    metadata,
    Column("key", LargeBinary, primary_key=True),
    Column("units", Float(53), nullable=False),
    Column("is_allowed", Boolean, nullable=False),
    Column("at", Float(53), nullable=False),
    Column("expires_at", Float(53), nullable=False),
    comment="How many requests each token may still make, counted for all processes",
    prefixes=["UNLOGGED"],
)

attempts = Table(
    "voiceprint_attempts",
    metadata,
    Column("key", LargeBinary, primary_key=True),
    Column("times", ARRAY(Float(53)), nullable=False),
    Column("is_locked", Boolean, nullable=False),
    Column("expires_at", Float(53), nullable=False),
    comment="When verifications failed lately, counted for all processes",
    prefixes=["UNLOGGED"],
)

vectors = Table(
    "voiceprint_model_vectors",
    metadata,
    Column(
        "speaker_id",
        String(32),
        ForeignKey("voiceprint_speakers.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("model_id", String(64), primary_key=True),
    Column("embedding", VECTOR(), nullable=False),
    comment="The speakers' embeddings for the vector index; empty in an encrypted database",
)
