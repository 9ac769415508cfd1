"""Nested shares of a training set, beside the same holdout."""

from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from regraft.errors import InvalidRequestError
from training.data.dataset import Dataset, LabelledImage

ALL: Final = "all"
_LEAST_OF_A_CLASS: Final = 2


def check_share(share: str) -> None:
    """Refuse what is neither a number, a percentage nor ``all``.

    Raises:
        InvalidRequestError: the text names the flag.
    """
    number = share.removesuffix("%")
    is_number = number.isascii() and number.isdecimal() and int(number) > 0
    if share != ALL and not (is_number and (number == share or int(number) < 100)):
        raise InvalidRequestError(f"--shares: {share!r} is neither a number of pictures, as 50, nor 10%, nor all")


def take_share(dataset: Dataset, share: str, seed: int) -> Dataset:
    """Take a share of the training pictures, classes in proportion.

    Args:
        dataset: whose holdout stays whole.
        share: see `check_share`.
        seed: draws the pictures; the shares of one seed are nested.

    Raises:
        InvalidRequestError: a class would be left with fewer than two pictures, or there are not as many in all.
    """
    if share == ALL:
        return dataset
    order = _order(dataset, seed)
    number = int(share.removesuffix("%"))
    count = round(len(order) * number / 100) if share.endswith("%") else number
    least = _LEAST_OF_A_CLASS * len(dataset.labels)
    if not least <= count <= len(order):
        raise InvalidRequestError(
            f"--shares: {share}: of these {len(order)} training pictures in {len(dataset.labels)} classes a share has "
            f"{least} to {len(order)}"
        )
    chosen = {image.sha256 for image in order[:count]}
    return replace(
        dataset, images=tuple(image for image in dataset.images if image.is_holdout or image.sha256 in chosen)
    )


def _order(dataset: Dataset, seed: int) -> list[LabelledImage]:
    """Order the training pictures: two of each class, then the classes in turn."""
    index = {label: number for number, label in enumerate(dataset.labels)}
    images = sorted((image for image in dataset.images if not image.is_holdout), key=lambda image: image.sha256)
    rows = stratified_order(np.array([index[image.label] for image in images], np.int64), seed)
    return [images[row] for row in rows]


def stratified_order(label_index: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """Order rows [n] so that classes take turns.

    Any first part of them has the classes in proportion.

    Two of each class come first. The seed shuffles the rows of each class.
    """
    generator = np.random.default_rng(seed)
    rank, place = np.empty(len(label_index), np.int64), np.empty(len(label_index))
    for label in range(int(label_index.max(initial=-1)) + 1):
        rows = np.flatnonzero(label_index == label)
        rank[rows[generator.permutation(len(rows))]] = np.arange(len(rows))
        place[rows] = (rank[rows] + 0.5) / max(len(rows), 1)
    return np.lexsort((label_index, place, rank >= _LEAST_OF_A_CLASS))
