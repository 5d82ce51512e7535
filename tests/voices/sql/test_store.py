"""The SQL voice database, the same tests on SQLite and PostgreSQL."""

import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError as DriverError

from tests.support.fake_encoder import FakeEncoder
from tests.support.synthetic_voices import synthetic_speech
from utils.errors import (
    AudioError,
    DatabaseError,
    SpeakerExistsError,
    TooManyRecordingsError,
    UnknownSpeakerError,
)
from utils.verification.cohort import Cohort
from voices.sql.records import AuditLine, IfExists, NewRecording, Speaker
from voices.sql.store import SqlVoiceStore

KEY = bytes(range(32))
Opener = Callable[..., SqlVoiceStore]


@pytest.fixture
def open_it(database_url: str) -> Iterator[Opener]:
    """Opens the test's database, any number of times as other processes would."""
    opened = []

    def opener(encoder: object = "fake", **options: object) -> SqlVoiceStore:
        encoder = FakeEncoder() if encoder == "fake" else encoder
        database = SqlVoiceStore(database_url, encoder, **options)
        opened.append(database)
        return database

    yield opener
    for database in opened:
        database.close()


@pytest.fixture
def database(open_it: Opener) -> SqlVoiceStore:
    return open_it(keep_audio=True)


def embedding(seed: int, size: int = 64) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=size)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def new(seed: int, size: int = 64, **more: object) -> NewRecording:
    return NewRecording(embedding(seed, size), speech_s=1.5, audio=None, duration_s=2.0, **more)


def test_enrol_tells_what_is_stored(database: SqlVoiceStore) -> None:
    before = datetime.now(timezone.utc) - timedelta(seconds=1)
    made = datetime(2020, 2, 29, 12, 30, 15, 123457, timezone.utc)
    speaker = database.enrol("  夜雨飘零 ", [new(0), new(1, created_at=made)])
    assert speaker == database.speaker("夜雨飘零")
    assert speaker.name == "夜雨飘零"
    assert speaker.created_at == made, "as old as the oldest recording"
    assert before < speaker.updated_at <= datetime.now(timezone.utc)
    first, second = speaker.recordings
    assert len(first.id) == 32 and first.id != second.id
    assert (first.speech_s, first.duration_s, first.has_audio) == (1.5, 2.0, False)
    assert second.created_at == made and before < first.created_at


def test_if_exists(database: SqlVoiceStore) -> None:
    database.enrol("Tom", [new(0)])
    with pytest.raises(SpeakerExistsError, match="Tom is enrolled already"):
        database.enrol("tom", [new(1)])
    added = database.enrol("TOM", [new(1)], if_exists="add")
    assert added.name == "Tom" and len(added.recordings) == 2
    assert database.score("tom", embedding(0)) == pytest.approx(
        float(embedding(0) @ mean(embedding(0), embedding(1))), abs=1e-6
    )
    replaced = database.enrol("Tom", [new(2)], if_exists="replace")
    assert len(replaced.recordings) == 1
    assert database.score("Tom", embedding(2)) == pytest.approx(1, abs=1e-6)
    assert replaced.created_at == added.created_at


def mean(*embeddings: np.ndarray) -> np.ndarray:
    total = np.sum(embeddings, axis=0)
    return total / np.linalg.norm(total)


@pytest.mark.parametrize("if_exists", ["add", "replace"])
def test_who_was_deleted_meanwhile_does_not_come_back(
    open_it: Opener, monkeypatch: pytest.MonkeyPatch, if_exists: IfExists
) -> None:
    database, other = open_it(), open_it()
    with pytest.raises(UnknownSpeakerError, match="nobody named Tom"):
        database.enrol("Tom", [new(1)], if_exists=if_exists, must_exist=True)
    database.enrol("Tom", [new(0)])
    identity = database._identity
    checked = identity.checked
    monkeypatch.setattr(identity, "checked", lambda value: (other.remove("Tom"), checked(value))[1])
    # The deletion happens after the call and before its transaction.
    with pytest.raises(UnknownSpeakerError, match="nobody named tom"):
        database.enrol("tom", [new(1)], if_exists=if_exists, must_exist=True)
    assert database.names() == []


