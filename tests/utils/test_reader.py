"""The reader hands out the same batches whatever the workers, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import pytest

from utils import reader as module
from utils.corpus.lists import Utterance
from utils.crops.augment import AugmentSettings
from utils.crops.batches import Batch, ReaderSettings
from utils.errors import DataListError, VoiceprintError
from utils.reader import TrainingReader, has_room

SETTINGS = ReaderSettings(
    batch_size=3,
    crop_frames=51,
    num_views=2,
    seed=5,
    speeds=(0.9, 1.0),
    augment=AugmentSettings(noise=0.5, babble=0.5, spec_mask=0.5),
)
NUM_BATCHES = 8


@pytest.fixture(scope="module")
def listed(speech_folder: Path) -> list[Utterance]:
    paths = sorted(speech_folder.rglob("*.wav"))
    found = [Utterance(str(path), int(path.parent.name[-2:])) for path in paths]
    return [*found, Utterance("absent.wav", 0)]


@pytest.fixture(scope="module")
def expected(listed: list[Utterance]) -> list[Batch]:
    """The batches of epoch 2, made in this process."""
    with TrainingReader(listed, SETTINGS, num_workers=0) as reader:
        return list(reader.epoch(2, NUM_BATCHES))


def assert_equal(batches: list[Batch], expected: list[Batch]) -> None:
    assert len(batches) == len(expected)
    for one, other in zip(batches, expected, strict=True):
        for name in ("waveforms", "labels", "has_class", "teachers", "has_teacher", "masks"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        for name, value in other.views.items():
            np.testing.assert_array_equal(one.views[name], value)
        assert one.problems == other.problems


def block_names(reader: TrainingReader) -> list[str]:
    return [block.name for block in reader._blocks if block is not None]


def assert_gone(names: list[str]) -> None:
    assert names
    for name in names:
        with pytest.raises(FileNotFoundError):
            SharedMemory(name=name)


def test_batches_without_workers(expected: list[Batch]) -> None:
    assert len(expected) == NUM_BATCHES
    assert any(batch.problems for batch in expected)
    assert not np.array_equal(expected[0].waveforms, expected[1].waveforms)


def test_start_in_the_middle_without_workers(
    listed: list[Utterance], expected: list[Batch]
) -> None:
    with TrainingReader(listed, SETTINGS, num_workers=0) as reader:
        assert_equal(list(reader.epoch(2, NUM_BATCHES, first=5)), expected[5:])
        assert list(reader.epoch(2, NUM_BATCHES, first=NUM_BATCHES)) == []


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_make_the_same_batches(
    listed: list[Utterance], expected: list[Batch], num_workers: int
) -> None:
    with TrainingReader(listed, SETTINGS, num_workers) as reader:
        names = block_names(reader)
        assert len(names) == 2 * num_workers + 2
        assert_equal(list(reader.epoch(2, NUM_BATCHES)), expected)
        assert_equal(list(reader.epoch(2, NUM_BATCHES, first=5)), expected[5:])
        # An epoch that is left half-way does not disturb the next one.
        broken_off = reader.epoch(1, NUM_BATCHES)
        next(broken_off)
        broken_off.close()
        assert_equal(list(reader.epoch(2, NUM_BATCHES)), expected)
        # What was handed out is the caller's own, and not overwritten by later batches.
        batches = reader.epoch(2, NUM_BATCHES)
        kept = next(batches)
        list(batches)
        np.testing.assert_array_equal(kept.waveforms, expected[0].waveforms)
    assert_gone(names)
    reader.close()  # a second time does no harm


def test_little_shared_memory_means_pipes(
    listed: list[Utterance], expected: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "has_room", lambda num_bytes: False)
    with TrainingReader(listed, SETTINGS, num_workers=1) as reader:
        assert block_names(reader) == []
        assert_equal(list(reader.epoch(2, 4)), expected[:4])


def test_room_is_what_the_system_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARED_MEMORY", tmp_path)
    assert has_room(1)
    assert not has_room(10**18)
    monkeypatch.setattr(module, "SHARED_MEMORY", tmp_path / "absent")
    assert has_room(10**18)


def test_error_of_a_worker_reaches_the_trainer(tmp_path: Path) -> None:
    unreadable = [Utterance(str(tmp_path / f"{n}.wav"), n) for n in range(3)]
    with TrainingReader(unreadable, SETTINGS, num_workers=1) as reader:
        names = block_names(reader)
        with pytest.raises(DataListError, match="20 clips in a row"):
            next(reader.epoch(1, 4))
    assert_gone(names)


def test_unusable_list_starts_nothing() -> None:
    with pytest.raises(DataListError, match="empty"):
        TrainingReader([], SETTINGS, num_workers=2)


def test_killed_worker_is_told(listed: list[Utterance]) -> None:
    with TrainingReader(listed, SETTINGS, num_workers=1) as reader:
        names = block_names(reader)
        batches = reader.epoch(1, 1000)
        next(batches)
        assert reader._pool is not None
        for process in reader._pool._processes.values():
            process.kill()
        with pytest.raises(VoiceprintError, match="fewer --num_workers"):
            list(batches)
    assert_gone(names)


TRAINER = """
import sys, time
from utils.crops.batches import ReaderSettings
from utils.corpus.lists import Utterance
from utils.reader import TrainingReader

if __name__ == "__main__":
    listed = [Utterance(sys.argv[1], 0)]
    reader = TrainingReader(listed, ReaderSettings(batch_size=2, crop_frames=51), 1)
    batches = reader.epoch(1, 10)
    next(batches)
    print(*[process.pid for process in reader._pool._processes.values()], flush=True)
    print(*[block.name for block in reader._blocks], flush=True)
    time.sleep(60)
"""


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_killed_trainer_leaves_no_worker_and_no_shared_memory(
    root: Path, listed: list[Utterance], tmp_path: Path
) -> None:
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER)
    process = subprocess.Popen(
        [sys.executable, str(script), listed[0].path],
        cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    names = process.stdout.readline().split()
    assert pids
    assert all(is_running(pid) for pid in pids)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        blocks = [name for name in names if Path("/dev/shm", name).exists()]
        if not blocks and not any(is_running(pid) for pid in pids):
            return
        time.sleep(0.05)
    raise AssertionError(f"left: {blocks}, {[pid for pid in pids if is_running(pid)]}")
