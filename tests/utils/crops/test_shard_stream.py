"""The order of shards: every clip once, from a buffer, by host; resumed at the exact sample."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.synthetic_voices import write_speech_folder
from utils.corpus.lists import Utterance
from utils.corpus.shards import ShardList, read_training_shards, write_shards
from utils.crops.augment import AugmentSettings
from utils.crops.batches import ReaderSettings
from utils.crops.draws import ListDraw, ShardDraw, Share
from utils.crops.shard_stream import ShardStream
from utils.engine.engine import LocalEngine
from utils.errors import DataListError
from utils.reader import TrainingReader

Sharded = tuple[list[Utterance], ShardList]


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Sharded:
    """24 clips of 4 people in 5 shards."""
    folder = tmp_path_factory.mktemp("shards")
    files = write_speech_folder(folder / "speech", 4, 6, 1.2)
    clips = [Utterance(str(path), label) for path, label in files]
    write_shards(folder / "shards", clips, 5, LocalEngine(1))
    train, _, shards = read_training_shards(str(folder / "shards"), None)
    return train, shards


def numbers(stream: ShardStream, epoch: int, first: int, count: int) -> list[int]:
    return [number for number, _ in stream.clips(epoch, first, count, 4)]


@pytest.mark.parametrize("num_hosts", [1, 2, 5])
def test_every_clip_comes_once_on_one_host(sharded: Sharded, num_hosts: int) -> None:
    train, shards = sharded
    seen: list[int] = []
    for host in range(num_hosts):
        stream = ShardStream(shards, 6, 3, Share(host, num_hosts))
        own = sum(
            shards.sizes[shard]
            for shard in ShardDraw(shards.sizes, 6, 3, Share(host, num_hosts)).one_pass(1, 0)[0]
        )
        found = dict(stream.clips(1, 0, own, 4))
        seen += found
        for number, content in found.items():
            assert content == Path(train[number].path).read_bytes()
    assert sorted(seen) == list(range(24))


def test_order_is_shuffled_by_shard_and_buffer_and_known_before() -> None:
    draw = ShardDraw([100] * 8, 50, 0, Share())
    shards, leaving = draw.one_pass(1, 0)
    assert sorted(leaving) == list(range(800))
    assert sorted(shards) == list(range(8)) != list(shards)
    arriving = np.concatenate([draw.clips_of(shard) for shard in shards])
    place = {clip: number for number, clip in enumerate(arriving)}
    late = np.array([place[clip] for clip in leaving]) - np.arange(800)
    assert late.max() <= 50  # nothing leaves before it has come
    assert np.abs(late).mean() > 10
    for other in (draw.one_pass(2, 0), draw.one_pass(1, 1)):
        assert list(other[1]) != list(leaving)
    np.testing.assert_array_equal(ShardDraw([100] * 8, 50, 0, Share()).one_pass(1, 0)[1], leaving)


def test_it_goes_on_at_the_exact_sample_and_begins_anew(sharded: Sharded) -> None:
    stream = ShardStream(sharded[1], 4, 0, Share())
    whole = numbers(stream, 2, 0, 60)
    assert sorted(whole[:24]) == sorted(whole[24:48]) == list(range(24))
    for first in (0, 7, 23, 24, 31, 59):
        assert numbers(stream, 2, first, 60 - first) == whole[first:]


def test_shards_that_are_not_needed_are_not_opened(
    sharded: Sharded, monkeypatch: pytest.MonkeyPatch
) -> None:
    from utils.crops import shard_stream

    opened: list[str] = []
    read_shard = shard_stream.read_shard

    def noting(place: str, name: str, size: int):  # type: ignore[no-untyped-def]
        opened.append(name)
        return read_shard(place, name, size)

    monkeypatch.setattr(shard_stream, "read_shard", noting)
    stream = ShardStream(sharded[1], 1, 0, Share())
    assert len(numbers(stream, 1, 20, 4)) == 4
    assert len(opened) <= 2


def test_a_reader_of_shards_makes_the_same_batches_whatever_the_workers(sharded: Sharded) -> None:
    train, shards = sharded
    settings = ReaderSettings(
        batch_size=5, crop_frames=51, seed=3, shuffle_buffer=6,
        augment=AugmentSettings(noise=0.5, babble=0.5),
    )  # fmt: skip
    with TrainingReader(train, settings, 0, shards=shards) as reader:
        batches = list(reader.epoch(2, 6))
        again = list(reader.epoch(2, 6, first=4))
    with TrainingReader(train, settings, 2, shards=shards) as reader:
        parallel = list(reader.epoch(2, 6))
    for one, other in (*zip(batches, parallel, strict=True), *zip(batches[4:], again, strict=True)):
        np.testing.assert_array_equal(one.waveforms, other.waveforms)
        np.testing.assert_array_equal(one.labels, other.labels)
        assert one.problems == []


def test_a_shard_cut_short_is_told_once_and_the_rest_goes_on(
    sharded: Sharded, tmp_path: Path
) -> None:
    train, shards = sharded
    for name in shards.names:
        data = (Path(shards.place) / name).read_bytes()
        (tmp_path / name).write_bytes(data[:1000] if name == shards.names[0] else data)
    damaged = ShardList(str(tmp_path), shards.names, shards.sizes)
    settings = ReaderSettings(batch_size=24, crop_frames=51)
    with TrainingReader(train, settings, 0, shards=damaged) as reader:
        (batch,) = reader.epoch(1, 1)
    (problem,) = set(batch.problems)
    assert "0 of 4 clips can be read" in problem or "0 of 5 clips can be read" in problem
    assert np.abs(batch.waveforms).max(axis=1).min() > 0
    for name in shards.names:
        (tmp_path / name).unlink()
    with (
        TrainingReader(train, settings, 0, shards=damaged) as reader,
        pytest.raises(DataListError, match="20 clips in a row cannot be used"),
    ):
        list(reader.epoch(1, 1))


def test_fewer_shards_than_hosts(sharded: Sharded) -> None:
    with pytest.raises(DataListError, match="5 shards for 6 hosts, expected at least one for each"):
        ShardStream(sharded[1], 4, 0, Share(0, 6))


def test_hosts_draw_the_rows_of_one_host_with_a_larger_batch() -> None:
    for is_balanced in (False, True):
        draw = ListDraw(np.full(50, 0.02), is_balanced, 0)
        alone = draw.draw(1, Share().places(3, 8))
        parts = [draw.draw(1, Share(host, 2).places(3, 4)) for host in range(2)]
        np.testing.assert_array_equal(np.concatenate(parts), alone)
