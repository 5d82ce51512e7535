"""What a job found, as it is answered and as it is kept."""

import base64
import json
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from service.diarization.worker import Findings, FoundVoice
from utils.diarization.names import FoundSpeaker, Rank, name_speakers
from utils.diarization.turns import Turn, format_rttm, speaking_seconds
from utils.errors import AudioError
from utils.verification.verdict import verdict
from voices.sql.records import NewRecording


def describe(
    findings: Findings, rank: Rank, threshold: float, file_name: str
) -> tuple[dict[str, Any], list[tuple[str | None, float | None]]]:
    """Names the speakers.

    Args:
        findings: What was found.
        rank: The enrolled people, as in `name_speakers`.
        threshold: Least score of an enrolled person.
        file_name: What the client calls the recording.

    Returns:
        A `DiarizationResult`, and for each speaker the name, or None, and the score.
    """
    turns, speakers = name_speakers(findings.diarization, rank, threshold)
    seconds = speaking_seconds(turns)
    speakers = [speaker for speaker in speakers if speaker.label in seconds]
    documents = {speaker.label: _speaker(speaker, threshold, findings) for speaker in speakers}
    for label, document in documents.items():
        document["speech_s"] = round(seconds[label], 3)
        document["num_turns"] = sum(turn.speaker == label for turn in turns)
    result = {
        "recording": PurePath(file_name.replace("\\", "/")).stem or "recording",
        "duration_s": round(findings.diarization.duration_s, 3),
        "overlap_share": round(findings.diarization.overlap_share, 3),
        "threshold": threshold,
        "speakers": list(documents.values()),
        "turns": [
            {
                "start_s": round(turn.start_s, 3),
                "end_s": round(turn.end_s, 3),
                "speaker": documents[turn.speaker]["label"],
                "name": documents[turn.speaker]["name"],
                "score": turn.score,
                "is_overlapped": is_overlapped,
            }
            for turn, is_overlapped in zip(turns, _overlaps(turns), strict=True)
        ],
    }
    return result, [(each["name"], each["score"]) for each in documents.values()]


def to_rttm(result: dict[str, Any]) -> str:
    """Returns a `DiarizationResult` as RTTM; who has no name is speaker_1, speaker_2, ..."""
    turns = [
        Turn(turn["start_s"], turn["end_s"], turn["name"] or f"speaker_{turn['speaker']}")
        for turn in result["turns"]
    ]
    return format_rttm(turns, result["recording"])


def pack_voices(voices: dict[str, FoundVoice], model_id: str) -> bytes:
    """Returns voices as they are kept."""
    packed = {
        label: {
            "embedding": None if voice.embedding is None else voice.embedding.tolist(),
            "speech_s": voice.speech_s,
            "duration_s": voice.duration_s,
            "audio": None if voice.audio is None else base64.b64encode(voice.audio).decode(),
            "defect": voice.defect,
        }
        for label, voice in voices.items()
    }
    return json.dumps({"model_id": model_id, "voices": packed}).encode()


def unpack_voice(content: bytes, label: str) -> tuple[NewRecording | None, str]:
    """Returns one of the voices that `pack_voices` packed, None if there is no such, and the model.

    Raises:
        AudioError: If it holds too little speech to be enrolled.
    """
    packed = json.loads(content)
    voice = packed["voices"].get(label)
    if voice is None:
        return None, packed["model_id"]
    if voice["embedding"] is None:
        raise AudioError(f"speaker {label}: {voice['defect']}")
    audio = None if voice["audio"] is None else base64.b64decode(voice["audio"])
    embedding = np.asarray(voice["embedding"], np.float32)
    recording = NewRecording(embedding, voice["speech_s"], audio, voice["duration_s"])
    return recording, packed["model_id"]


def _speaker(speaker: FoundSpeaker, threshold: float, findings: Findings) -> dict[str, Any]:
    """Describes a speaker."""
    is_named = speaker.score is not None and verdict(speaker.score, threshold)
    label = str(speaker.numbers[0] + 1)
    return {
        "label": label,
        "name": speaker.label if is_named else None,
        "score": speaker.score,
        "can_be_enrolled": findings.voices[label].embedding is not None,
    }


def _overlaps(turns: Sequence[Turn]) -> list[bool]:
    """Tells of each turn, in order of their beginnings, whether somebody else speaks during it."""
    found = [False] * len(turns)
    open_turns: list[int] = []
    for index, turn in enumerate(turns):
        open_turns = [other for other in open_turns if turns[other].end_s > turn.start_s]
        for other in open_turns:
            found[other] = found[index] = True
        open_turns.append(index)
    return found
