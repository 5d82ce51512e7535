"""The comparison of speaker models: its conditions, its trials, its table, its cache."""

import json

import numpy as np
import pytest
import soundfile

from benchmarks import speaker_models, speaker_systems
from utils.errors import DataListError, ModelError

RATE = 16_000
HEADER = "path\tspeaker\tseconds\tlanguage\tgender\tage\n"


def noise(seconds, seed):
    samples = np.random.default_rng(seed).standard_normal(int(seconds * RATE))
    return (0.1 * samples).astype(np.float32)


class Loudness(speaker_systems.System):
    """A made-up model: the speakers of this test differ in how loud they are."""

    title = "loudness"
    calls = 0

    def __init__(self, args):
        del args

    def embed(self, waveform):
        Loudness.calls += 1
        level = 20 * np.log10(speaker_models.rms(waveform))
        if level < -45:
            raise ValueError("too quiet")
        return np.array([np.cos(level / 10), np.sin(level / 10)], np.float32)


class Missing(speaker_systems.System):
    """A model that is not installed."""

    title = "missing"

    def __init__(self, args):
        raise ModelError("the package x is not installed")

    def embed(self, waveform):
        raise AssertionError


class Deaf(Loudness):
    """A model that refuses everything."""

    title = "deaf"

    def embed(self, waveform):
        raise ValueError("no speech")


@pytest.fixture
def dev(tmp_path, monkeypatch):
    """Seven speakers in two corpora, two utterances each; one utterance is nearly silent."""
    Loudness.calls = 0
    systems = {"loudness": Loudness, "missing": Missing, "deaf": Deaf}
    monkeypatch.setattr(speaker_models, "SYSTEMS", systems)
    lines = []
    for speaker in range(7):
        corpus = "one" if speaker < 4 else "two"
        gender = ["male", "f", "m", ""][speaker % 4]
        age = ["9", "forties", "teens", "", "16", "7", "31"][speaker]
        for number in range(2):
            path = f"dev/{corpus}/{speaker}/{number}.wav"
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            quiet = 0.01 if (speaker, number) == (6, 1) else 1.0
            wave = quiet * noise(3.5, 10 * speaker + number) * 10 ** (-speaker / 10)
            soundfile.write(tmp_path / path, wave, RATE, subtype="FLOAT")
            lines.append(f"{path}\t{corpus}/{speaker}\t3.5\ten\t{gender}\t{age}\n")
    (tmp_path / "dev.tsv").write_text(HEADER + "".join(lines), encoding="utf-8")
    return tmp_path


def arguments(dev, *more):
    options = ["dev.tsv", "--systems", "loudness", "missing", "--output", "report/models"]
    paths = {"dev.tsv": str(dev / "dev.tsv"), "report/models": str(dev / "report/models")}
    return [paths.get(option, option) for option in options] + ["--root", str(dev), *more]


def test_table_and_report(dev, capsys):
    assert speaker_models.main(arguments(dev)) == 0
    captured = capsys.readouterr()
    assert "missing left out: the package x is not installed" in captured.err
    text = (dev / "report/models.md").read_text(encoding="utf-8")
    assert captured.out == text + "\n"
    assert "| all | loudness |" in text
    assert "Not measured: missing (the package x is not installed)." in text
    assert "loudness refused utterances: 1 under full, 1 under 3 s, 1 under degraded 3 s." in text
    report = json.loads((dev / "report/models.json").read_text(encoding="utf-8"))
    assert (report["num_utterances"], report["num_speakers"]) == (14, 7)
    figures = report["systems"]["loudness"]["figures"]
    # 13 utterances are left: 6 target pairs of 78, and both orders of each when degraded. The
    # refused utterance is one side of no trial.
    assert figures["full"]["all"]["num_target_trials"] == 6
    assert figures["full"]["all"]["num_nontarget_trials"] == 72
    assert figures["degraded 3 s"]["all"]["num_target_trials"] == 12
    assert figures["full"]["one"]["num_target_trials"] == 4
    assert figures["full"]["one"]["num_nontarget_trials"] == 24
    assert figures["full"]["all"]["eer"] == 0.0
    assert figures["full"]["male"]["num_target_trials"] == 3  # speakers 0, 2, 4 and half of 6
    assert figures["full"]["children"]["num_target_trials"] == 2  # speakers 0 and 5
    assert figures["full"]["female"]["num_nontarget_trials"] == 4  # speakers 1 and 5


