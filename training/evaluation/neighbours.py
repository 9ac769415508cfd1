"""Nearest neighbours of embeddings, exact or approximate."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from regraft.machine import cpu_budget
from regraft.model.artifact import FloatArray

EXACT_UP_TO: Final = 4096
"""Rows among which all are compared with all; beyond, that would take the time of the square of them."""
_PULL: Final = 3
_BLOCK: Final = 512
_AXES: Final = 64
_SAMPLE: Final = 4096
_FURTHER: Final = 16
"""Candidates beyond those that are asked for."""

_Rows = npt.NDArray[np.int64]
_Mask = npt.NDArray[np.bool_]


def nearest(embedding: FloatArray, answer: _Rows, count: int) -> tuple[_Rows, FloatArray]:
    """Find the ``count`` nearest other rows of each, with cosines.

    Embeddings are centred on the mean of a class. That of a small class is pulled towards the mean of all rows, or a
    pair that is a whole class would cancel out.

    Up to `EXACT_UP_TO` rows, or without usearch, all are looked at. Beyond, candidates come from a graph of neighbours
    (Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using HNSW graphs", 2018) over the
    main axes: differences of rows stay the same wherever they are centred. The cosines of candidates are exact. Few
    neighbours are missed; the same rows have the same neighbours on any number of CPUs.

    Args:
        embedding: float32 [n, D].
        answer: int64 [n], the class on whose mean the embeddings are centred for a row.
        count: at least 1.

    Returns:
        int64 [n, k] and float32 [n, k].
    """
    count = min(count, max(len(embedding) - 1, 0))
    index, similarity = np.empty((len(embedding), count), np.int64), np.empty((len(embedding), count), np.float32)
    if not count:
        return index, similarity
    with threadpool_limits(limits=cpu_budget()):
        search = _cosines_with_candidates if len(embedding) > EXACT_UP_TO and _has_usearch() else _cosines_with_all
        for rows, others, cosine in search(embedding, answer, count):
            order = np.argsort(-cosine, axis=1, kind="stable")[:, :count]
            index[rows] = np.take_along_axis(others, order, 1)
            similarity[rows] = np.take_along_axis(cosine, order, 1)
    return index, similarity


def cosines(embedding: FloatArray, answer: _Rows, wanted: _Mask) -> Iterator[tuple[_Rows, FloatArray]]:
    """Yield wanted rows with their cosines [rows, n] to all; -1 to themselves."""
    for members, mean in _classes(embedding, answer):
        directions = _directions(embedding, mean)
        rows = members[wanted[members]]
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            cosine = directions[block] @ directions.T
            cosine[np.arange(len(block)), block] = -1
            yield block, np.clip(cosine, -1, 1)


def _cosines_with_all(embedding: FloatArray, answer: _Rows, count: int) -> Iterator[tuple[_Rows, _Rows, FloatArray]]:
    """Yield rows, their nearest others [rows, count], and cosines."""
    for rows, cosine in cosines(embedding, answer, np.ones(len(embedding), np.bool_)):
        some = np.sort(np.argpartition(-cosine, count - 1, axis=1)[:, :count], axis=1)
        yield rows, some, np.take_along_axis(cosine, some, 1)


def _cosines_with_candidates(
    embedding: FloatArray, answer: _Rows, count: int
) -> Iterator[tuple[_Rows, _Rows, FloatArray]]:
    """Yield rows, likely near others [rows, m], and cosines; -1 for none."""
    candidates = _candidates(embedding, count + _FURTHER)
    for rows, mean in _classes(embedding, answer):
        for start in range(0, len(rows), _BLOCK // 8):
            block = rows[start : start + _BLOCK // 8]
            others = candidates[block]
            own, other = _directions(embedding[block], mean), _directions(embedding[others], mean)
            cosine = np.einsum("rd,rmd->rm", own, other, optimize=True)
            yield block, others, np.clip(np.where(others == block[:, None], -1, cosine), -1, 1)


def _classes(embedding: FloatArray, answer: _Rows) -> Iterator[tuple[_Rows, FloatArray]]:
    """Yield each class's rows with the mean float32 [D] to centre on."""
    overall = embedding.mean(axis=0, dtype=np.float64) if len(embedding) else 0
    for each in np.unique(answer):
        rows = np.flatnonzero(answer == each)
        total = sum(embedding[block].sum(axis=0, dtype=np.float64) for block in _blocks(rows)) + _PULL * overall
        yield rows, (total / (len(rows) + _PULL)).astype(np.float32)


def _directions(embedding: FloatArray, mean: FloatArray) -> FloatArray:
    """Centre and normalise rows [..., D]."""
    directions = embedding - mean
    directions /= np.maximum(np.linalg.norm(directions, axis=-1, keepdims=True), np.float32(1e-12))
    return np.asarray(directions, np.float32)


def _candidates(embedding: FloatArray, count: int) -> _Rows:
    """Search a graph for likely nearest rows, int64 [n, count], or themselves."""
    from usearch.index import Index  # noqa: PLC0415 - optional, slow to load, and few runs are so large

    points = _on_main_axes(embedding)
    graph = Index(ndim=points.shape[1], metric="l2sq", dtype="f32")
    graph.add(np.arange(len(points)), points, threads=1)  # in turn: the graph depends on the order
    neighbours = np.asarray(graph.search(points, count + 1, threads=cpu_budget()).keys, np.int64)
    rows = np.arange(len(points))[:, None]
    themselves = neighbours == rows
    themselves[~themselves.any(axis=1), -1] = True  # among many equal ones a row may not find itself
    return np.asarray(neighbours[~themselves].reshape(len(points), count), np.int64)


def _has_usearch() -> bool:
    try:
        import usearch.index  # noqa: F401, PLC0415 - as above
    except ImportError:
        return False
    return True


def _on_main_axes(embedding: FloatArray) -> FloatArray:
    """Project rows to the main axes of a sample, float32 [n, a]."""
    sample = embedding[:: -(-len(embedding) // _SAMPLE)]
    mean = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = sample - mean
    axes = np.linalg.eigh(centred.T @ centred)[1][:, -_AXES:]
    return np.concatenate([(embedding[block] - mean) @ axes for block in _blocks(np.arange(len(embedding)))])


def _blocks(rows: _Rows) -> Iterator[_Rows]:
    return (rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK))
