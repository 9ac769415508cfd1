from dataclasses import dataclass, replace

import numpy as np
import pytest

from tests.training.conftest import blobs
from training.gate.verdict import SuspectLabel
from training.head.features import Features
from training.head.fit import FittedHead, fit
from training.retrain.data import QuarantinedRows
from training.retrain.quarantine import LabelledRows, find_wrong_labels

COUNTS = (60, 60, 60)


@dataclass
class Sent:
    """A first training set, a batch beside it, and what they are called."""

    first: Features
    batch: Features
    source: list[str]

    def joined(self) -> tuple[Features, list[str], list[bool]]:
        names = [*self.first.sha256, *self.batch.sha256]
        order = np.argsort(names)
        both = Features(
            self.first.labels,
            np.concatenate([self.first.embedding, self.batch.embedding])[order],
            np.concatenate([self.first.label_index, self.batch.label_index])[order],
            np.concatenate([self.first.is_holdout, self.batch.is_holdout])[order],
            tuple(names[row] for row in order),
            np.arange(len(names)),
            np.ones(len(names)),
        )
        source = ["first"] * len(self.first.sha256) + self.source
        sent = [False] * len(self.first.sha256) + [True] * len(self.source)
        return both, [source[row] for row in order], [sent[row] for row in order]

    def found(self, vouched: set[str] = frozenset(), known: tuple[bool, ...] = (True,) * 3) -> list[SuspectLabel]:  # type: ignore[assignment]
        features, source, sent = self.joined()
        champion = fit(self.first).head.probabilities(features.embedding)
        labels = LabelledRows(
            features,
            tuple(source),
            np.array([is_sent and name not in vouched for is_sent, name in zip(sent, features.sha256, strict=True)]),
            np.array(sent),
            np.array(known),
        )
        return find_wrong_labels(labels, champion, fitted(features))


def fitted(features: Features) -> FittedHead:
    return fit(features)


def sent(wrong: int, *, count: int = 30, apart: float = 6.0, source: str = "camera") -> tuple[Sent, set[str]]:
    """Return a batch with ``wrong`` pictures of class 0 called class 1, and their hashes."""
    batch = blobs((count, count, count), 8, apart=apart, seed=1)
    rows = np.flatnonzero(batch.label_index == 0)[:wrong]
    label_index = batch.label_index.copy()
    label_index[rows] = 1
    names = {batch.sha256[row] for row in rows}
    called = replace(batch, label_index=label_index)
    return Sent(blobs(COUNTS, 8, apart=apart, holdout=15), called, [source] * len(batch.sha256)), names


@pytest.mark.parametrize("wrong", [1, 2, 6, 20])
def test_wrong_labels_are_found_and_all_others_are_learned(wrong: int) -> None:
    batch, names = sent(wrong)

    assert {entry.sha256 for entry in batch.found()} == names


def test_right_labels_are_left_alone() -> None:
    batch, _ = sent(0)

    assert batch.found() == []


def test_a_suspect_is_told_with_its_label_its_source_and_what_it_is_read_as() -> None:
    batch, _ = sent(4)

    for entry in batch.found():
        assert (entry.label, entry.answer, entry.source) == ("class 1", "class 0", "camera")
        assert entry.probability > 0.5 > entry.label_probability
    doubts = [entry.label_probability for entry in batch.found()]
    assert doubts == sorted(doubts)


def test_corrections_of_the_models_own_mistakes_are_learned() -> None:
    corrected, doubted = 0, 0
    for seed in range(4):
        first = blobs((40, 40, 40), 8, apart=2.5, holdout=10, seed=seed)
        batch = blobs((150, 150, 150), 8, apart=2.5, seed=10 + seed)
        mistakes = fit(first).head.probabilities(batch.embedding).argmax(axis=1) != batch.label_index
        corrections = batch.select(mistakes)
        found = Sent(first, corrections, ["corrections"] * len(corrections.sha256)).found()
        corrected, doubted = corrected + len(corrections.sha256), doubted + len(found)

    assert corrected > 250
    assert doubted <= 0.1 * corrected


