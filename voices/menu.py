"""The menu of infer_recognition.py: enrols, recognises, lists and deletes speakers by voice.

Prompts and answers are those of the project's first version, in Chinese; what came later keeps
silent until it is needed.
"""

import argparse
import contextlib
import sys
import unicodedata
from collections.abc import Callable, Sequence

from utils.arrays import FloatArray
from utils.audio.level_meter import level_meter
from utils.audio.microphone import describe_recording_defect, list_microphones, record
from utils.errors import DatabaseError, MicrophoneError, VoiceprintError
from utils.messages import translate
from utils.speaker_names import clean_name
from voices.store import VoiceStore, open_database

RECORD_SECONDS = 3
"""Length of a recording, as the prompt says it."""

Register = Callable[[VoiceStore, str, list[FloatArray], bool], Sequence[object]]
"""`(database, name, waveforms, replace)`: enrols, with or without the recordings there are, and
returns what was stored."""

Recognise = Callable[[FloatArray], tuple[str | None, float]]
"""`(waveform)` -> the speaker, or None for a stranger, and the best score."""


def describe_match(name: str | None, score: float) -> str:
    """Returns the line that tells who speaks; `name` is None for a stranger."""
    if name is None:
        return translate(f"声纹库中没有匹配的用户，最高相似度仅为：{score:f}")
    return translate(f"识别说话的为：{name}，相似度为：{score:f}")


def print_speakers(database: VoiceStore) -> None:
    """Prints the enrolled speakers and how many recordings each has."""
    speakers = database.all_recordings()
    for name, recordings in speakers.items():
        print(translate(f"{name}（{len(recordings)}段录音）"))
    print(translate(f"声纹库中共有{len(speakers)}个用户"))


def print_rejected(database: VoiceStore) -> None:
    """Tells on stderr which recordings cannot be used, and why."""
    for recording, reason in database.rejected:
        print(translate(f"warning: {recording} is left out: {reason}"), file=sys.stderr)


def print_deletion(database: VoiceStore, name: str) -> None:
    """Deletes a speaker and prints what was removed."""
    for path in database.delete(name):
        print(translate(f"已删除：{path}"))


def print_match(name: str | None, score: float) -> int:
    """Prints who speaks; returns the exit status: 0 for somebody enrolled, 1 for a stranger."""
    print(describe_match(name, score))
    return int(name is None)


def load_audio_db(database: VoiceStore) -> None:
    """Loads the enrolled voices and names them; what cannot be used is told on stderr."""
    for name in database.load():
        print(f"Loaded {name} audio.", flush=True)
    print_rejected(database)


def print_microphones() -> None:
    """Prints the devices that record, the default one with a star."""
    microphones = list_microphones()
    for device in microphones:
        star = " *" if device.is_default else ""
        print(translate(f"{device.index}：{device.name}（{device.rate} Hz）{star}"))
    print(translate(f"共有{len(microphones)}个麦克风"))


def list_or_delete(args: argparse.Namespace) -> bool:
    """Prints the microphones or the speakers, or deletes a speaker, if an option says so.

    Returns:
        Whether there was such an option.
    """
    if args.list_microphones:
        print_microphones()
        return True
    if not args.list and args.delete is None:
        return False
    database, name = open_database(args.database, create=False), args.delete
    if name is None:
        print_speakers(database)
    else:
        print_deletion(database, name)
    return True


def ask_if_exists(database: VoiceStore, name: str) -> str | None:
    """Asks what becomes of a name that is enrolled already.

    Returns:
        "add", "replace", or None to leave everything as it is.
    """
    num_recordings = len(database.recordings(name))
    question = (
        f"{database.enrolled_name(name)}已在声纹库中（{num_recordings}段录音），"
        "输入a追加录音，输入r替换原有录音，直接回车取消："
    )
    answer = input(translate(question))
    return {"a": "add", "r": "replace"}.get(_key(answer))


def choose_if_exists(database: VoiceStore, name: str, if_exists: str) -> str:
    """Returns "add" or "replace" for a name that may be enrolled; `if_exists` "ask" asks.

    Raises:
        DatabaseError: If the name is enrolled, and the answer was to leave it so or nobody can
            be asked.
    """
    if database.enrolled_name(name) is None:
        return "add"
    if if_exists != "ask":
        return if_exists
    answer = ask_if_exists(database, name) if sys.stdin.isatty() else None
    if answer is None:
        raise DatabaseError(
            f"{name} is enrolled already and was left as it is; "
            "choose with --if_exists add or --if_exists replace"
        )
    return answer


