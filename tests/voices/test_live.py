"""Who is speaking now: turns, names, numbers and enrolments of what was heard."""

import io
import itertools
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.remembering import remembering_encoder
from tests.support.synthetic_voices import write_wav
from tests.support.virtual_microphone import missing_packages, virtual_microphone
from utils.arrays import FloatArray
from utils.audio.decode import load_audio
from utils.errors import DatabaseError
from utils.model.encoder import SpeakerEncoder
from utils.verification.calibration import Calibration
from voices import live_session
from voices.live import LiveRecogniser, LiveTurn, best_of
from voices.live_session import HINT, LiveSession, describe_turn, open_source
from voices.live_voices import KEPT_S, MAX_VOICES

ROOT = Path(__file__).resolve().parents[2]
PAUSE = np.zeros(16000, np.float32)


@pytest.fixture(scope="module")
def encoder() -> SpeakerEncoder:
    return remembering_encoder(ROOT / "models" / "campplus.int8.onnx")


@pytest.fixture(scope="module")
def sound() -> dict[str, FloatArray]:
    return {
        name: load_audio(ROOT / "audio" / f"{name}.wav") for name in ["a_1", "a_2", "b_1", "b_2"]
    }


class Store:
    """Enrolled voices in memory."""

    def __init__(self, encoder: SpeakerEncoder) -> None:
        self.encoder = encoder
        self.voices: dict[str, FloatArray] = {}

    def names(self) -> list[str]:
        return sorted(self.voices)

    def rank(self, embedding: FloatArray) -> list[tuple[str, float]]:
        scores = [(name, float(embedding @ voice)) for name, voice in self.voices.items()]
        return sorted(scores, key=lambda pair: -pair[1])

    def add(self, name: str, waveform: FloatArray) -> list[str]:
        self.voices[name] = self.encoder.embed_waveform(waveform)
        return [f"{name}.wav"]


def pieces(*waveforms: FloatArray, size: int = 1600) -> Iterator[FloatArray]:
    joined = np.concatenate([part for waveform in waveforms for part in (PAUSE, waveform, PAUSE)])
    for start in range(0, len(joined), size):
        yield joined[start : start + size]


def follow(recogniser: LiveRecogniser, *waveforms: FloatArray) -> list[LiveTurn]:
    turns = [turn for piece in pieces(*waveforms) for turn in recogniser.hear(piece)]
    return [*turns, *recogniser.finish()]


def over(turns: list[LiveTurn]) -> list[str | int | None]:
    return [turn.speaker for turn in turns if turn.is_over]


@pytest.mark.slow
def test_enrolled_speakers_are_named_and_others_keep_their_number(
    encoder: SpeakerEncoder, sound: dict[str, FloatArray]
) -> None:
    store = Store(encoder)
    store.add("Ann", sound["a_2"])
    recogniser = LiveRecogniser(encoder, best_of(store), encoder.strict_threshold)
    turns = follow(recogniser, sound["a_1"], sound["b_1"], sound["a_2"], sound["b_2"])
    assert over(turns) == ["Ann", 1, "Ann", 1]
    ends = np.cumsum([len(sound[name]) / 16000 + 2 for name in ["a_1", "b_1", "a_2", "b_2"]])
    for turn, end in zip([turn for turn in turns if turn.is_over], ends, strict=True):
        assert turn.end_s == pytest.approx(end - 1, abs=0.35)
        assert turn.start_s < turn.end_s
    # Who speaks is known within about a second of the start of the first turn.
    known = next(turn for turn in turns if turn.speaker is not None)
    assert (known.name, known.end_s - known.start_s < 1.1) == ("Ann", True)
    assert known.score is not None and known.score > encoder.strict_threshold


@pytest.mark.slow
def test_the_size_of_the_pieces_does_not_matter(
    encoder: SpeakerEncoder, sound: dict[str, FloatArray]
) -> None:
    found = []
    for size in [160, 777, 50_000]:
        recogniser = LiveRecogniser(encoder, best_of(Store(encoder)), encoder.strict_threshold)
        turns = [t for p in pieces(sound["b_1"], size=size) for t in recogniser.hear(p)]
        found.append([*turns, *recogniser.finish()])
    assert found[0] == found[1] == found[2]


@pytest.mark.slow
def test_strangers_who_follow_each_other_closely_get_numbers_of_their_own(
    encoder: SpeakerEncoder,
) -> None:
    recogniser = LiveRecogniser(encoder, best_of(Store(encoder)), encoder.strict_threshold)
    turns = list(recogniser.hear(load_audio(ROOT / "audio" / "conversation.wav")))
    found = over([*turns, *recogniser.finish()])
    assert found[:3] == [1, 2, 3]  # 0.4 s of silence between the second and the third
    assert set(found) == {1, 2, 3}


