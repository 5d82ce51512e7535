import os
import random
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fake_encoder import FakeEncoder, RoundingEncoder
from tests.support.synthetic_voices import synthetic_speech, write_wav
from utils.arrays import FloatArray
from utils.audio.decode import load_audio
from utils.errors import AudioError, DatabaseError
from utils.speaker_names import MAX_NAME_BYTES, clean_name
from voices.folder import CACHE_NAME, FolderVoiceStore
from voices.store import public_name

NAMES = ["夜雨飘零", "Ana María", "Özgür-2", "J. R. Smith", "Σωκράτης", "आशा", "x", "😀", "-rf"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A database with 李达康 (one file) and 沙瑞金 (a file and two more in a folder)."""
    write_wav(tmp_path / "李达康.wav", synthetic_speech(0, 0))
    write_wav(tmp_path / "沙瑞金.wav", synthetic_speech(1, 0))
    write_wav(tmp_path / "沙瑞金" / "2.wav", synthetic_speech(1, 1))
    write_wav(tmp_path / "沙瑞金" / "3.wav", synthetic_speech(1, 2))
    (tmp_path / "README.md").write_text("not a recording")
    return tmp_path


def loaded(folder: Path, encoder: FakeEncoder | None = None) -> FolderVoiceStore:
    database = FolderVoiceStore(folder, encoder or FakeEncoder())
    database.load()
    return database


def test_load_finds_files_and_folders(folder: Path) -> None:
    database = FolderVoiceStore(folder, FakeEncoder())
    assert database.load() == database.names() == ["李达康", "沙瑞金"]
    assert database.rejected == []
    assert [path.name for path in database.recordings("沙瑞金")] == ["沙瑞金.wav", "2.wav", "3.wav"]


def test_speaker_embedding_is_the_normalised_mean(folder: Path) -> None:
    encoder = FakeEncoder()
    database = loaded(folder, encoder)
    mean = np.mean([encoder.embed_file(path) for path in database.recordings("沙瑞金")], axis=0)
    query = encoder.embed_waveform(synthetic_speech(1, 5))
    scores = dict(database.rank(query))
    assert scores["沙瑞金"] == pytest.approx(float(query @ mean / np.linalg.norm(mean)), abs=1e-6)


def test_rank_puts_the_speaker_first(folder: Path) -> None:
    database = loaded(folder)
    for speaker, name in enumerate(["李达康", "沙瑞金"]):
        ranking = database.rank(FakeEncoder().embed_waveform(synthetic_speech(speaker, 7)))
        assert ranking[0][0] == name
        assert ranking[0][1] > ranking[1][1]


def test_one_enrolled_speaker_is_enough(tmp_path: Path) -> None:
    database = loaded(tmp_path)
    database.add("a", synthetic_speech(0))
    assert [
        name for name, _ in database.rank(FakeEncoder().embed_waveform(synthetic_speech(0)))
    ] == ["a"]


def test_rank_without_speakers_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="nobody is enrolled"):
        loaded(tmp_path).rank(np.ones(4, np.float32))


def test_missing_folder_is_an_empty_database_and_is_not_made_by_reading(tmp_path: Path) -> None:
    assert loaded(tmp_path / "new").names() == []
    assert not (tmp_path / "new").exists()


def test_unreadable_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatabaseError, match="cannot be read"):
        FolderVoiceStore(tmp_path / "file", FakeEncoder()).load()


def test_unusable_recordings_are_named_and_left_out(folder: Path) -> None:
    (folder / "broken.wav").write_bytes(b"RIFF....")
    write_wav(folder / "silent.wav", np.zeros(32000))
    write_wav(folder / "con.wav", synthetic_speech(2))
    (folder / "voice.ape").write_bytes(b"MAC ")
    (folder / "README.md").write_text("about this folder")
    (folder / "voiceprints.sqlite3-wal").write_bytes(b"")
    database = FolderVoiceStore(folder, FakeEncoder())
    assert database.load() == ["李达康", "沙瑞金"]
    reasons = {path.name: reason for path, reason in database.rejected}
    assert sorted(reasons) == ["broken.wav", "con.wav", "silent.wav", "voice.ape"]
    assert "not a recording by its name" in reasons["voice.ape"]
    assert "reserved" in reasons["con.wav"]
    assert database.load() == ["李达康", "沙瑞金"]
    assert len(database.rejected) == 4


def test_add_writes_a_file_that_says_the_same(tmp_path: Path) -> None:
    database = loaded(tmp_path)
    waveform = synthetic_speech(3)
    (path,) = database.add("夜雨飘零", waveform)
    assert path == tmp_path / "夜雨飘零.wav"
    np.testing.assert_allclose(load_audio(path), waveform, atol=1 / 32768)
    assert database.rank(FakeEncoder().embed_waveform(waveform))[0] == (
        "夜雨飘零",
        pytest.approx(1.0, abs=1e-4),
    )
    assert loaded(tmp_path).names() == ["夜雨飘零"]


def test_add_to_an_enrolled_speaker_keeps_the_old_recordings(folder: Path) -> None:
    database = loaded(folder)
    before = (folder / "李达康.wav").read_bytes()
    new = database.add("李达康", synthetic_speech(0, 1), synthetic_speech(0, 2))
    assert all(path.parent == folder / "李达康" for path in new)
    assert database.recordings("李达康") == [folder / "李达康.wav", *new]
    assert (folder / "李达康.wav").read_bytes() == before


def test_add_refuses_as_a_whole(tmp_path: Path) -> None:
    with pytest.raises(AudioError):
        loaded(tmp_path).add("a", synthetic_speech(0), np.zeros(16000, np.float32))
    assert list(tmp_path.iterdir()) == []


def test_add_where_nothing_can_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    database = FolderVoiceStore(tmp_path, FakeEncoder())
    database.add("a", synthetic_speech(0))
    (tmp_path / "a").write_text("a file where the folder should be")
    with pytest.raises(DatabaseError, match="cannot be written"):
        database.add("a", synthetic_speech(0))


def test_a_database_without_encoder_cannot_load(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without an encoder"):
        FolderVoiceStore(tmp_path).load()


def test_replace_leaves_the_new_recordings_only(folder: Path) -> None:
    write_wav(folder / "沙瑞金.flac.wav", synthetic_speech(2))  # somebody else: "沙瑞金.flac"
    database = loaded(folder)
    new = database.replace("沙瑞金", synthetic_speech(4, 0), synthetic_speech(4, 1))
    assert new[0] == folder / "沙瑞金.wav"
    assert database.recordings("沙瑞金") == new
    assert database.rank(FakeEncoder().embed_waveform(synthetic_speech(4, 2)))[0][0] == "沙瑞金"
    assert sorted(FolderVoiceStore(folder).recordings("沙瑞金")) == sorted(new)


def test_replace_removes_an_empty_folder_but_not_what_else_is_in_it(folder: Path) -> None:
    loaded(folder).replace("沙瑞金", synthetic_speech(4))
    assert not (folder / "沙瑞金").exists()
    write_wav(folder / "李达康" / "2.wav", synthetic_speech(0, 1))
    (folder / "李达康" / "notes.txt").write_text("keep")
    loaded(folder).replace("李达康", synthetic_speech(4))
    assert [path.name for path in (folder / "李达康").iterdir()] == ["notes.txt"]


def test_replace_that_fails_leaves_the_old_voice(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*.wav")}
    with pytest.raises(AudioError):
        loaded(folder).replace("沙瑞金", np.zeros(16000, np.float32))
    assert {path: path.read_bytes() for path in folder.rglob("*.wav")} == before


def test_replace_and_delete_of_nobody_are_errors(folder: Path) -> None:
    with pytest.raises(DatabaseError, match="nobody named 甲"):
        loaded(folder).replace("甲", synthetic_speech(0))
    with pytest.raises(DatabaseError, match=r"nobody named 甲 in .* \(2 enrolled\)"):
        FolderVoiceStore(folder).delete("甲")


def test_delete_removes_recordings_folder_and_embeddings(folder: Path) -> None:
    database = loaded(folder)
    (folder / "沙瑞金" / "notes.txt").write_text("about 沙瑞金")
    removed = database.delete("沙瑞金")
    assert [path.relative_to(folder).as_posix() for path in removed] == [
        "沙瑞金.wav",
        "沙瑞金/2.wav",
        "沙瑞金/3.wav",
        "沙瑞金/notes.txt",
        "沙瑞金",
    ]
    assert not any(path.exists() for path in removed)
    assert [
        name for name, _ in database.rank(FakeEncoder().embed_waveform(synthetic_speech(1)))
    ] == ["李达康"]
    assert "沙瑞金".encode("unicode_escape") not in (folder / CACHE_NAME).read_bytes()


def test_delete_without_a_model_clears_the_cache_too(folder: Path) -> None:
    loaded(folder)
    FolderVoiceStore(folder).delete("李达康")
    encoder = FakeEncoder()
    assert loaded(folder, encoder).names() == ["沙瑞金"]
    assert encoder.num_embedded == 0  # the others are still cached
    FolderVoiceStore(folder).delete("沙瑞金")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md"]


def test_delete_follows_no_link_out_of_the_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    write_wav(outside / "1.wav", synthetic_speech(0))
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "a").symlink_to(outside, target_is_directory=True)
    assert FolderVoiceStore(tmp_path / "db").delete("a") == [tmp_path / "db" / "a"]
    assert (outside / "1.wav").exists()


def test_delete_that_the_system_refuses_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    database = FolderVoiceStore(folder)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(DatabaseError, match=r"李达康\.wav: cannot be removed"):
        database.delete("李达康")


def test_find_ignores_case_and_normal_form(tmp_path: Path) -> None:
    database = loaded(tmp_path)
    database.add("Zoë", synthetic_speech(0))
    assert database.enrolled_name("zOE\u0308") == "Zoë"
    assert database.enrolled_name("Zoe") is None
    (path,) = database.add(" ZOE\u0308", synthetic_speech(0, 1))
    assert path.parent == tmp_path / "Zoë"
    assert database.names() == ["Zoë"]


def test_names_in_another_normal_form_are_one_speaker(tmp_path: Path) -> None:
    write_wav(tmp_path / "Zoe\u0308.wav", synthetic_speech(0, 0))
    write_wav(tmp_path / "Zo\u00eb" / "2.wav", synthetic_speech(0, 1))
    assert loaded(tmp_path).names() == ["Zoë"]
    assert len(FolderVoiceStore(tmp_path).delete("Zoë")) == 3
    assert FolderVoiceStore(tmp_path).names() == []


# Names


@pytest.mark.parametrize("name", NAMES)
def test_clean_name_accepts(name: str, tmp_path: Path) -> None:
    assert clean_name(name) == name
    (path,) = FolderVoiceStore(tmp_path, FakeEncoder()).add(name, synthetic_speech(0))
    assert path.parent == tmp_path
    assert FolderVoiceStore(tmp_path).names() == [name]


def test_clean_name_brings_spaces_and_accents_to_one_form() -> None:
    assert clean_name("\u3000夜雨\u3000飘零 ") == "夜雨 飘零"
    assert clean_name("Zoe\u0308") == "Zo\u00eb"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("a/b", "holds /"),
        ("..", "outer dots"),
        ("../x", "holds /"),
        ("..\\x", r"holds \\"),
        (".hidden", "outer dots"),
        ("a.", "outer dots"),
        ("C:x", "holds :"),
        ("a*", r"holds \*"),
        ("a\x00b", r"U\+0000"),
        ("a\nb", r"U\+000A"),
        ("\x1b[31mred", r"U\+001B"),
        ("a\u202eb", r"U\+202E"),
        ("a\u200bb", r"U\+200B"),
        ("a\ufe0f", r"U\+FE0F"),
        ("\u3164", r"U\+3164"),
        ("a\udc80", r"U\+DC80"),
        ("\ufdd0", r"U\+FDD0"),
        ("CON", "reserved"),
        ("nul.txt", "reserved"),
        ("com1", "reserved"),
        ("LPT³", "reserved"),
        ("aux .x", "reserved"),
        ("a.wav", "without .wav"),
        ("a.MP3", "without .MP3"),
        ("长" * 41, "123 bytes, expected at most 120"),
        ("a" * 121, "121 bytes"),
    ],
)
def test_clean_name_refuses(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match=reason) as caught:
        clean_name(name)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()  # can be printed anywhere
    database = FolderVoiceStore(tmp_path / "db", FakeEncoder())
    with pytest.raises(DatabaseError, match=reason):
        database.add(name, synthetic_speech(0))
    assert list(tmp_path.iterdir()) == []


@given(st.text() | st.text("./\\ aUX:\u0308\u3000\u200b~é" + "con") | st.from_regex(r"(\.\./)*\w+"))
def test_no_name_escapes_the_folder(name: str) -> None:
    try:
        cleaned = clean_name(name)
    except DatabaseError:
        return
    assert clean_name(cleaned) == cleaned
    assert unicodedata.is_normalized("NFC", cleaned)
    assert 0 < len(cleaned.encode()) <= MAX_NAME_BYTES
    folder = Path("/srv/audio_db")
    for path in (folder / f"{cleaned}.wav", folder / cleaned / "x.wav"):
        assert Path(os.path.normpath(path)) == path
        assert folder in path.parents
    assert Path(f"{cleaned}.wav").stem == cleaned
    assert len(f".{cleaned[:40]}.01234567.tmp.wav".encode()) <= 255


# Killed processes

WRITER = """
import sys
from tests.support.fake_encoder import FakeEncoder, RoundingEncoder
from tests.support.synthetic_voices import synthetic_speech
from voices.folder import FolderVoiceStore

folder = sys.argv[1]
database = FolderVoiceStore(folder, FakeEncoder())
print("ready", flush=True)
while True:
    for number in range(6):
"""

ACTIONS = {
    "registering": """
        name = f"new{number}"
        known = database.enrolled_name(name)
        (database.replace if known else database.add)(name, synthetic_speech(number, 0, 3.0))
        print(name, flush=True)
        database.add(name, synthetic_speech(number, 1, 3.0))
""",
    "listing": """
        database = FolderVoiceStore(folder, FakeEncoder(model_id=f"model{number}"))
        print(*database.load(), sep="\\n", flush=True)
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_a_killed_process_leaves_whole_recordings_and_all_speakers(
    action: str, folder: Path, root: Path
) -> None:
    command = [sys.executable, "-c", WRITER + ACTIONS[action].lstrip("\n"), str(folder)]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    before = {path: path.read_bytes() for path in folder.rglob("*.wav")}
    delays = random.Random(7)
    enrolled = {"李达康", "沙瑞金"}
    for _ in range(5):
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, encoding="utf-8"
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(delays.uniform(0.0, 0.15))
        process.send_signal(signal.SIGKILL)
        enrolled |= set(process.stdout.read().splitlines())
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()

        database = FolderVoiceStore(folder, FakeEncoder())
        assert enrolled <= set(database.load())
        assert database.rejected == []
        for name in enrolled - {"李达康", "沙瑞金"}:
            for path in database.recordings(name):
                assert len(load_audio(path)) == 48000
    assert {path: path.read_bytes() for path in before} == before


def test_leftovers_of_killed_processes_go_when_they_are_old(folder: Path) -> None:
    old, fresh = folder / ".甲.0123abcd.tmp.wav", folder / "沙瑞金" / ".x.4567cdef.tmp.wav"
    for path in (old, fresh):
        path.write_bytes(b"half a recor")
    os.utime(old, (time.time() - 7200,) * 2)
    database = FolderVoiceStore(folder, FakeEncoder())
    assert database.load() == ["李达康", "沙瑞金"]
    assert not old.exists()
    assert fresh.exists()  # perhaps somebody writes it right now


def test_the_second_load_of_many_speakers_embeds_nothing(tmp_path: Path) -> None:
    waveform = synthetic_speech(0, 0, 0.5)
    for number in range(200):
        write_wav(tmp_path / f"speaker {number}.wav", np.roll(waveform, number))
    loaded(tmp_path)
    encoder = FakeEncoder()
    database = loaded(tmp_path, encoder)
    assert len(database.names()) == 200
    assert encoder.num_embedded == 0


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("audio_db", "audio_db"),
        ("sqlite:///a@b.db", "sqlite:///a@b.db"),
        ("postgresql://host:5432/db", "postgresql://host:5432/db"),
        ("postgresql://me@host/db?sslmode=require", "postgresql://host/db"),
        ("postgresql://me:secret@[::1]:5432/db", "postgresql://[::1]:5432/db"),
        ("postgresql://me:s/e?c#r[e@t@host/db?x=y", "postgresql://host/db"),
        ("postgresql://host/db?user=me&password=s@t", "postgresql://host/db"),
        ("postgresql+psycopg://me:secret@/db?host=/run", "postgresql+psycopg:///db"),
    ],
)
def test_passwords_are_not_shown(target: str, shown: str) -> None:
    assert public_name(target) == shown


