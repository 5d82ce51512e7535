"""Errors that a user can cause and mend, and how a script ends on them."""

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from utils.messages import translate

EXIT_USER_ERROR = 2
"""Exit status of a script whose input was at fault, the same as argparse uses."""

EXIT_INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 + SIGINT, as shells report it."""


class VoiceprintError(Exception):
    """A mistake in what the user gave, told in one line: received, expected, what to do."""


class AudioError(VoiceprintError):
    """A recording cannot be used: missing, empty, truncated, not audio, silent or too short."""


class AudioFormatError(AudioError):
    """The bytes are no audio, or audio of a kind that cannot be decoded on this machine."""


class AudioTooLongError(AudioError):
    """A recording is longer than allowed.

    Attributes:
        max_duration_s: The longest that is allowed, in seconds.
    """

    def __init__(self, message: str, max_duration_s: float) -> None:
        super().__init__(message)
        self.max_duration_s = max_duration_s


class AudioTooLargeError(AudioError):
    """A recording has more bytes than allowed.

    Attributes:
        max_bytes: The most that are allowed.
    """

    def __init__(self, message: str, max_bytes: float) -> None:
        super().__init__(message)
        self.max_bytes = max_bytes


class DataListError(VoiceprintError):
    """A data list or trial list is missing or has a line that breaks the format."""


class ModelError(VoiceprintError):
    """A model file is missing, damaged, or not a model of this toolkit."""


class DatabaseError(VoiceprintError):
    """The voice database cannot do what was asked: unknown or unusable name, unreadable folder."""


class SpeakerExistsError(DatabaseError):
    """Somebody of this name is enrolled already."""


class ReplayedError(DatabaseError):
    """A recording was sent before in this speaker's name."""


class UsedChallengeError(DatabaseError):
    """Digits were read and sent already."""


class UnknownEnrolmentError(DatabaseError):
    """An enrolment that is under way no longer."""


class UnknownSpeakerError(DatabaseError):
    """Nobody of this name is enrolled, or the speaker has no such recording."""


class OnlyRecordingError(DatabaseError):
    """The last recording of a speaker goes only with the speaker."""


class OtherModelError(DatabaseError):
    """A speaker's embeddings are another model's, and cannot be compared.

    Attributes:
        speaker_id: Whose.
    """

    def __init__(self, message: str, speaker_id: str) -> None:
        super().__init__(message)
        self.speaker_id = speaker_id


class DamagedVoiceError(DatabaseError):
    """What is stored of a voice was changed from outside and cannot be decrypted."""


class TooManyRecordingsError(DatabaseError):
    """A speaker would have more recordings than are allowed."""


class TooManySpeakersError(DatabaseError):
    """A group would have more speakers than are allowed."""


class RepeatedKeyError(DatabaseError):
    """The key of a repeated request belongs to another request."""


class FileBlockedError(DatabaseError):
    """A file of a speaker cannot be removed or renamed."""


class MicrophoneError(VoiceprintError):
    """No recording can be made: PyAudio or an input device is absent or refuses."""


def run_script(main: Callable[[list[str] | None], int]) -> NoReturn:
    """Runs a script's `main` and exits with its status.

    A `VoiceprintError` becomes one line on stderr and status 2, Ctrl-C status 130. A reader that
    closes the pipe early (`| head`) ends the script quietly.

    Args:
        main: Takes the command line (`None` means `sys.argv[1:]`) and returns the exit status.
    """
    for stream in (sys.stdout, sys.stderr):
        # Output lines hold Chinese text: a console in another encoding must not crash the script.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        try:
            status = main(None)
        finally:
            # Here and not at the interpreter's end, where a closed pipe would be a traceback.
            sys.stdout.flush()
        sys.exit(status)
    except VoiceprintError as error:
        line = " ".join(str(error).split())
        print(translate("error: ") + translate(line), file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except KeyboardInterrupt:
        print(translate("interrupted"), file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
