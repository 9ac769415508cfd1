"""Map of all labelled pictures, on axes that stay.

The axes are the two principal ones of the first version on a backbone. They are kept beside the versions, so that the
map does not turn when pictures come and go, whatever becomes of that version.
"""

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from regraft.errors import ArtifactError
from regraft.files import storage_errors, write_durably
from regraft.model.artifact import FloatArray
from regraft.model.card import EmbeddingKey
from serving.insight.labelled_pictures import Labelled, LabelledPictures, embeddings

_SAMPLE: Final = 4096
"""Pictures that tell the axes; they come ordered by hash, so that the first ones are any."""


@dataclass(frozen=True)
class Axes:
    """Axes of a map.

    Attributes:
        version: whose pictures they were made of.
        origin: float32 [D].
        directions: float32 [2, D]; the unit is a deviation of the pictures along the first.
    """

    version: int
    origin: FloatArray
    directions: FloatArray

    def place(self, embedding: FloatArray) -> FloatArray:
        """Return coordinates [n, 2] of embeddings [n, D]."""
        return np.asarray((embedding - self.origin) @ self.directions.T, np.float32)


@dataclass(frozen=True)
class Place:
    """A picture on the map."""

    picture: Labelled
    x: float
    y: float


def places(pictures: LabelledPictures, axes: Axes) -> Iterator[list[Place]]:
    """Yield the places of all embedded pictures, a block at a time."""
    for block in pictures.blocks():
        coordinates = axes.place(block.embedding).tolist()
        yield [Place(picture, x, y) for picture, (x, y) in zip(block.pictures, coordinates, strict=True)]


def kept_axes(model: Path, key: EmbeddingKey, first_version: Callable[[], tuple[int, Path]]) -> Axes:
    """Read the axes of a model's map, which the first call makes.

    Args:
        model: its folder in the store.
        key: of the embeddings; another backbone has axes of its own.
        first_version: finds the first version on it, and its features file.

    Raises:
        ArtifactError: they are damaged, or the features are.
        StorageError: they cannot be kept.
    """
    file = model / f"map-{key.backbone[:16]}-{key.image_spec[:16]}.npz"
    if not file.is_file():
        version, features = first_version()
        axes = principal_axes(version, embeddings(features))
        buffer = io.BytesIO()
        np.savez(buffer, version=axes.version, origin=axes.origin, directions=axes.directions)
        with storage_errors("cannot keep the axes of the map"):
            write_durably(file, buffer.getvalue())  # two servers at once write the very same
        return axes
    try:
        with file.open("rb") as raw, np.load(raw, allow_pickle=False) as arrays:
            return Axes(int(arrays["version"]), arrays["origin"], arrays["directions"])
    except Exception as error:
        raise ArtifactError(f"{file}: cannot read the axes of the map ({error}); remove it to have new ones") from error


def principal_axes(version: int, blocks: Iterable[FloatArray]) -> Axes:
    """Find the two principal axes.

    Each is turned to where its largest part is positive.

    Args:
        version: that the embeddings are of.
        blocks: [n, D] each, at least one row in all.
    """
    sample: list[FloatArray] = []
    for block in blocks:
        sample.append(block[: _SAMPLE - sum(map(len, sample))])
        if sum(map(len, sample)) >= _SAMPLE:
            break
    x = np.concatenate(sample).astype(np.float64)
    origin = x.mean(axis=0)
    x -= origin
    variance, axes = np.linalg.eigh(x.T @ x / len(x))
    directions = axes[:, [-1, -2]].T
    largest = directions[np.arange(2), np.abs(directions).argmax(axis=1)]
    directions *= np.where(largest < 0, -1, 1)[:, None] / np.sqrt(max(variance[-1], 1e-12))
    return Axes(version, np.asarray(origin, np.float32), np.asarray(directions, np.float32))
