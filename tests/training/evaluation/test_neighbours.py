import sys

import numpy as np
import numpy.typing as npt
import pytest

from regraft.model.artifact import FloatArray
from training.evaluation.neighbours import EXACT_UP_TO, nearest


def clouds(count: int, seed: int = 0) -> FloatArray:
    """Return embeddings that vary along some axes more than along others, as those of photographs do."""
    random = np.random.default_rng(seed)
    return np.asarray(random.normal(2, 1, (count, 160)) * np.geomspace(4, 0.2, 160), np.float32)


def by_hand(embedding: FloatArray, answer: npt.NDArray[np.int64], row: int) -> npt.NDArray[np.float64]:
    """Return the cosines [n] of a row with all; -2 with itself."""
    same = embedding[answer == answer[row]]
    mean = (same.sum(axis=0) + 3 * embedding.mean(axis=0)) / (len(same) + 3)
    directions = (embedding - mean) / np.linalg.norm(embedding - mean, axis=1, keepdims=True)
    cosine = directions @ directions[row]
    cosine[row] = -2
    return np.asarray(cosine, np.float64)


def test_the_nearest_are_those_with_the_largest_cosine_about_the_mean_of_the_class() -> None:
    embedding, answer = clouds(60), np.arange(60) % 3

    index, cosine = nearest(embedding, answer, 5)

    expected = [np.argsort(-by_hand(embedding, answer, row))[:5].tolist() for row in range(60)]
    assert index.tolist() == expected
    assert (np.diff(cosine, axis=1) <= 0).all()


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_there_are_no_more_neighbours_than_other_rows(count: int) -> None:
    index, cosine = nearest(clouds(count), np.zeros(count, np.int64), 8)

    assert index.shape == cosine.shape == (count, max(count - 1, 0))


def test_without_usearch_all_rows_are_compared_however_many(monkeypatch: pytest.MonkeyPatch) -> None:
    many = EXACT_UP_TO + 100
    embedding, answer = clouds(many), np.zeros(many, np.int64)
    monkeypatch.setitem(sys.modules, "usearch.index", None)  # as if it were not installed

    index, _ = nearest(embedding, answer, 2)

    for row in range(0, many, 500):
        assert index[row].tolist() == np.argsort(-by_hand(embedding, answer, row))[:2].tolist()


def test_among_very_many_hardly_anything_nearer_is_missed() -> None:
    many = EXACT_UP_TO + 500
    embedding, answer = clouds(many), np.arange(many) % 4

    index, cosine = nearest(embedding, answer, 3)

    asked = range(0, many, 61)
    expected = np.array([by_hand(embedding, answer, row) for row in asked])
    likest = -np.sort(-expected, axis=1)[:, :3]
    assert np.mean(likest - cosine[asked]) < 0.01
    np.testing.assert_allclose(cosine[asked], np.take_along_axis(expected, index[asked], 1), atol=1e-4)
    assert (np.diff(cosine, axis=1) <= 0).all()