def test_cache_serves_a_model_that_is_not_installed(dev, monkeypatch, capsys):
    options = arguments(dev, "--cache", str(dev / "cache"))
    speaker_models.main(options)
    calls = Loudness.calls
    assert calls == 3 * 14 - 2  # silence leaves nothing of one utterance under two conditions
    assert len(list((dev / "cache").glob("Loudness-*.npz"))) == 3
    first = (dev / "report/models.json").read_text(encoding="utf-8")

    def uninstalled(self, args):
        raise ModelError("gone")

    monkeypatch.setattr(Loudness, "__init__", uninstalled)
    speaker_models.main(options)
    assert Loudness.calls == calls
    assert (dev / "report/models.json").read_text(encoding="utf-8") == first
    capsys.readouterr()
    # Another list is another cache entry.
    lines = (dev / "dev.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    (dev / "dev.tsv").write_text("".join(lines[:-2]), encoding="utf-8")
    speaker_models.main(options)
    assert "loudness left out: gone" in capsys.readouterr().err


def test_a_model_that_refuses_everything_is_left_out(dev, capsys):
    options = arguments(dev)
    options[options.index("missing")] = "deaf"
    assert speaker_models.main(options) == 0
    assert "deaf embedded nothing of 14 recordings" in capsys.readouterr().err


def test_conditions(dev):
    items = speaker_models.read_items(str(dev / "dev.tsv"))
    crops = speaker_models.Crops(items, str(dev))
    full, clean = crops.waveform(0, "full"), crops.waveform(0, "3 s")
    assert (len(full), len(clean)) == (56_000, 48_000)
    np.testing.assert_array_equal(clean, full[4_000:52_000])
    degraded = crops.waveform(0, "degraded 3 s")
    again = speaker_models.Crops(items, str(dev)).waveform(0, "degraded 3 s")
    np.testing.assert_array_equal(degraded, again)
    # What is left of the voice in the band, and 10 dB below it the babble.
    voice = speaker_models.band_pass(clean)
    babble = degraded - voice
    ratio_db = 20 * np.log10(speaker_models.rms(voice) / speaker_models.rms(babble))
    assert abs(ratio_db - 10) < 0.2
    assert np.corrcoef(voice, degraded)[0, 1] > 0.9


def test_band_is_that_of_a_telephone():
    spectrum = np.abs(np.fft.rfft(speaker_models.band_pass(noise(8.0, 0))))
    hertz = np.fft.rfftfreq(8 * RATE, 1 / RATE)

    def level(low, high):
        return np.sqrt(np.mean(spectrum[(hertz >= low) & (hertz < high)] ** 2))

    inside = level(500, 3000)
    assert level(0, 120) < 0.05 * inside
    assert level(5500, 8000) < 0.05 * inside


def test_standardized_scores_ignore_offset_and_scale():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((6, 4)).astype(np.float32)
    moved = rows * [1, 10, 100, 1000] + 50
    expected = speaker_models.cosine_scores(rows, rows, True)
    np.testing.assert_allclose(
        speaker_models.cosine_scores(moved, moved, True), expected, atol=1e-4
    )
    np.testing.assert_allclose(expected.diagonal(), 1.0, atol=1e-5)


@pytest.mark.parametrize(
    ("age", "group"),
    [("6", "children"), ("15", "children"), ("16", "adults"), ("37", "adults"),
     ("twenties", "adults"), ("fourties", "adults"), ("teens", ""), ("", "")],
)  # fmt: skip
def test_age_groups(age, group):
    assert speaker_models.age_group(age) == group


@pytest.mark.parametrize("content", [None, "", "a\tb\n1\t2\n", "path\tname\nx.wav\t1\n"])
def test_a_list_without_the_columns_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "dev.tsv").write_text(content)
    with pytest.raises(DataListError, match=r"dev\.tsv"):
        speaker_models.read_items(str(tmp_path / "dev.tsv"))


def test_models_that_are_not_there_say_why(tmp_path, monkeypatch):
    args = speaker_models.parse_args(["dev.tsv", "--campplus", str(tmp_path / "no.onnx")])
    monkeypatch.setattr(speaker_systems.importlib.util, "find_spec", lambda name: None)
    for kind in speaker_systems.SYSTEMS.values():
        with pytest.raises(ModelError):
            kind(args)


def test_another_model_file_is_another_key(tmp_path):
    model = tmp_path / "model.keras"
    keys = set()
    for content in (None, b"one", b"two"):
        if content:
            model.write_bytes(content)
        args = speaker_models.parse_args(["dev.tsv", "--model_path", str(model)])
        keys.add(speaker_systems.Ours.describe(args))
    assert len(keys) == 3


def test_mfcc_is_forty_numbers(tmp_path):
    pytest.importorskip("librosa")
    args = speaker_models.parse_args(["dev.tsv"])
    embedding = speaker_systems.Mfcc(args).embed(noise(1.0, 0))
    assert embedding.shape == (40,)
    assert np.isfinite(embedding).all()
