"""Nested shares of a training set, beside the same holdout."""

from dataclasses import replace
from typing import Final

import numpy as np

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
    generator = np.random.default_rng(seed)
    places: list[tuple[bool, float, int, LabelledImage]] = []
    for number, label in enumerate(dataset.labels):
        images = sorted(
            (image for image in dataset.images if image.label == label and not image.is_holdout),
            key=lambda image: image.sha256,
        )
        for rank, row in enumerate(generator.permutation(len(images)).tolist()):
            places.append((rank >= _LEAST_OF_A_CLASS, (rank + 0.5) / len(images), number, images[row]))
    return [image for *_, image in sorted(places, key=lambda place: place[:3])]
