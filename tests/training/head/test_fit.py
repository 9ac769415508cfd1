import math
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from regraft.label_rules import image_hash
from regraft.model.artifact import FloatArray
from tests.training.conftest import blobs, in_a_child
from training.evaluation.calibration import squared_error
from training.head.additional import Additional
from training.head.balance import Balance
from training.head.features import Features, assemble
from training.head.fit import C_GRID, FittedHead, fit

Index = npt.NDArray[np.int64]


def accuracy(head_probabilities: FloatArray, truth: Index) -> float:
    return float((head_probabilities.argmax(axis=1) == truth).mean())


def with_embedding(features: Features, embedding: npt.NDArray[np.float64] | FloatArray) -> Features:
    return replace(features, embedding=np.asarray(embedding, np.float32))


def with_labels(features: Features, label_index: Index) -> Features:
    return replace(features, label_index=label_index)


ARRIVALS = blobs([9, 7, 6], 20, apart=1.5, holdout=3)
ARRIVED = [
    (name, ARRIVALS.labels[index], bool(held))
    for name, index, held in zip(ARRIVALS.sha256, ARRIVALS.label_index, ARRIVALS.is_holdout, strict=True)
]
VECTORS = dict(zip(ARRIVALS.sha256, ARRIVALS.embedding, strict=True))


@cache
def fitted_as_they_came() -> FittedHead:
    return fit(ARRIVALS)


@settings(max_examples=8)
@given(st.permutations(ARRIVED), st.permutations(ARRIVED))
def test_invariant_7_the_same_data_gives_the_same_head_bytes_in_any_order_of_arrival(
    rows: list[tuple[str, str, bool]], embedded: list[tuple[str, str, bool]]
) -> None:
    features = assemble(ARRIVALS.labels, rows, {name: VECTORS[name] for name, _, _ in embedded})

    assert fit(features).head.digest() == fitted_as_they_came().head.digest()