@pytest.mark.slow
def test_a_voice_that_takes_over_without_a_pause_begins_a_turn(
    encoder: SpeakerEncoder, sound: dict[str, FloatArray]
) -> None:
    store = Store(encoder)
    store.add("Ann", sound["a_2"])
    store.add("Bea", sound["b_2"])
    recogniser = LiveRecogniser(encoder, best_of(store), encoder.strict_threshold)
    both = np.concatenate([sound["a_1"][:72_000], sound["b_1"][4_000:]])
    turns = follow(recogniser, both)
    assert over(turns) == ["Ann", "Bea"]
    last = [turn for turn in turns if turn.is_over][1]
    assert last.start_s == pytest.approx(1 + 4.5, abs=1.2)


@pytest.mark.slow
@pytest.mark.parametrize(("pause", "are_two"), [(4800, True), (0, False)])
def test_a_short_pause_parts_turns_where_the_voice_changes(
    encoder: SpeakerEncoder, sound: dict[str, FloatArray], pause: int, are_two: bool
) -> None:
    # Strangers, so that no name tells them apart; 0.3 s is too short to end a turn.
    first = sound["a_1"][8_000:32_000]
    second = sound["b_1"][16_000:48_000] if are_two else sound["a_1"][32_000:72_000]
    recogniser = LiveRecogniser(encoder, best_of(Store(encoder)), encoder.strict_threshold)
    turns = follow(recogniser, np.concatenate([first, np.zeros(pause, np.float32), second]))
    over_turns = [turn for turn in turns if turn.is_over]
    if not are_two:
        assert len(over_turns) == 1
        return
    assert [turn.number for turn in over_turns] == [1, 2]
    assert over_turns[0].end_s == pytest.approx(1 + 1.5, abs=0.3)
    assert over_turns[1].start_s == pytest.approx(1 + 1.5 + 0.3, abs=0.3)


@pytest.mark.slow
def test_an_unknown_speaker_is_enrolled_from_what_was_heard(
    encoder: SpeakerEncoder, sound: dict[str, FloatArray]
) -> None:
    store = Store(encoder)
    recogniser = LiveRecogniser(encoder, best_of(store), encoder.strict_threshold)
    assert over(follow(recogniser, sound["a_1"], sound["b_1"])) == [1, 2]
    speech = recogniser.speech_of(2)
    assert 3 < len(speech) / 16000 < 5.5
    store.add("Bea", speech)
    recogniser.rename(2, "Bea")
    assert over(follow(recogniser, sound["b_2"], sound["a_2"])) == ["Bea", 1]
    with pytest.raises(DatabaseError, match=r"received the number 2, expected .*: 1$"):
        recogniser.speech_of(2)


@pytest.mark.slow
def test_a_speaker_is_enrolled_while_still_speaking(
    encoder: SpeakerEncoder, sound: dict[str, FloatArray]
) -> None:
    store = Store(encoder)
    recogniser = LiveRecogniser(encoder, best_of(store), encoder.strict_threshold)
    half = len(sound["b_1"]) // 2
    turns = [*recogniser.hear(PAUSE), *recogniser.hear(sound["b_1"][:half])]
    assert turns[-1].number == 1
    assert not turns[-1].is_over
    with pytest.raises(DatabaseError, match=r"received the number 2, expected .*: 1$"):
        recogniser.speech_of(2)
    speech = recogniser.speech_of(1)
    assert 1 < len(speech) / 16000 < half / 16000 + 0.1
    store.add("Bea", speech)
    recogniser.rename(1, "Bea")
    rest = [*recogniser.hear(sound["b_1"][half:]), *recogniser.finish()]
    assert over(rest) == ["Bea"]
    # The number was never used, so the next stranger gets it.
    assert over(follow(recogniser, sound["a_1"])) == [1]


def test_noise_and_silence_are_nobodys(encoder: SpeakerEncoder) -> None:
    recogniser = LiveRecogniser(encoder, best_of(Store(encoder)), encoder.strict_threshold)
    noise = np.random.default_rng(0).normal(0, 0.1, 5 * 16000).astype(np.float32)
    assert follow(recogniser, noise, np.zeros(16000, np.float32)) == []
    with pytest.raises(DatabaseError, match="nobody unknown"):
        recogniser.speech_of(1)


@pytest.mark.slow
def test_memory_stays_the_same(encoder: SpeakerEncoder, sound: dict[str, FloatArray]) -> None:
    class Stranger:
        """Gives every turn a voice of its own."""

        cohort = None

        threshold = 0.9

        calibration = Calibration(0.9, 0.95, slope=20.0, offset=-10.0)

        def __init__(self) -> None:
            self.random = np.random.default_rng(1)

        def embed_waveform(self, recording: FloatArray, source: str = "") -> FloatArray:
            vector = self.random.normal(size=64).astype(np.float32)
            return vector / np.float32(np.linalg.norm(vector))

    recogniser = LiveRecogniser(Stranger(), best_of(Store(encoder)), 0.95)
    for turn in itertools.chain.from_iterable(
        follow(recogniser, sound["b_1"][16000:48000]) for _ in range(MAX_VOICES + 5)
    ):
        assert turn.name is None
    voices = recogniser._voices._voices
    assert len(voices) == MAX_VOICES
    assert min(voice.number or 0 for voice in voices) > 1
    assert max(len(np.concatenate(voice.speech)) for voice in voices) <= KEPT_S * 16000


