"""What a training batch holds: which clips, classes, teachers, and what is replaced."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.synthetic_voices import synthetic_speech, write_wav
from utils.audio.activity import remove_silence
from utils.corpus.lists import Utterance
from utils.crops import batches
from utils.crops.augment import AugmentSettings
from utils.crops.batches import (
    INT16_SCALE,
    BatchMaker,
    ReaderSettings,
    batch_arrays,
    read_evaluation_crop,
)
from utils.crops.draws import VIEW_MARGIN_FRAMES, draw_views, draw_weights
from utils.errors import AudioError, DataListError

CROP_FRAMES = 101  # 1 s
PLAIN = AugmentSettings(flip=0.0)


def plain(**changes: object) -> ReaderSettings:
    """Settings of small batches whose crops are stretches of the clips themselves."""
    return ReaderSettings(**{
        "batch_size": 4, "crop_frames": CROP_FRAMES, "remove_silence": False, "join_clips": False,
        "augment": PLAIN, **changes,
    })  # fmt: skip


@pytest.fixture(scope="module")
def listed(speech_folder: Path) -> list[Utterance]:
    paths = sorted(speech_folder.rglob("*.wav"))
    return [Utterance(str(path), int(path.parent.name[-2:])) for path in paths]


def write_ramps(folder: Path, num_clips: int, num_samples: int = 16000) -> list[Utterance]:
    """Writes clips of constant level: clip n of `num_clips` has level (n + 1) / 100."""
    return [
        Utterance(
            str(write_wav(folder / f"{n}.wav", np.full(num_samples, (n + 1) / 100))), n
        )
        for n in range(num_clips)
    ]  # fmt: skip


def write_teacher(path: Path, rows: list[tuple[str, float, list[float]]]) -> str:
    with path.open("wb") as file:
        np.savez(
            file,
            path=np.array([name for name, _, _ in rows]),
            speed=np.array([speed for _, speed, _ in rows], np.float32),
            embedding=np.array([vector for _, _, vector in rows], np.float32),
        )
    return str(path)


def pitch_hz(crop: np.ndarray) -> float:
    """Returns the frequency of the strongest line."""
    return float(np.abs(np.fft.rfft(crop)).argmax() * 16000 / len(crop))


# Shapes, determinism, order.


@pytest.mark.parametrize("num_views", [1, 3])
def test_shapes_and_types(listed: list[Utterance], num_views: int) -> None:
    settings = ReaderSettings(batch_size=5, crop_frames=101, num_views=num_views)
    batch = BatchMaker(listed, settings).batch(1, 0)
    frames = 101 if num_views == 1 else 101 + VIEW_MARGIN_FRAMES
    assert settings.crop_samples == (frames - 1) * 160
    shapes = {
        "waveforms": (np.int16, (5, settings.crop_samples)),
        "labels": (np.int32, (5,)),
        "has_class": (np.float32, (5,)),
        "teachers": (np.float32, (5, 1)),
        "has_teacher": (np.float32, (5,)),
        "masks": (np.int32, (5, num_views, 4)),
    }
    for name, (dtype, shape) in shapes.items():
        value = getattr(batch, name)
        assert (value.dtype, value.shape) == (dtype, shape), name
    assert not batch.has_teacher.any()
    assert not batch.teachers.any()
    assert batch.has_class.all()
    assert batch.problems == []
    inputs, targets = batch_arrays(batch)
    assert set(targets) == {"labels", "has_class", "teachers", "has_teacher"}
    views = {"starts", "gains_db", "mix_db"} if num_views > 1 else set()
    assert set(inputs) == {"waveforms", "masks"} | views


def test_batch_depends_on_seed_epoch_and_number_only(listed: list[Utterance]) -> None:
    changes = AugmentSettings(noise=0.5, babble=0.5, codec=0.3, spec_mask=0.5)

    def waveforms(seed: int, epoch: int, number: int, maker: BatchMaker | None = None):
        settings = ReaderSettings(batch_size=3, crop_frames=51, seed=seed, augment=changes)
        return (maker or BatchMaker(listed, settings)).batch(epoch, number).waveforms

    settings = ReaderSettings(batch_size=3, crop_frames=51, seed=7, augment=changes)
    used = BatchMaker(listed, settings)
    used.batch(1, 0), used.batch(3, 1)
    first = waveforms(7, 2, 1)
    np.testing.assert_array_equal(first, waveforms(7, 2, 1, used))
    for other in ((8, 2, 1), (7, 3, 1), (7, 2, 0)):
        assert not np.array_equal(first, waveforms(*other))


def test_every_utterance_comes_once_an_epoch_in_another_order(tmp_path: Path) -> None:
    utterances = write_ramps(tmp_path, 10)
    maker = BatchMaker(utterances, plain(batch_size=5))
    epochs = [[*maker.batch(epoch, 0).labels, *maker.batch(epoch, 1).labels] for epoch in (1, 2, 3)]
    for labels in epochs:
        assert sorted(labels) == list(range(10))
    assert len({tuple(labels) for labels in epochs}) == 3
    again = maker.batch(1, 2).labels  # more steps than the list has: it begins anew
    np.testing.assert_array_equal(again, epochs[0][:5])


def test_labels_belong_to_their_waveforms(tmp_path: Path) -> None:
    batch = BatchMaker(write_ramps(tmp_path, 8), plain(batch_size=8)).batch(1, 0)
    for waveform, label in zip(batch.waveforms, batch.labels, strict=True):
        assert set(waveform) == {round((label + 1) / 100 * INT16_SCALE)}


def test_crops_of_a_long_clip_come_from_everywhere(tmp_path: Path) -> None:
    ramp = np.linspace(0.01, 0.9, 40 * 16000)
    utterances = [Utterance(str(write_wav(tmp_path / "a.wav", ramp)), 0)]
    maker = BatchMaker(utterances, plain(batch_size=8))
    levels = np.concatenate([maker.batch(1, n).waveforms[:, 0] for n in range(12)]) / INT16_SCALE
    assert levels.min() < 0.2
    assert levels.max() > 0.7


def test_clip_is_played_backwards_as_often_as_asked(tmp_path: Path) -> None:
    ramp = np.linspace(0.01, 0.9, 2 * 16000)
    utterances = [Utterance(str(write_wav(tmp_path / "a.wav", ramp)), 0)]
    maker = BatchMaker(utterances, plain(batch_size=64, augment=AugmentSettings(flip=0.5)))
    steps = np.median(np.diff(maker.batch(1, 0).waveforms.astype(int)), axis=1)
    assert np.mean(steps < 0) == pytest.approx(0.5, abs=0.2)


def test_silence_is_cut_out(tmp_path: Path) -> None:
    speech = synthetic_speech(0, 0, 1.5)
    waveform = np.concatenate([np.zeros(48000), speech, np.zeros(48000)])
    utterances = [Utterance(str(write_wav(tmp_path / "a.wav", waveform)), 0)]
    for seed in range(4):
        maker = BatchMaker(utterances, plain(remove_silence=True, seed=seed))
        assert (np.abs(maker.batch(1, 0).waveforms / INT16_SCALE).max(axis=1) > 0.2).all()


def test_babble_is_of_other_speakers_only(tmp_path: Path) -> None:
    settings = plain(batch_size=2, augment=AugmentSettings(flip=0.0, babble=1.0))
    own = [Utterance(item.path, 0) for item in write_ramps(tmp_path, 2)]
    maker = BatchMaker(own, plain(batch_size=2))
    babbling = BatchMaker(own, settings)
    np.testing.assert_array_equal(maker.batch(1, 0).waveforms, babbling.batch(1, 0).waveforms)
    speeds = BatchMaker(
        own, plain(batch_size=2, speeds=(0.5, 1.0), augment=settings.augment, speed_change=0.5)
    )
    for number in range(4):
        assert {len(set(w[10:-10])) for w in speeds.batch(1, number).waveforms // 64} == {1}
    others = BatchMaker(write_ramps(tmp_path, 2), settings)
    assert not np.array_equal(
        BatchMaker(write_ramps(tmp_path, 2), plain(batch_size=2)).batch(1, 0).waveforms,
        others.batch(1, 0).waveforms,
    )


# Joining short clips.


def test_short_clips_are_filled_up_with_others_of_the_speaker(tmp_path: Path) -> None:
    clips = write_ramps(tmp_path, 4, num_samples=8000)
    utterances = [Utterance(clip.path, n // 2) for n, clip in enumerate(clips)]
    joined = BatchMaker(utterances, plain(join_clips=True)).batch(1, 0)
    alone = BatchMaker(utterances, plain()).batch(1, 0)
    for waveform, label in zip(joined.waveforms, joined.labels, strict=True):
        levels = set(np.round(waveform / INT16_SCALE * 100))
        assert levels == {2 * label + 1, 2 * label + 2}
    assert {len(set(waveform)) for waveform in alone.waveforms} == {1}


def test_single_clip_is_repeated(tmp_path: Path) -> None:
    utterances = write_ramps(tmp_path, 2, num_samples=6000)
    batch = BatchMaker(utterances, plain(join_clips=True)).batch(1, 0)
    assert {len(set(waveform)) for waveform in batch.waveforms} == {1}


def test_clip_that_cannot_be_joined_is_left_out(tmp_path: Path) -> None:
    clips = write_ramps(tmp_path, 2, num_samples=8000)
    utterances = [Utterance(clips[0].path, 0), Utterance(str(tmp_path / "absent.wav"), 0)]
    batch = BatchMaker(utterances, plain(join_clips=True, batch_size=2)).batch(1, 0)
    assert {len(set(waveform)) for waveform in batch.waveforms} == {1}
    assert len(batch.problems) >= 1


# Speeds and teachers.


def write_tones(folder: Path, num_clips: int) -> list[Utterance]:
    time = np.arange(3 * 16000) / 16000
    return [
        Utterance(
            str(write_wav(folder / f"{n}.wav", 0.3 * np.sin(2 * np.pi * 500 * time))), n
        )
        for n in range(num_clips)
    ]  # fmt: skip


def test_without_a_teacher_each_speed_is_a_class_of_its_own(tmp_path: Path) -> None:
    settings = plain(batch_size=64, speeds=(0.8, 1.0, 1.25), speed_change=0.5)
    maker = BatchMaker(write_tones(tmp_path, 2), settings)
    assert maker.num_speed_classes == 3
    batch = maker.batch(1, 0)
    hertz = {0: 500, 1: 400, 2: 625}
    for waveform, label in zip(batch.waveforms, batch.labels, strict=True):
        assert pitch_hz(waveform) == pytest.approx(hertz[label % 3], abs=2)
        assert waveform.std() > 0.2 * INT16_SCALE
    assert set(batch.labels) == set(range(6))
    assert batch.has_class.all()
    assert np.mean(batch.labels % 3 != 0) == pytest.approx(0.5, abs=0.2)


def test_one_speed_leaves_the_labels_alone(tmp_path: Path) -> None:
    maker = BatchMaker(write_tones(tmp_path, 2), plain(speed_change=1.0))
    assert maker.num_speed_classes == 1
    assert set(maker.batch(1, 0).labels) == {0, 1}


def test_teacher_says_the_speeds_and_changed_ones_have_no_class(tmp_path: Path) -> None:
    utterances = write_tones(tmp_path, 3)
    teacher = write_teacher(
        tmp_path / "t.npz",
        [("0.wav", 1.0, [1, 0, 0]), ("0.wav", 0.8, [0, 1, 0]), ("1.wav", 1.0, [0, 0, 5])],
    )
    settings = plain(
        batch_size=60, speeds=(1.0, 1.25), speed_change=0.5, teacher=teacher, teacher_centroid=0.0
    )
    maker = BatchMaker(utterances, settings)
    assert (maker.num_speed_classes, maker.teacher_size) == (1, 3)
    batch = maker.batch(1, 0)
    for row, label in enumerate(batch.labels):
        is_changed = pitch_hz(batch.waveforms[row]) == pytest.approx(400, abs=2)
        assert is_changed or pitch_hz(batch.waveforms[row]) == pytest.approx(500, abs=2)
        expected = {0: [0, 1, 0] if is_changed else [1, 0, 0], 1: [0, 0, 1], 2: [0, 0, 0]}[label]
        np.testing.assert_allclose(batch.teachers[row], expected, atol=1e-3)
        assert batch.has_teacher[row] == (label != 2)
        assert batch.has_class[row] == (not is_changed)
        assert not (is_changed and label != 0)
    changed = batch.has_class[batch.labels == 0] == 0
    assert 0.15 < changed.mean() < 0.85


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_target_is_drawn_to_the_mean_of_the_speaker(tmp_path: Path, share: float) -> None:
    clips = write_ramps(tmp_path, 3, num_samples=20000)
    utterances = [Utterance(clip.path, int(n == 2)) for n, clip in enumerate(clips)]
    teacher = write_teacher(
        tmp_path / "t.npz",
        [("0.wav", 1.0, [1, 0]), ("1.wav", 1.0, [0, 1]), ("2.wav", 1.0, [1, 0])],
    )
    settings = plain(batch_size=3, teacher=teacher, teacher_centroid=share)
    batch = BatchMaker(utterances, settings).batch(1, 0)
    centroid = np.sqrt([0.5, 0.5])
    for waveform, vector in zip(batch.waveforms, batch.teachers, strict=True):
        clip = round(float(waveform[0]) / INT16_SCALE * 100) - 1
        own = np.array([[1, 0], [0, 1], [1, 0]][clip])
        expected = own if clip == 2 else (1 - share) * own + share * centroid
        np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-3)


def test_target_of_joined_clips_is_their_mean(tmp_path: Path) -> None:
    clips = write_ramps(tmp_path, 2, num_samples=9000)
    utterances = [Utterance(clip.path, 0) for clip in clips]
    teacher = write_teacher(
        tmp_path / "t.npz", [("0.wav", 1.0, [1, 0]), ("1.wav", 1.0, [0, 1])]
    )  # fmt: skip
    settings = plain(join_clips=True, teacher=teacher, teacher_centroid=0.0)
    batch = BatchMaker(utterances, settings).batch(1, 0)
    np.testing.assert_allclose(batch.teachers, np.full((4, 2), np.sqrt(0.5)), atol=1e-3)


def test_known_clip_is_joined_with_known_clips_only(tmp_path: Path) -> None:
    clips = write_ramps(tmp_path, 2, num_samples=9000)
    utterances = [Utterance(clip.path, 0) for clip in clips]
    teacher = write_teacher(tmp_path / "t.npz", [("0.wav", 1.0, [1, 0])])
    settings = plain(join_clips=True, teacher=teacher, batch_size=8)
    batch = BatchMaker(utterances, settings).batch(1, 0)
    for waveform, has_teacher in zip(batch.waveforms, batch.has_teacher, strict=True):
        assert not has_teacher or len(set(waveform)) == 1


# Clips and lists that cannot be used.


def test_unreadable_clip_is_reported_and_replaced(tmp_path: Path) -> None:
    utterances = write_ramps(tmp_path, 3)
    (tmp_path / "text.wav").write_text("no audio")
    write_wav(tmp_path / "silent.wav", np.zeros(16000))
    write_wav(tmp_path / "short.wav", np.full(1600, 0.1))
    bad = ["absent.wav", "text.wav", "silent.wav", "short.wav"]
    listed = utterances + [Utterance(str(tmp_path / name), 9) for name in bad]
    batch = BatchMaker(listed, plain(batch_size=7)).batch(1, 0)
    assert set(batch.labels) <= {0, 1, 2}
    assert batch.waveforms.any(axis=1).all()
    for name, reason in zip(bad, ["no such", "not audio", "silent", "too short"], strict=True):
        assert any(name in problem and reason in problem for problem in batch.problems)


def test_list_of_unreadable_clips_is_told(tmp_path: Path) -> None:
    listed = [Utterance(str(tmp_path / f"{n}.wav"), n) for n in range(3)]
    with pytest.raises(DataListError, match=r"20 clips in a row .* no such file"):
        BatchMaker(listed, plain()).batch(1, 0)


def test_empty_list_is_told() -> None:
    with pytest.raises(DataListError, match="the training list is empty"):
        BatchMaker([], plain())


def test_unusable_teacher_and_noise_are_told(listed: list[Utterance], tmp_path: Path) -> None:
    with pytest.raises(DataListError, match="not a teacher file"):
        BatchMaker(listed, plain(teacher=str(tmp_path / "absent.npz")))
    with pytest.raises(DataListError, match="no audio that can be read"):
        BatchMaker(listed, plain(augment=AugmentSettings(noise_dir=str(tmp_path))))


# The crop of the validation.


def test_evaluation_crop_is_the_beginning_of_the_speech(tmp_path: Path) -> None:
    speech = synthetic_speech(0, 0, 1.5)
    path = write_wav(tmp_path / "a.wav", np.concatenate([np.zeros(16000), speech]))
    crop = read_evaluation_crop(str(path), 51)
    assert crop.shape == (8000,)
    from utils.audio.decode import load_audio

    np.testing.assert_array_equal(crop, remove_silence(load_audio(path))[:8000])
    assert read_evaluation_crop(str(path)).shape == (40960,)


def test_evaluation_crop_of_silence_is_told(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", np.zeros(16000))
    with pytest.raises(AudioError, match=r"a\.wav: empty"):
        read_evaluation_crop(str(path))


# How likely each utterance is drawn.


def counted(shape: dict[str, int]) -> list[Utterance]:
    """Lists `count` utterances of each `corpus/speaker`; a speaker's number is its label."""
    return [
        Utterance(f"{speaker}/{n}.wav", label)
        for label, (speaker, count) in enumerate(shape.items())
        for n in range(count)
    ]


