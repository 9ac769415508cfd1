"""Instance transfer from a second labelled set.

A weight is the probability that the probe of the first set gives to the image's own label (after Ngiam et al., "Domain
Adaptive Transfer Learning with Specialist Models", 2018: data that is unlike the target does harm).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from regraft.errors import DatasetError, InvalidRequestError
from regraft.label_rules import listed
from training.backbones.cache import embedding_cache
from training.data.dataset import Dataset, LabelledImage, labels_of, scan
from training.data.samples import Sample
from training.evaluation.findings import ExtraData
from training.head.additional import Additional
from training.head.features import Embedder, Features, assemble
from training.head.fit import FittedHead, fit
from training.strategies.context import Context

_NAMED: Final = 10
"""Classes that a text names at most."""


@dataclass(frozen=True)
class ExtraFit:
    """A head fitted with a second set.

    Attributes:
        additional: all rows beside the features that it was fitted on.
        samples: the second set's pictures.
        finding: what they brought.
    """

    fitted: FittedHead
    additional: Additional
    samples: tuple[Sample, ...]
    finding: ExtraData


def fit_with_extra(
    folder: Path, features: Features, alone: FittedHead, views: Additional | None, embedder: Embedder, context: Context
) -> ExtraFit:
    """Fit a head anew with a second set.

    Args:
        folder: like that of the first set; its own split plays no part.
        features: of the first set.
        alone: the head that was fitted on the first set only.
        views: rows beside them that it was fitted on.
        embedder: of the same backbone.
        context: of the run.

    Raises:
        DatasetError: the second set has no image with a label of the first that the first does not have itself.
    """
    settings = context.settings
    second_set = scan(folder, context.progress)
    images, left_out = _taking_part(second_set, features, settings.extra_classes)
    files = {sha256: image.path for sha256, image in images.items()}
    with embedding_cache(context.cache) as cache:
        embeddings, failures = embedder.embed(files, cache, context.progress)
    left_out["cannot be read"] = len(failures)
    rows = assemble(features.labels, [(name, images[name].label, False) for name in embeddings], embeddings)
    if not rows.sha256:
        raise DatasetError(f"--extra: {folder}: no further image with a label of the first set {_labels(second_set)}")
    weight = np.ones(len(rows.sha256))
    if settings.extra_weighting:
        weight = alone.head.probabilities(rows.embedding)[np.arange(len(weight)), rows.label_index].astype(np.float64)
    parent = np.full(len(weight), -1)
    additional = Additional(rows.embedding, rows.label_index, weight, parent)
    if views is not None:
        additional = views.joined(additional)
    joined = fit(features, context.progress, seed=settings.seed, balance=settings.balance, additional=additional)
    finding = ExtraData(
        folder=folder.name,
        images=len(weight),
        mean_weight=float(weight.mean()),
        cv_without=float(alone.choices["cv_accuracy"]),
        cv_with=float(joined.choices["cv_accuracy"]),
        holdout_without=alone.holdout_accuracy(features),
        holdout_with=joined.holdout_accuracy(features),
        found=len(second_set.images) + len(second_set.left_out),
        left_out={reason: count for reason, count in left_out.items() if count},
    )
    samples = tuple(
        Sample(files[name], name, int(index), float(share))
        for name, index, share in zip(rows.sha256, rows.label_index, weight, strict=True)
    )
    return ExtraFit(joined, additional, samples, finding)


def check_extra(folder: Path, renamed: Mapping[str, str], labels: Sequence[str]) -> None:
    """Check ``--extra-class`` before any picture is read.

    Args:
        folder: the second set.
        renamed: what its classes are called in the first.
        labels: of the first.

    Raises:
        InvalidRequestError: one of the two sets has no class of such a name; the text says which it has.
    """
    second_labels = labels_of(folder) if renamed else ()  # it walks through all folders
    for second_label, first_label in renamed.items():
        if first_label not in labels:
            raise InvalidRequestError(
                f"--extra-class: {first_label!r} is no class of the first set ({listed(labels, _NAMED)})"
            )
        if second_label not in second_labels:
            raise InvalidRequestError(
                f"--extra-class: {second_label!r} is no class of {folder} ({listed(second_labels, _NAMED)})"
            )


def _taking_part(
    second_set: Dataset, features: Features, renamed: Mapping[str, str]
) -> tuple[dict[str, LabelledImage], dict[str, int]]:
    """Select the pictures that can join, relabelled; count others by reason."""
    named = [replace(image, label=renamed.get(image.label, image.label)) for image in second_set.images]
    strange = Counter(image.label for image in named if image.label not in features.labels)
    in_first = set(features.sha256)
    ours = [image for image in named if image.label in features.labels]
    images = {image.sha256: image for image in ours if image.sha256 not in in_first}
    unknown = (
        f"of classes that the first set does not have ({listed([*strange], _NAMED)}); --extra-class may name them anew"
    )
    left_out = {
        "no picture, or the same as another": len(second_set.left_out),
        "in the first set already": len(ours) - len(images),
        unknown: strange.total(),
    }
    return images, left_out


def _labels(dataset: Dataset) -> str:
    return f"(it has: {listed(dataset.labels, _NAMED)}; --extra-class says what they are called in the first)"