def test_too_many_recordings_leave_the_old_ones(database: SqlVoiceStore) -> None:
    with pytest.raises(TooManyRecordingsError, match=r"0 recordings and 3 were received.* most 2"):
        database.enrol("a", [new(0), new(1), new(2)], max_recordings=2)
    assert database.count() == 0
    before = database.enrol("a", [new(0), new(1)], max_recordings=2)
    with pytest.raises(TooManyRecordingsError):
        database.enrol("a", [new(2)], if_exists="add", max_recordings=2)
    with pytest.raises(TooManyRecordingsError):
        database.enrol("a", [new(2)] * 3, if_exists="replace", max_recordings=2)
    assert database.speaker("a") == before
    assert database.score("a", embedding(0)) > 0.5
    database.enrol("a", [new(2), new(3)], if_exists="replace", max_recordings=2)


@pytest.mark.parametrize("name", ["", "a/b", "..", "a\0b", "x" * 200, "\ud800", "nul", "a.wav"])
def test_unusable_names_are_refused(database: SqlVoiceStore, name: str) -> None:
    for use in (
        lambda: database.enrol(name, [new(0)]),
        lambda: database.speaker(name),
        lambda: database.enrolled_name(name),
        lambda: database.remove(name),
        lambda: database.score(name, embedding(0)),
    ):
        with pytest.raises(DatabaseError):
            use()
    assert database.count() == 0


@pytest.mark.parametrize(
    "wrong", [np.ones(3), np.ones((64, 1)), np.zeros(64), np.full(64, np.nan), np.ones(0)]
)
def test_wrong_embeddings_are_refused(database: SqlVoiceStore, wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected a finite embedding of 64"):
        database.enrol("a", [NewRecording(wrong, 1.0, None, 1.0)])
    with pytest.raises(ValueError, match="expected a finite embedding of 64"):
        database.identify(wrong)
    with pytest.raises(ValueError, match="at least one recording"):
        database.enrol("a", [])


def test_pages_of_speakers(database: SqlVoiceStore) -> None:
    names = ["Zoë", "adam", "Bob", "李达康", "50%_off", "bobby"]
    for seed, name in enumerate(names):
        database.enrol(name, [new(seed)])
    page, total = database.speakers()
    assert [speaker.name for speaker in page] == sorted(names) == database.names()
    assert total == database.count() == 6
    page, total = database.speakers(offset=2, limit=2)
    assert [speaker.name for speaker in page] == sorted(names)[2:4] and total == 6
    assert all(len(speaker.recordings) == 1 for speaker in page)
    assert [speaker.name for speaker in database.speakers(query="BOB")[0]] == ["Bob", "bobby"]
    assert database.speakers(query="达")[1] == 1
    assert [speaker.name for speaker in database.speakers(query="%_")[0]] == ["50%_off"]
    assert database.speakers(query="%")[1] == 1
    assert database.speakers(offset=99) == ([], 6)
    for query in ("\0", "\ud800", "'; DROP TABLE voiceprint_speakers; --", "\\", "x" * 10_000):
        assert database.speakers(query=query) == ([], 0)


def test_rename(database: SqlVoiceStore, open_it: Opener) -> None:
    other = open_it()
    database.enrol("a", [new(0)])
    database.enrol("b", [new(1)])
    assert other.identify(embedding(0))[0][0] == "a"
    with pytest.raises(SpeakerExistsError, match="b is enrolled"):
        database.rename("a", "B")
    with pytest.raises(UnknownSpeakerError):
        database.rename("nobody", "c")
    assert database.rename("a", "A").name == "A"
    assert database.rename("A", "c").recordings == database.speaker("c").recordings
    assert other.identify(embedding(0))[0][0] == "c"
    assert other.identify(embedding(0), candidates=["a"]) == []
    assert database.enrolled_name("a") is None


def test_remove_says_what_went(database: SqlVoiceStore, open_it: Opener) -> None:
    other = open_it()
    speaker = database.enrol("Tom", [new(0), new(1)])
    assert other.identify(embedding(0)) != []
    removal = database.remove("tom")
    assert (removal.num_embeddings, removal.num_recordings) == (3, 2)
    assert removal.files == (*(f"Tom/{recording.id}" for recording in speaker.recordings), "Tom")
    assert other.identify(embedding(0)) == [] and other.count() == 0
    with pytest.raises(UnknownSpeakerError, match="nobody named Tom"):
        other.remove("Tom")
    database.enrol("Tom", [new(5)])
    assert other.score("Tom", embedding(5)) == pytest.approx(1, abs=1e-6)


def test_remove_recording(database: SqlVoiceStore, open_it: Opener) -> None:
    other = open_it()
    first, second = database.enrol("a", [new(0), new(1)]).recordings
    database.enrol("b", [new(2)])
    with pytest.raises(UnknownSpeakerError, match="b has no recording"):
        database.remove_recording("b", first.id)
    with pytest.raises(UnknownSpeakerError, match="no recording"):
        database.remove_recording("a", "' OR 1=1; --\ud800\0")
    assert other.identify(embedding(1))[0][1] < 0.9
    assert database.remove_recording("a", first.id).recordings == (second,)
    assert other.identify(embedding(1)) == [("a", pytest.approx(1, abs=1e-6))]
    with pytest.raises(DatabaseError, match="only recording of a"):
        database.remove_recording("a", second.id)
    assert database.speaker("a").recordings == (second,)


def test_identify(database: SqlVoiceStore) -> None:
    assert database.identify(embedding(0)) == []
    for seed in range(20):
        database.enrol(f"speaker {seed}", [new(seed)])
    found = database.identify(embedding(7), top_k=50)
    assert found[0] == ("speaker 7", pytest.approx(1, abs=1e-6))
    assert len(found) == 20
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)
    assert found == database.rank(embedding(7))
    for name, score in found:
        assert database.score(name, embedding(7)) == pytest.approx(score, abs=1e-6)
    assert database.identify(embedding(7), top_k=3) == found[:3]
    among = database.identify(
        embedding(7), candidates=["SPEAKER 3", "speaker 9", "nobody", "../x", "speaker 3"], top_k=9
    )
    assert among == [pair for pair in found if pair[0] in ("speaker 3", "speaker 9")]
    assert database.identify(embedding(7) * 3)[0] == ("speaker 7", pytest.approx(1, abs=1e-6))
    assert database.identify(embedding(7), candidates=[]) == []
    assert database.identify(embedding(7), top_k=0) == []


