"""Differences of two versions: labels, metrics, settings, data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from regraft.errors import InvalidRequestError
from regraft.label_rules import nfc
from regraft.model.card import ModelCard
from regraft.stores.models import ModelStore
from training.evaluation.data_changes import DataChanges, data_changes
from training.versions.read import read_version

_FIELDS: Final = ("strategy", "seed", "temperature", "novelty_method", "novelty_threshold", "train_images")


@dataclass(frozen=True)
class VersionDiff:
    """Differences of two versions; pairs are of first and second.

    Attributes:
        labels_added: that only the second has.
        labels_gone: that only the first has.
        backbone: names, weights and precisions where the backbones differ, None where they are the same.
        accuracy: on the holdout of each, None where there is none.
        recall: by label, likewise.
        settings: by name, where they differ; None is none.
        data: pictures.
        heads: digests.
    """

    name: str
    versions: tuple[int, int]
    labels_added: tuple[str, ...]
    labels_gone: tuple[str, ...]
    backbone: tuple[str, str] | None
    accuracy: tuple[float | None, float | None]
    holdout_images: tuple[int, int]
    recall: dict[str, tuple[float | None, float | None]]
    settings: dict[str, tuple[Any, Any]]
    data: DataChanges
    heads: tuple[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {**vars(self), "data": self.data.to_dict()}


def version_diff(store: ModelStore, first: str, second: str) -> VersionDiff:
    """Compare ``NAME:VERSION`` with ``NAME:VERSION``; of a bare name it is the champion.

    Raises:
        InvalidRequestError: these are different models.
        NotFoundError: there is no such version.
        PreconditionError: there is no champion.
        ArtifactError: a version is damaged.
    """
    versions = [store.find(wanted) for wanted in (first, second)]
    if versions[0][0] != versions[1][0]:
        raise InvalidRequestError(f"{first} and {second} are different models: compare versions of one")
    before, now = (read_version(store, name, version) for name, version in versions)
    old, new = before.artifact.card, now.artifact.card
    return VersionDiff(
        old.name,
        (before.version, now.version),
        _without(new.labels, old.labels),
        _without(old.labels, new.labels),
        None if old.backbone == new.backbone else (_backbone(old), _backbone(new)),
        (_accuracy(old), _accuracy(new)),
        tuple(card.metrics.images if card.metrics else 0 for card in (old, new)),  # type: ignore[arg-type]  # there are two
        _recalls(old, new),
        _differing(_settings(old), _settings(new)),
        data_changes(before.features, now.features),
        (old.head_digest, new.head_digest),
    )


def _without(labels: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    there = {nfc(label) for label in others}
    return tuple(label for label in labels if nfc(label) not in there)


def _backbone(card: ModelCard) -> str:
    return f"{card.backbone.name} ({card.backbone.weights}), {card.backbone.precision}"


def _accuracy(card: ModelCard) -> float | None:
    return card.metrics.accuracy if card.metrics else None


def _recalls(old: ModelCard, new: ModelCard) -> dict[str, tuple[float | None, float | None]]:
    measured = [card.metrics.per_class if card.metrics else () for card in (old, new)]
    sides = [{nfc(each.label): each.recall for each in classes if each.support} for classes in measured]
    labels = dict.fromkeys(map(nfc, [*old.labels, *new.labels]))
    return {label: (sides[0].get(label), sides[1].get(label)) for label in labels}


def _settings(card: ModelCard) -> dict[str, Any]:
    return {**card.recipe, **{name: getattr(card, name) for name in _FIELDS}, **card.settings}


def _differing(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {
        name: (old.get(name), new.get(name)) for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)
    }