def test_balance_1_takes_every_utterance_equally() -> None:
    weights = draw_weights(counted({"x/a": 5, "x/b": 1, "y/c": 4}), 1.0)
    np.testing.assert_allclose(weights, 0.1)


def test_balance_0_takes_every_corpus_and_speaker_equally() -> None:
    weights = draw_weights(counted({"x/a": 5, "x/b": 1, "y/c": 4}), 0.0)
    np.testing.assert_allclose(weights, [0.05] * 5 + [0.25] + [0.125] * 4)


def test_balance_between_takes_powers_of_the_counts() -> None:
    weights = draw_weights(counted({"x/a": 9, "x/b": 1, "y/c": 40}), 0.5)
    corpus = np.sqrt([10, 40]) / np.sqrt([10, 40]).sum()
    np.testing.assert_allclose(weights[:9].sum(), corpus[0] * 3 / 4)
    np.testing.assert_allclose(weights[9], corpus[0] / 4)
    np.testing.assert_allclose(weights[10:], corpus[1] / 40)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.floats(0, 1))
def test_weights_are_a_distribution(counts: list[int], balance: float) -> None:
    shape = {f"corpus_{n % 3}/speaker_{n}": count for n, count in enumerate(counts)}
    weights = draw_weights(counted(shape), balance)
    assert weights.sum() == pytest.approx(1.0)
    assert (weights > 0).all()


