from dataclasses import replace

import numpy as np
import pytest

from regraft.model.card import NoveltyMethod
from tests.training.conftest import blobs
from training.evaluation.findings import NoveltyCheck
from training.evaluation.novelty_check import NEIGHBOUR, check_novelty
from training.head.features import Features
from training.head.fit import fit
from training.head.novelty import CLASS_MEANS, MAHALANOBIS, METHODS


def checked(features: Features, method: NoveltyMethod = CLASS_MEANS, threshold: float = 0.5) -> NoveltyCheck:
    found = check_novelty(features, replace(fit(features), novelty_method=method, novelty_threshold=threshold))
    assert found is not None
    return found


@pytest.mark.parametrize("method", METHODS)
def test_classes_that_lie_far_apart_are_told_from_the_rest_when_they_are_left_out(method: NoveltyMethod) -> None:
    found = checked(blobs([40] * 4, 30, apart=10), method)

    assert set(found.auroc) == {CLASS_MEANS, NEIGHBOUR, MAHALANOBIS}
    assert found.served == method
    assert min(found.auroc.values()) > 0.95
    assert found.caught > 0.9


@pytest.mark.parametrize("method", METHODS)
def test_classes_that_are_all_alike_are_not_told_apart(method: NoveltyMethod) -> None:
    found = checked(blobs([60] * 3, 30, apart=0), method)

    assert found.auroc == pytest.approx(dict.fromkeys(found.auroc, 0.5), abs=0.12)
    assert found.caught == pytest.approx(0.05, abs=0.05)


@pytest.mark.parametrize(("threshold", "share"), [(0.0, 1.0), (2.0, 0.0)])
def test_the_threshold_of_the_card_decides_what_is_a_false_alarm_on_the_holdout(threshold: float, share: float) -> None:
    found = checked(blobs([20] * 3, 30, apart=10, holdout=5), threshold=threshold)

    assert (found.threshold, found.false_alarms) == (threshold, share)


def test_the_threshold_that_a_fit_gives_raises_a_false_alarm_on_one_holdout_image_in_twenty() -> None:
    features = blobs([60] * 4, 30, apart=5, holdout=200)

    found = check_novelty(features, fit(features))

    assert found is not None
    assert found.false_alarms == pytest.approx(0.05, abs=0.03)


@pytest.mark.parametrize("counts", [[30, 30], [2, 300, 300]])
def test_with_fewer_than_three_classes_there_is_nothing_to_check(counts: list[int]) -> None:
    features = blobs(counts, 8)

    assert check_novelty(features, fit(features)) is None


def test_holdout_rows_are_for_false_alarms_only() -> None:
    features = blobs([20, 20, 20], 10, holdout=20)

    found, without = checked(features), checked(features.train())

    assert without.false_alarms is None
    assert (found.auroc, found.caught) == (without.auroc, without.caught)


def test_many_rows_are_sampled_and_many_classes_capped_and_the_answer_stays_the_same() -> None:
    features = blobs([60] * 25, 40, apart=4)

    one, again, other = (check_novelty(features, fit(features, seed=seed)) for seed in (0, 0, 1))

    assert one == again
    assert one != other


@pytest.mark.parametrize("counts", [[2, 2, 2], [300, 300, 2, 300], [2, 3, 400]])
def test_rare_classes_do_no_harm(counts: list[int]) -> None:
    features = blobs(counts, 600)

    found = check_novelty(features, replace(fit(features), novelty_method=MAHALANOBIS))

    assert found is None or np.isfinite(list(found.auroc.values())).all()
