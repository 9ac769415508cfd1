"""Labelled pictures of a model with their embeddings, in blocks.

They are those that its version was fitted on and judged by, and the examples that came since, under the labels in
force. A model may have more embeddings than shall ever be in memory at once.
"""

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from regraft.errors import ArtifactError
from regraft.model.artifact import FloatArray
from regraft.model.card import EmbeddingKey
from regraft.stores.examples import ExamplesStore
from regraft.stores.labelling.present_names import LabelChange, called_now
from regraft.stores.originals import FIRST_SOURCE

BLOCK: Final = 2048
"""Embeddings at a time, 10 MB of 1,280 numbers each."""


@dataclass(frozen=True)
class Labelled:
    """A labelled picture.

    Attributes:
        label: in force.
        source: where it came from.
        is_holdout: it is judged by; None while no retrain has decided.
        is_learned: the version that serves has it under this label.
    """

    sha256: str
    label: str
    source: str
    is_holdout: bool | None
    is_learned: bool


@dataclass(frozen=True)
class Block:
    """Some pictures with their embeddings, float32 [n, D]."""

    pictures: Sequence[Labelled]
    embedding: FloatArray


class LabelledPictures:
    """The labelled pictures of a model at a moment.

    It reads a file and a database: not on the event loop.
    """

    def __init__(
        self, features: Path, examples: ExamplesStore, model: str, key: EmbeddingKey, labels_as_of: str = ""
    ) -> None:
        """Find the pictures.

        Args:
            features: file of the version that serves.
            examples: that people sent.
            model: its name.
            key: of its embeddings.
            labels_as_of: the time that the version's labels are of, which may have been renamed or removed since.

        Raises:
            ArtifactError: the file is missing or damaged.
            StorageError: the examples cannot be read.
        """
        self._features, self._examples, self._key = features, examples, key
        self._hashes, learned, sides = _read_rows(features, examples.label_changes.since(model, labels_as_of))
        sent = {example.sha256: example for example in examples.labels.in_force(model)}
        removed = examples.labels.removed(model)
        decided = examples.split.sides(model) | sides
        self.by_hash: dict[str, Labelled] = {}
        for sha256 in (*self._hashes, *(name for name in sent if name not in learned)):
            example = sent.get(sha256)
            label = example.label if example else learned[sha256]
            if label is None or sha256 in removed or (example and example.quarantine):
                continue
            self.by_hash[sha256] = Labelled(
                sha256,
                label,
                example.source if example else FIRST_SOURCE,
                decided.get(sha256),
                learned.get(sha256) == label,
            )

    def blocks(self) -> Iterator[Block]:
        """Yield those that are embedded; of the version itself first.

        Raises:
            ArtifactError: the features file is damaged.
            StorageError: the embeddings cannot be read.
        """
        begin = 0
        for embedding in embeddings(self._features):
            yield from self._block(self._hashes[begin : begin + len(embedding)], embedding)
            begin += len(embedding)
        own = set(self._hashes)
        new = [name for name in self.by_hash if name not in own]
        for start in range(0, len(new), BLOCK):
            vectors = self._examples.embeddings.get(self._key, new[start : start + BLOCK])
            if vectors:
                yield from self._block(list(vectors), np.stack([*vectors.values()]))

    def embedding(self, sha256: str) -> FloatArray | None:
        """Return the embedding of a picture, None where it has none."""
        if sha256 in self._hashes:
            for embedding in embeddings_at(self._features, [self._hashes.index(sha256)]):
                return np.asarray(embedding[0])
        return self._examples.embeddings.get(self._key, [sha256]).get(sha256)

    def _block(self, names: Sequence[str], embedding: FloatArray) -> Iterator[Block]:
        rows = [row for row, name in enumerate(names) if name in self.by_hash]
        if rows:
            yield Block([self.by_hash[names[row]] for row in rows], embedding[rows])


def _read_rows(
    features: Path, changes: Sequence[LabelChange]
) -> tuple[list[str], dict[str, str | None], dict[str, bool]]:
    """Return hashes in their order, and labels and sides by hash.

    A label that was removed is None.
    """
    try:
        with features.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            hashes = [str(name) for name in file["sha256"]]
            labels = [called_now(str(label), changes) for label in file["labels"]]
            label = {name: labels[index] for name, index in zip(hashes, file["label_index"], strict=True)}
            side = {name: bool(held) for name, held in zip(hashes, file["is_holdout"], strict=True)}
    except Exception as error:
        raise ArtifactError(f"{features}: cannot read the labelled pictures ({error})") from error
    return hashes, label, side


def embeddings(features: Path) -> Iterator[FloatArray]:
    """Yield the embeddings of a features file, float32 [`BLOCK`, D] or fewer.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    try:
        with zipfile.ZipFile(features) as archive, archive.open("embedding.npy") as member:
            np.lib.format.read_magic(member)
            (count, size), _, kind = np.lib.format.read_array_header_1_0(member)
            for start in range(0, count, BLOCK):
                rows = min(BLOCK, count - start)
                data = member.read(rows * size * kind.itemsize)
                yield np.frombuffer(data, kind).reshape(rows, size).astype(np.float32)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{features}: cannot read the embeddings ({error})") from error


def embeddings_at(features: Path, rows: Sequence[int]) -> Iterator[FloatArray]:
    """Yield the embeddings of some rows of a features file.

    They are float32 [n, D] of each block that has such.

    Args:
        features: the file.
        rows: ascending.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    wanted, begin = np.asarray(rows, np.intp), 0
    for embedding in embeddings(features):
        first, behind = np.searchsorted(wanted, [begin, begin + len(embedding)])
        if first < behind:
            yield embedding[wanted[first:behind] - begin]
        begin += len(embedding)
