"""Embeddings of labelled images, cached by content and kept with versions."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from regraft.errors import ArtifactError, DatasetError, InvalidImageError
from regraft.image.decode import decode_crop
from regraft.image.spec import Crop, ImageSpec
from regraft.model.artifact import EMBEDDING, IMAGE, FloatArray
from regraft.model.card import EmbeddingKey, Precision
from regraft.model.session import OpenSession, ProviderChoice, open_session
from regraft.progress import Progress, silent
from regraft.read_ahead import map_ahead
from regraft.stores.images import ImageFile
from regraft.stores.models import FEATURES_FILE
from training.data.groups import group_of_one, groups_of_one

if TYPE_CHECKING:  # they take SQLAlchemy, which an evaluation spares
    from regraft.stores.embeddings import EmbeddingCache
    from training.backbones.cache import ExportedBackbone

_CUDA_BATCH: Final = 32
_FLUSH: Final = 512
_Named: TypeAlias = tuple[str, ImageFile]
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True)
class Features:
    """Labelled embeddings, ordered by image hash.

    Attributes:
        labels: K labels in the order of the head's rows.
        embedding: float32 [n, D].
        label_index: int64 [n], 0 <= index < K.
        is_holdout: bool [n]; holdout rows are never fitted on.
        sha256: n image hashes (hex), ascending, distinct.
        group: int64 [n], see `training.data.groups`; rows of one group stay on one side of every split and in one fold.
        weight: float64 [n], what a row counts in the fit; 1 for most.
        source: n of them, where a list said that pictures come from; none where no list said anything.
    """

    labels: tuple[str, ...]
    embedding: FloatArray
    label_index: npt.NDArray[np.int64]
    is_holdout: npt.NDArray[np.bool_]
    sha256: tuple[str, ...]
    group: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float64]
    source: tuple[str, ...] = ()

    def select(self, rows: npt.NDArray[np.bool_]) -> "Features":
        """Return the rows where the mask [n] is true."""
        names = tuple(name for name, wanted in zip(self.sha256, rows, strict=True) if wanted)
        return Features(
            self.labels,
            self.embedding[rows],
            self.label_index[rows],
            self.is_holdout[rows],
            names,
            self.group[rows],
            self.weight[rows],
            tuple(source for source, wanted in zip(self.source, rows, strict=True) if wanted) if self.source else (),
        )

    def sources(self) -> dict[str, str]:
        """Return sources by image hash, as far as a list said them."""
        return {name: source for name, source in zip(self.sha256, self.source, strict=False) if source}

    def train(self) -> "Features":
        """Return the rows to fit on."""
        return self.select(~self.is_holdout)

    def holdout(self) -> "Features":
        """Return the rows to judge by."""
        return self.select(self.is_holdout)

    def digest(self) -> str:
        """Return the SHA-256 (hex) of the training rows' hashes and labels."""
        rows = zip(self.sha256, self.label_index, self.is_holdout, strict=True)  # not `train`, which copies embeddings
        lines = [f"{name} {self.labels[index]}" for name, index, is_holdout in rows if not is_holdout]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def save(self, path: Path, arrays: Mapping[str, Any] = NOTHING) -> None:
        """Write the features, and arrays beside, as npz without pickles."""
        np.savez(
            path,
            labels=np.array(self.labels),
            embedding=_smallest(self.embedding),
            label_index=self.label_index,
            is_holdout=self.is_holdout,
            sha256=np.array(self.sha256),
            group=self.group,
            weight=self.weight,
            source=np.array(self.source, np.str_),
            **arrays,
        )


def _smallest(embedding: FloatArray) -> npt.NDArray[np.floating[Any]]:
    """Return the embeddings in float16 if that is exact."""
    with np.errstate(over="ignore"):
        for start in range(0, len(embedding), _FLUSH):
            block = embedding[start : start + _FLUSH]
            if (block.astype(np.float16) != block).any():
                return embedding
        return embedding.astype(np.float16)


