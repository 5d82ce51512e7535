"""Checking and converting clips: every kind of bad audio, and nothing done twice."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.fake_encoder import FakeEncoder, RoundingEncoder
from tests.support.synthetic_voices import synthetic_speech, write_wav
from utils.arrays import FloatArray
from utils.audio.fidelity import Embed
from utils.corpus import conversion, treatment
from utils.corpus.conversion import Rules, Task, examine, examine_all
from utils.corpus.journal import ABSENT, Finding, read_journal
from utils.corpus.treatment import Treatment
from utils.engine.engine import LocalEngine
from utils.errors import AudioError, VoiceprintError

ALONE = LocalEngine(1)
RULES = Rules(min_duration_s=1.3)


def load_fake_model() -> Embed:
    """The speaker model of these tests."""
    return FakeEncoder().embed_waveform


DELETING = Rules(1.3, delete_source=True, load_model=load_fake_model)


def write_mp3(path: Path, speaker: int = 0, duration_s: float = 2.0, rate: int = 16000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    speech = synthetic_speech(speaker, duration_s=duration_s, sample_rate=rate)
    soundfile.write(path, speech, rate, format="MP3")
    return path


def task_for(source: Path, wav: Path | None = None, declared_s: float | None = None) -> Task:
    return Task(source.as_posix(), wav.as_posix() if wav else None, declared_s)


def bad_files(folder: Path) -> dict[str, Path]:
    """Writes one file of each kind of damage; returns them by the expected reason."""
    folder.mkdir(exist_ok=True)
    speech = synthetic_speech(0, duration_s=3.0)
    whole = write_wav(folder / "whole.wav", speech).read_bytes()
    files = {
        "no such file": folder / "missing.wav",
        "the file is empty": folder / "zero.wav",
        "not audio": folder / "text.wav",
        "truncated": folder / "cut.wav",
        "empty": write_wav(folder / "no_samples.wav", speech[:0]),
        "silent": write_wav(folder / "silent.wav", np.zeros(32000)),
        "non-finite": folder / "nan.wav",
        "truncated: ": folder / "cut.ogg",
    }
    files["the file is empty"].write_bytes(b"")
    files["not audio"].write_text("hello")
    files["truncated"].write_bytes(whole[: len(whole) // 2])
    with_nan = speech.copy()
    with_nan[100] = np.nan
    soundfile.write(files["non-finite"], with_nan, 16000, subtype="FLOAT")
    soundfile.write(files["truncated: "], speech, 16000)
    data = files["truncated: "].read_bytes()
    files["truncated: "].write_bytes(data[: int(0.7 * len(data))])
    return files


def test_bad_audio_of_every_kind_is_told(tmp_path: Path) -> None:
    for reason, path in bad_files(tmp_path).items():
        finding = examine(task_for(path), None, RULES)
        assert finding.defect is not None, path
        assert finding.defect.startswith(reason), finding.defect
        assert str(tmp_path) not in finding.defect


def test_bad_audio_is_not_converted_and_its_source_kept(tmp_path: Path) -> None:
    for path in bad_files(tmp_path / "in").values():
        wav = tmp_path / "out" / f"{path.name}.wav"
        finding = examine(task_for(path, wav), None, DELETING)
        assert finding.defect is not None
        assert not wav.exists()
        assert path.exists() or path.name == "missing.wav"


def test_declared_duration_exposes_a_stump(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", synthetic_speech(0, duration_s=1.5))
    assert examine(task_for(path, None, 2.0), None, RULES).defect is None
    defect = examine(task_for(path, None, 6.0), None, RULES).defect
    assert defect == "truncated: 1.50 s of 6.00 s declared by the data set"


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_wav_is_16_khz_mono_16_bit(tmp_path: Path, rate: int) -> None:
    source, wav = write_mp3(tmp_path / "a.mp3", rate=rate), tmp_path / "deep" / "a.wav"
    finding = examine(task_for(source, wav), None, RULES)
    info = soundfile.info(wav)
    assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
    assert finding.defect is None
    assert finding.duration_s == pytest.approx(2.0, abs=0.1)
    assert list(wav.parent.iterdir()) == [wav]
    assert source.exists()


def test_loud_mp3_is_clipped_not_wrapped(tmp_path: Path) -> None:
    square = np.sign(np.sin(np.arange(32000) * 0.05)).astype(np.float32)
    soundfile.write(tmp_path / "a.mp3", square, 16000)
    task = task_for(tmp_path / "a.mp3", tmp_path / "a.wav")
    assert examine(task, None, RULES).defect is None
    written, _ = soundfile.read(tmp_path / "a.wav")
    assert np.corrcoef(square[: len(written)], written[: len(square)])[0, 1] > 0.9


def test_too_short_is_measured_but_not_converted_until_allowed(tmp_path: Path) -> None:
    task = task_for(write_mp3(tmp_path / "a.mp3", duration_s=0.8), tmp_path / "a.wav")
    short = examine(task, None, RULES)
    assert short.defect is None
    assert short.duration_s < 1.0
    assert not (tmp_path / "a.wav").exists()
    assert examine(task, short, RULES) is short
    assert examine(task, short, Rules(0.5)).listed_state != ABSENT
    assert (tmp_path / "a.wav").exists()


def test_finished_wav_is_kept_without_a_journal(tmp_path: Path) -> None:
    task = task_for(write_mp3(tmp_path / "a.mp3"), tmp_path / "a.wav")
    first = examine(task, None, RULES)
    assert examine(task, None, RULES) == first  # the same size and time: not written again


@pytest.mark.parametrize("damage", ["cut", "other format", "older", "other clip"])
def test_unfinished_or_foreign_wav_is_made_again(tmp_path: Path, damage: str) -> None:
    source, wav = write_mp3(tmp_path / "a.mp3"), tmp_path / "a.wav"
    examine(task_for(source, wav), None, RULES)
    good = wav.read_bytes()
    if damage == "cut":
        wav.write_bytes(good[:1000])
    elif damage == "other format":
        write_wav(wav, synthetic_speech(1, sample_rate=44100), 44100)
    elif damage == "older":
        write_wav(wav, synthetic_speech(1, duration_s=2.0))
        os.utime(wav, (1, 1))
    else:
        write_wav(wav, synthetic_speech(1, duration_s=5.0))
    examine(task_for(source, wav), None, RULES)
    assert wav.read_bytes() == good


def test_source_is_deleted_only_on_request(tmp_path: Path) -> None:
    source, wav = write_mp3(tmp_path / "a.mp3"), tmp_path / "a.wav"
    kept = examine(task_for(source, wav), None, RULES)
    assert source.exists()
    before = wav.stat().st_mtime_ns
    deleted = examine(task_for(source, wav), kept, DELETING)
    assert not source.exists()
    assert wav.stat().st_mtime_ns == before  # was verified against the source, not written again
    assert examine(task_for(source, wav), deleted, RULES) is deleted
    assert examine(task_for(source, wav), None, RULES).defect is None


def test_source_stays_if_the_wav_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, wav = write_mp3(tmp_path / "a.mp3"), tmp_path / "a.wav"
    monkeypatch.setattr(conversion, "_holds", lambda *_: False)
    with pytest.raises(VoiceprintError, match="differs from what was written, check the disk"):
        examine(task_for(source, wav), None, DELETING)
    assert source.exists()


def test_one_file_under_two_names_is_never_overwritten(tmp_path: Path) -> None:
    source = write_wav(tmp_path / "a.wav", synthetic_speech(0))
    before = source.read_bytes()
    task = Task(source.as_posix(), f"{tmp_path.as_posix()}/./a.wav")
    finding = examine(task, None, DELETING)
    assert "are one file" in str(finding.defect)
    assert source.read_bytes() == before


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    source = write_mp3(tmp_path / "a.mp3")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(VoiceprintError, match=r"cannot write .*file/a\.wav"):
        examine(task_for(source, tmp_path / "file" / "a.wav"), None, RULES)
    with pytest.raises(VoiceprintError, match=r"cannot write .*checked\.tsv"):
        list(examine_all([task_for(source)], RULES, tmp_path / "file" / "checked.tsv", ALONE))


def count_decodings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    decoded: list[Path] = []
    load = conversion.load_audio

    def counting(path: Path, **options: str) -> FloatArray:
        decoded.append(path)
        return load(path, **options)

    monkeypatch.setattr(conversion, "load_audio", counting)
    monkeypatch.setattr(treatment, "load_audio", counting)
    return decoded


@pytest.mark.parametrize("convert", [False, True])
def test_journal_saves_all_decoding_but_of_what_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, convert: bool
) -> None:
    decoded = count_decodings(monkeypatch)
    tasks = []
    for number in range(4):
        source = write_mp3(tmp_path / f"{number}.mp3", number)
        tasks.append(task_for(source, tmp_path / f"{number}.wav" if convert else None))
    (tmp_path / "3.mp3").write_bytes(b"damaged")
    journal = tmp_path / "lists" / "checked.tsv"
    first = list(examine_all(tasks, RULES, journal, ALONE))
    assert {path.stem for path in decoded} == {"0", "1", "2", "3"}
    assert first[3].defect is not None
    decoded.clear()
    assert list(examine_all(tasks, RULES, journal, ALONE)) == first
    assert not decoded
    write_mp3(tmp_path / "1.mp3", 9)
    write_mp3(tmp_path / "3.mp3", 3)
    again = list(examine_all(tasks, RULES, journal, ALONE))
    assert {path.stem for path in decoded} == {"1", "3"}
    assert [finding.defect for finding in again] == [None] * 4


def test_damaged_lines_of_the_journal_are_ignored(tmp_path: Path) -> None:
    journal = tmp_path / "checked.tsv"
    source = write_mp3(tmp_path / "a.mp3")
    (finding,) = examine_all([task_for(source)], RULES, journal, ALONE)
    line = journal.read_bytes()
    other = line.replace(b"a.mp3", b"b.mp3")
    journal.write_bytes(b"\xff\n" + line + b"x\t1\t1\tlong\t\t.\n" + other[:-3])
    assert read_journal(journal) == {finding.listed: finding}
    list(examine_all([task_for(write_mp3(tmp_path / "c.mp3"))], RULES, journal, ALONE))
    assert [Path(name).name for name in read_journal(journal)] == ["a.mp3", "c.mp3"]


def test_missing_file_is_looked_for_again(tmp_path: Path) -> None:
    journal = tmp_path / "checked.tsv"
    task = task_for(tmp_path / "a.mp3", tmp_path / "a.wav")
    (finding,) = examine_all([task], RULES, journal, ALONE)
    assert str(finding.defect).startswith("no such file")
    assert read_journal(journal) == {}
    write_mp3(tmp_path / "a.mp3")
    (finding,) = examine_all([task], RULES, journal, ALONE)
    assert finding.defect is None


def test_processes_find_the_same_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "MIN_PARALLEL_TASKS", 1)
    bad = list(bad_files(tmp_path / "bad").values())
    good = [write_mp3(tmp_path / f"{number}.mp3", number) for number in range(4)]
    tasks = [task_for(path, tmp_path / "out" / f"{path.name}.wav") for path in good + bad]
    parallel = list(examine_all(tasks, RULES, tmp_path / "a.tsv", LocalEngine(2)))
    assert list(examine_all(tasks, RULES, tmp_path / "b.tsv", ALONE)) == parallel


def test_crash_of_a_decoder_is_a_defect(tmp_path: Path) -> None:
    source = write_mp3(tmp_path / "a.mp3")
    finding = conversion._crash_finding((task_for(source), None))
    assert isinstance(finding, Finding)
    assert finding.defect == "damaged audio: the decoder crashed"


# --- Nothing is lost ------------------------------------------------------------------------------


def convert(source: Path, rules: Rules = DELETING) -> tuple[Finding, Path]:
    wav = source.parent / "wavs" / f"{source.stem}.wav"
    return examine(task_for(source, wav), None, rules), wav


def write_stereo(path: Path, left: FloatArray, right: FloatArray) -> Path:
    soundfile.write(path, np.stack([left, right], axis=1), 16000, subtype="FLOAT")
    return path


def test_deleting_needs_a_model() -> None:
    with pytest.raises(ValueError, match="expected a speaker model"):
        Rules(1.3, delete_source=True)


@pytest.mark.parametrize("scale", [1e-5, 0.001, 1.0, 5.0, 32768.0])
def test_samples_of_any_scale_are_stored_as_they_are_heard(tmp_path: Path, scale: float) -> None:
    source = tmp_path / "a.wav"
    speech = synthetic_speech(0, duration_s=2.0)
    soundfile.write(source, scale * speech / np.abs(speech).max(), 16000, subtype="FLOAT")
    finding, wav = convert(source, replace(DELETING, delete_source=False))
    if scale == 1e-5:
        assert str(finding.defect).startswith("silent")
        return
    written, _ = soundfile.read(wav)
    assert np.abs(written).max() > 0.49 * min(scale * 500, 1)
    assert np.corrcoef(written, speech)[0, 1] > 0.9999


def test_a_person_on_each_channel_is_kept_and_named(tmp_path: Path) -> None:
    voices = [synthetic_speech(number, duration_s=2.0) for number in (0, 1)]
    source = write_stereo(tmp_path / "call.wav", *voices)
    finding, wav = convert(source)
    assert str(finding.defect).startswith("conversion not verified: ")
    assert source.exists()
    assert not wav.exists()
    task = task_for(source, wav)
    assert examine(task, finding, DELETING) is finding
    assert examine(task, finding, RULES).defect is None
    assert wav.exists()


@pytest.mark.parametrize("other", ["same", "inverted", "silent"])
def test_channels_that_say_the_same_are_one(tmp_path: Path, other: str) -> None:
    voice = synthetic_speech(0, duration_s=2.0)
    second = {"same": voice, "inverted": -voice, "silent": 0 * voice}[other]
    source = write_stereo(tmp_path / "a.wav", voice, second)
    finding, wav = convert(source)
    assert finding.defect is None
    assert not source.exists()
    assert wav.exists()


def test_24_bits_where_16_are_too_few(tmp_path: Path) -> None:
    source = write_mp3(tmp_path / "a.mp3")
    rules = replace(DELETING, load_model=lambda: RoundingEncoder().embed_waveform)
    finding, wav = convert(source, rules)
    assert finding.defect is None
    assert not source.exists()
    assert soundfile.info(wav).subtype == "PCM_24"
    assert examine(task_for(source, wav), finding, RULES) is finding


@pytest.mark.parametrize("failure", ["other embedding", "no embedding"])
def test_what_cannot_be_verified_is_kept_and_named(tmp_path: Path, failure: str) -> None:
    def embed(waveform: FloatArray) -> FloatArray:
        if failure == "no embedding":
            raise AudioError("recording: no speech: steady noise")
        calls.append(waveform)
        return np.array([1, 0] if len(calls) % 2 else [0.99, 0.14], np.float32)

    calls: list[FloatArray] = []
    conversion._model.cache_clear()
    source = write_mp3(tmp_path / "a.mp3")
    finding, wav = convert(source, replace(DELETING, load_model=lambda: embed))
    reason = "cosine 0.9900" if failure == "other embedding" else "no embedding to compare"
    assert str(finding.defect).startswith(f"conversion not verified: {reason}")
    assert source.exists()
    assert not wav.exists()


# --- Treatments -----------------------------------------------------------------------------------


def treated(**options: object) -> Rules:
    return Rules(0.5, treatment=Treatment(**options))  # type: ignore[arg-type]


def test_a_channel_alone(tmp_path: Path) -> None:
    voices = [synthetic_speech(number, duration_s=2.0) for number in (0, 1)]
    source = write_stereo(tmp_path / "call.wav", *voices)
    _, wav = convert(source, treated(channel="right"))
    written, _ = soundfile.read(wav)
    assert np.corrcoef(written, voices[1])[0, 1] > 0.999
    assert str(convert(source, treated(channel="3"))[0].defect).startswith("channel 3 was asked")


def test_silence_is_cut_out(tmp_path: Path) -> None:
    speech = synthetic_speech(0, duration_s=2.0)
    pause = np.zeros(32000, np.float32)
    source = write_wav(tmp_path / "a.wav", np.concatenate([pause, speech, pause]))
    finding, _ = convert(source, treated(trim_silence=True))
    assert finding.duration_s < 2.4
    assert finding.treatment == "trim_silence"


def test_noise_is_turned_down(tmp_path: Path) -> None:
    pytest.importorskip("noisereduce")
    noise = 0.01 * np.random.default_rng(0).standard_normal(64000).astype(np.float32)
    speech = np.pad(synthetic_speech(0, duration_s=2.0), 16000)
    source = write_wav(tmp_path / "a.wav", speech + noise)
    _, wav = convert(source, treated(denoise=True))
    written, _ = soundfile.read(wav)
    assert np.std(written[:12000]) < 0.3 * np.std(noise)
    assert np.corrcoef(written, speech)[0, 1] > 0.95


def test_another_treatment_converts_again_the_same_does_not(tmp_path: Path) -> None:
    source = write_mp3(tmp_path / "a.mp3")
    plain, wav = convert(source, treated())
    first = wav.read_bytes()
    trimmed, _ = convert(source, treated(trim_silence=True))
    assert soundfile.SoundFile(wav).comment == "trim_silence"
    time = wav.stat().st_mtime_ns
    task = task_for(source, wav)
    assert examine(task, trimmed, treated(trim_silence=True)) is trimmed
    assert examine(task, None, treated(trim_silence=True)) == trimmed
    assert wav.stat().st_mtime_ns == time
    again = examine(task, plain, treated())
    assert again.treatment == ""
    assert wav.read_bytes() == first


def test_journals_of_earlier_versions_are_read(tmp_path: Path) -> None:
    journal = tmp_path / "checked.tsv"
    source = write_mp3(tmp_path / "a.mp3")
    (finding,) = examine_all([task_for(source)], RULES, journal, ALONE)
    fields = journal.read_text().rstrip("\n").split("\t")
    journal.write_text("\t".join([*fields[:5], fields[-1]]) + "\n")
    assert read_journal(journal) == {finding.listed: replace(finding, sound="")}
    assert finding.sound