def test_a_source_of_which_most_labels_are_wrong_is_left_out_as_a_whole() -> None:
    batch, names = sent(10)
    mallory = sorted(names)
    right = [name for name in batch.batch.sha256 if name not in names][:4]
    batch.source = ["Mallory" if name in (*mallory, *right) else "camera" for name in batch.batch.sha256]

    assert {entry.sha256 for entry in batch.found()} == {*mallory, *right}


def test_other_sources_go_on_being_learned() -> None:
    batch, names = sent(10)
    batch.source = ["Mallory" if name in names else "camera" for name in batch.batch.sha256]

    assert {entry.source for entry in batch.found()} == {"Mallory"}


def test_what_somebody_vouched_for_is_not_doubted_again() -> None:
    batch, names = sent(4)

    assert batch.found(vouched=names) == []


def test_pictures_of_a_known_class_that_look_new_and_like_another_are_learned() -> None:
    batch, _ = sent(0)
    rows = batch.batch.label_index == 0
    means = np.array([batch.first.embedding[batch.first.label_index == each].mean(axis=0) for each in range(3)])
    elsewhere = 8 * np.linalg.svd(means)[2][-1]  # along an axis on which the known pictures do not differ
    embedding = batch.batch.embedding.copy()
    embedding[rows] += means[1] + elsewhere - embedding[rows].mean(axis=0)
    batch.batch = replace(batch.batch, embedding=embedding)
    read = fit(batch.first).head.probabilities(embedding[rows]).argmax(axis=1)

    assert (read != 0).mean() > 0.9, "the champion answers them otherwise"
    assert len(batch.found()) <= 0.1 * rows.sum()


def test_a_class_that_is_new_to_the_champion_is_not_doubted() -> None:
    batch, names = sent(4)

    assert {entry.sha256 for entry in batch.found(known=(True, True, False))} == names
    assert batch.found(known=(True, False, True)) == []


def test_slow_poison_is_found_in_labels_that_were_learned_long_ago() -> None:
    batch, names = sent(12, count=60)
    features, source, is_sent = batch.joined()
    labels = LabelledRows(
        features, tuple(source), np.array(is_sent), np.zeros(len(source), np.bool_), np.ones(3, np.bool_)
    )
    head = fit(features)

    found = find_wrong_labels(labels, head.head.probabilities(features.embedding), head)

    assert {entry.sha256 for entry in found} == names


@pytest.mark.parametrize("source", ["camera", "another"])
def test_what_is_in_quarantine_already_speaks_against_its_own_source(source: str) -> None:
    batch, names = sent(12, count=60)
    features, sources, is_sent = batch.joined()
    last, *older = sorted(names)
    is_older = np.isin(features.sha256, older)
    aside = QuarantinedRows(
        tuple(older),
        ("class 1",) * len(older),
        (source,) * len(older),
        features.select(is_older).embedding,
        np.zeros(len(older), np.bool_),
    )
    left = features.select(~is_older)
    of_left = [(sources[row], is_sent[row]) for row in np.flatnonzero(~is_older)]
    labels = LabelledRows(
        left,
        tuple(each for each, _ in of_left),
        np.array([each for _, each in of_left]),
        np.zeros(len(of_left), np.bool_),
        np.ones(3, np.bool_),
        aside,
    )
    head = fit(left)

    found = find_wrong_labels(labels, head.head.probabilities(left.embedding), head)

    assert {entry.sha256 for entry in found} == ({last} if source == "camera" else set())


def test_where_nothing_was_sent_nothing_is_looked_for() -> None:
    features = blobs(COUNTS, 8)
    nothing = np.zeros(len(features.sha256), np.bool_)
    labels = LabelledRows(features, ("first",) * len(nothing), nothing, nothing, np.ones(3, np.bool_))

    assert find_wrong_labels(labels, np.zeros((len(nothing), 3), np.float32), fit(features)) == []
