"""The pictures of the demo."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regraft.cli.terminal import line
from regraft.datasets.folders import list_folder, subfolders
from regraft.errors import InvalidImageError, InvalidRequestError
from regraft.image.decode import decode_crop
from regraft.image.encode import encode_png
from regraft.image.spec import ImageSpec
from regraft.label_rules import image_hash, is_holdout, nfc


@dataclass(frozen=True)
class Story:
    """Pictures to train on, to label later, and to ask about.

    Attributes:
        first: (picture, label) pairs that the first version is trained on.
        later: pairs that are labelled while the server runs.
        exam_old: pairs that nothing is ever trained on, of classes that the first version knows.
        exam_new: likewise, of classes that come later; empty where there are none.
        plot: one sentence on what is held back.
    """

    first: list[tuple[bytes, str]]
    later: list[tuple[bytes, str]]
    exam_old: list[tuple[bytes, str]]
    exam_new: list[tuple[bytes, str]]
    plot: str


def digits() -> Story:
    """Return scikit-learn's handwritten digits.

    1,797 pictures of 8 x 8 px with a margin, dark ink on paper.
    """
    from sklearn.datasets import load_digits  # noqa: PLC0415 - only the demo needs it

    data = load_digits()
    ink = np.pad(255 - data.images * (255 / 16), ((0, 0), (1, 1), (1, 1)), constant_values=255).astype(np.uint8)
    pictures = [(encode_png(pixels), str(digit)) for pixels, digit in zip(ink, data.target, strict=True)]
    return _split(pictures, {"8", "9"}, "scikit-learn's 1,797 handwritten digits; 8 and 9 are held back")


def photographs(data: Path) -> Story:
    """Read a folder of labelled photos, split or not."""
    splits = [folder for name in ("train", "val", "test") if (folder := data / name).is_dir()]
    pictures = [pair for root in splits or [data] for pair in _read_classes(root)]
    labels = sorted({label for _, label in pictures})
    if len(labels) < 2:
        raise InvalidRequestError(f"{data}: found {len(labels)} class folder(s) with pictures, need at least two")
    if len(labels) == 2:
        story = _split(pictures, set(), f"half of the pictures of {' and '.join(labels)}; the rest comes later")
        half = len(story.first) // 2
        return Story(story.first[:half], story.first[half:], story.exam_old, [], story.plot)
    later = labels[-2:] if len(labels) > 3 else labels[-1:]
    return _split(pictures, set(later), f"{len(labels)} classes from {data}; {' and '.join(later)} held back")


def _read_classes(root: Path) -> Iterator[tuple[bytes, str]]:
    for folder in subfolders(root):
        for file in list_folder(folder).files:
            data = file.read_bytes()
            try:
                decode_crop(data, ImageSpec())
            except InvalidImageError as error:
                line((f"{file} is left out: {error}", "yellow"))
            else:
                yield data, nfc(folder.name)


def _split(pictures: list[tuple[bytes, str]], later: set[str], plot: str) -> Story:
    """Put every fifth picture, by hash, aside for the exam."""
    by_hash = dict(sorted((image_hash(image), (image, label)) for image, label in pictures))
    # The exam reads the hash from its other end, or it would be the very pictures that a retrain holds out.
    exam = [pair for name, pair in by_hash.items() if is_holdout(name[::-1])]
    rest = [pair for name, pair in by_hash.items() if not is_holdout(name[::-1])]
    return Story(
        [pair for pair in rest if pair[1] not in later],
        [pair for pair in rest if pair[1] in later],
        [pair for pair in exam if pair[1] not in later],
        [pair for pair in exam if pair[1] in later],
        plot,
    )