def test_balanced_draw_follows_the_weights(tmp_path: Path) -> None:
    clips = write_ramps(tmp_path / "x", 1) + write_ramps(tmp_path / "y", 7)
    listed = [Utterance(clips[0].path, 0)] + [Utterance(item.path, 1) for item in clips[1:]]
    # Corpora are the folders above the speakers' folders: here one, with two speakers.
    maker = BatchMaker(listed, plain(batch_size=400, balance=0.0, crop_frames=11))
    assert maker.batch(1, 0).labels.mean() == pytest.approx(0.5, abs=0.1)


# Views.


def test_views_are_drawn_within_their_ranges() -> None:
    views = draw_views(np.random.default_rng(0), 200, 5)
    assert {name: value.shape for name, value in views.items()} == {
        "starts": (200, 5), "gains_db": (200, 5, 8), "mix_db": (200, 5),
    }  # fmt: skip
    assert (views["starts"].min(), views["starts"].max()) == (0, VIEW_MARGIN_FRAMES)
    assert np.abs(views["gains_db"]).max() <= 8
    assert (views["gains_db"] != 0).any(axis=2).mean() == pytest.approx(0.5, abs=0.06)
    is_mixed = views["mix_db"] > -100
    assert is_mixed.mean() == pytest.approx(0.33, abs=0.06)
    assert views["mix_db"][is_mixed].min() >= -20
    assert views["mix_db"][is_mixed].max() <= -3


def test_single_view_draws_nothing() -> None:
    generator = np.random.default_rng(0)
    assert draw_views(generator, 4, 1) == {}
    assert generator.integers(100) == np.random.default_rng(0).integers(100)


def test_long_clips_are_decoded_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = []
    load = batches.load_audio

    def spy(path: str, **options: float) -> np.ndarray:
        clip = load(path, **options)
        seconds.append(len(clip) / 16000)
        return clip

    monkeypatch.setattr(batches, "load_audio", spy)
    utterances = [Utterance(str(write_wav(tmp_path / "a.wav", np.full(20 * 16000, 0.1))), 0)]
    BatchMaker(utterances, plain()).batch(1, 0)
    assert seconds == [12.0] * 4