@pytest.mark.slow
def test_scores_normalised_by_a_cohort(open_it: Opener) -> None:
    encoder = FakeEncoder()
    encoder.cohort = Cohort(np.stack([embedding(seed) for seed in range(500, 540)]), top=10)
    database = open_it(encoder)
    assert database.identify(embedding(7)) == []
    enrolled = {f"speaker {seed}": embedding(seed) for seed in range(130)}
    for name, vector in enrolled.items():
        database.enrol(name, [NewRecording(vector, 1.5, None, 2.0)])
    database.in_group("others").enrol("speaker 7", [new(300)])
    found = database.rank(embedding(7))
    assert len(found) == 130 and found[0][0] == "speaker 7"
    for name, score in found:
        expected = encoder.cohort.score(embedding(7), enrolled[name])
        assert score == pytest.approx(expected, abs=1e-5)
        assert database.score(name, embedding(7)) == pytest.approx(expected, abs=1e-5)
    assert [score for _, score in found] == sorted((s for _, s in found), reverse=True)
    first = database.identify(embedding(7), top_k=3)
    assert [name for name, _ in first] == [name for name, _ in found[:3]]
    # By cosine another order; without the cohort again the cosine.
    plain = open_it(FakeEncoder())
    assert [name for name, _ in plain.rank(embedding(7))] != [name for name, _ in found]


