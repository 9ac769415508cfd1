"""Quarantine labels that others' labels contradict, until a person has looked.

Those that look at a label were not fitted on it: a head of the first training data alone, which no label that was sent
since has entered, so that slow poison does not change it; the challenger's heads, out of fold; and the champion, where
the label is new to it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from regraft.model.artifact import FloatArray, Head
from regraft.stores.examples import ExamplesStore
from training.evaluation.label_errors import MIN_CLASS
from training.gate.verdict import SuspectLabel
from training.head.balance import Balance
from training.head.features import Features
from training.head.fit import FittedHead, fit
from training.retrain.data import NO_QUARANTINED_ROWS, QuarantinedRows, RetrainData
from training.retrain.label_noise import Foretold, wrong_labels
from training.versions.read import StoredVersion

_LIKELY: Final = 0.3
_CHAMPION: Final = 0.02
_CHALLENGER: Final = 0.1
"""A new label that the champion holds for less probable than the first, and the challenger than the second, is one that
both contradict with confidence."""
_CONFIDENT: Final = 0.8
"""What the challenger holds for at least so probable, out of fold, the first training data need not know: pictures of a
class that was merged with another, say."""
_FEWEST_TRUSTED: Final = 30
_MOST_OF_A_SOURCE: Final = 0.5
_FEWEST_OF_A_SOURCE: Final = 3

NO_LABELS: Final[Mapping[str, str]] = MappingProxyType({})

_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LabelledRows:
    """Labelled pictures, and the origin of their labels.

    Attributes:
        features: training and holdout rows.
        source: n of them.
        sent: bool [n], labels that people sent since the first training, and that nobody has vouched for.
        is_new: bool [n], labels that the champion does not have.
        is_known: bool [K], classes that the champion knows.
        quarantined: pictures whose labels are in quarantine already: they too speak against their source.
    """

    features: Features
    source: tuple[str, ...]
    sent: _Mask
    is_new: _Mask
    is_known: _Mask
    quarantined: QuarantinedRows = NO_QUARANTINED_ROWS


@dataclass(frozen=True)
class Quarantined:
    """Labels that a retrain left out.

    Attributes:
        now: those that it found, worst first.
        in_all: how many labels of the model are in quarantine.
    """

    now: Sequence[SuspectLabel] = ()
    in_all: int = 0


NOTHING_QUARANTINED: Final = Quarantined()


def quarantine(
    champion: StoredVersion,
    data: RetrainData,
    fitted: FittedHead,
    examples: ExamplesStore,
    model: str,
    first: Mapping[str, str] = NO_LABELS,
) -> list[SuspectLabel]:
    """Quarantine likely wrong labels of examples, and return them.

    ``first`` are labels by image hash that were sent before there was a version, which is the first training then.

    Raises:
        StorageError: the examples cannot be read or changed.
    """
    suspects = suspects_among(champion, data, fitted, examples, model, first)
    examples.labels.quarantine(model, {entry.sha256: (entry.label, _why(entry)) for entry in suspects})
    return suspects


def suspects_among(
    champion: StoredVersion,
    data: RetrainData,
    fitted: FittedHead,
    examples: ExamplesStore,
    model: str,
    first: Mapping[str, str] = NO_LABELS,
) -> list[SuspectLabel]:
    """Find the labels that a retrain would quarantine, worst first.

    ``first`` are as in `quarantine`.

    Raises:
        StorageError: the examples cannot be read.
    """
    card, features = champion.artifact.card, data.features
    unsure = {example.sha256: example.label for example in examples.labels.sent(model) if not example.vouched_by}
    sent = [
        unsure.get(name) == features.labels[row] != first.get(name)
        for name, row in zip(features.sha256, features.label_index, strict=True)
    ]
    before = champion.features.labels
    is_known = np.array([label in before for label in features.labels])
    answers = columns_of(champion.probabilities(features.embedding), before, features.labels)
    return find_wrong_labels(
        LabelledRows(features, data.source, np.array(sent, np.bool_), data.is_new, is_known, data.quarantined),
        answers,
        fitted,
        seed=card.seed,
        balance=card.settings.get("balance", "auto"),
    )


def find_wrong_labels(
    labels: LabelledRows, champion: FloatArray, fitted: FittedHead, *, seed: int = 0, balance: Balance = "auto"
) -> list[SuspectLabel]:
    """Find labels that are to be left out, worst first.

    Of a source of which most labels are likely wrong all are. A label that is new to the champion is never doubted,
    since nobody can say yet what its class looks like.

    Args:
        labels: what the challenger was fitted on, and its holdout.
        champion: what the champion says of all rows, probabilities [n, K], 0 of classes that it does not know.
        fitted: the challenger.
        seed: of the head of the first training data.
        balance: likewise.
    """
    features, truth = labels.features, labels.features.label_index
    counts = np.bincount(truth[~features.is_holdout], minlength=len(features.labels))
    examined = labels.sent & (labels.is_known & (counts >= MIN_CLASS))[truth]
    if not examined.any():
        return []
    challenger, judged = unseen_answers(features, fitted)
    wrong = _both_contradict(champion, challenger, truth) & labels.is_new & examined & judged
    first = _answers_of_first(labels, seed, balance)
    doubtful = examined & first.unseen & (challenger[np.arange(len(truth)), truth] < _CONFIDENT)
    wrong |= _wrong_by_source(first, labels, doubtful)
    now = _HeadAnswers(challenger, judged, ~first.knows, _answers(fitted.head, labels.quarantined))
    wrong |= _wrong_by_source(now, labels, examined & judged & now.knows)
    wrong |= _of_wrong_sources(labels.source, wrong, examined)
    rows = np.flatnonzero(wrong)
    doubt = challenger[rows, truth[rows]]
    return [_suspect(labels, int(row), challenger[row]) for row in rows[np.argsort(doubt, kind="stable")]]


def unseen_answers(features: Features, fitted: FittedHead) -> tuple[FloatArray, _Mask]:
    """Return probabilities [n, K], and which rows [n] their head never saw.

    They are out of fold on training images, of the head itself on the holdout.
    """
    answers, judged = fitted.head.probabilities(features.embedding), features.is_holdout.copy()
    rows = np.flatnonzero(~features.is_holdout)[fitted.unseen.rows]
    answers[rows], judged[rows] = fitted.unseen.probabilities, True
    return answers, judged


def columns_of(probabilities: FloatArray, labels: Sequence[str], wanted: Sequence[str]) -> FloatArray:
    """Select probabilities [n, K] by label, 0 for a missing one."""
    there = [(column, labels.index(label)) for column, label in enumerate(wanted) if label in labels]
    columns = np.zeros((len(probabilities), len(wanted)), np.float32)
    columns[:, [column for column, _ in there]] = probabilities[:, [index for _, index in there]]
    return columns


@dataclass(frozen=True)
class _HeadAnswers:
    """A head's answers on all rows.

    Attributes:
        answers: [n, K].
        unseen: bool [n], rows that it was not fitted on.
        knows: bool [n], rows whose class it is asked about.
        of_quarantined: [m, K], of pictures in quarantine.
    """

    answers: FloatArray
    unseen: _Mask
    knows: _Mask
    of_quarantined: FloatArray


def _answers_of_first(labels: LabelledRows, seed: int, balance: Balance) -> _HeadAnswers:
    """Fit a head on trusted labels, of classes with enough of them."""
    features, trusted = labels.features, ~labels.sent
    counts = np.bincount(features.label_index[~features.is_holdout & trusted], minlength=len(features.labels))
    classes = np.flatnonzero(counts >= MIN_CLASS)
    knows = np.isin(features.label_index, classes)
    answers, of_quarantined = (
        np.zeros((count, len(features.labels)), np.float32) for count in (len(knows), len(labels.quarantined.sha256))
    )
    mine = knows & trusted
    if len(classes) < 2 or mine.sum() < _FEWEST_TRUSTED:
        return _HeadAnswers(answers, np.zeros_like(knows), np.zeros_like(knows), of_quarantined)
    first = replace(
        features.select(mine),
        labels=tuple(features.labels[index] for index in classes),
        label_index=np.searchsorted(classes, features.label_index[mine]),
    )
    fitted = fit(first, seed=seed, balance=balance)
    answers[:, classes] = fitted.head.probabilities(features.embedding)
    of_quarantined[:, classes] = _answers(fitted.head, labels.quarantined)
    of_mine, unseen_of_mine = unseen_answers(first, fitted)
    rows, unseen = np.flatnonzero(mine), knows & labels.sent
    answers[np.ix_(rows, classes)] = of_mine
    unseen[rows] = unseen_of_mine
    return _HeadAnswers(answers, unseen, knows, of_quarantined)


def _answers(head: Head, quarantined: QuarantinedRows) -> FloatArray:
    """Return what a head says of pictures in quarantine [m, K]."""
    return head.probabilities(quarantined.embedding.reshape(-1, head.weight.shape[1]))


def _both_contradict(champion: FloatArray, challenger: FloatArray, truth: npt.NDArray[np.int64]) -> _Mask:
    rows = np.arange(len(truth))
    by_champion = (champion.argmax(axis=1) != truth) & (champion[rows, truth] < _CHAMPION)
    by_challenger = (challenger.argmax(axis=1) != truth) & (challenger[rows, truth] < _CHALLENGER)
    both: _Mask = by_champion & by_challenger
    return both


def _wrong_by_source(head: _HeadAnswers, labels: LabelledRows, examined: _Mask) -> _Mask:
    """Return the labels that are likely wrong, of every source by itself."""
    features, quarantined = labels.features, labels.quarantined
    truth, source = features.label_index, np.array(labels.source, np.str_)
    wrong = np.zeros(len(truth), np.bool_)
    if (head.unseen & ~labels.sent).sum() < _FEWEST_TRUSTED:
        return wrong
    foretold = Foretold.by(head.answers[head.unseen])
    contradicted = examined & (head.answers.argmax(axis=1) != truth)
    called = np.array(
        [features.labels.index(each) if each in features.labels else -1 for each in quarantined.label], np.int64
    )
    older = (called >= 0) & (head.of_quarantined.argmax(axis=1) != called)
    for each in np.unique(source[contradicted]):
        rows = np.flatnonzero(contradicted & (source == each))
        beside = np.flatnonzero(older & (np.array(quarantined.source, np.str_) == each))
        answers = np.concatenate([head.answers[rows], head.of_quarantined[beside]])
        doubt = wrong_labels(answers, np.concatenate([truth[rows], called[beside]]), foretold)
        wrong[rows] = doubt[: len(rows)] > _LIKELY
    return wrong


def _of_wrong_sources(source: tuple[str, ...], wrong: _Mask, examined: _Mask) -> _Mask:
    """Return all labels of the sources of which most are wrong."""
    names = np.array(source, np.str_)
    sent, bad = Counter(names[examined].tolist()), Counter(names[wrong].tolist())
    most = [
        name for name, count in bad.items() if count >= _FEWEST_OF_A_SOURCE and count > _MOST_OF_A_SOURCE * sent[name]
    ]
    return examined & np.isin(names, most)


def _why(entry: SuspectLabel) -> str:
    return f"likely wrong: called {entry.label}, read as {entry.answer} ({entry.probability:.2f})"


def _suspect(labels: LabelledRows, row: int, probabilities: FloatArray) -> SuspectLabel:
    features, answer = labels.features, int(probabilities.argmax())
    label = int(features.label_index[row])
    return SuspectLabel(
        features.sha256[row],
        features.labels[label],
        features.labels[answer],
        float(probabilities[answer]),
        float(probabilities[label]),
        labels.source[row],
    )
