"""Test of mirroring, which changes the meaning of digits, say. No torch.

Classifiers that saw neither a picture nor its mirror image are asked for both. Where mirroring means nothing, either is
as likely to be the one that is answered right.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest
from threadpoolctl import threadpool_limits

from regraft.model.artifact import FloatArray
from regraft.progress import Progress, silent
from regraft.stores.embeddings import EmbeddingCache
from regraft.stores.images import ImageFile
from training.head.features import Embedder, Features
from training.head.folds import deal
from training.head.views import embed_views

FOLDS: Final = 5
SIGNIFICANCE: Final = 0.05
"""Of all tests of one look together."""
LEAST_LOSS: Final = 0.05
"""The share of right answers that must be lost: mirrored photographs lose a little without meaning anything else."""
_IN_ALL, _LEAST, _MOST = 1000, 8, 40
"""Pictures that are mirrored: about so many, and of each class no fewer and no more."""
_PENALTIES: Final = np.logspace(-1, 6, 8)

_Index = npt.NDArray[np.int64]
_Rows = npt.NDArray[np.bool_]


def sample_each_class(label_index: _Index, seed: int) -> _Index:
    """Choose a few rows of each class to mirror, int64 [m] ascending."""
    classes = np.unique(label_index)
    most = int(np.clip(_IN_ALL // max(1, len(classes)), _LEAST, _MOST))
    random = np.random.default_rng(seed)
    chosen = [random.permutation(np.flatnonzero(label_index == index))[:most] for index in classes]
    return np.sort(np.concatenate(chosen))


def check_mirroring(
    embedder: Embedder,
    features: Features,
    files: Mapping[str, ImageFile],
    seed: int,
    cache: EmbeddingCache,
    progress: Progress = silent,
) -> str:
    """Mirror some training pictures of each class and compare the answers.

    Args:
        embedder: of the backbone that ``features`` come from.
        features: of the pictures.
        files: the pictures by image hash.
        seed: chooses the pictures, and deals them to folds.
        cache: holds the mirror images of earlier runs.
        progress: told the stage ``mirror``.

    Returns:
        A sentence, empty where mirroring changes nothing.
    """
    train = features.train()
    names = [train.sha256[row] for row in sample_each_class(train.label_index, seed)]

    def report(_stage: str, done: int, total: int) -> None:
        progress("mirror", done, total)

    chosen = {name: files[name] for name in names if name in files}
    mirrored = embed_views(embedder, features, chosen, 1, seed, cache, report)
    rows = mirrored.parent
    answers = out_of_fold(train.embedding[rows], mirrored.embedding, train.label_index[rows], train.group[rows], seed)
    return mirroring_remark(*answers, train.label_index[rows], features.labels)


def out_of_fold(
    original: FloatArray, mirrored: FloatArray, label_index: _Index, group: _Index, seed: int
) -> tuple[_Index, _Index]:
    """Cross-predict pictures [n, D] and their mirror images, int64 [n] each."""
    from sklearn.linear_model import RidgeClassifierCV  # noqa: PLC0415 - slow to load, and most runs mirror nothing

    centre, scale = original.mean(axis=0), max(float(original.std()), 1e-12)
    x, y = (original - centre) / scale, (mirrored - centre) / scale
    folds = deal(label_index, FOLDS, seed, group)
    answers = np.tile(label_index, (2, 1))
    for fold in np.unique(folds):
        in_fold = folds == fold
        if len(np.unique(label_index[~in_fold])) < 2:
            continue  # nothing to tell apart; the label stands for both answers
        with threadpool_limits(limits=1):
            model = RidgeClassifierCV(alphas=_PENALTIES).fit(x[~in_fold], label_index[~in_fold])
            answers[0, in_fold], answers[1, in_fold] = model.predict(x[in_fold]), model.predict(y[in_fold])
    return answers[0], answers[1]


def mirroring_remark(original: _Index, mirrored: _Index, label_index: _Index, labels: tuple[str, ...]) -> str:
    """Name the classes whose mirror images are answered otherwise; empty if none.

    Answers are int64 [n]. One-sided sign tests of all pictures and of each class, at `SIGNIFICANCE` in all
    (Bonferroni).
    """
    right, still = original == label_index, mirrored == label_index
    classes = np.unique(label_index)
    of_class = [label_index == index for index in classes]
    level = SIGNIFICANCE / (len(classes) + 1)
    changed = [index for index, rows in zip(classes, of_class, strict=True) if _loses(right[rows], still[rows], level)]
    if not changed and not _loses(right, still, level):
        return ""
    lost = right & ~still
    shown = max(changed or classes, key=lambda index: int(lost[label_index == index].sum()))
    of_shown = lost & (label_index == shown)
    other = int(np.bincount(mirrored[of_shown]).argmax())
    return (
        f"Mirrored, training pictures are answered as another class: {int(lost.sum())} of {int(right.sum())} that were "
        f"answered right, most often {labels[shown]} as {labels[other]} ({int((mirrored[of_shown] == other).sum())} of "
        f"{int((right & (label_index == shown)).sum())}). So mirroring is left out; --mirror brings it back."
    )


def _loses(right: _Rows, still: _Rows, level: float) -> bool:
    """Return whether mirroring loses right answers, by more than chance."""
    lost, won = int((right & ~still).sum()), int((~right & still).sum())
    if lost - won < LEAST_LOSS * max(1, int(right.sum())):
        return False
    return lost > won and bool(binomtest(lost, lost + won, alternative="greater").pvalue <= level)
