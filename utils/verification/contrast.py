"""Comparing the pairs of a list, each recording embedded once: what infer_contrast.py writes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.files import atomic_path
from utils.verification.cohort import Cohort
from utils.verification.embedding import Encoder
from utils.verification.embedding_store import EmbeddingStore
from utils.verification.evaluation import Clips, embed_clips, name_defects
from utils.verification.verdict import cosine_score, verdict

COLUMNS = ("score", "is_same_speaker", "probability", "audio1_path", "audio2_path", "error")
"""First line of the file of scores. A field that can't be told is empty."""

Pair = tuple[str, str]


def contrast_pairs(
    encoder: Encoder,
    pairs: Sequence[Pair],
    threshold: float,
    output_path: str | Path,
    embeddings_path: str | None = None,
    cohort: Cohort | None = None,
) -> int:
    """Scores pairs of recordings and writes them to a table, one line a pair, in their order.

    Args:
        encoder: The model.
        pairs: Paths of recordings; each recording is embedded once.
        threshold: Least score of the same person.
        output_path: Where the table shall be: tab-separated, its first line names the columns. A
            pair with an unusable recording has the reason in place of a score.
        embeddings_path: An npz file to keep embeddings in and to reuse them from.
        cohort: For AS-norm of the scores.

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
            values = _judge(encoder, clips, pair, threshold, cohort)
            num_left_out += bool(values["error"])
            file.write("\t".join(str(values[column]) for column in COLUMNS) + "\n")
    return num_left_out


def _judge(
    encoder: Encoder, clips: Clips, pair: Pair, threshold: float, cohort: Cohort | None
) -> dict[str, Any]:
    """Returns the line of a pair by column."""
    values: dict[str, Any] = dict.fromkeys(COLUMNS, "")
    values |= {"audio1_path": pair[0], "audio2_path": pair[1]}
    unusable = [path for path in pair if path in clips.defects]
    if unusable:
        # A reason may quote a file name with any character in it.
        values["error"] = " ".join(clips.defects[unusable[0]].split())
        return values
    first, second = (clips.embeddings[clips.rows[path]] for path in pair)
    score = cosine_score(first, second) if cohort is None else cohort.score(first, second)
    values |= {"score": f"{score:.6f}", "is_same_speaker": int(verdict(score, threshold))}
    if encoder.is_calibrated:
        values["probability"] = f"{encoder.probability(score):.6f}"
    return values
