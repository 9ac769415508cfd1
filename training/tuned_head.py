"""Finish the head that fine-tuning left: its temperature, its novelty threshold, what it says unseen."""

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from regraft.artifact import FloatArray, Head
from training.features import Features
from training.head import FittedHead, Unseen, fit_temperature
from training.logistic import log_loss
from training.novelty import choose_method, leave_classes_out, novelty_parts, novelty_threshold


def finish(weight: FloatArray, bias: FloatArray, features: Features, tune: npt.NDArray[np.bool_]) -> FittedHead:
    """Calibrate a head on the rows that were set aside, since on all others it is surer than it should be.

    Args:
        weight: float32 [K, D], as it was trained.
        bias: float32 [K].
        features: of the fine-tuned backbone.
        tune: bool [n], rows of ``features.train()`` that were not learned from; with none, the temperature stays 1 and
            the threshold is that of the training images themselves.
    """
    train = features.train()
    rows = np.flatnonzero(tune)
    judged = train.select(tune) if len(rows) else train
    logits, alike = (judged.embedding @ weight.T + bias).astype(np.float64), np.ones(len(judged.sha256))
    temperature = fit_temperature(logits, judged.label_index, alike) if len(rows) else 1.0
    learned = train.select(~tune)
    with threadpool_limits(limits=1):
        left_out = leave_classes_out(learned.embedding, learned.label_index)
        method = choose_method(left_out, learned.label_index)
        parts = novelty_parts(method, learned.embedding, learned.label_index, len(features.labels))
    head = Head((weight / temperature).astype(np.float32), (bias / temperature).astype(np.float32), *parts)
    novelty = head.novelty(judged.embedding)
    choices = {
        "tune_images": len(rows),
        "tune_accuracy": float((logits.argmax(axis=1) == judged.label_index).mean()) if len(rows) else None,
        "tune_log_loss": log_loss(logits / temperature, judged.label_index, alike) if len(rows) else None,
    }
    unseen = Unseen(rows, head.probabilities(judged.embedding), novelty) if len(rows) else Unseen.nothing(len(bias))
    return FittedHead(head, temperature, method, novelty_threshold(novelty), choices, unseen, left_out)
