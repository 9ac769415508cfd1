"""Models in memory, with a version that answers or without."""

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from regraft.errors import NotFoundError
from regraft.model.artifact import Head
from regraft.model.card import EmbeddingKey, ModelCard
from regraft.stores.backbones import StoredBackbone
from serving.inference.backbone import Backbone


@dataclass(eq=False)
class ServedModel:
    """One version in memory.

    Attributes:
        users: the registry itself, and every request.
        answers: pictures that it answered.
        failures: requests that failed, and neither the caller nor the moment was to blame.
    """

    name: str
    version: int
    card: ModelCard
    head: Head
    backbone: Backbone
    users: int = 0
    answers: int = 0
    failures: int = 0

    @property
    def key(self) -> EmbeddingKey:
        """The key of the embeddings that come with its answers."""
        return self.card.embedding_key.computed_in(self.backbone.engine.arithmetic)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that it answers with."""
        return self.card.labels

    @cached_property
    def card_json(self) -> str:
        """The card as clients get it; not to be made on the event loop."""
        return self.card.to_sparse_json()

    def check_version(self, wanted: int | None) -> None:
        """Refuse a wanted version that is not this one.

        Raises:
            NotFoundError: it is another.
        """
        if wanted not in (None, self.version):
            raise NotFoundError(f"version {wanted} of {self.name!r} does not answer; version {self.version} does")


@dataclass(eq=False)
class BegunModel:
    """A model without a version, on the backbone that it began with.

    Attributes:
        card: the description of the backbone.
        head: a blank one, by which its pictures go through the backbone.
        users: the registry itself, and whoever embeds.
    """

    name: str
    card: StoredBackbone
    head: Head
    backbone: Backbone
    users: int = 0

    @property
    def key(self) -> EmbeddingKey:
        """The key of its embeddings."""
        return self.card.embedding_key.computed_in(self.backbone.engine.arithmetic)

    @property
    def labels(self) -> tuple[str, ...]:
        """None: it does not answer."""
        return ()


HeldModel: TypeAlias = ServedModel | BegunModel
"""A model that takes examples, whether it answers or not."""
