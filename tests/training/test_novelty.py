import numpy as np
import pytest

from tests.training.conftest import blobs
from training.findings import NoveltyCheck
from training.head import fit
from training.novelty import CLASS_MEANS, MAHALANOBIS, NEIGHBOUR, check, class_directions


@pytest.mark.parametrize(("classes", "images"), [(3, 300), (8, 15), (20, 10)])
def test_about_one_new_image_in_twenty_lies_above_the_novelty_threshold(classes: int, images: int) -> None:
    features = blobs([images] * classes, 30, apart=6, holdout=300)

    fitted = fit(features)

    above = fitted.head.novelty(features.holdout().embedding) > fitted.novelty_threshold
    assert 0.025 < above.mean() < 0.085


def test_nearly_every_image_of_a_class_that_was_never_seen_lies_above_the_novelty_threshold() -> None:
    fitted = fit(blobs([100, 100], 30, apart=8))
    strangers = blobs([2, 2], 30, apart=8, centres_seed=1234, holdout=200).holdout()

    assert (fitted.head.novelty(strangers.embedding) > fitted.novelty_threshold).mean() > 0.95


def test_prototypes_are_the_mean_directions_of_the_classes() -> None:
    features = blobs([5, 9], 4)
    train = features.train()

    directions = class_directions(train.embedding.astype(np.float64), train.label_index, 2)

    for index in range(2):
        rows = train.embedding[train.label_index == index].astype(np.float64)
        mean = np.mean([row / np.linalg.norm(row) for row in rows], axis=0)
        np.testing.assert_allclose(directions[index], mean / np.linalg.norm(mean), atol=1e-6)
    assert fit(features).head.prototypes.tobytes() == directions.tobytes()


def test_the_length_of_an_embedding_does_not_change_its_class_direction() -> None:
    x, y = np.array([[1.0, 0.0], [500.0, 0.0], [0.0, 3.0], [0.0, 0.1]]), np.array([0, 0, 1, 1])

    np.testing.assert_allclose(class_directions(x, y, 2), np.eye(2), atol=1e-6)


def checked(counts: list[int], *, apart: float = 10.0, threshold: float = 0.5, size: int = 30) -> NoveltyCheck:
    found = check(blobs(counts, size, apart=apart), threshold)
    assert found is not None
    return found


def test_classes_that_lie_far_apart_are_told_from_the_rest_when_they_are_left_out() -> None:
    found = checked([40, 40, 40, 40])

    assert set(found.auroc) == {CLASS_MEANS, NEIGHBOUR, MAHALANOBIS}
    assert found.served == CLASS_MEANS
    assert min(found.auroc.values()) > 0.95
    assert found.caught > 0.9
    assert found.false_alarms < 0.1


def test_classes_that_are_all_alike_are_not_told_apart() -> None:
    found = checked([60, 60, 60], apart=0)

    assert found.auroc == pytest.approx(dict.fromkeys(found.auroc, 0.5), abs=0.12)


@pytest.mark.parametrize(("threshold", "share"), [(0.0, 1.0), (2.0, 0.0)])
def test_the_threshold_decides_what_is_caught_and_what_is_a_false_alarm(threshold: float, share: float) -> None:
    found = checked([20, 20, 20], threshold=threshold)

    assert (found.threshold, found.caught, found.false_alarms) == (threshold, share, share)


@pytest.mark.parametrize("counts", [[30, 30], [30]])
def test_with_fewer_than_three_classes_there_is_nothing_to_check(counts: list[int]) -> None:
    assert check(blobs(counts, 8), 0.5) is None


def test_holdout_rows_take_no_part() -> None:
    features = blobs([20, 20, 20], 10, holdout=20)

    assert check(features, 0.5) == check(features.train(), 0.5)


def test_many_rows_are_sampled_and_many_classes_capped_and_the_answer_stays_the_same() -> None:
    features = blobs([60] * 25, 40, apart=12)

    assert check(features, 0.5) == check(features, 0.5)
    assert check(features, 0.5, seed=1) != check(features, 0.5)


@pytest.mark.parametrize("counts", [[2, 2, 2], [300, 300, 2, 300], [2, 3, 400]])
def test_rare_classes_do_no_harm(counts: list[int]) -> None:
    found = check(blobs(counts, 600), 0.5)

    assert found is None or np.isfinite(list(found.auroc.values())).all()
