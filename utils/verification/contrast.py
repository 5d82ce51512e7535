"""Comparing two recordings, or the pairs of a list: what infer_contrast.py prints and writes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.arrays import FloatArray
from utils.audio.recording import Recording
from utils.files import atomic_path
from utils.messages import translate
from utils.verification.calibration import describe_probability
from utils.verification.channel_voices import note_channels
from utils.verification.embedding import Encoder, score_pair
from utils.verification.embedding_store import EmbeddingStore
from utils.verification.evaluation import Clips, embed_clips
from utils.verification.report import name_defects
from utils.verification.verdict import verdict

COLUMNS = ("score", "is_same_speaker", "probability", "audio1_path", "audio2_path", "error")
"""First line of the file of scores. A field that can't be told is empty."""

Pair = tuple[str, str]


@dataclass(frozen=True)
class Contrast:
    """The comparison of two recordings.

    Attributes:
        score: Cosine of their embeddings, or its AS-norm.
        is_same_speaker: Whether the score reaches the threshold.
        probability: That both are of one person; None without a calibration.
        mean_time_ms: Milliseconds of an embedding.
        speech_s: Seconds of speech in each.
        level_dbfs: Level of the speech of each.
        differing_channels: Channels of each that hold different voices and were mixed.
    """

    score: float
    is_same_speaker: bool
    probability: float | None
    mean_time_ms: int
    speech_s: list[float]
    level_dbfs: list[float]
    differing_channels: list[tuple[int, ...]]

    def describe(self, path1: str, path2: str) -> list[str]:
        """Returns the lines that tell the answer."""
        names = f"{path1} 和 {path2}"
        answer = f"{names} 不是同一个人，相似度仅为：{self.score:f}"
        if self.is_same_speaker:
            answer = f"{names} 为同一个人，相似度为：{self.score:f}"
        lines = [translate(f"{answer}，平均预测时间：{self.mean_time_ms}ms")]
        if self.probability is not None:
            text = describe_probability(self.probability)
            lines.append(translate(f"按模型的校准，两段录音为同一个人的概率：{text}"))
        return lines


def contrast_recordings(
    encoder: Encoder,
    recordings: Sequence[Recording],
    threshold: float,
    infer: Callable[[Encoder, Recording], FloatArray],
) -> Contrast:
    """Compares two recordings.

    Args:
        encoder: The model.
        recordings: Two.
        threshold: Least score of the same person.
        infer: Returns the embedding of a recording.

    Raises:
        AudioError: If one of them cannot be used.
    """
    start = time.perf_counter()
    first, second = (infer(encoder, recording) for recording in recordings)
    mean_time_ms = round((time.perf_counter() - start) / 2 * 1000)
    score = score_pair(encoder, first, second)
    speech_s = recordings[0].speech_s, recordings[1].speech_s
    return Contrast(
        score,
        verdict(score, threshold),
        encoder.probability(score, speech_s) if encoder.is_calibrated else None,
        mean_time_ms,
        [round(seconds, 2) for seconds in speech_s],
        [round(recording.level_dbfs, 2) for recording in recordings],
        note_channels(encoder, recordings, threshold),
    )


def contrast_pairs(
    encoder: Encoder,
    pairs: Sequence[Pair],
    threshold: float,
    output_path: str | Path,
    embeddings_path: str | None = None,
) -> int:
    """Scores pairs of recordings and writes them to a table, one line a pair, in their order.

    The table is tab-separated, its first line names the columns; a pair with an unusable recording
    has the reason in place of a score. Each recording is embedded once.

    Returns:
        How many pairs could not be scored.

    Raises:
        AudioError: If not one recording can be used.
        VoiceprintError: If the npz file is no store of embeddings.
    """
    from tqdm import tqdm

    store = EmbeddingStore(embeddings_path, encoder.model_id) if embeddings_path else None
    paths = list(dict.fromkeys(path for pair in pairs for path in pair))
    with tqdm(total=len(paths), unit="file") as bar:
        clips = embed_clips(encoder, paths, store, bar.update)
    name_defects(clips)
    num_left_out = 0
    with atomic_path(output_path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write("\t".join(COLUMNS) + "\n")
        for pair in tqdm(pairs, unit="pair"):
            values = _judge(encoder, clips, pair, threshold)
            num_left_out += bool(values["error"])
            file.write("\t".join(str(values[column]) for column in COLUMNS) + "\n")
    return num_left_out


def _judge(encoder: Encoder, clips: Clips, pair: Pair, threshold: float) -> dict[str, Any]:
    """Returns the line of a pair by column."""
    values: dict[str, Any] = dict.fromkeys(COLUMNS, "")
    values |= {"audio1_path": pair[0], "audio2_path": pair[1]}
    unusable = [path for path in pair if path in clips.defects]
    if unusable:
        # A reason may quote a file name with any character in it.
        values["error"] = " ".join(clips.defects[unusable[0]].split())
        return values
    first, second = (clips.embeddings[clips.rows[path]] for path in pair)
    score = score_pair(encoder, first, second)
    values |= {"score": f"{score:.6f}", "is_same_speaker": int(verdict(score, threshold))}
    if encoder.is_calibrated:
        values["probability"] = f"{encoder.probability(score):.6f}"
    return values