ONE_CPU = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from tests.training.conftest import blobs
from training.head.fit import fit
print(fit(blobs([40, 30, 20], 64)).head.digest())
"""


@pytest.mark.skipif("not hasattr(__import__('os'), 'sched_setaffinity')", reason="macOS cannot pin a process to a CPU")
def test_invariant_7_the_number_of_cpus_does_not_change_the_head_bytes() -> None:
    child = in_a_child(["-c", ONE_CPU])

    assert child.stdout.strip() == fit(blobs([40, 30, 20], 64)).head.digest(), child.stderr


def test_another_label_gives_another_head() -> None:
    changed = ARRIVALS.label_index.copy()
    row = int(np.flatnonzero(~ARRIVALS.is_holdout)[0])
    changed[row] = (changed[row] + 1) % 3

    assert fit(with_labels(ARRIVALS, changed)).head.digest() != fitted_as_they_came().head.digest()


def test_holdout_rows_are_never_fitted_on() -> None:
    embedding, label_index = ARRIVALS.embedding.copy(), ARRIVALS.label_index.copy()
    embedding[ARRIVALS.is_holdout] *= -100
    label_index[ARRIVALS.is_holdout] = 0

    one, other = fitted_as_they_came(), fit(with_labels(with_embedding(ARRIVALS, embedding), label_index))

    assert one.head.digest() == other.head.digest()
    assert (one.choices, one.temperature, one.novelty_method, one.novelty_threshold) == (
        other.choices,
        other.temperature,
        other.novelty_method,
        other.novelty_threshold,
    )


@pytest.mark.parametrize("classes", [2, 3, 40])
def test_classes_that_lie_far_apart_are_all_recognised(classes: int) -> None:
    features = blobs([12] * classes, 50, apart=14, holdout=10)

    fitted = fit(features)

    holdout = features.holdout()
    assert accuracy(fitted.head.probabilities(holdout.embedding), holdout.label_index) == 1
    assert fitted.choices["cv_accuracy"] == 1
    assert fitted.choices["cv_log_loss"] < 0.05
    assert fitted.head.weight.shape == fitted.head.prototypes.shape == (classes, 50)


# Columns: training rows of each class, D. Below, at and above as many rows as dimensions; two classes and many.
SHAPES = {
    "two classes, fewer rows than dimensions": ([12, 15], 60),
    "two classes, more rows than dimensions": ([60, 45], 12),
    "as many rows as dimensions": ([10, 10, 10], 30),
    "many classes, fewer rows than dimensions": ([6, 7, 8, 9, 6, 7, 8], 80),
    "many classes, more rows than dimensions": ([30, 35, 40, 45, 30, 35, 40], 10),
    "two rows in a class": ([2, 20, 20], 40),
}


@pytest.mark.parametrize(("counts", "size"), SHAPES.values(), ids=SHAPES)
def test_probabilities_agree_with_scikit_learns_own_regression_on_the_plain_embeddings(
    counts: list[int], size: int
) -> None:
    features = blobs(counts, size, apart=2, holdout=20)
    train, holdout = features.train(), features.holdout()
    x = train.embedding.astype(np.float64)
    mean = x.mean(axis=0)
    scale = (x - mean).std()

    fitted = fit(features, balance="off")

    c = fitted.choices["c"] * (2 if len(counts) == 2 else 1)  # scikit-learn has one row of coefficients for two classes
    reference = LogisticRegression(C=c, max_iter=10_000, tol=1e-8).fit((x - mean) / scale, train.label_index)
    expected = reference.predict_log_proba((holdout.embedding - mean) / scale) / fitted.temperature
    expected = np.exp(expected) / np.exp(expected).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(fitted.head.probabilities(holdout.embedding), expected, atol=3e-3)


@pytest.mark.parametrize(("scale", "shift"), [(1000.0, 0.0), (0.001, 0.0), (1.0, 5.0), (20.0, -70.0)])
def test_the_unit_and_the_origin_of_the_embeddings_do_not_matter(scale: float, shift: float) -> None:
    features = blobs([25, 20, 15], 12, apart=2, holdout=20)
    moved = with_embedding(features, scale * features.embedding.astype(np.float64) + shift)

    one, other = fit(features), fit(moved)

    assert one.choices["c"] == other.choices["c"]
    np.testing.assert_allclose(
        other.head.probabilities(moved.holdout().embedding),
        one.head.probabilities(features.holdout().embedding),
        atol=3e-3,
    )


def softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def drawn_from_a_model(rows: int, size: int, classes: int, certainty: float = 1.0, seed: int = 0) -> Features:
    """Return rows whose labels are drawn from a known softmax model; at a certainty of 0 they follow nothing."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, size))
    truth = softmax(certainty * x @ generator.normal(size=(size, classes)))
    y = np.array([generator.choice(classes, p=p) for p in truth])
    names = [image_hash(f"{seed}/{row}".encode()) for row in range(rows)]
    labels = tuple(f"class {index}" for index in range(classes))
    table = [(name, labels[index], row % 2 == 0) for row, (name, index) in enumerate(zip(names, y, strict=True))]
    return assemble(labels, table, dict(zip(names, np.asarray(x, np.float32), strict=True)))


def test_the_temperature_is_near_one_where_the_model_is_the_one_that_made_the_labels() -> None:
    fitted = fit(drawn_from_a_model(3000, 5, 3))

    assert fitted.temperature == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("certainty", [1.0, 0.3, 0.1])
def test_confidence_is_as_high_as_accuracy_however_uncertain_the_labels_are(certainty: float) -> None:
    features = drawn_from_a_model(3000, 30, 3, certainty)

    fitted = fit(features)

    holdout = features.holdout()
    probabilities = fitted.head.probabilities(holdout.embedding)
    assert float(probabilities.max(axis=1).mean()) == pytest.approx(
        accuracy(probabilities, holdout.label_index), abs=0.05
    )


def test_labels_that_follow_nothing_get_a_head_that_claims_nothing() -> None:
    features = blobs([100, 100, 100, 100], 40, apart=0, holdout=50)

    fitted = fit(features)

    assert fitted.choices["cv_log_loss"] == pytest.approx(math.log(4), abs=0.02)
    assert fitted.head.probabilities(features.holdout().embedding).max() < 0.4