@pytest.mark.slow
def test_session_prints_the_turns_and_obeys_the_keyboard(
    encoder: SpeakerEncoder, sound: dict[str, FloatArray], capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(encoder)
    session = LiveSession(
        LiveRecogniser(encoder, best_of(store), encoder.strict_threshold), store.add
    )
    is_over = threading.Event()

    def first() -> Iterator[FloatArray]:
        yield from pieces(sound["b_1"])
        is_over.set()

    def typed() -> Iterator[str]:
        is_over.wait()
        yield from ["n 7 小王\n", "what\n", "n 1 a/b\n", "n 1 小王\n", "\n", "n 1 late\n"]

    session.run(first(), typed())
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith("... s  未知说话人1")
    assert printed[-5].endswith("未知说话人1")
    assert [line[:5] for line in printed[-4:]] == [
        "操作失败：",
        HINT[:5],
        "操作失败：",
        "已注册小王",
    ]
    assert store.names() == ["小王"]
    session.run(pieces(sound["b_2"]), [])
    assert "说话人：小王，相似度：0." in capsys.readouterr().out

    def endless() -> Iterator[FloatArray]:
        is_over.set()
        while True:
            yield PAUSE

    session.run(endless(), ["\n"])  # Enter stops what would never end


def test_a_turn_as_a_line() -> None:
    assert describe_turn(LiveTurn(1.0, 1.2)) == "     1.0 -     ... s  有人说话"
    assert describe_turn(LiveTurn(61.0, 65.25, number=2, is_over=True)).endswith(
        "65.2 s  未知说话人2"
    )


def test_sources(
    tmp_path: Path, sound: dict[str, FloatArray], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = np.concatenate(list(open_source(str(ROOT / "audio" / "b_1.wav"), None, real_time=False)))
    np.testing.assert_array_equal(file, sound["b_1"])
    stereo = np.stack([sound["b_1"], np.zeros_like(sound["b_1"])], axis=1)
    soundfile.write(tmp_path / "stereo.wav", stereo, 16000)
    right = open_source(str(tmp_path / "stereo.wav"), None, "right", real_time=False)
    assert not np.concatenate(list(right)).any()

    class Stdin:
        buffer = io.BufferedReader(
            io.BytesIO((sound["b_1"] * 32768).astype("<i2").tobytes() + b"x")
        )

    monkeypatch.setattr("sys.stdin", Stdin)
    piped = np.concatenate(list(open_source("-", None, real_time=False)))
    np.testing.assert_allclose(piped, sound["b_1"], atol=1 / 32768)
    slept: list[float] = []
    monkeypatch.setattr(live_session.time, "sleep", slept.append)
    list(itertools.islice(open_source(str(ROOT / "audio" / "b_1.wav"), None, real_time=True), 5))
    assert slept[-1] == pytest.approx(0.5, abs=0.45)
    assert slept == sorted(slept)


@pytest.mark.slow
@pytest.mark.skipif(missing_packages() is not None, reason=str(missing_packages()))
def test_the_microphone_is_followed_until_enter(
    sound: dict[str, FloatArray], tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "audio_db", tmp_path / "audio_db")
    played = write_wav(
        tmp_path / "played.wav", np.concatenate([PAUSE, sound["a_2"], PAUSE, sound["b_1"], PAUSE])
    )
    command = [sys.executable, ROOT / "infer_recognition.py", "--live"]
    with virtual_microphone() as microphone:
        process = subprocess.Popen(
            [*command, "--audio_db", tmp_path / "audio_db"],
            cwd=ROOT,
            env=microphone.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        assert process.stdin is not None
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert any(HINT in line for line in lines)
        player = microphone.play(played)
        first = next(line for line in lines if "说话人：" in line)
        assert "说话人：李达康，相似度：0." in first
        # Two turns end: the second voice is nobody's so far.
        over = [next(line for line in lines if "..." not in line) for _ in range(2)]
        assert "说话人：李达康" in over[0]
        assert "未知说话人1" in over[1]
        process.stdin.write("n 1 夜雨飘零\n")
        process.stdin.flush()
        assert "已注册夜雨飘零" in next(lines)
        process.stdin.write("\n")
        process.stdin.close()
        assert process.wait(timeout=60) == 0
        process.stdout.close()
        player.wait(timeout=60)
    assert (tmp_path / "audio_db" / "夜雨飘零.wav").is_file()
