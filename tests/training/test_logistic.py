from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from training.logistic import Matrix, Rows, log_loss, log_softmax, principal_axes, solve


def rows_of(n: int, d: int, classes: int, seed: int = 0) -> Rows:
    """Return rows on their principal axes, of uneven spread, whose labels and weights follow nothing."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, d)) * np.geomspace(3, 0.01, d)
    axes, _ = principal_axes(x - x.mean(axis=0))
    label_index = np.concatenate([np.arange(classes), random.integers(0, classes, n - classes)])
    return Rows(axes, label_index, random.uniform(0.2, 2, (1, n)), classes)


@pytest.mark.parametrize("c", [0.01, 1.0, 10.0])
@pytest.mark.parametrize(("n", "d", "classes"), [(60, 10, 3), (40, 90, 4), (200, 30, 6)])
def test_the_solution_is_scikit_learns(n: int, d: int, classes: int, c: float) -> None:
    rows = rows_of(n, d, classes)

    found = solve(rows, c)

    reference = LogisticRegression(C=c, max_iter=20_000, tol=1e-8)
    reference.fit(rows.x.astype(np.float64), rows.label_index, sample_weight=rows.weight[0])
    expected = reference.predict_log_proba(rows.x)
    np.testing.assert_allclose(np.exp(log_softmax(found.logits(rows.x)[0])), np.exp(expected), atol=5e-3)


def test_the_start_does_not_change_the_solution() -> None:
    rows = rows_of(80, 20, 3)

    one, other = solve(rows, 1.0), solve(rows, 1.0, solve(rows, 0.1))

    np.testing.assert_allclose(one.logits(rows.x), other.logits(rows.x), atol=2e-2)


def test_a_weight_of_two_is_two_rows() -> None:
    rows = rows_of(50, 8, 3)
    twice = Rows(np.vstack([rows.x, rows.x]), np.tile(rows.label_index, 2), np.tile(rows.weight, (1, 2)), 3)

    one, other = solve(Rows(rows.x, rows.label_index, 2 * rows.weight, 3), 1.0), solve(twice, 1.0)

    np.testing.assert_allclose(one.logits(rows.x), other.logits(rows.x), atol=2e-2)


def test_a_class_without_rows_is_never_likely() -> None:
    rows = rows_of(50, 8, 3)

    logits = solve(Rows(rows.x, rows.label_index, rows.weight, 4), 1.0).logits(rows.x)

    assert np.exp(log_softmax(logits))[..., 3].max() < 0.05


def test_problems_that_are_solved_side_by_side_have_the_solutions_of_each_alone() -> None:
    rows = rows_of(1200, 12, 3)
    without = np.arange(1200) % 4 != np.arange(4)[:, None]
    folds = replace(rows, weight=rows.weight * without)

    together = solve(folds, 0.3)

    for fold, kept in enumerate(without):
        alone = solve(Rows(rows.x[kept], rows.label_index[kept], rows.weight[:, kept], 3), 0.3)
        np.testing.assert_allclose(together.logits(rows.x)[fold], alone.logits(rows.x)[0], atol=5e-3)


@settings(max_examples=50)
@given(st.integers(2, 30), st.integers(1, 30), st.integers(0, 5))
def test_principal_axes_only_turn_the_rows(n: int, d: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(n, d))
    x -= x.mean(axis=0)

    axes, rotation = principal_axes(x)

    assert axes.shape == (n, min(n, d))
    np.testing.assert_allclose(axes @ rotation, x, atol=1e-4)
    covariance = axes.T @ axes
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-3


def test_rows_that_are_all_the_same_have_no_extent_on_any_axis() -> None:
    for shape in ((3, 9), (9, 3)):
        axes, rotation = principal_axes(np.zeros(shape))

        assert np.abs(axes).max() < 1e-9
        assert np.isfinite(rotation).all()


def test_log_softmax_holds_for_logits_of_any_size() -> None:
    logits: Matrix = np.array([[1e4, 0.0], [0.0, 0.0], [-1e4, 1e4]])

    np.testing.assert_allclose(log_softmax(logits), [[0, -1e4], [-np.log(2)] * 2, [-2e4, 0]])


def test_log_loss_is_a_weighted_mean() -> None:
    logits = np.array([[0.0, 0.0], [0.0, 100.0]])

    assert log_loss(logits, np.array([0, 1]), np.array([1.0, 3.0])) == pytest.approx(np.log(2) / 4)