def test_the_cross_validated_accuracy_foretells_the_accuracy_on_new_images() -> None:
    features = blobs([150, 150, 150], 20, apart=1.6, holdout=700)

    fitted = fit(features)

    holdout = features.holdout()
    found = accuracy(fitted.head.probabilities(holdout.embedding), holdout.label_index)
    assert 0.5 < found < 0.95
    assert fitted.choices["cv_accuracy"] == pytest.approx(found, abs=0.05)


def test_weak_and_strong_signals_get_different_strengths_from_the_grid() -> None:
    weak, strong = fit(blobs([60, 60], 100, apart=0.3)), fit(drawn_from_a_model(2000, 3, 2))

    assert {weak.choices["c"], strong.choices["c"]} <= set(C_GRID)
    assert weak.choices["c"] < strong.choices["c"]


def test_a_penalty_stronger_than_the_first_is_tried_where_the_first_is_the_best() -> None:
    noise = blobs([600, 600], 20, apart=0.05)

    assert fit(noise).choices["c"] < 1e-3


def test_gaussian_classes_of_few_rows_are_told_apart_as_well_as_the_optimum_does() -> None:
    features = blobs([20] * 20, 256, apart=7.5, holdout=20)

    fitted = fit(features)

    x, held = features.train(), features.holdout()
    mean = x.embedding.mean(axis=0)
    scale = float((x.embedding - mean).std())
    best = LogisticRegression(C=fitted.choices["c"], tol=1e-6, max_iter=5000).fit(
        ((x.embedding - mean) / scale).astype(np.float64), x.label_index
    )
    expected = float(best.score((held.embedding - mean) / scale, held.label_index))
    assert accuracy(fitted.head.probabilities(held.embedding), held.label_index) == pytest.approx(expected, abs=0.005)


def constant_columns(features: Features) -> npt.NDArray[np.float64]:
    embedding = np.tile(features.embedding.astype(np.float64), 2)
    embedding[:, features.embedding.shape[1] :] = 42
    return embedding


def test_columns_that_never_change_take_no_part() -> None:
    features = blobs([20, 20, 20], 8, apart=3, holdout=20)
    padded = with_embedding(features, constant_columns(features))

    fitted = fit(padded)

    holdout = padded.holdout()
    assert accuracy(fitted.head.probabilities(holdout.embedding), holdout.label_index) > 0.8
    np.testing.assert_allclose(fitted.head.weight[:, 8:], 0, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -3e4])
def test_embeddings_that_are_all_the_same_give_a_head_that_is_at_a_loss(value: float) -> None:
    features = blobs([6, 6, 6], 5)

    fitted = fit(with_embedding(features, np.full_like(features.embedding, value)))

    probabilities = fitted.head.probabilities(np.full((1, 5), value, np.float32))
    np.testing.assert_allclose(probabilities, 1 / 3, atol=0.02)
    assert fitted.choices["cv_log_loss"] == pytest.approx(math.log(3), abs=0.02)


@pytest.mark.parametrize("size", [3, 200])
def test_classes_of_two_images_are_enough(size: int) -> None:
    features = blobs([2, 2, 2], size, apart=30, holdout=20)

    fitted = fit(features)

    holdout = features.holdout()
    assert accuracy(fitted.head.probabilities(holdout.embedding), holdout.label_index) == 1
    assert 0 <= fitted.novelty_threshold <= 2


def test_a_rare_class_beside_a_common_one_is_still_recognised() -> None:
    features = blobs([400, 4], 20, apart=10, holdout=50)

    fitted = fit(features)

    holdout = features.holdout()
    assert accuracy(fitted.head.probabilities(holdout.embedding), holdout.label_index) > 0.98


@settings(max_examples=15)
@given(
    counts=st.lists(st.integers(2, 9), min_size=2, max_size=5),
    size=st.integers(2, 30),
    apart=st.floats(0, 50),
    seed=st.integers(0, 10),
)
def test_any_data_gives_a_head_of_finite_numbers_that_fits_the_labels(
    counts: list[int], size: int, apart: float, seed: int
) -> None:
    fitted = fit(blobs(counts, size, apart=apart, seed=seed))

    assert fitted.head.weight.shape == (len(counts), size)
    assert fitted.temperature > 0
    assert 0 <= fitted.novelty_threshold <= 2
    assert 0 <= fitted.choices["cv_accuracy"] <= 1
    assert fitted.choices["cv_log_loss"] >= 0
    assert fitted.choices["c"] in C_GRID