def test_audio_is_kept_only_if_asked(database: SqlVoiceStore, open_it: Opener) -> None:
    waveform = synthetic_speech(0)
    database.add("a", waveform)
    (recording,) = database.recordings("a")
    assert recording.has_audio
    assert recording.duration_s == pytest.approx(len(waveform) / 16000)
    content = database.recording_audio("a", recording.id)
    samples, rate = soundfile.read(io.BytesIO(content), dtype="int16")
    assert rate == 16000
    np.testing.assert_array_equal(samples, np.round(waveform * 32768).clip(-32768, 32767))
    silent = open_it()
    silent.add("b", waveform)
    assert silent.recording_audio("b", silent.recordings("b")[0].id) is None
    with pytest.raises(UnknownSpeakerError):
        database.recording_audio("b", recording.id)
    with pytest.raises(UnknownSpeakerError):
        database.recording_audio("nobody", recording.id)


def test_as_the_scripts_use_it(database: SqlVoiceStore, open_it: Opener) -> None:
    encoder = FakeEncoder()
    with pytest.raises(DatabaseError, match=r"nobody is enrolled in (sqlite|postgresql)://"):
        database.rank(embedding(0))
    (place,) = database.add("李达康", synthetic_speech(0))
    assert place.startswith("李达康/")
    assert len(database.add("沙瑞金", synthetic_speech(1), synthetic_speech(1, 1))) == 2
    database.add("沙瑞金", synthetic_speech(1, 2))
    assert len(database.recordings("沙瑞金")) == 3 and database.recordings("x") == []
    assert database.rank(encoder.embed_waveform(synthetic_speech(1, 7)))[0][0] == "沙瑞金"
    with pytest.raises(UnknownSpeakerError):
        database.replace("x", synthetic_speech(2))
    assert len(database.replace("沙瑞金", synthetic_speech(2))) == 1
    assert len(database.recordings("沙瑞金")) == 1
    with pytest.raises(AudioError):
        database.add("b", synthetic_speech(3), np.zeros(16000, np.float32))
    assert database.load() == database.names() == ["李达康", "沙瑞金"]
    assert len(database.delete("李达康")) == 2
    assert database.enrolled_name("沙瑞金") == "沙瑞金" and database.enrolled_name("李达康") is None
    with pytest.raises(ValueError, match="without an encoder"):
        open_it(None).add("c", synthetic_speech(0))


def test_other_model_embeds_again_what_was_kept(database: SqlVoiceStore, open_it: Opener) -> None:
    database.add("kept", synthetic_speech(0))
    database.enrol("lost", [new(1)])
    database.enrol("both", [new(2)])
    database.add("both", synthetic_speech(1))
    encoder = FakeEncoder("another model")
    newer = open_it(encoder)
    assert newer.identify(embedding(1)) == []
    with pytest.raises(DatabaseError, match="enrolled with another model"):
        newer.score("lost", embedding(1))
    assert newer.load() == ["both", "kept"]
    assert encoder.num_embedded == 2
    assert sorted(place.split("/")[0] for place, _ in newer.rejected) == ["both", "lost"]
    assert all("another model" in reason for _, reason in newer.rejected)
    query = FakeEncoder().embed_waveform(synthetic_speech(1))
    assert newer.rank(query)[0] == ("both", pytest.approx(1, abs=1e-3))
    assert newer.load() == ["both", "kept"] and encoder.num_embedded == 2
    assert newer.names() == ["both", "kept", "lost"]


def test_without_encoder_the_first_recording_sets_the_size(open_it: Opener) -> None:
    one, two = open_it(None), open_it(None)
    one.enrol("a", [new(0, size=8)])
    assert two.identify(embedding(0, 8)) == [("a", pytest.approx(1, abs=1e-6))]
    with pytest.raises(DatabaseError, match="received 9 numbers, expected 8"):
        two.enrol("b", [new(0, size=9)])


def test_one_of_two_who_enrol_a_name_wins(open_it: Opener) -> None:
    databases = [open_it() for _ in range(4)]
    barrier = threading.Barrier(8)

    def enrol(index: int) -> str:
        barrier.wait()
        try:
            databases[index % 4].enrol("Tom" if index % 2 else "tom", [new(index)])
        except SpeakerExistsError:
            return "exists"
        return "won"

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(enrol, range(8))) == ["exists"] * 7 + ["won"]
    assert databases[0].count() == 1


