from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.arrays import FloatArray
from voices.sql import index as vector_index
from voices.sql.index import MIN_CAPACITY, Question, VectorIndex, _largest


def embedding(seed: int, size: int = 8) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=size)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def test_empty() -> None:
    index = VectorIndex(8)
    assert len(index) == 0 and index.ids() == []
    assert index.best(embedding(0), 3) == index.best(embedding(0), None, ["a"]) == []


def test_ties_keep_the_order_of_enrolment() -> None:
    index = VectorIndex(8)
    index.update((name, name, embedding(0)) for name in "dbca")
    assert [name for name, _ in index.best(embedding(0), 4)] == list("dbca")
    assert index.best(embedding(0), 0) == index.best(embedding(0), -1) == []


def test_score_of_the_same_embedding_is_at_most_one() -> None:
    index = VectorIndex(192)
    index.update((str(seed), str(seed), embedding(seed, 192)) for seed in range(300))
    for seed in range(300):
        ((name, score),) = index.best(embedding(seed, 192), 1)
        assert name == str(seed) and 0.999999 < score <= 1


def test_a_name_may_pass_to_another_speaker() -> None:
    index = VectorIndex(8)
    index.update([("1", "x", embedding(1)), ("2", "y", embedding(2))])
    index.update([("2", "X", embedding(2)), ("1", "z", embedding(1))])
    assert index.best(embedding(2), None, ["x"])[0][0] == "X"
    assert index.best(embedding(1), None, ["z"])[0][0] == "z"
    assert index.best(embedding(1), None, ["y"]) == []


CHANGES = st.lists(
    st.tuples(st.sampled_from("pcr"), st.integers(0, 40), st.integers(0, 10_000)), max_size=150
)


@given(CHANGES, st.integers(1, 60))
def test_agrees_with_a_dictionary(changes: list[tuple[str, int, int]], top_k: int) -> None:
    index = VectorIndex(8)
    expected: dict[str, tuple[str, np.ndarray]] = {}
    for kind, number, seed in changes:
        key = str(number)
        if kind == "r":
            expected.pop(key, None)
            index.update([], [key])
        else:
            name = f"{kind}{number}"
            expected[key] = (name, embedding(seed))
            index.update([(key, name, embedding(seed))])
    assert sorted(index.ids()) == sorted(expected)
    query = embedding(99)
    scores = {name: float(vector @ query) for name, vector in expected.values()}
    found = index.best(query, top_k)
    assert len(found) == min(top_k, len(expected))
    best = sorted(scores.values(), reverse=True)[:top_k]
    np.testing.assert_allclose([score for _, score in found], best, atol=1e-6)
    for name, score in index.best(query, None, list(scores)[::2]):
        assert abs(scores[name] - score) < 1e-6


def test_many_changes_do_not_fill_the_memory() -> None:
    index = VectorIndex(8)
    for round_ in range(20):
        index.update((str(n), f"s{n}", embedding(n + round_)) for n in range(MIN_CAPACITY))
    assert len(index) == MIN_CAPACITY
    assert len(index._matrix) <= 4 * MIN_CAPACITY
    assert index.best(embedding(19), 1)[0] == ("s0", index.best(embedding(19), 1)[0][1])


@pytest.mark.parametrize("num_scores", [1, 63, 64, 65, 640, 1_000, 5_003])
@pytest.mark.parametrize("top_k", [1, 5, 100])
def test_the_largest_scores_are_found_block_by_block(num_scores: int, top_k: int) -> None:
    scores = np.random.default_rng(num_scores).standard_normal(num_scores).astype(np.float32)
    scores[::3] = -np.inf
    top_k = min(top_k, num_scores)
    found = _largest(scores, top_k)
    assert len(set(found)) == top_k
    np.testing.assert_array_equal(scores[found], np.sort(scores)[::-1][:top_k])


def test_a_change_that_cannot_be_read_changes_nothing() -> None:
    index = VectorIndex(2)
    index.update([("a", "A", np.array([1, 0], np.float32))])

    def damaged() -> Iterator[tuple[str, str, FloatArray]]:
        yield ("b", "B", np.array([0, 1], np.float32))
        raise OSError("damaged")

    for _ in range(2 * MIN_CAPACITY):
        with pytest.raises(OSError, match="damaged"):
            index.update(damaged(), ["a"])
    assert index.best(np.array([1, 0], np.float32), None) == [("A", 1.0)]


def directions(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns speakers and questions, `(n, 192)`: far apart, or so alike that codes cannot tell."""
    rng = np.random.default_rng(7)
    rows = rng.standard_normal((6_000, 192))
    if kind == "alike":
        rows = rng.standard_normal(192) + 1e-3 * rows
    if kind == "axes":
        # One large number leaves only the coarsest codes for the others.
        rows[:, 0] = 300
    questions = rows[:9] + 0.3 * rng.standard_normal((9, 192))
    return tuple(  # type: ignore[return-value]
        (each / np.linalg.norm(each, axis=1, keepdims=True)).astype(np.float32)
        for each in (rows, questions)
    )


@pytest.mark.parametrize("kind", ["apart", "alike", "axes"])
@pytest.mark.parametrize("top_k", [1, 5, 100])
def test_the_short_cut_finds_exactly_the_best(kind: str, top_k: int) -> None:
    rows, questions = directions(kind)
    index = VectorIndex(192)
    for start in range(0, len(rows), 1_000):  # The matrix grows and moves on the way.
        some = range(start, start + 1_000)
        index.update((str(i), f"s{i}", rows[i]) for i in some)
        index.update([], [str(i) for i in some if i % 7 == 0])
    assert len(index) >= vector_index.LONG
    alive = np.array([i for i in range(len(rows)) if i % 7])
    asked = [Question(question, top_k) for question in questions]
    asked.insert(4, Question(questions[0], None, ["s1", "nobody", "s0"]))
    answers = index.best_of_each(asked)
    assert [name for name, _ in answers.pop(4)] == ["s1"]
    for question, answer in zip(questions, answers, strict=True):
        scores = np.vecdot(rows[alive], question)
        order = np.argsort(-scores, kind="stable")[:top_k]
        assert [score for _, score in answer] == pytest.approx(list(scores[order]), abs=1e-6)
        if kind != "alike":
            assert [name for name, _ in answer] == [f"s{alive[i]}" for i in order]


def test_the_short_cut_reads_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, questions = directions("apart")
    index = VectorIndex(192)
    index.update((str(i), f"s{i}", row) for i, row in enumerate(rows))
    counts: list[int] = []
    cosines = vector_index._cosines

    def counted(matrix: FloatArray, embedding: FloatArray) -> FloatArray:
        counts.append(len(matrix))
        return cosines(matrix, embedding)

    monkeypatch.setattr(vector_index, "_cosines", counted)
    index.best_of_each([Question(question, 5) for question in questions])
    assert len(counts) == len(questions) and max(counts) < 200
