r"""How many strangers an identification among N people names, and from which N that is too many.

    python embed.py speech/dev.tsv --output dev.npz
    python benchmarks/open_set.py dev.npz
    python benchmarks/open_set.py dev.npz --enrolled 3 --accepted 0.001

Each speaker is enrolled with the mean of the first recordings; the others are compared with all of
those who are enrolled. Strangers are compared with everybody but themselves: with all, and with the
people of their own corpus only, who are more alike in language and microphone.

At N people a stranger is named if one of N comparisons reaches the threshold. If p of the
comparisons do, that is 1 - (1 - p)^N if they were independent; for the N that the data has it is
measured beside it. Which threshold leaves the wanted share of strangers follows from p; beyond the
data, from an exponential tail on artanh of the highest 0.5 % of the scores. The tail of a normal
distribution ends sooner, so that such thresholds are rather too high than too low.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measuring import table
from utils.arguments import make_parser, positive_float, positive_int
from utils.arrays import FloatArray
from utils.corpus.embedding_file import EmbeddingFile, read_embedding_file
from utils.errors import DataListError, run_script
from utils.model.header import read_header
from utils.verification.embedding import mean_embedding

SIZES = (10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)
"""People enrolled, N."""

TAIL = 0.005
"""Share of the scores between strangers that the tail is fitted to."""

MIN_COUNTED = 10
"""Scores above a threshold from which their share is counted; below it is taken from the tail."""

NUM_DRAWS = 200
"""Random sets of enrolled people that a measured share is the mean of."""


@dataclass(frozen=True)
class Scores:
    """Cosines of recordings that nobody was enrolled with.

    Attributes:
        own: Against the own speaker, shape `(num_recordings,)`.
        others: Against all speakers, shape `(num_recordings, num_speakers)`; NaN where the two are
            not to be compared.
    """

    own: FloatArray
    others: FloatArray

    @property
    def strangers(self) -> FloatArray:
        """All scores between strangers, sorted, the lowest first."""
        return np.sort(self.others[np.isfinite(self.others)])


def make_options() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("embeddings", metavar="FILE.npz", help="file of embed.py")
    add("--model_path", help="speaker model whose strict threshold is used")
    add("--enrolled", type=positive_int, default=3, help="recordings that enrol a speaker")
    add("--accepted", type=positive_float, default=0.01, help="share of strangers to be named")
    return parser


def compare(content: EmbeddingFile, num_enrolled: int) -> dict[str, Scores]:
    """Compares recordings with speakers; returns the scores among all, and within each corpus.

    Raises:
        DataListError: If the file does not say who speaks, or has too few speakers.
    """
    recordings: dict[tuple[str, int], list[FloatArray]] = {}
    for entry in content.entries.values():
        if entry.clip is not None and entry.has_embedding:
            speaker = entry.clip.corpus, entry.clip.label
            recordings.setdefault(speaker, []).append(entry.embedding)
    speakers = [key for key, theirs in recordings.items() if len(theirs) > num_enrolled]
    if len(speakers) < 2:
        raise DataListError(
            f"received {len(speakers)} speakers with more than {num_enrolled} recordings, expected "
            "at least 2; make the file with embed.py from a list with speakers"
        )
    means = np.stack([mean_embedding(recordings[each][:num_enrolled]) for each in speakers])
    probes = [(i, e) for i, key in enumerate(speakers) for e in recordings[key][num_enrolled:]]
    whose = np.array([number for number, _ in probes])
    cosines = np.stack([embedding for _, embedding in probes]) @ means.T
    corpora = np.array([corpus for corpus, _ in speakers])
    is_own = whose[:, None] == np.arange(len(speakers))
    others = np.where(is_own, np.nan, cosines)
    alike = np.where(corpora[whose][:, None] == corpora, others, np.nan)
    found = {
        "all": Scores(cosines[is_own], others),
        "their own corpus": Scores(cosines[is_own], alike),
    }
    num_least = min(len(scores.strangers) for scores in found.values())
    if num_least < MIN_COUNTED / TAIL:
        raise DataListError(
            f"received {num_least} comparisons of strangers within their corpora, expected at "
            f"least {MIN_COUNTED / TAIL:.0f}; give more speakers"
        )
    return found


def share_above(strangers: FloatArray, threshold: float) -> float:
    """Returns the share of comparisons of strangers that reach a threshold.

    Args:
        strangers: Sorted scores.
        threshold: Lowest score that names somebody.
    """
    num_above = len(strangers) - int(np.searchsorted(strangers, threshold))
    if num_above >= MIN_COUNTED:
        return num_above / len(strangers)
    excess = np.arctanh(threshold) - np.arctanh(_tail(strangers)[0])
    return float(TAIL * np.exp(-excess / _decay(strangers)))


def threshold_for(strangers: FloatArray, share: float) -> float:
    """Returns the threshold that a share of the comparisons of strangers reaches."""
    num_above = round(share * len(strangers))
    if num_above >= MIN_COUNTED:
        return float(strangers[max(len(strangers) - num_above, 0)])
    start = np.arctanh(_tail(strangers)[0])
    return float(np.tanh(start + _decay(strangers) * np.log(TAIL / share)))


def _tail(strangers: FloatArray) -> FloatArray:
    """Returns the highest scores, those that the tail is fitted to."""
    return strangers[round(len(strangers) * (1 - TAIL)) :]


def _decay(strangers: FloatArray) -> float:
    """Returns the mean by which artanh of the highest scores exceeds that of their lowest."""
    highest = np.arctanh(np.minimum(_tail(strangers), 1 - 1e-6))
    return float((highest - highest[0]).mean())


def measured_share(scores: Scores, size: int, threshold: float) -> float | None:
    """Returns the share of strangers whom somebody among `size` people is taken for.

    None where not every stranger can be compared with so many.
    """
    if np.isfinite(scores.others).sum(axis=1).min() < size:
        return None
    generator = np.random.default_rng(0)
    named = []
    for _ in range(NUM_DRAWS):
        order = np.where(np.isnan(scores.others), 1, generator.random(scores.others.shape))
        drawn = np.argpartition(order, size - 1, axis=1)[:, :size]
        best = np.take_along_axis(scores.others, drawn, axis=1).max(axis=1)
        named.append(np.mean(best >= threshold))
    return float(np.mean(named))


def report(scores: Scores, strict: float, accepted: float) -> str:
    """Returns the table of one way to compare, and the size from which it is too many."""
    strangers = scores.strangers
    p = share_above(strangers, strict)
    lines = []
    for size in SIZES:
        named = -np.expm1(size * np.log1p(-p))
        measured = measured_share(scores, size, strict)
        per_comparison = -np.expm1(np.log1p(-accepted) / size)
        threshold = threshold_for(strangers, per_comparison)
        missed = float(np.mean(scores.own < threshold))
        is_seen = round(per_comparison * len(strangers)) >= MIN_COUNTED
        lines.append([
            f"{size:,}",
            "" if measured is None else f"{measured:.2%}",
            f"{named:.2%}",
            f"{threshold:.3f}{'' if is_seen else ' *'}",
            f"{missed:.1%}",
        ])  # fmt: skip
    header = ["people", "strangers named, measured", "computed", "threshold needed", "own missed"]
    most = int(np.log1p(-accepted) / np.log1p(-p)) if p > 0 else 0
    return "\n".join([
        f"{len(strangers):,} comparisons of strangers, {p:.5%} reach the strict threshold "
        f"{strict:.4f}, which {np.mean(scores.own < strict):.1%} of the own recordings miss.",
        "", table(header, lines), "",
        f"At the strict threshold, {accepted:.1%} of strangers are named among {most:,} "
        "people. * beyond the data, from the tail.",
    ])  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    options = make_options().parse_args(argv)
    content = read_embedding_file(options.embeddings)
    header = read_header(options.model_path)
    if content.model_id != header.model_id:
        raise DataListError(
            f"{options.embeddings}: embeddings of another model than {header.path}; expected those "
            "of one model, give its --model_path"
        )
    strict = header.calibration.strict_threshold
    for name, scores in compare(content, options.enrolled).items():
        print(f"Among {name}:\n\n{report(scores, strict, options.accepted)}\n")
    return 0


if __name__ == "__main__":
    run_script(main)
