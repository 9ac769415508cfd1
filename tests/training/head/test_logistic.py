import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.head.logistic import Linear, Matrix, Rows, log_loss, log_softmax, principal_axes, solve


def rows_of(n: int, d: int, classes: int, seed: int = 0, certainty: float = 0.0) -> Rows:
    """Return rows on their principal axes, of uneven spread and weight.

    At a certainty of 0 their labels follow nothing; from 3 on hardly one lies on another's side.
    """
    random = np.random.default_rng(seed)
    x = (random.normal(size=(n, d)) * np.geomspace(3, 0.01, d)).astype(np.float32)
    axes, _ = principal_axes(x, x.mean(axis=0, dtype=np.float64), 1.0)
    told = certainty * axes @ random.normal(size=(axes.shape[1], classes)) + random.gumbel(size=(n, classes))
    label_index = np.concatenate([np.arange(classes), told[classes:].argmax(axis=1)])
    return Rows(axes, label_index, random.uniform(0.2, 2, n), classes)


def exact(rows: Rows, c: float) -> Linear:
    """Return the optimum by Newton's steps in float64, to a slope of 1e-9."""
    x = np.column_stack([rows.x.astype(np.float64), np.ones(len(rows.x))])
    truth, shape = np.eye(rows.classes)[rows.label_index], (rows.classes, x.shape[1])
    penalty = np.tile(np.append(np.ones(x.shape[1] - 1), 1e-12), (rows.classes, 1))  # intercepts may all shift alike

    def loss(flat: Matrix) -> tuple[float, Matrix]:
        w = flat.reshape(shape)
        likelihood = log_softmax(x @ w.T)
        residual = c * rows.weight[:, None] * (np.exp(likelihood) - truth)
        value = -c * float((rows.weight[:, None] * truth * likelihood).sum()) + float((penalty * w * w).sum()) / 2
        return value, (residual.T @ x + penalty * w).ravel()

    def curvature(flat: Matrix) -> Matrix:
        p = np.exp(log_softmax(x @ flat.reshape(shape).T))
        block = np.einsum("nk,kl->nkl", p, np.eye(rows.classes)) - p[:, :, None] * p[:, None, :]
        full = np.einsum("n,nkl,ni,nj->kilj", c * rows.weight, block, x, x, optimize=True)
        return np.asarray(full.reshape(flat.size, flat.size) + np.diag(penalty.ravel()))

    w = np.zeros(shape).ravel()
    for _ in range(200):
        value, slope = loss(w)
        if np.linalg.norm(slope) < 1e-9:
            break
        step, length = np.linalg.solve(curvature(w), slope), 1.0
        while length > 1e-6 and loss(w - length * step)[0] > value:
            length /= 2
        w = w - length * step
    assert np.linalg.norm(loss(w)[1]) < 1e-9
    found = w.reshape(shape)
    return Linear(found[:, :-1], found[:, -1])


def centred(logits: Matrix) -> Matrix:
    return np.asarray(logits - logits.mean(axis=1, keepdims=True))


@settings(max_examples=25)
@given(
    n=st.integers(8, 60),
    d=st.integers(1, 25),
    classes=st.integers(2, 5),
    exponent=st.floats(-3, 3),
    certainty=st.sampled_from([0.0, 0.5, 3.0]),
    seed=st.integers(0, 1000),
)
def test_the_solution_is_the_optimum_whatever_the_rows_and_the_penalty_cold_and_warm(
    n: int, d: int, classes: int, exponent: float, certainty: float, seed: int
) -> None:
    rows, c = rows_of(n, d, classes, seed, certainty), 10.0**exponent
    expected = centred(exact(rows, c).logits(rows.x))

    cold, warm = solve(rows, c), solve(rows, c, solve(rows, c / 3, exactly=False))

    for found in (cold, warm):
        assert np.abs(centred(found.logits(rows.x)) - expected).max() <= 1e-3 * expected.std()


