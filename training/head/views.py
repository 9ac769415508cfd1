"""Augmented views of the training images, embedded to learn from.

View 1 is the mirror image of the crop; the others are random windows of the picture, every other one mirrored on
average. Where mirroring would change what a picture shows, all are windows, and none is mirrored. Each is a function
of (picture, number, seed), so that its embedding can be cached.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, get_args

import numpy as np

from regraft.image.decode import decode_crop, decode_window
from regraft.image.spec import Crop, ImageSpec
from regraft.model.card import EmbeddingKey
from regraft.progress import Progress, silent
from regraft.stores.embeddings import EmbeddingCache
from regraft.stores.images import ImageFile
from training.data.random_crop import Augmentation, Strength, window_for
from training.head.additional import Additional
from training.head.features import Embedder, Features

VIEW_VERSION: Final = 1
"""Raised whenever the same picture, number and seed would give another view."""
AS_EVER: Final = Augmentation()
"""What views were made by before it could be chosen."""


def augmentation_of(settings: Mapping[str, Any]) -> Augmentation:
    """Read the augmentation of a card's settings; older cards lack it."""
    strength: Any = settings.get("augment")
    if strength not in get_args(Strength):
        return AS_EVER
    return Augmentation(strength, bool(settings.get("mirror", True)))


def embed_views(
    embedder: Embedder,
    features: Features,
    files: Mapping[str, ImageFile],
    count: int,
    seed: int,
    cache: EmbeddingCache,
    progress: Progress = silent,
    augmentation: Augmentation = AS_EVER,
) -> Additional:
    """Embed views of the training images, each weighted as its image.

    Args:
        embedder: of the backbone.
        features: of the images; only training rows get views.
        files: the pictures by image hash; others than the training images' are not looked at.
        count: at least 1.
        seed: of the random windows.
        cache: holds the views of earlier runs.
        progress: told the stage ``views``.
        augmentation: how far they differ from the picture; not ``none``.
    """
    train = features.train()
    row_of = {sha256: row for row, sha256 in enumerate(train.sha256) if sha256 in files}
    width = train.embedding.shape[1]
    vectors, parents = [np.empty((0, width), np.float32)], []
    for number in range(1, count + 1):

        def report(_stage: str, done: int, total: int, before: int = number - 1) -> None:
            progress("views", before * total + done, count * total)

        cut = partial(view, spec=embedder.spec, number=number, seed=seed, augmentation=augmentation)
        looking = replace(embedder, key=_key(embedder, number, seed, augmentation), cut=cut)
        embedded, _ = looking.embed({sha256: files[sha256] for sha256 in row_of}, cache, report)
        seen = [sha256 for sha256 in row_of if sha256 in embedded]
        vectors.append(np.array([embedded[sha256] for sha256 in seen], np.float32).reshape(len(seen), width))
        parents += [row_of[sha256] for sha256 in seen]
    parent = np.array(parents, np.int64)
    return Additional(np.concatenate(vectors), train.label_index[parent], train.weight[parent], parent)


def view(
    data: bytes, sha256: str, *, spec: ImageSpec, number: int, seed: int, augmentation: Augmentation = AS_EVER
) -> Crop:
    """Cut view ``number`` (from 1) of a picture."""
    if _is_mirror_image(number, augmentation):
        return np.ascontiguousarray(decode_crop(data, spec)[:, ::-1])
    random = np.random.default_rng([int(sha256[:16], 16), number, seed])
    crop = decode_window(data, spec, window_for(data, spec, random, augmentation.window_share))
    mirrored = augmentation.mirror and random.random() < 0.5
    return np.ascontiguousarray(crop[:, ::-1]) if mirrored else crop


def _is_mirror_image(number: int, augmentation: Augmentation) -> bool:
    return number == 1 and augmentation.mirror


def _key(embedder: Embedder, number: int, seed: int, augmentation: Augmentation) -> EmbeddingKey:
    """Name a view beside the image spec, independent of other views."""
    key = embedder.key
    name = f"{key.image_spec} view {number} of rule {VIEW_VERSION}"
    if not _is_mirror_image(number, augmentation):
        name += f" seed {seed}"
        name += "" if augmentation.strength == "full" else f" {augmentation.strength}"
        name += "" if augmentation.mirror else " unmirrored"
        name += "" if embedder.spec.resize == "crop" else " shaped as the picture"
    return replace(key, image_spec=hashlib.sha256(name.encode()).hexdigest())
