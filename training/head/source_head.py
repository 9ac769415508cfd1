"""A first head from the backbone's ImageNet classifier."""

import re
from dataclasses import dataclass

import numpy as np

from regraft.model.artifact import FloatArray
from training.head.features import Features
from training.head.logistic import log_softmax


@dataclass(frozen=True)
class SourceHead:
    """The source classifier's weight float32 [C, D], bias [C] and labels."""

    weight: FloatArray
    bias: FloatArray
    labels: tuple[str, ...]


@dataclass(frozen=True)
class StartHead:
    """A head to start from, with the source label of each label."""

    weight: FloatArray
    bias: FloatArray
    matched: dict[str, str]


def head_from_source(source: SourceHead, train: Features) -> StartHead:
    """Build a head [K, D] of the source classifier's rows.

    A class whose label the source has too ('hotdog' is 'hot dog') takes that row; any other takes the mean of all rows,
    each weighted by the probability that the source gives it on the class's training images.
    """
    row_of = {_plain(label): row for row, label in reversed(list(enumerate(source.labels)))}
    logits = (train.embedding @ source.weight.T + source.bias).astype(np.float64)
    probabilities = np.exp(log_softmax(logits)).astype(np.float32)
    weights, biases, matched = [], [], {}
    for index, label in enumerate(train.labels):
        row = row_of.get(_plain(label))
        if row is not None:
            share = np.eye(len(source.labels), dtype=np.float32)[row]
            matched[label] = source.labels[row]
        else:
            share = probabilities[train.label_index == index].mean(axis=0)
        weights.append(share @ source.weight)
        biases.append(share @ source.bias)
    return StartHead(np.array(weights, np.float32), np.array(biases, np.float32), matched)


def _plain(label: str) -> str:
    return re.sub(r"[^a-z0-9]", "", label.casefold())
