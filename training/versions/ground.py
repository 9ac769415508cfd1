"""Ground of a retrain: a champion, or the backbone begun with.

No torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from regraft.files import utc_now
from regraft.model.artifact import FloatArray
from regraft.model.card import EmbeddingKey
from regraft.model.session import arithmetic_here
from regraft.stores.backbones import BackboneStore
from regraft.stores.labelling.present_names import called_now
from regraft.stores.models import ModelStore
from training.backbones.cache import ExportedBackbone, stored_backbone
from training.head.additional import Additional
from training.head.features import Embedder, Features, assemble, provider_for
from training.versions.read import StoredVersion, no_champion, read_champion

if TYPE_CHECKING:  # it takes SQLAlchemy, which what reads versions alone spares
    from regraft.stores.labelling.label_changes import LabelChanges

_SEED: Final = 0
"""Of a first version, since nobody was asked for one."""
_SETTINGS: Final[Mapping[str, Any]] = MappingProxyType({"balance": "auto", "views": 0})
"""Those of a training run that says nothing of them."""


class Ground(Protocol):
    """Ground of a retrain: pictures, answers, and a backbone.

    It is a version, or what a model without one began with.

    Attributes:
        version: its number; 0: there is none yet.
        features: its rows.
        additional: rows beside them.
        settings: of its card.
        seed: likewise.
        label_order: labels in the order that those of the next version keep.
        labels_as_of: the time up to which its labels follow changes.
        removed: see `training.versions.read.StoredVersion`; so are ``removed_labels`` and ``remarks``.
        key: see `training.versions.read.StoredVersion`.
        embedder: likewise.
    """

    @property
    def version(self) -> int: ...  # noqa: D102 - see the attributes
    @property
    def features(self) -> Features: ...  # noqa: D102
    @property
    def additional(self) -> Additional | None: ...  # noqa: D102
    @property
    def settings(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102
    @property
    def label_order(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def labels_as_of(self) -> str: ...  # noqa: D102
    @property
    def removed(self) -> frozenset[str]: ...  # noqa: D102
    @property
    def removed_labels(self) -> frozenset[str]: ...  # noqa: D102
    @property
    def remarks(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def key(self) -> EmbeddingKey: ...  # noqa: D102
    @property
    def embedder(self) -> Embedder: ...  # noqa: D102

    def probabilities(self, embedding: FloatArray) -> FloatArray:
        """Return probabilities [n, K] of embeddings [n, D], over the features' labels."""


@dataclass(frozen=True)
class NoVersion:
    """A model without a version: a backbone, perhaps labels, no pictures.

    Attributes:
        backbone: that it began with.
        label_order: the labels that it was created with, as they are called now.
        labels_as_of: now.
    """

    backbone: ExportedBackbone
    label_order: tuple[str, ...]
    labels_as_of: str
    version: int = 0
    additional: Additional | None = None
    settings: Mapping[str, Any] = field(default_factory=lambda: _SETTINGS)
    seed: int = _SEED
    removed: frozenset[str] = frozenset()
    removed_labels: frozenset[str] = frozenset()
    remarks: tuple[str, ...] = ()

    @property
    def features(self) -> Features:
        """No rows, of no class."""
        return assemble((), [], {})

    @property
    def key(self) -> EmbeddingKey:
        """The cache key of embeddings by its `embedder`."""
        return self.backbone.key.computed_in(arithmetic_here(provider_for(self.backbone.precision)))

    @cached_property
    def embedder(self) -> Embedder:
        """The backbone in a session of its own, opened on first use."""
        return Embedder.of(self.backbone)

    def probabilities(self, embedding: FloatArray) -> FloatArray:
        """Return probabilities [n, 0]: it knows no class."""
        return np.empty((len(embedding), 0), np.float32)


def read_ground(store: ModelStore, model: str, changes: "LabelChanges") -> StoredVersion | NoVersion:
    """Read the champion of a model, or its beginning without one.

    Raises:
        PreconditionError: there is neither.
        NotFoundError: as `read_beginning`.
        ArtifactError: the champion or the backbone is damaged.
    """
    if store.champion(model) is None:
        return read_beginning(store, model, changes)
    return read_champion(store, model, changes)


def read_beginning(store: ModelStore, model: str, changes: "LabelChanges") -> NoVersion:
    """Read the beginning of a model without a champion.

    Its labels follow the ``changes``.

    Raises:
        PreconditionError: it did not begin so.
        NotFoundError: its backbone is gone; the text says how to get one.
        ArtifactError: the backbone is damaged.
    """
    beginning = store.beginning(model)
    if beginning is None:
        raise no_champion(model)
    backbones = BackboneStore(store.root)
    backbone = stored_backbone(backbones, backbones.find(beginning.backbone))
    now, since = utc_now("microseconds"), changes.since(model)
    labels = dict.fromkeys(filter(None, (called_now(label, since) for label in beginning.labels)))
    return NoVersion(backbone, tuple(labels), now)
