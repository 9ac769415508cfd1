from dataclasses import replace

import numpy as np
import pytest

from tests.training.conftest import blobs
from training.evaluation.findings import CrossValidation, StartFinding
from training.head.features import Features
from training.head.fit import C_GRID, FittedHead, fit
from training.head.remarks import remarks, remarks_on_transfer

FEATURES = blobs([60, 60, 60], 12, apart=2, holdout=60)


def mislabelled(features: Features, side: bool) -> Features:
    """Give every third row of one side of the split the next label."""
    wrong = (features.is_holdout == side) & (np.arange(len(features.sha256)) % 3 == 0)
    return replace(features, label_index=np.where(wrong, (features.label_index + 1) % 3, features.label_index))


def with_c(fitted: FittedHead, c: float) -> FittedHead:
    return replace(fitted, choices={**fitted.choices, "c": c})


def test_there_is_nothing_to_say_of_a_head_whose_holdout_is_like_its_training_images() -> None:
    assert remarks(fit(FEATURES), FEATURES) == ()


@pytest.mark.parametrize(("c", "said"), [(C_GRID[0], "strong end"), (C_GRID[-1], "weak end")])
def test_a_c_at_an_end_of_its_grid_is_said(c: float, said: str) -> None:
    (remark,) = remarks(with_c(fit(FEATURES), c), FEATURES)

    assert said in remark
    assert f"{c:g}" in remark


def test_labels_that_follow_nothing_bring_c_to_the_strong_end() -> None:
    features = blobs([50, 50], 40, apart=0, seed=3)

    assert any("strong end" in remark for remark in remarks(fit(features), features))


@pytest.mark.parametrize(("side", "said"), [(True, "harder"), (False, "easier")])
def test_a_holdout_that_is_not_like_the_training_images_is_said(side: bool, said: str) -> None:
    features = mislabelled(FEATURES, side)

    (remark,) = remarks(fit(features), features)

    assert said in remark
    assert "do not overlap" in remark


def test_a_cross_validation_of_the_whole_strategy_is_what_the_holdout_is_compared_with() -> None:
    validation = CrossValidation((0.3, 0.3), 0.3, (0.25, 0.35))

    (remark,) = remarks(fit(FEATURES), FEATURES, validation)

    assert "30.0% (25.0% to 35.0%)" in remark


def test_without_holdout_there_is_nothing_to_compare() -> None:
    features = FEATURES.train()

    assert remarks(fit(features), features) == ()


def test_a_target_error_that_the_data_cannot_show_is_said_with_what_it_takes() -> None:
    (remark,) = remarks(fit(FEATURES), FEATURES, target_error=0.001)

    assert "takes 3997 images" in remark
    assert remarks(fit(FEATURES), FEATURES, target_error=0.5) == ()


@pytest.mark.parametrize("strategy", ["probe", "finetune"])
@pytest.mark.parametrize("weights", ["random, seed 0", "random, seed 3, fine-tuned"])
def test_random_weights_transfer_nothing_and_that_is_said(strategy: str, weights: str) -> None:
    (remark,) = remarks_on_transfer(weights, strategy, 0, None)

    assert remark.startswith("Nothing is transferred: ")
    assert "--strategy scratch" in remark


def test_near_duplicates_by_a_network_that_knows_nothing_are_warned_of_with_their_number() -> None:
    (remark,) = remarks_on_transfer("random, seed 0, trained from there", "scratch", 94, None)

    assert remark.startswith("94 pairs look like near-duplicates to a network that began with random weights")


def test_pretrained_weights_need_no_remark() -> None:
    assert remarks_on_transfer("torchvision 0.29", "probe", 94, None) == ()
    assert remarks_on_transfer("file resnet18.pth, sha256 00, fine-tuned", "finetune", 2, None) == ()
    assert remarks_on_transfer("random, seed 0, trained from there", "scratch", 0, None) == ()


@pytest.mark.parametrize(("fitted", "advice"), [(0.83, "; --init head begins better."), (0.5, "on 50.0%.")])
def test_rows_of_the_source_are_compared_with_the_fitted_head_that_they_replace(fitted: float, advice: str) -> None:
    (remark,) = remarks_on_transfer("torchvision 0.29", "finetune", 0, StartFinding({}, 0.553, 0.25, fitted))

    assert f"55.3% of the images set aside, the fitted head that they replace on {fitted:.1%}" in remark
    assert remark.endswith(advice)
