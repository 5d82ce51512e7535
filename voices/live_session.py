"""`infer_recognition.py --live`: prints who is speaking, from the microphone, a file or a pipe."""

import argparse
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BufferedReader
from typing import cast

import numpy as np

from utils.arrays import FloatArray
from utils.audio.decode import read_blocks
from utils.audio.microphone import listen
from utils.audio.waveform import SAMPLE_RATE
from utils.errors import VoiceprintError
from utils.messages import translate
from utils.speaker_names import clean_name
from utils.verification.embedding import Encoder
from voices.live import LiveRecogniser, LiveTurn, best_of
from voices.menu import Register
from voices.store import VoiceStore

MICROPHONE = ""
"""The value of --live without a file."""

PIPE = "-"
"""The value of --live for samples on standard input."""

BLOCK_S = 0.1
"""Seconds of a file or pipe that are heard at a time."""

HINT = "直接回车停止；输入“n 编号 名称”注册一位未知说话人，例如：n 2 小王"

Enrol = Callable[[str, FloatArray], Sequence[object]]
"""`(name, waveform)`: enrols a speaker, or adds a recording; returns what was stored."""


def follow(
    args: argparse.Namespace, encoder: Encoder, database: VoiceStore, register: Register
) -> int:
    """Follows who is speaking until the sound ends or the keyboard stops it.

    Args:
        args: Options of infer_recognition.py: channel, live, microphone, real_time, threshold.
        encoder: The speaker model.
        database: The enrolled voices, loaded.
        register: Enrols an unknown speaker.

    Returns:
        The exit status.
    """
    sound = open_source(args.live, args.microphone, args.channel, real_time=args.real_time)
    commands: Iterable[str] = ()
    if args.live == MICROPHONE or (args.live != PIPE and sys.stdin.isatty()):
        print(translate(HINT), file=sys.stderr)
        commands = sys.stdin
    session = LiveSession(
        LiveRecogniser(encoder, best_of(database), args.threshold),
        lambda name, speech: register(database, name, [speech], False),
    )
    session.run(sound, commands)
    return 0


def open_source(
    source: str, microphone: str | None, channel: str = "mix", *, real_time: bool
) -> Iterator[FloatArray]:
    """Returns the sound to follow.

    Args:
        source: `MICROPHONE`, `PIPE` (16-bit samples, 16 kHz, mono), or a recording.
        microphone: Which one, as in `listen`.
        channel: Of a recording, as in `load_audio`.
        real_time: Whether a recording is heard at the speed at which it was spoken.
    """
    if source == MICROPHONE:
        return listen(microphone)
    blocks = _read_pipe() if source == PIPE else _read_file(source, channel)
    return _at_real_speed(blocks) if real_time else blocks


class LiveSession:
    """Prints the turns, and obeys the keyboard: Enter stops, `n 2 NAME` enrols speaker 2."""

    def __init__(self, recogniser: LiveRecogniser, enrol: Enrol) -> None:
        """Takes what follows the speakers, and what enrols one of them."""
        self._recogniser = recogniser
        self._enrol = enrol
        self._is_open = False

    def run(self, sound: Iterable[FloatArray], commands: Iterable[str]) -> None:
        """Follows the sound to its end, or until a command stops it.

        Args:
            sound: Pieces of samples, 16 kHz.
            commands: Lines from the keyboard, read in a thread of their own; those that are left
                at the end of the sound are obeyed too.
        """
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=_pass_on, args=(commands, lines), daemon=True).start()
        line: str | None = ""
        for samples in sound:
            self._show(self._recogniser.hear(samples))
            while line is not None and not lines.empty():
                line = lines.get()
                if line is not None and not self._obey(line):
                    self._show(self._recogniser.finish())
                    return
        self._show(self._recogniser.finish())
        while line is not None:
            line = lines.get()
            if line is not None and not self._obey(line):
                return

    def _show(self, turns: Iterator[LiveTurn]) -> None:
        """Prints each turn when its speaker is known or changes; a terminal keeps one line each."""
        is_terminal = sys.stdout.isatty()
        for turn in turns:
            text = describe_turn(turn)
            if is_terminal:
                # Back to the start of the line, whose end is erased.
                print(f"\r{text}\x1b[K", end="\n" if turn.is_over else "", flush=True)
                self._is_open = not turn.is_over
            elif turn.speaker is not None or turn.is_over:
                print(text, flush=True)

    def _obey(self, line: str) -> bool:
        """Does what a line says; returns False to stop."""
        words = line.strip().split(maxsplit=2)
        if not words:
            return False
        if self._is_open:
            print()
            self._is_open = False
        if len(words) < 3 or words[0] != "n" or not words[1].isdecimal():
            print(translate(HINT))
            return True
        try:
            name, number = clean_name(words[2]), int(words[1])
            stored = self._enrol(name, self._recogniser.speech_of(number))
            self._recogniser.rename(number, name)
            print(translate(f"已注册{name}："), *stored)
        except VoiceprintError as error:
            print(translate(f"操作失败：{translate(str(error))}"))
        return True


def describe_turn(turn: LiveTurn) -> str:
    """Returns the line of a turn: when, who, how similar."""
    end = f"{turn.end_s:.1f}" if turn.is_over else "..."
    who = translate("有人说话")
    if turn.name is not None:
        who = translate(f"说话人：{turn.name}，相似度：{turn.score:f}")
    elif turn.number is not None:
        who = translate(f"未知说话人{turn.number}")
    return f"{turn.start_s:8.1f} - {end:>7} s  {who}"


def _pass_on(commands: Iterable[str], lines: "queue.SimpleQueue[str | None]") -> None:
    """Passes lines on as they come, and None at their end."""
    try:
        for line in commands:
            lines.put(line)
    finally:
        lines.put(None)


def _read_file(path: str, channel: str) -> Iterator[FloatArray]:
    """Yields a recording in pieces of 0.1 s."""
    size = round(BLOCK_S * SAMPLE_RATE)
    for block in read_blocks(path, 10.0, channel=channel):
        for start in range(0, len(block), size):
            yield block[start : start + size]


def _read_pipe() -> Iterator[FloatArray]:
    """Yields 16-bit samples of standard input as they come."""
    rest = b""
    pipe = cast(BufferedReader, sys.stdin.buffer)
    while data := pipe.read1(2 * round(BLOCK_S * SAMPLE_RATE)):
        data = rest + data
        rest = data[len(data) & ~1 :]
        samples = np.frombuffer(data[: len(data) & ~1], dtype="<i2")
        yield samples.astype(np.float32) / np.float32(32768)


def _at_real_speed(blocks: Iterable[FloatArray]) -> Iterator[FloatArray]:
    """Yields pieces no sooner than they would have been heard."""
    start, num_samples = time.monotonic(), 0
    for block in blocks:
        num_samples += len(block)
        time.sleep(max(start + num_samples / SAMPLE_RATE - time.monotonic(), 0.0))
        yield block