@settings(max_examples=25)
@given(
    n=st.integers(30, 300),
    d=st.integers(1, 40),
    classes=st.integers(2, 5),
    exponent=st.floats(-3, 1),
    certainty=st.sampled_from([0.0, 0.5, 3.0]),
    seed=st.integers(0, 1000),
)
def test_fits_that_are_only_compared_lose_a_hundredth_of_a_nat_or_a_tenth_of_what_chance_moves_at_most(
    n: int, d: int, classes: int, exponent: float, certainty: float, seed: int
) -> None:
    rows, c = rows_of(n, d, classes, seed, certainty), 10.0**exponent
    learned = np.arange(n) % 5 != 0
    rows = replace(rows, weight=rows.weight * learned)

    about, best = solve(rows, c, exactly=False), solve(rows, c)

    unseen = ~learned * 1.0
    found, least = (log_loss(each.logits(rows.x), rows.label_index, unseen) for each in (about, best))
    rows_alone = [
        log_loss(best.logits(rows.x), rows.label_index, unseen * (np.arange(n) == row)) for row in range(0, n, 5)
    ]
    chance = np.std(rows_alone, ddof=1) / np.sqrt(len(rows_alone))
    # It may also be less by far: to end early is a penalty of its own, which helps a fit that is too sure of itself.
    assert found <= least + max(0.01, 0.1 * chance)


def test_a_weight_of_two_is_two_rows() -> None:
    rows = rows_of(50, 8, 3)
    twice = Rows(np.vstack([rows.x, rows.x]), np.tile(rows.label_index, 2), np.tile(rows.weight, 2), 3)

    one, other = solve(replace(rows, weight=2 * rows.weight), 1.0), solve(twice, 1.0)

    np.testing.assert_allclose(one.logits(rows.x), other.logits(rows.x), atol=2e-3)


def test_a_class_without_rows_is_never_likely() -> None:
    rows = rows_of(50, 8, 3)

    logits = solve(Rows(rows.x, rows.label_index, rows.weight, 4), 1.0).logits(rows.x)

    assert np.exp(log_softmax(logits))[..., 3].max() < 0.05


def test_a_row_without_weight_takes_no_part() -> None:
    rows = rows_of(600, 12, 3)
    kept = np.arange(600) % 4 != 0
    kept[:200] = False  # whole blocks too

    one = solve(replace(rows, weight=rows.weight * kept), 0.3)
    other = solve(Rows(rows.x[kept], rows.label_index[kept], rows.weight[kept], 3), 0.3)

    np.testing.assert_allclose(one.logits(rows.x), other.logits(rows.x), atol=2e-3)


def test_more_rows_take_no_more_memory_than_their_own() -> None:
    def peak_bytes(rows: Rows) -> int:
        tracemalloc.start()
        try:
            solve(rows, 1e-4, exactly=False)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = (rows_of(n, 200, 20) for n in (1_000, 8_000))

    assert peak_bytes(many) < 1.2 * peak_bytes(few)  # the slopes of every block of rows would be twice as much


@settings(max_examples=50)
@given(st.integers(2, 30), st.integers(1, 30), st.integers(0, 5), st.floats(0.1, 10))
def test_principal_axes_only_turn_the_rows(n: int, d: int, seed: int, scale: float) -> None:
    embedding = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    mean = embedding.mean(axis=0, dtype=np.float64)

    axes, rotation = principal_axes(embedding, mean, scale)

    assert axes.shape == (n, min(n, d))
    np.testing.assert_allclose(axes @ rotation, (embedding - mean) / scale, atol=1e-3)
    covariance = axes.T @ axes
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-3 * max(1.0, float(covariance.max()))


def test_rows_that_are_all_the_same_have_no_extent_on_any_axis() -> None:
    for shape in ((3, 9), (9, 3)):
        axes, rotation = principal_axes(np.zeros(shape, np.float32), np.zeros(shape[1]), 1.0)

        assert np.abs(axes).max() < 1e-9
        assert np.isfinite(rotation).all()


def test_log_softmax_holds_for_logits_of_any_size() -> None:
    logits: Matrix = np.array([[1e4, 0.0], [0.0, 0.0], [-1e4, 1e4]])

    np.testing.assert_allclose(log_softmax(logits), [[0, -1e4], [-np.log(2)] * 2, [-2e4, 0]])


def test_log_loss_is_a_weighted_mean() -> None:
    logits = np.array([[0.0, 0.0], [0.0, 100.0]])

    assert log_loss(logits, np.array([0, 1]), np.array([1.0, 3.0])) == pytest.approx(np.log(2) / 4)
