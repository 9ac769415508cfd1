"""Nearest labelled pictures, as the reason for an answer."""

import heapq
from dataclasses import dataclass

import numpy as np

from regraft.model.artifact import FloatArray
from serving.insight.labelled_pictures import Labelled, LabelledPictures


@dataclass(frozen=True)
class Neighbour:
    """A labelled picture, with the cosine of its embedding to another."""

    picture: Labelled
    similarity: float


def nearest(pictures: LabelledPictures, embedding: FloatArray, count: int, besides: str = "") -> list[Neighbour]:
    """Find the pictures that are most like one, the nearest first.

    Embeddings are centred on the mean of all labelled ones: what all have in common makes nobody alike.

    Args:
        pictures: to look among.
        embedding: float32 [D], of the picture.
        count: the most to find.
        besides: hash of the picture itself, which is none of its neighbours.
    """
    mean = _mean(pictures, len(embedding))
    centred = embedding - mean
    centred /= max(float(np.linalg.norm(centred)), 1e-12)
    best: list[tuple[float, str, Labelled]] = []
    for block in pictures.blocks():
        others = block.embedding - mean
        cosine = others @ centred / np.maximum(np.linalg.norm(others, axis=1), 1e-12)
        found = [
            (float(cosine[row]), block.pictures[row].sha256, block.pictures[row])
            for row in np.argsort(-cosine, kind="stable")[: count + 1]
            if block.pictures[row].sha256 != besides
        ]
        best = heapq.nlargest(count, [*best, *found], key=lambda entry: entry[:2])
    return [Neighbour(picture, min(1.0, max(-1.0, similarity))) for similarity, _, picture in best]


def _mean(pictures: LabelledPictures, size: int) -> FloatArray:
    total, count = np.zeros(size), 0
    for block in pictures.blocks():
        total += block.embedding.sum(axis=0, dtype=np.float64)
        count += len(block.embedding)
    return np.asarray(total / max(count, 1), np.float32)