def test_progress_is_told_until_the_fit_is_done() -> None:
    told: list[tuple[str, int, int]] = []

    fit(ARRIVALS, lambda stage, done, total: told.append((stage, done, total)))

    assert {stage for stage, _, _ in told} == {"fit"}
    done = [step for _, step, _ in told]
    assert done == sorted(done)
    assert told[-1][1] == told[-1][2]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_deals_other_folds() -> None:
    features = blobs([40, 40, 40], 20, apart=1.2)

    assert fit(features, seed=3).head.digest() == fit(features, seed=3).head.digest()
    assert fit(features, seed=3).choices != fit(features, seed=4).choices


def test_every_training_image_was_predicted_by_a_head_that_had_not_seen_it() -> None:
    features = blobs([40, 40, 40], 200, apart=0)

    unseen = fit(features).unseen

    truth = features.train().label_index
    np.testing.assert_array_equal(unseen.rows, np.arange(120))
    np.testing.assert_allclose(unseen.probabilities.sum(axis=1), 1, atol=1e-5)
    assert accuracy(unseen.probabilities, truth) < 0.5  # in 200 dimensions a head knows every image that it has seen


def test_what_was_chosen_is_measured_on_the_unseen() -> None:
    features = blobs([40, 30, 35], 20, apart=2)
    truth = features.train().label_index

    fitted = fit(features)

    likelihood = fitted.unseen.probabilities[np.arange(len(truth)), truth]
    assert fitted.choices["cv_accuracy"] == pytest.approx(accuracy(fitted.unseen.probabilities, truth))
    assert fitted.choices["cv_log_loss"] == pytest.approx(float(-np.log(likelihood).mean()), rel=1e-4)


def recall(fitted: FittedHead, features: Features, index: int) -> float:
    held = features.holdout()
    rows = held.label_index == index
    return accuracy(fitted.head.probabilities(held.embedding[rows]), held.label_index[rows])


@pytest.mark.parametrize(
    ("balance", "counts", "balanced"),
    [
        ("auto", [30, 20], False),
        ("auto", [31, 20], True),
        ("on", [30, 30], True),
        ("off", [90, 20], False),
    ],
)
def test_classes_are_balanced_where_that_is_asked_for_or_their_counts_differ_much(
    balance: Balance, counts: list[int], balanced: bool
) -> None:
    assert fit(blobs(counts, 8), balance=balance).choices["balanced"] == balanced


def test_a_balanced_head_misses_fewer_images_of_the_rare_class() -> None:
    features = blobs([300, 12], 20, apart=1.5, holdout=300)

    assert recall(fit(features, balance="on"), features, 1) > recall(fit(features, balance="off"), features, 1) + 0.1


@pytest.mark.parametrize("tiny", [2, 5, 30])
def test_a_tiny_class_leaves_the_probabilities_of_the_others_as_they_are(tiny: int) -> None:
    old, new = (blobs(counts, 30, apart=3.5, holdout=300) for counts in ([150] * 4, [150] * 4 + [tiny]))

    before, after = (
        fit(features).head.probabilities(features.holdout().embedding)[features.holdout().label_index < 4]
        for features in (old, new)
    )

    truth = old.holdout().label_index
    errors = [max(0.0, squared_error(p, truth)) ** 0.5 for p in (before, after)]
    assert errors[1] <= errors[0] + 0.01
    loss = [-float(np.log(p[np.arange(len(truth)), truth]).mean()) for p in (before, after)]
    assert loss[1] <= loss[0] + 0.04


def test_a_class_of_few_rows_has_no_say_in_which_c_is_best() -> None:
    """Its rows lie among those of others: answered wrong out of fold, they would ask for less sure answers to all."""
    without, tiny = blobs([60] * 4, 30, apart=3.5), blobs([60] * 4 + [5], 30, apart=3.5)
    embedding = tiny.embedding.copy()
    embedding[tiny.label_index == 4] = embedding[tiny.label_index < 4][:5] + 0.1

    before, after = fit(without), fit(with_embedding(tiny, embedding))

    assert after.choices["c"] == before.choices["c"]


