"""Calibration of a fine-tuned head: temperature and novelty threshold."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from regraft.model.artifact import FloatArray, Head
from training.head.features import Features
from training.head.fit import FittedHead, Unseen, fit_temperature
from training.head.folds import deal
from training.head.logistic import log_loss, log_softmax
from training.head.novelty import choose_method, leave_classes_out, novelty_parts, novelty_threshold

FOLDS: Final = 5

_Index = npt.NDArray[np.int64]
_Weights = npt.NDArray[np.float64]


@dataclass(frozen=True)
class HeldBack:
    """A fine-tuned network's answers on training images held back.

    Attributes:
        rows: bool [n], m training images are such.
        logits: float32 [m, K].
        probabilities: float32 [m, K], see `cross_fitted`.
        weight: float64 [m], what each counts as it comes: probabilities should hold for pictures as they come.
        embedding: float32 [n, D] of all training images by this network; None where it is the one that is published.
    """

    rows: npt.NDArray[np.bool_]
    logits: FloatArray
    probabilities: FloatArray
    weight: npt.NDArray[np.float64]
    embedding: FloatArray | None


def cross_fitted(
    logits: FloatArray,
    label_index: _Index,
    stopping: _Weights,
    weight: _Weights,
    seed: int,
    group: _Index | None = None,
) -> FloatArray:
    """Cross-fit a run's answers on the images that it is stopped by.

    They are as if each had played no part in that.

    Args:
        logits: float32 [epochs, m, K], after every epoch.
        label_index: int64 [m].
        stopping: float64 [m], what each image counts where an epoch is chosen.
        weight: float64 [m], what it counts where a temperature is.
        seed: deals the images to folds.
        group: int64 [m], images that stay in one fold: a near-duplicate would choose for its like; None for none.

    Returns:
        Probabilities float32 [m, K]: of each fold by the epoch and the temperature that the other folds choose.
    """
    folds = deal(label_index, FOLDS, seed, group)
    probabilities = np.empty(logits.shape[1:], np.float32)
    every = logits.astype(np.float64)
    for fold in np.unique(folds):
        in_fold = folds == fold
        others = ~in_fold if (~in_fold).any() else in_fold  # a single image has no others
        losses = [log_loss(epoch[others], label_index[others], stopping[others]) for epoch in every]
        best = every[int(np.argmin(losses))]
        temperature = fit_temperature(best[others], label_index[others], weight[others])
        probabilities[in_fold] = np.exp(log_softmax(best[in_fold] / temperature))
    return probabilities


def calibrate_head(weight: FloatArray, bias: FloatArray, features: Features, held_back: HeldBack | None) -> FittedHead:
    """Calibrate a head by held back images; on others it is too sure.

    Where the network of the head learned from these in the end, the one that did not stands for it: its temperature,
    and how new it found them.

    Args:
        weight: float32 [K, D], as it was trained.
        bias: float32 [K].
        features: of the fine-tuned backbone.
        held_back: None where no image was held back: the temperature stays 1 and the threshold is that of the training
            images themselves.
    """
    train = features.train()
    learned = train.select(~held_back.rows) if held_back is not None and held_back.embedding is None else train
    with threadpool_limits(limits=1):
        left_out = leave_classes_out(learned.embedding, learned.label_index)
        method = choose_method(left_out, learned.label_index)
        parts = novelty_parts(method, learned.embedding, learned.label_index, len(features.labels))
    if held_back is None:
        head = Head(weight, bias, *parts)
        threshold = novelty_threshold(head.novelty(train.embedding))
        nothing = {"tune_images": 0, "tune_accuracy": None, "tune_log_loss": None}
        return FittedHead(head, 1.0, method, threshold, nothing, Unseen.nothing(len(bias)), left_out)
    truth = train.label_index[held_back.rows]
    temperature = fit_temperature(held_back.logits.astype(np.float64), truth, held_back.weight)
    head = Head((weight / temperature).astype(np.float32), (bias / temperature).astype(np.float32), *parts)
    embedding = train.embedding if held_back.embedding is None else held_back.embedding
    if held_back.embedding is not None:
        with threadpool_limits(limits=1):
            parts = novelty_parts(
                method, embedding[~held_back.rows], train.label_index[~held_back.rows], len(features.labels)
            )
    novelty = Head(weight, bias, *parts).novelty(embedding[held_back.rows])
    given = held_back.probabilities[np.arange(len(truth)), truth].astype(np.float64)
    choices = {
        "tune_images": len(truth),
        "tune_accuracy": float((held_back.probabilities.argmax(axis=1) == truth).mean()),
        "tune_log_loss": float(-np.log(np.maximum(given, 1e-12)).mean()),
    }
    unseen = Unseen(np.flatnonzero(held_back.rows), held_back.probabilities, novelty)
    return FittedHead(head, temperature, method, novelty_threshold(novelty), choices, unseen, left_out)
