from dataclasses import replace

import numpy as np
import pytest

from regraft.errors import DatasetError
from regraft.label_rules import image_hash
from tests.training.conftest import blobs
from training.data.groups import group_named
from training.evaluation.cross_validation import cross_validate, outer_folds, summarise
from training.evaluation.metrics import wilson_interval
from training.head.additional import Additional
from training.head.features import assemble
from training.head.fit import FOLDS
from training.head.folds import deal


def test_the_accuracy_is_that_on_new_images() -> None:
    found = cross_validate(blobs([40, 40, 40], 20, apart=10), 4)

    assert len(found.folds) == 4
    assert found.accuracy == 1


def test_labels_that_follow_nothing_are_not_foretold() -> None:
    found = cross_validate(blobs([60, 60, 60], 200, apart=0), 3)

    assert found.accuracy == pytest.approx(1 / 3, abs=0.13)


def test_holdout_rows_take_no_part() -> None:
    features = blobs([12, 12], 8, apart=1, holdout=10)

    assert cross_validate(features, 3) == cross_validate(features.train(), 3)


def test_the_seed_deals_the_folds() -> None:
    features = blobs([30, 30, 30], 10, apart=1)

    assert cross_validate(features, 5, seed=1) == cross_validate(features, 5, seed=1)
    assert cross_validate(features, 5, seed=1) != cross_validate(features, 5, seed=2)


def copies(rows: int, *, parent: bool) -> Additional:
    """Return every training row of the random features below once more."""
    train = RANDOM.train()
    parents = np.arange(rows) if parent else np.full(rows, -1)
    return Additional(train.embedding[:rows], train.label_index[:rows], np.ones(rows), parents)


RANDOM = blobs([40, 40, 40], 200, apart=0)


def test_a_view_is_kept_out_with_its_image_so_that_nothing_leaks() -> None:
    honest = cross_validate(RANDOM, 3, additional=copies(120, parent=True))
    leaking = cross_validate(RANDOM, 3, additional=copies(120, parent=False))

    assert honest.accuracy < 0.5
    assert leaking.accuracy > 0.95


def test_further_rows_that_belong_to_no_image_are_learned_from_in_every_fold() -> None:
    few, many = blobs([6, 6, 6], 30, apart=2), blobs([200, 200, 200], 30, apart=2, seed=1).train()
    additional = Additional(many.embedding, many.label_index, np.ones(600), np.full(600, -1))

    assert cross_validate(few, 3, additional=additional).accuracy > cross_validate(few, 3).accuracy


def test_more_folds_than_a_class_has_images_are_refused_with_class_count_and_flag() -> None:
    with pytest.raises(DatasetError, match=r"--cv 4: class 'class 1' has 3 training images"):
        cross_validate(blobs([9, 3, 9], 8), 4)


@pytest.mark.parametrize(("images", "folds"), [(2, 2), (3, 2)])
def test_a_class_of_which_a_fold_leaves_too_little_to_learn_from_is_refused(images: int, folds: int) -> None:
    with pytest.raises(DatasetError, match=f"--cv {folds}: class 'class 1' has {images} .* leaves 1 to learn from"):
        cross_validate(blobs([9, images, 9], 8), folds)


@pytest.mark.parametrize(("images", "folds"), [(3, 3), (4, 2), (4, 4)])
def test_the_smallest_classes_that_can_be_cross_validated_are(images: int, folds: int) -> None:
    assert len(cross_validate(blobs([9, images, 9], 8), folds).folds) == folds


def test_a_class_whose_groups_leave_too_little_to_learn_from_is_refused() -> None:
    features = blobs([9, 6], 8)
    burst = np.flatnonzero(features.label_index == 1)[:5]
    group = features.group.copy()
    group[burst] = group_named("a burst")

    with pytest.raises(DatasetError, match="class 'class 1' has 6 training images, of which a fold leaves 1"):
        cross_validate(replace(features, group=group), 3)


def test_what_belongs_together_is_predicted_by_heads_that_saw_none_of_it() -> None:
    """Copies under a label drawn by lot: whoever has seen one of two knows the label of the other."""
    alone = blobs([40, 40], 96, apart=0)
    names = [image_hash(f"copy {number}".encode()) for number in range(160)]
    rows = [(name, alone.labels[alone.label_index[number // 2]], False) for number, name in enumerate(names)]
    embeddings = {name: alone.embedding[number // 2] for number, name in enumerate(names)}
    groups = {name: group_named(str(number // 2)) for number, name in enumerate(names)}

    apart = cross_validate(assemble(alone.labels, rows, embeddings), 5)
    together = cross_validate(assemble(alone.labels, rows, embeddings, groups=groups), 5)

    assert apart.accuracy > 0.7
    assert together.accuracy_interval[0] < 0.5 < apart.accuracy_interval[0]


def test_outer_folds_are_others_than_those_inside_a_fit() -> None:
    y = np.repeat([0, 1, 2], 20)

    folds = outer_folds(y, "abc", FOLDS, 0)

    np.testing.assert_array_equal(folds, outer_folds(y, "abc", FOLDS, 0))
    assert (folds != deal(y, FOLDS, 0)).any()
    assert np.bincount(folds).tolist() == [12] * FOLDS


def test_the_interval_is_over_all_predictions() -> None:
    right = np.array([True, True, False, True, True, True])

    found = summarise(np.array([0, 0, 0, 1, 1, 1]), right)

    assert found.folds == pytest.approx((2 / 3, 1))
    assert found.accuracy == pytest.approx(5 / 6)
    assert found.accuracy_interval == wilson_interval(5, 6)


def test_progress_is_told_fold_by_fold() -> None:
    told: list[tuple[str, int, int]] = []

    cross_validate(blobs([6, 6], 4), 3, progress=lambda stage, done, total: told.append((stage, done, total)))

    assert told == [("cv", done, 3) for done in range(4)]