@pytest.mark.parametrize(("one", "other"), [("Tom", "Tom "), ("Jos\u00e9", "Jose\u0301")])
def test_a_name_in_two_spellings_is_one_person_and_told_once(
    tmp_path: Path, one: str, other: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_wav(tmp_path / one / "1.wav", synthetic_speech(0))
    write_wav(tmp_path / f"{other}.wav", synthetic_speech(0, 1))
    store = FolderVoiceStore(tmp_path, FakeEncoder())
    assert store.load() == [unicodedata.normalize("NFC", one)]
    assert len(store.recordings(other)) == 2
    error = capsys.readouterr().err
    assert error.count("are one person each") == 1


def test_what_is_stored_gives_the_embedding_that_was_heard(tmp_path: Path) -> None:
    (path,) = FolderVoiceStore(tmp_path, RoundingEncoder()).add("Ada", synthetic_speech(0))
    assert soundfile.info(path).subtype == "PCM_24"


def test_nothing_is_replaced_by_what_cannot_be_stored(tmp_path: Path) -> None:
    class Fickle(FakeEncoder):
        """Never gives the same embedding twice."""

        def embed_waveform(self, recording: object, source: str = "") -> FloatArray:
            self.num_embedded += 1
            return np.eye(2, dtype=np.float32)[int(self.num_embedded > 1)]

    (path,) = FolderVoiceStore(tmp_path, FakeEncoder()).add("Ada", synthetic_speech(0))
    before = path.read_bytes()
    with pytest.raises(AudioError, match="not what was heard"):
        FolderVoiceStore(tmp_path, Fickle()).replace("Ada", synthetic_speech(0, 1))
    assert path.read_bytes() == before