def load_features(path: Path) -> Features:
    """Read the file of `Features.save`.

    In one of an earlier Regraft every row is a group, and counts 1.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            names = tuple(str(name) for name in file["sha256"])
            return Features(
                tuple(str(label) for label in file["labels"]),
                np.asarray(file["embedding"], np.float32),
                np.asarray(file["label_index"], np.int64),
                np.asarray(file["is_holdout"], np.bool_),
                names,
                np.asarray(file["group"], np.int64) if "group" in file else groups_of_one(names),
                np.asarray(file["weight"], np.float64) if "weight" in file else np.ones(len(names)),
                tuple(str(source) for source in file["source"]) if "source" in file else (),
            )
    except Exception as error:
        raise ArtifactError(f"{path}: cannot read the features ({error})") from error


def trained_on(version: Path) -> frozenset[str] | None:
    """Return the hashes that a version was fitted on; None if unknown."""
    if not (version / FEATURES_FILE).is_file():
        return None
    features = load_features(version / FEATURES_FILE)
    return frozenset(compress(features.sha256, ~features.is_holdout))


def assemble(
    labels: tuple[str, ...],
    rows: Iterable[tuple[str, str, bool]],
    embeddings: Mapping[str, FloatArray],
    *,
    groups: Mapping[str, int] = NOTHING,
    weights: Mapping[str, float] = NOTHING,
    sources: Mapping[str, str] = NOTHING,
) -> Features:
    """Join rows with their embeddings; drop images without one.

    Args:
        labels: in the order of the head's rows.
        rows: (image hash, label, is holdout).
        embeddings: float32 [D] by hash.
        groups: by hash, see `Features.group`; an image that is not named is a group of its own.
        weights: by hash; an image that is not named counts 1.
        sources: by hash.
    """
    index = {label: position for position, label in enumerate(labels)}
    embedded = sorted(row for row in rows if row[0] in embeddings)
    names = tuple(name for name, _, _ in embedded)
    width = len(next(iter(embeddings.values()))) if embeddings else 0
    return Features(
        labels,
        np.array([embeddings[name] for name in names], np.float32).reshape(len(embedded), width),
        np.array([index[label] for _, label, _ in embedded], np.int64),
        np.array([is_holdout for _, _, is_holdout in embedded], np.bool_),
        names,
        np.array([groups[name] if name in groups else group_of_one(name) for name in names], np.int64),
        np.array([weights.get(name, 1) for name in names], np.float64),
        tuple(sources.get(name, "") for name in names) if sources else (),
    )


@dataclass(frozen=True)
class Embedder:
    """A backbone ready to embed pictures.

    On a CPU every picture runs alone and on one thread, several at once: that is fastest there (larger batches cost
    more for each picture), and an embedding then never depends on its neighbours, so refits are reproducible. On a GPU
    batches run one after the other, while all CPUs decode the next ones.

    Attributes:
        opened: the session.
        spec: how pictures are prepared.
        key: what embeddings are cached under; names the arithmetic of the session.
        cut: makes the crop of (encoded picture, its hash) where that is not the one of ``spec``.
    """

    opened: OpenSession
    spec: ImageSpec
    key: EmbeddingKey
    cut: Callable[[bytes, str], Crop] | None = None

    @staticmethod
    def open(model: Path | bytes, spec: ImageSpec, key: EmbeddingKey, precision: Precision = "fp32") -> "Embedder":
        """Open a session on a backbone, or a whole model without its head.

        Args:
            model: the file, or its bytes.
            spec: how pictures are prepared.
            key: of the backbone and the spec; the arithmetic is added.
            precision: see `provider_for`.
        """
        opened = open_session(model, provider=provider_for(precision), threads=1)
        return Embedder(opened, spec, key.computed_in(opened.arithmetic))

    @staticmethod
    def of(backbone: "ExportedBackbone") -> "Embedder":
        """Open a session on an exported backbone."""
        return Embedder.open(backbone.model.SerializeToString(), backbone.spec, backbone.key, backbone.precision)

    def embed(
        self, images: Mapping[str, ImageFile], cache: "EmbeddingCache", progress: Progress = silent
    ) -> tuple[dict[str, FloatArray], dict[str, str]]:
        """Embed pictures that are not in the cache.

        Args:
            images: image hash to file.
            cache: is filled as the work goes on, so that an interrupted run loses little.
            progress: told the stage ``embed``.

        Returns:
            Embeddings float32 [D] by hash, and by hash the reason why a file is no usable picture.
        """
        vectors = _Vectors(len(images))
        names = list(images)
        for start in range(0, len(names), _FLUSH):
            vectors.add(cache.get(self.key, names[start : start + _FLUSH]))
        missing = [(name, file) for name, file in images.items() if name not in vectors.by_name]
        failures: dict[str, str] = {}
        fresh: dict[str, FloatArray] = {}
        run = self._run_in_batches if self.opened.provider == "cuda" else self._run_alone
        if missing:
            progress("embed", 0, len(missing))
        for done, (name, result) in enumerate(run(missing), start=1):
            if isinstance(result, str):
                failures[name] = result
            else:
                fresh[name] = result
            if len(fresh) >= _FLUSH or done == len(missing):
                cache.put(self.key, fresh)
                vectors.add(fresh)
                fresh = {}
            progress("embed", done, len(missing))
        return vectors.by_name, failures

    def embed_again(self, features: Features, images: Mapping[str, ImageFile], cache: "EmbeddingCache") -> None:
        """Write the embeddings of all rows into ``features`` anew, in blocks.

        Raises:
            DatasetError: an embedding is no longer in the cache, and its picture cannot be read any more.
        """
        for start in range(0, len(features.sha256), _FLUSH):
            names = features.sha256[start : start + _FLUSH]
            embeddings, failures = self.embed({name: images[name] for name in names}, cache)
            for name, reason in failures.items():
                raise DatasetError(f"{images[name]}: {reason} (SHA-256 {name}); it could be read before")
            features.embedding[start : start + len(names)] = [embeddings[name] for name in names]

    def run(self, crops: list[Crop]) -> FloatArray:
        """Return the embeddings float32 [N, D] of N crops."""
        return np.asarray(self.opened.session.run([EMBEDDING], {IMAGE: np.stack(crops)})[0], np.float32)

    def _run_alone(self, pictures: list[_Named]) -> Iterator[tuple[str, FloatArray | str]]:
        def embedded(picture: _Named) -> tuple[str, FloatArray | str]:
            name, crop = self._decoded(picture)
            return name, crop if isinstance(crop, str) else self.run([crop])[0]

        return map_ahead(embedded, pictures)

    def _run_in_batches(self, pictures: list[_Named]) -> Iterator[tuple[str, FloatArray | str]]:
        """Run full batches from one thread, unreadable pictures left out."""
        crops: dict[str, Crop] = {}
        for name, crop in map_ahead(self._decoded, pictures, ahead=2 * _CUDA_BATCH):
            if isinstance(crop, str):
                yield name, crop
                continue
            crops[name] = crop
            if len(crops) == _CUDA_BATCH:
                yield from zip(crops, self.run(list(crops.values())), strict=True)
                crops = {}
        if crops:
            yield from zip(crops, self.run(list(crops.values())), strict=True)

    def _decoded(self, picture: _Named) -> tuple[str, Crop | str]:
        """Decode a picture to its crop, or to the reason against it."""
        name, file = picture
        try:
            data = file.read_bytes()
            return name, self.cut(data, name) if self.cut else decode_crop(data, self.spec)
        except (InvalidImageError, OSError) as error:
            return name, str(error)


class _Vectors:
    """Vectors by name in one block of memory.

    Many small pieces would stay with the process when they are freed.
    """

    def __init__(self, most: int) -> None:
        """Make room for so many vectors."""
        self.by_name: dict[str, FloatArray] = {}
        self._most = most
        self._block = np.empty((0, 0), np.float32)

    def add(self, vectors: Mapping[str, FloatArray]) -> None:
        """Copy vectors into the block."""
        for name, vector in vectors.items():
            if not self.by_name:
                self._block = np.empty((self._most, len(vector)), np.float32)
            row = self._block[len(self.by_name)]
            row[:] = vector
            self.by_name[name] = row


def provider_for(precision: Precision) -> ProviderChoice:
    """Choose the provider: the CPU for int8, which a GPU would round otherwise."""
    return "cpu" if precision == "int8" else "auto"
