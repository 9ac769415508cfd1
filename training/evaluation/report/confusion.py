"""Confusion matrix for the report, cut to fit a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

MAX_CLASSES: Final = 100
MAX_WORST: Final = 10


@dataclass(frozen=True)
class Cell:
    """A count, and its colours as CSS."""

    images: int
    style: str


@dataclass(frozen=True)
class Row:
    """The answers that the images of one class got."""

    label: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Mix:
    """Images of a class mistaken for another, with their share of the class."""

    truth: str
    answer: str
    images: int
    share: float


@dataclass(frozen=True)
class Confusion:
    """The matrix as it is drawn.

    Attributes:
        labels: of rows and columns.
        rows: one a label.
        hidden: how many classes are not drawn.
        worst: the most frequent mistakes over all classes, the most frequent first.
    """

    labels: tuple[str, ...]
    rows: tuple[Row, ...]
    hidden: int
    worst: tuple[Mix, ...]


def confusion(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Confusion:
    """Prepare ``counts[truth][answer]`` of the `MAX_CLASSES` most mistaken classes."""
    table = np.array(counts, np.int64).reshape(len(labels), len(labels))
    totals = np.maximum(table.sum(axis=1), 1)
    mistakes = table - np.diag(np.diag(table))
    busiest = np.argsort(-(mistakes.sum(axis=0) + mistakes.sum(axis=1)), kind="stable")
    shown = np.sort(busiest[:MAX_CLASSES])
    rows = tuple(
        Row(labels[row], tuple(_cell(int(table[row, column]), totals[row], row == column) for column in shown))
        for row in shown
    )
    return Confusion(
        tuple(labels[row] for row in shown), rows, len(labels) - len(shown), _worst(labels, mistakes, totals)
    )


def _cell(images: int, total: int, is_right: bool) -> Cell:
    strength = 0.12 + 0.88 * images / total
    colour = "heat" if is_right else "wrong"
    return Cell(images, f"background:rgb(var(--{colour}) / {strength:.2f})" + (";color:#fff" if strength > 0.6 else ""))


def _worst(labels: Sequence[str], mistakes: npt.NDArray[np.int64], totals: npt.NDArray[np.int64]) -> tuple[Mix, ...]:
    order = np.argsort(-mistakes, axis=None, kind="stable")[:MAX_WORST]
    places = [(int(place) // len(labels), int(place) % len(labels)) for place in order]
    return tuple(
        Mix(labels[truth], labels[answer], int(mistakes[truth, answer]), float(mistakes[truth, answer] / totals[truth]))
        for truth, answer in places
        if mistakes[truth, answer]
    )
