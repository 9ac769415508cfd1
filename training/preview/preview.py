"""Preview of a retrain: its head and verdict, were it now.

Nothing is written: no version, no job, no side of the split, no label in quarantine.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from regraft.gate_limits import GateLimits
from regraft.model.artifact import FloatArray
from regraft.model.card import Metrics
from regraft.model.confusion import Confusion
from regraft.progress import silent
from regraft.stores.examples import ExamplesStore
from regraft.stores.models import ModelStore
from training.evaluation.curve.curve import learning_curve
from training.evaluation.findings import Findings, LearningCurve
from training.evaluation.metrics import measure
from training.gate.verdict import SuspectLabel, Verdict
from training.head.features import Features
from training.head.fit import FittedHead
from training.retrain.data import NOT_EMBEDDED, RetrainData, fit_on, gather
from training.retrain.evidence import Terms, anchor_of, judge_first_version, judge_retrained
from training.retrain.quarantine import Quarantined, suspects_among, unseen_answers
from training.versions.ground import Ground, NoVersion, read_ground
from training.versions.read import first_labels

MOST_HASHES: Final = 200
"""Of one cell; a page shows no more."""
_MOST_IN_ALL: Final = 30_000
"""Of all cells, two megabytes: a message has four."""
_MOST_SUSPECTS: Final = 200


@dataclass(frozen=True)
class Cell:
    """Pictures of a label that got one answer.

    Attributes:
        images: how many.
        sha256: of them, the surest answer first; at most `MOST_HASHES`, fewer where there are many cells.
    """

    label: str
    answer: str
    images: int
    sha256: tuple[str, ...]


@dataclass(frozen=True)
class Preview:
    """The head that a retrain would make now, and its verdict.

    Attributes:
        champion: the version that it would compete with; 0: it would be the first.
        labels: of the head.
        train_images: that it was fitted on.
        holdout_images: that it was not.
        new_images: pictures that the champion does not have, or not under this label.
        not_embedded: labelled pictures that take no part yet.
        metrics: over all pictures, each answered by a head that was not fitted on it.
        holdout: likewise, on the holdout alone; None where there is none.
        cells: of the confusion matrix, those with pictures.
        suspects: labels that would go into quarantine, and take no part here, worst first.
        verdict: of the gate, by its usual limits.
        remarks: on the data, sentences without a full stop.
        learning_curve: how much more labels should bring.
    """

    champion: int
    labels: tuple[str, ...]
    train_images: int
    holdout_images: int
    new_images: int
    not_embedded: int
    metrics: Metrics
    holdout: Metrics | None
    cells: tuple[Cell, ...]
    suspects: tuple[SuspectLabel, ...]
    verdict: Verdict
    remarks: tuple[str, ...]
    learning_curve: LearningCurve

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            **vars(self),
            "metrics": self.metrics.model_dump(),
            "holdout": self.holdout.model_dump() if self.holdout else None,
            "cells": [asdict(cell) for cell in self.cells],
            "suspects": [asdict(suspect) for suspect in self.suspects],
            "verdict": self.verdict.to_dict(),
            "learning_curve": self.learning_curve.to_dict(),
        }


def preview(store: ModelStore, examples: ExamplesStore, model: str) -> Preview:
    """Fit the head that a retrain would make now, and judge it.

    Raises:
        PreconditionError: there is nothing to build on, or fewer than two classes have the pictures for it.
        ArtifactError: the champion is damaged.
        StorageError: the examples cannot be read.
    """
    ground = read_ground(store, model, examples.label_changes)
    data = gather(ground, examples, model, silent, only_look=True)
    fitted = fit_on(ground, data)
    if isinstance(ground, NoVersion):
        findings = judge_first_version(ground, data, fitted, store.golden(model), GateLimits())
        return _told(ground, data, fitted, findings, ())
    first = first_labels(store, model, examples.label_changes)
    suspects = suspects_among(ground, data, fitted, examples, model, first)
    if suspects:
        data = _without(data, suspects)
        fitted = fit_on(ground, data)
    anchor = anchor_of(ground, store, examples, model, data.features)
    in_all = len(examples.labels.in_force(model, quarantined=True)) + len(suspects)
    terms = Terms(quarantined=Quarantined(suspects, in_all), anchor=anchor)
    return _told(ground, data, fitted, judge_retrained(ground, data, fitted, store.golden(model), terms), suspects)


def _told(
    ground: Ground, data: RetrainData, fitted: FittedHead, findings: Findings, suspects: Sequence[SuspectLabel]
) -> Preview:
    """Sum up a head and the data that it was fitted on."""
    features, verdict = data.features, findings.verdict
    assert verdict is not None  # it was judged just now
    answers, judged = unseen_answers(features, fitted)
    metrics = _measured(features, answers, judged)
    assert metrics is not None  # a head is fitted on pictures
    return Preview(
        champion=ground.version,
        labels=features.labels,
        train_images=int((~features.is_holdout).sum()),
        holdout_images=int(features.is_holdout.sum()),
        new_images=int(data.is_new.sum()),
        not_embedded=sum(why == NOT_EMBEDDED for _, why in data.left_out),
        metrics=metrics,
        holdout=_measured(features, answers, features.is_holdout),
        cells=_cells(features, answers, judged),
        suspects=tuple(suspects[:_MOST_SUSPECTS]),
        verdict=verdict,
        remarks=data.remarks,
        learning_curve=_curve(ground, data, fitted.choices["c"]),
    )


def curve_of(store: ModelStore, examples: ExamplesStore, model: str) -> LearningCurve:
    """Draw the learning curve of what a retrain would learn from now.

    Raises:
        PreconditionError: there is nothing to build on, or fewer than two classes have the pictures for it.
        ArtifactError: the champion is damaged.
        StorageError: the examples cannot be read.
    """
    ground = read_ground(store, model, examples.label_changes)
    data = gather(ground, examples, model, silent, only_look=True)
    return _curve(ground, data, ground.settings.get("c") or fit_on(ground, data).choices["c"])


def _curve(ground: Ground, data: RetrainData, c: float) -> LearningCurve:
    balance = ground.settings.get("balance", "auto")
    return learning_curve(data.features, float(c), seed=ground.seed, balance=balance)


def _without(data: RetrainData, suspects: Sequence[SuspectLabel]) -> RetrainData:
    """Leave suspects out of the data.

    They count as missing of the class that they are read as.
    """
    features = data.features
    read_as = {suspect.sha256: suspect.answer for suspect in suspects}
    kept = ~np.isin(features.sha256, list(read_as))
    left = features.select(kept)
    trained = [name for name, is_holdout in zip(features.sha256, features.is_holdout, strict=True) if not is_holdout]
    missing = Counter(read_as[name] for name in trained if name in read_as)
    return replace(
        data,
        features=left,
        additional=data.additional and data.additional.carried_over(features, left),
        source=tuple(source for source, is_kept in zip(data.source, kept, strict=True) if is_kept),
        is_new=data.is_new[kept],
        missing=Counter(data.missing) + missing,
    )


def _measured(features: Features, answers: FloatArray, rows: npt.NDArray[np.bool_]) -> Metrics | None:
    return measure(answers[rows], features.label_index[rows], features.labels, features.group[rows])


def _cells(features: Features, answers: FloatArray, judged: npt.NDArray[np.bool_]) -> tuple[Cell, ...]:
    """Return the filled cells of the confusion matrix, largest first."""
    said = answers.argmax(axis=1)
    confusion = Confusion(
        features.labels,
        features.label_index[judged],
        said[judged],
        answers[np.arange(len(said)), said][judged],
        np.array(features.sha256, np.bytes_)[judged],
    )
    cells = list(confusion.cells())
    most = min(MOST_HASHES, max(1, _MOST_IN_ALL // len(cells)))
    return tuple(
        Cell(features.labels[cell.label], features.labels[cell.answer], len(cell.sha256), cell.sha256[:most])
        for cell in cells
    )
