"""A published version, read back with its features."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.errors import DatasetError, PreconditionError
from regraft.files import text_of
from regraft.label_rules import nfc
from regraft.model import artifact
from regraft.model.artifact import Artifact, FloatArray
from regraft.model.card import EmbeddingKey, ModelCard
from regraft.model.session import arithmetic_here
from regraft.progress import Progress
from regraft.stores.images import ImageFile
from regraft.stores.labelling.present_names import LabelChange, called_now
from regraft.stores.models import FEATURES_FILE, MODEL_FILE, ModelStore
from training.backbones.cache import embedding_cache
from training.head.additional import Additional
from training.head.features import Embedder, Features, load_features, provider_for

if TYPE_CHECKING:  # it takes SQLAlchemy, which an evaluation spares
    from regraft.stores.labelling.label_changes import LabelChanges


@dataclass(frozen=True)
class StoredVersion:
    """A version of the store, with the rows that its head was fitted on.

    A champion's features have labels in their one form, see `regraft.label_rules.nfc`; its card has them as
    published.

    Attributes:
        changes: of labels, later than those that its card follows; the features' labels are as they are called after.
        removed: hashes of its pictures whose label was removed by such a change; they take no part any more.
    """

    version: int
    artifact: Artifact
    features: Features
    additional: Additional | None
    changes: tuple[LabelChange, ...] = ()
    removed: frozenset[str] = frozenset()

    def probabilities(self, embedding: FloatArray) -> FloatArray:
        """Return probabilities [n, K] of embeddings [n, D], over the features' labels."""
        probabilities, labels = self.artifact.head.probabilities(embedding), self.features.labels
        answers = np.zeros((len(probabilities), len(labels)), np.float32)
        for column, label in enumerate(self.artifact.card.labels):
            now = label if label in labels and not self.changes else called_now(label, self.changes) or nfc(label)
            answers[:, labels.index(now)] += probabilities[:, column]
        return answers

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of the card."""
        return self.artifact.card.settings

    @property
    def seed(self) -> int:
        """The seed of the card."""
        return self.artifact.card.seed

    @property
    def label_order(self) -> tuple[str, ...]:
        """Its labels, whose order those of the next version keep."""
        return self.features.labels

    @property
    def labels_as_of(self) -> str:
        """The time up to which its features' labels follow changes."""
        return self.changes[-1].at if self.changes else self.artifact.card.labels_as_of

    @property
    def removed_labels(self) -> frozenset[str]:
        """The features' labels that were removed.

        Their rows stay, so that these pictures keep their sides.
        """
        gone = {nfc(label) for label in self.artifact.card.labels if called_now(label, self.changes) is None}
        return frozenset(gone - {called_now(label, self.changes) for label in self.artifact.card.labels})

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences on the changes of its labels, without a full stop."""
        names = [nfc(label) for label in self.artifact.card.labels]
        said = []
        for change in self.changes:
            if change.label in names:
                kept = change.new_label is not None
                what = "its answers with it count as that" if kept else "its pictures of it take no part"
                said.append(f"{change}, after version {self.version}: {what}")
                names = [change.new_label or name if name == change.label else name for name in names]
        return tuple(said)

    @property
    def is_in_one_form(self) -> bool:
        """True where card and features have the very same labels."""
        return set(self.features.labels) == set(self.artifact.card.labels) and not self.removed_labels

    @property
    def key(self) -> EmbeddingKey:
        """The cache key of embeddings by its `embedder`."""
        return key_here(self.artifact.card)

    @cached_property
    def embedder(self) -> Embedder:
        """The backbone in a session of its own, opened on first use."""
        card = self.artifact.card
        model = self.artifact.model.SerializeToString()
        return Embedder.open(model, card.image, card.embedding_key, card.backbone.precision)


def key_here(card: ModelCard) -> EmbeddingKey:
    """Return the cache key of a version's embeddings on this machine."""
    return card.embedding_key.computed_in(arithmetic_here(provider_for(card.backbone.precision)))


def read_champion(store: ModelStore, model: str, changes: "LabelChanges | None" = None) -> StoredVersion:
    """Read the champion, with labels as they are called now.

    They are in their one form, and follow the model's ``changes``, if given.

    Raises:
        PreconditionError: there is none.
        ArtifactError: it is damaged.
    """
    version = store.champion(model)
    if version is None:
        raise no_champion(model)
    champion = read_version(store, model, version)
    later = changes.since(model, champion.artifact.card.labels_as_of) if changes else ()
    return _as_called_now(replace(champion, changes=tuple(later)))


def no_champion(model: str) -> PreconditionError:
    """Make the error of a model that has nothing to build on."""
    return PreconditionError(f"model {model!r} has no champion to improve on: train and promote a version first")


def read_version(store: ModelStore, model: str, version: int) -> StoredVersion:
    """Read a version, with labels as published.

    Raises:
        NotFoundError: there is no such version.
        ArtifactError: it is damaged.
    """
    folder = store.folder(model, version)
    features = folder / FEATURES_FILE
    file = artifact.read(folder / MODEL_FILE)
    return StoredVersion(version, file, load_features(features), Additional.read(features))


def first_labels(store: ModelStore, model: str, changes: "LabelChanges") -> dict[str, str]:
    """Return the labels of a first version made of examples.

    They go by image hash, and are as they are called now.

    They are its first training data, as a folder is that of other models; of these there are none.

    Raises:
        ArtifactError: it is damaged.
    """
    promoted = [entry.version for entry in store.history(model) if entry.event == "promote"]
    if store.beginning(model) is None or not promoted:
        return {}
    first = read_version(store, model, promoted[0])
    later = changes.since(model, first.artifact.card.labels_as_of)
    labels = [called_now(label, later) or "" for label in first.features.labels]
    return {name: labels[row] for name, row in zip(first.features.sha256, first.features.label_index, strict=True)}


def _as_called_now(champion: StoredVersion) -> StoredVersion:
    """Merge classes whose labels have one form, or one name by now.

    A label that was removed stays, with its pictures, so that these keep their sides; they are named apart.
    """
    before, changes = champion.features, champion.changes
    is_gone = np.array([called_now(label, changes) is None for label in before.labels])
    names = [called_now(label, changes) or nfc(label) for label in before.labels]
    champion = replace(champion, removed=frozenset(compress(before.sha256, is_gone[before.label_index])))
    labels = tuple(dict.fromkeys(names))
    if tuple(names) == before.labels:
        return champion
    index = np.array([labels.index(name) for name in names], np.int64)
    features = replace(before, labels=labels, label_index=index[before.label_index])
    additional = champion.additional
    if additional is not None:
        additional = replace(additional, label_index=index[additional.label_index])
    return replace(champion, features=features, additional=additional)


def embed_anew(
    features: Features, embedder: Embedder, files: Mapping[str, ImageFile], cache: Path, progress: Progress
) -> tuple[Features, list[tuple[str, str]]]:
    """Embed a version's pictures by another backbone.

    Returns:
        Features of the readable pictures, and the others, by hash and file, with the reason.

    Raises:
        DatasetError: none can be read.
    """
    with embedding_cache(cache) as cached:
        embeddings, failures = embedder.embed(files, cached, progress)
    readable = features.select(~np.isin(features.sha256, list(failures)))
    if not readable.sha256:
        raise DatasetError(f"no image can be read any more; the first: {next(iter(failures.values()))}")
    vectors = np.array([embeddings[sha256] for sha256 in readable.sha256], np.float32)
    left_out = [(f"{sha256} ({text_of(Path(str(files[sha256])))})", reason) for sha256, reason in failures.items()]
    return replace(readable, embedding=vectors), left_out