@pytest.mark.slow
def test_many_threads_of_several_openers(open_it: Opener) -> None:
    databases = [open_it() for _ in range(3)]

    def work(index: int) -> None:
        database = databases[index % 3]
        name = f"s{index}"
        database.enrol(name, [new(index), new(1000 + index)])
        # At once visible to the others.
        other = databases[(index + 1) % 3]
        assert other.identify(embedding(index))[0][0] == name
        if index % 4 == 0:
            other.remove(name)
            assert name not in dict(database.identify(embedding(index)))
        elif index % 4 == 1:
            other.rename(name, f"renamed {index}")
            assert database.identify(embedding(index))[0][0] == f"renamed {index}"
        elif index % 4 == 2:
            database.enrol(name, [new(2000 + index)], if_exists="replace")
            assert other.identify(embedding(2000 + index))[0] == (name, pytest.approx(1, abs=1e-5))

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(work, range(60)))
    assert [database.count() for database in databases] == [45] * 3
    # Up to the last digit, which depends on the row that a speaker has in the matrix.
    first, *others = [dict(database.rank(embedding(1))) for database in databases]
    assert len(first) == 45
    assert all(scores == pytest.approx(first, abs=1e-5) for scores in others)


def test_a_reader_far_behind_catches_up(open_it: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("search", "rows"):
        monkeypatch.setattr(f"voices.sql.{module}.KEPT_REMOVALS", 3)
    writer, reader = open_it(), open_it()
    for seed in range(8):
        writer.enrol(f"s{seed}", [new(seed)])
    assert len(reader.rank(embedding(0))) == 8
    for seed in range(5):
        writer.remove(f"s{seed}")
    assert {name for name, _ in reader.rank(embedding(0))} == {"s5", "s6", "s7"}
    writer.remove("s5")
    assert {name for name, _ in reader.rank(embedding(0))} == {"s6", "s7"}


def test_load_reads_what_the_first_question_needs(
    database: SqlVoiceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.enrol("a", [new(1)])
    database.load()
    index = database._search._memories["default"].index
    assert index is not None and len(index) == 1
    monkeypatch.setattr(database._search, "_read_changes", lambda *args: 1 // 0)
    assert database.identify(embedding(1))[0][0] == "a"


def test_audit_log_is_append_only(database: SqlVoiceStore) -> None:
    database.audit_log.append(
        AuditLine("app", "enrol", "夜雨飘零", "ok"),
        AuditLine("web", "verify", "x\0\ud800" * 500, "refused", 0.25),
    )
    latest, first = database.audit_log.last()
    assert (first.actor, first.action, first.speaker, first.outcome, first.score) == (
        ("app", "enrol", "夜雨飘零", "ok", None)
    )
    assert latest.score == 0.25 and len(latest.speaker) == 400 and latest.at >= first.at
    assert [entry.actor for entry in database.audit_log.last(limit=1)] == ["web"]
    for change in (
        "UPDATE voiceprint_audit SET actor = 'nobody'",
        "DELETE FROM voiceprint_audit",
        "DELETE FROM voiceprint_audit WHERE id = 1",
    ):
        engine = database._connections.engine
        with engine.connect() as connection, pytest.raises(DriverError, match="append-only"):
            connection.exec_driver_sql(change)
    assert len(database.audit_log.last()) == 2


def test_closed_and_opened_again_it_is_the_same(open_it: Opener) -> None:
    first = open_it(keep_audio=True)
    first.add("a", synthetic_speech(0))
    before = first.speaker("a")
    first.close()
    again = open_it(create=False)
    again.ping()
    assert again.speaker("a") == before


@pytest.mark.parametrize("kept", [False, True])
def test_encrypted_database(open_it: Opener, kept: bool) -> None:
    database = open_it(key=KEY, keep_audio=kept)
    database.add("a", synthetic_speech(0))
    assert database.is_encrypted
    again = open_it(key=KEY)
    query = FakeEncoder().embed_waveform(synthetic_speech(0))
    assert again.identify(query) == [("a", pytest.approx(1, abs=1e-6))]
    assert again.score("a", query) == pytest.approx(1, abs=1e-6)
    sound = again.recording_audio("a", again.recordings("a")[0].id)
    assert (sound is not None) is kept
    with pytest.raises(DatabaseError, match="is encrypted; give its key in VOICEPRINT_KEY"):
        open_it()
    with pytest.raises(DatabaseError, match="encrypted with another key"):
        open_it(key=bytes(32))
    with pytest.raises(DatabaseError, match="received a key of 5 bytes, expected 32"):
        open_it(key=b"short")


def test_key_for_a_database_without_one_is_refused(open_it: Opener) -> None:
    open_it().enrol("a", [new(0)])
    with pytest.raises(DatabaseError, match="is not encrypted, but a key was given"):
        open_it(key=KEY)


def test_one_of_many_first_keys_wins(open_it: Opener) -> None:
    barrier = threading.Barrier(6)

    def begin(number: int) -> bool:
        barrier.wait()
        try:
            open_it(key=bytes([number % 2]) * 32)
        except DatabaseError as error:
            assert "encrypted with another key" in str(error)
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        opened = list(pool.map(begin, range(6)))
    assert opened in ([True, False] * 3, [False, True] * 3)


def test_sealed_content_cannot_change_places(open_it: Opener) -> None:
    database = open_it(key=KEY)
    database.enrol("a", [new(0)])
    database.enrol("b", [new(1)])
    with database._connections.write() as connection:
        # Somebody with access to the tables gives b the voice of a, key and all.
        connection.exec_driver_sql(
            "UPDATE voiceprint_speakers SET key_id = (SELECT key_id FROM voiceprint_speakers "
            "WHERE name = 'a') WHERE name = 'b'"
        )
        connection.exec_driver_sql(
            "UPDATE voiceprint_means SET embedding = (SELECT m.embedding FROM voiceprint_means m "
            "JOIN voiceprint_speakers s ON s.id = m.speaker_id WHERE s.name = 'a')"
        )
    with pytest.raises(DatabaseError, match="cannot be decrypted"):
        database.score("b", embedding(0))


@pytest.mark.slow
@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("damage", ["embedding", "key"])
def test_one_damaged_record_does_not_stop_the_others(
    open_it: Opener, caplog: pytest.LogCaptureFixture, key: bytes | None, damage: str
) -> None:
    database = open_it(key=key)
    for number, name in enumerate("abc"):
        database.enrol(name, [new(number)])
    with database._connections.write() as connection:
        if damage == "key":
            changed = (
                "UPDATE voiceprint_keys SET stored = :content WHERE id = "
                "(SELECT key_id FROM voiceprint_speakers WHERE name = 'b')"
            )
        else:
            changed = (
                "UPDATE voiceprint_means SET embedding = :content WHERE speaker_id = "
                "(SELECT id FROM voiceprint_speakers WHERE name = 'b')"
            )
        connection.execute(text(changed), {"content": b"nothing that was sealed"})
    again = open_it(key=key)
    for _ in range(2):
        assert [name for name, _ in again.identify(embedding(1), top_k=3)] in (
            ["a", "c"],
            ["c", "a"],
        )
    assert again.num_damaged == 1 and again.identify(embedding(1), candidates=["b"]) == []
    assert len(caplog.records) == 1 and "is left out of identification" in caplog.text
    with pytest.raises(DatabaseError, match="cannot be decrypted"):
        again.score("b", embedding(1))
    # Whoever is enrolled anew is found again; who is removed is no longer counted.
    database.enrol("b", [new(1)], if_exists="replace")
    assert again.identify(embedding(1))[0][0] == "b" and again.num_damaged == 0


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=30))
def test_any_text_is_a_name_or_an_error(database: SqlVoiceStore, text: str) -> None:
    try:
        speaker = database.enrol(text, [new(0)], if_exists="replace")
    except DatabaseError:
        return
    assert isinstance(speaker, Speaker)
    assert database.enrolled_name(text) == speaker.name
    assert database.speakers(query=speaker.name)[1] >= 1
    assert database.identify(embedding(0), candidates=[text])[0][0] == speaker.name
    database.remove(text)
    assert database.count() == 0
