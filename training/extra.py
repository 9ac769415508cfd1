"""Instance transfer: a second labelled set joins the training images, and counts as far as it is like the first.

A weight is the probability that the probe of the first set gives to the image's own label (after Ngiam et al., "Domain
Adaptive Transfer Learning with Specialist Models", 2018: data that is unlike the target does harm).
"""

from pathlib import Path

import numpy as np

from regraft.errors import DatasetError
from training.dataset import Dataset, scan
from training.features import Embedder, Features, assemble
from training.findings import ExtraData
from training.head import Additional, FittedHead, fit
from training.pretrained import embedding_cache
from training.samples import Sample
from training.strategy import Context


def join_extra(
    folder: Path, features: Features, alone: FittedHead, views: Additional | None, embedder: Embedder, context: Context
) -> tuple[FittedHead, Additional, tuple[Sample, ...], ExtraData]:
    """Fit anew with a second set.

    Args:
        folder: like that of the first set; its own split plays no part.
        features: of the first set.
        alone: the head that was fitted on the first set only.
        views: further rows that were fitted on.
        embedder: of the same backbone.
        context: of the run.

    Returns:
        The new head, all rows beside ``features`` that it was fitted on, the second set's pictures, and what they
        brought.

    Raises:
        DatasetError: the second set has no image with a label of the first that the first does not have itself.
    """
    settings = context.settings
    found = scan(folder, context.progress)
    known = set(features.sha256)
    images = {i.sha256: i for i in found.images if i.label in features.labels and i.sha256 not in known}
    files = {sha256: image.path for sha256, image in images.items()}
    with embedding_cache(context.cache) as cache:
        embeddings, _ = embedder.embed(files, cache, context.progress)
    rows = assemble(features.labels, [(name, images[name].label, False) for name in embeddings], embeddings)
    if not rows.sha256:
        raise DatasetError(f"--extra: {folder}: no further image with a label of the first set {_labels(found)}")
    weight = np.ones(len(rows.sha256))
    if settings.extra_weighting:
        weight = alone.head.probabilities(rows.embedding)[np.arange(len(weight)), rows.label_index].astype(np.float64)
    parent = np.full(len(weight), -1)
    additional = Additional(rows.embedding, rows.label_index, weight, parent)
    if views is not None:
        additional = views.joined(additional)
    joined = fit(features, context.progress, seed=settings.seed, balance=settings.balance, additional=additional)
    data = ExtraData(
        folder=folder.name,
        images=len(weight),
        mean_weight=float(weight.mean()),
        cv_without=float(alone.choices["cv_accuracy"]),
        cv_with=float(joined.choices["cv_accuracy"]),
        holdout_without=_accuracy(alone, features),
        holdout_with=_accuracy(joined, features),
    )
    samples = tuple(
        Sample(files[name], name, int(index), float(share))
        for name, index, share in zip(rows.sha256, rows.label_index, weight, strict=True)
    )
    return joined, additional, samples, data


def _labels(dataset: Dataset) -> str:
    return f"(it has: {', '.join(dataset.labels[:10])})"


def _accuracy(fitted: FittedHead, features: Features) -> float | None:
    holdout = features.holdout()
    if not holdout.sha256:
        return None
    return float((fitted.head.probabilities(holdout.embedding).argmax(axis=1) == holdout.label_index).mean())