def test_the_rows_of_a_class_count_for_those_of_it_that_are_missing() -> None:
    whole, fresh = blobs([300, 300], 8, apart=1), blobs([400, 400], 8, apart=1, seed=1)
    left = whole.select((whole.label_index == 1) | (np.arange(len(whole.sha256)) % 2 == 0))
    missing = {"class 0": 300 - int((left.label_index == 0).sum())}

    def share(fitted: FittedHead) -> float:
        return float((fitted.head.probabilities(fresh.embedding).argmax(axis=1) == 0).mean())

    known, made_rare, completed = fit(whole), fit(left), fit(left, missing=missing)
    assert share(made_rare) < share(known) - 0.05
    assert share(completed) == pytest.approx(share(known), abs=0.03)
    assert completed.choices["missing"] == missing


def test_a_row_counts_for_one_missing_row_at_most() -> None:
    features = blobs([30, 40], 8)

    flooded, doubled = fit(features, missing={"class 0": 10_000}), fit(features, missing={"class 0": 30})

    assert flooded.head.digest() == doubled.head.digest() != fit(features).head.digest()


def test_what_is_missing_of_a_class_that_is_not_there_changes_nothing() -> None:
    features = blobs([30, 40], 8)

    assert fit(features, missing={"class 7": 10}).head.digest() == fit(features).head.digest()


def test_of_equal_counts_balance_changes_nothing() -> None:
    features = blobs([20, 20, 20], 10)

    assert fit(features, balance="on").head.digest() == fit(features, balance="off").head.digest()


def additional_rows(features: Features, rows: Index, weight: float, *, parent: bool) -> Additional:
    train = features.train()
    return Additional(
        train.embedding[rows],
        train.label_index[rows],
        np.full(len(rows), weight),
        rows if parent else np.full(len(rows), -1),
    )


def test_rows_of_no_weight_change_nothing_but_rounding() -> None:
    features = blobs([30, 30, 30], 12, apart=2, holdout=20)
    strange = additional_rows(features, np.arange(40), 0.0, parent=False)
    strange.label_index[:] = 0

    one, other = fit(features), fit(features, additional=strange)

    held = features.holdout().embedding
    np.testing.assert_allclose(other.head.probabilities(held), one.head.probabilities(held), atol=3e-3)


def test_every_row_once_more_is_as_half_the_penalty() -> None:
    features = blobs([30, 30, 30], 12, apart=1, holdout=20)
    again = additional_rows(features, np.arange(90), 1.0, parent=True)

    one, other = fit(features), fit(features, additional=again)

    assert other.choices["c"] <= one.choices["c"]
    assert other.choices["cv_log_loss"] == pytest.approx(one.choices["cv_log_loss"], rel=0.05)


def test_a_view_shares_the_fold_of_its_image_so_that_nothing_leaks() -> None:
    features = blobs([40, 40, 40], 200, apart=0)
    rows = np.arange(120)

    honest = fit(features, additional=additional_rows(features, rows, 1.0, parent=True))
    leaking = fit(features, additional=additional_rows(features, rows, 1.0, parent=False))

    assert honest.choices["cv_accuracy"] < 0.5
    assert leaking.choices["cv_accuracy"] > 0.95


def test_further_rows_that_tell_more_make_a_better_head() -> None:
    few, many = blobs([4, 4, 4], 30, apart=2.5, holdout=200), blobs([200, 200, 200], 30, apart=2.5, seed=1).train()
    additional = Additional(many.embedding, many.label_index, np.ones(600), np.full(600, -1))

    alone, together = fit(few), fit(few, additional=additional)

    held = few.holdout()
    gain = accuracy(together.head.probabilities(held.embedding), held.label_index) - accuracy(
        alone.head.probabilities(held.embedding), held.label_index
    )
    assert gain > 0.05


class Uncopied(Features):
    def select(self, rows: npt.NDArray[np.bool_]) -> Features:
        raise AssertionError(
            f"a copy of {rows.sum()} embeddings, of which there may be more than fit into memory twice"
        )


def test_a_fit_copies_no_rows_out_of_the_features() -> None:
    uncopied = Uncopied(**vars(ARRIVALS))

    assert fit(uncopied).head.digest() == fitted_as_they_came().head.digest()
