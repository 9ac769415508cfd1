"""Split that keeps near-duplicates together, by their embeddings."""

from dataclasses import replace

import numpy as np

from training.data.dataset import Dataset, keep_together
from training.evaluation.duplicates import look_alikes
from training.head.features import Features


def split_by_likeness(dataset: Dataset, features: Features) -> tuple[Dataset, Features]:
    """Find near-duplicates, once, and keep them on one side.

    Returns dataset and features with the sides and groups of now, without pictures that had to leave.
    """
    if dataset.is_settled:
        return dataset, features
    by_hash = {image.sha256: image for image in dataset.images}
    pairs = look_alikes(features.embedding, features.label_index)
    ordered = replace(dataset, images=tuple(by_hash[name] for name in features.sha256))
    settled = keep_together(ordered, pairs)
    image_of = {image.sha256: image for image in settled.images}
    rows = features.select(np.array([name in image_of for name in features.sha256], np.bool_))
    images = [image_of[name] for name in rows.sha256]
    rows = replace(
        rows,
        is_holdout=np.array([image.is_holdout for image in images], np.bool_),
        group=np.array([image.group for image in images], np.int64),
    )
    count = len(np.unique(pairs))
    note = f"{count} pictures look nearly like others: they stay on one side of the split, and in one fold."
    return replace(settled, is_settled=True, notes=(*settled.notes, *([note] if count else []))), rows