def tell_look_alikes(database: VoiceStore, name: str) -> None:
    """Says on stderr which enrolled people have names that look the same."""
    others = database.look_alikes(name)
    if others:
        told = f"note: {name} looks like {', '.join(others)}, but is another name"
        print(translate(told), file=sys.stderr)


def enrol(
    database: VoiceStore,
    register: Register,
    name: str,
    waveforms: list[FloatArray],
    if_exists: str,
) -> int:
    """Enrols a speaker from files, prints what was stored, and returns the exit status."""
    replace = choose_if_exists(database, name, if_exists) == "replace"
    stored = register(database, name, waveforms, replace)
    print(translate(f"已注册{name}："), *stored)
    tell_look_alikes(database, name)
    return 0


class Menu:
    """The interactive loop; it ends by q or at the end of input."""

    def __init__(
        self,
        database: VoiceStore,
        register: Register,
        recognise: Recognise,
        microphone: str | None = None,
    ) -> None:
        """Takes the loaded database, the two functions that do the work, and the microphone."""
        self._microphone = microphone
        self.database = database
        self._register = register
        self._recognise = recognise
        self._actions = {
            "0": self.register,
            "1": self.recognise,
            "2": lambda: print_speakers(self.database),
            "3": self.delete,
        }

    def run(self) -> None:
        """Asks and acts until somebody leaves. Errors are told and lead back to the question."""
        # With it, input() lets a name be edited with the arrow keys, wide characters too.
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401
        try:
            while True:
                key = _key(input(translate("请选择功能，0为注册音频到声纹库，1为执行声纹识别：")))
                if key == "q":
                    return
                if key not in self._actions:
                    print(translate("其他功能：2为列出用户，3为删除用户，q为退出"))
                    continue
                try:
                    self._actions[key]()
                except MicrophoneError as error:
                    print(translate(f"无法录音：{translate(str(error))}"))
                except VoiceprintError as error:
                    print(translate(f"操作失败：{translate(str(error))}"))
        except EOFError:
            print()

    def register(self) -> None:
        """Records a voice, asks whose it is, and enrols it."""
        waveform = self.record()
        if waveform is None:
            return
        name = self.ask_name("请输入该音频用户的名称：")
        choice: str | None = "add"
        if self.database.enrolled_name(name) is not None:
            choice = ask_if_exists(self.database, name)
        if choice is None:
            print(translate("已取消，声纹库没有变化"))
        else:
            self._register(self.database, name, [waveform], choice == "replace")
            tell_look_alikes(self.database, name)

    def recognise(self) -> None:
        """Records a voice and tells whose it is."""
        if not self.database.names():
            print(translate("声纹库中没有用户，请先注册"))
            return
        waveform = self.record()
        if waveform is not None:
            print_match(*self._recognise(waveform))

    def delete(self) -> None:
        """Asks for a name and, once more, for consent, and deletes the speaker."""
        name = self.ask_name("请输入要删除的用户的名称：")
        enrolled = self.database.enrolled_name(name)
        if enrolled is None:
            print(translate(f"声纹库中没有{name}"))
        elif _key(input(translate(f"输入y确认删除{enrolled}的全部录音："))) == "y":
            print_deletion(self.database, name)
        else:
            print(translate("已取消，声纹库没有变化"))

    def record(self) -> FloatArray | None:
        """Records until a recording is fit for use; None if somebody answers q instead."""
        while True:
            if _key(input(translate(f"按下回车键开机录音，录音{RECORD_SECONDS}秒中："))) == "q":
                return None
            with level_meter() as show:
                waveform = record(
                    RECORD_SECONDS, _print_start, microphone=self._microphone, on_block=show
                )
            print(translate("录音已结束!"))
            defect = describe_recording_defect(waveform)
            if defect is None:
                return waveform
            print(translate(f"录音不可用：{defect}；请重新录音"))

    def ask_name(self, prompt: str) -> str:
        """Asks until the answer can be a name, and says what is wrong with one that cannot."""
        while True:
            try:
                return clean_name(input(translate(prompt)))
            except VoiceprintError as error:
                print(translate(f"名称不可用：{translate(str(error))}"))


def _print_start() -> None:
    """Tells that the recording has begun."""
    print(translate("开始录音......"), flush=True)


def _key(answer: str) -> str:
    """Brings an answer to the form of the keys: no spaces, no full-width or capital letters."""
    return unicodedata.normalize("NFKC", answer).strip().lower()
