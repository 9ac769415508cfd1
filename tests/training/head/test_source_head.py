import numpy as np
import pytest

from regraft.label_rules import image_hash
from regraft.model.artifact import FloatArray
from training.head.features import Features, assemble
from training.head.source_head import SourceHead, head_from_source

SOURCE_LABELS = ("hot dog", "tabby cat", "pizza", "crane", "crane")
RANDOM = np.random.default_rng(3)
SOURCE = SourceHead(
    RANDOM.normal(size=(5, 7)).astype(np.float32), RANDOM.normal(size=5).astype(np.float32), SOURCE_LABELS
)


def features_with(labels: tuple[str, ...], rows: dict[str, FloatArray]) -> Features:
    """Return training rows: for each label its embeddings [n, D]."""
    named = [(image_hash(f"{label}/{n}".encode()), label, row) for label in rows for n, row in enumerate(rows[label])]
    return assemble(labels, [(sha256, label, False) for sha256, label, _ in named], {s: row for s, _, row in named})


def any_rows(count: int = 4, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).normal(size=(count, 7)).astype(np.float32)


@pytest.mark.parametrize("label", ["hot dog", "hotdog", "Hot Dog", "hot_dog", "HOT-DOG", " hot  dog "])
def test_a_class_that_the_source_knows_takes_its_row_however_it_is_written(label: str) -> None:
    start = head_from_source(SOURCE, features_with((label, "other"), {label: any_rows(), "other": any_rows(3, 1)}))

    assert start.matched == {label: "hot dog"}
    assert np.array_equal(start.weight[0], SOURCE.weight[0])
    assert start.bias[0] == SOURCE.bias[0]


@pytest.mark.parametrize("label", ["hot dogs", "dog", "hot", "cat", "ホットドッグ", "!?"])
def test_a_class_of_another_name_takes_no_row(label: str) -> None:
    start = head_from_source(SOURCE, features_with((label,), {label: any_rows()}))

    assert start.matched == {}


def test_of_two_source_labels_of_one_name_the_first_gives_the_row() -> None:
    start = head_from_source(SOURCE, features_with(("crane",), {"crane": any_rows()}))

    assert np.array_equal(start.weight[0], SOURCE.weight[3])


def test_an_unknown_class_takes_the_mean_of_rows_by_what_the_source_answers() -> None:
    rows = any_rows(9)
    logits = rows.astype(np.float64) @ SOURCE.weight.T.astype(np.float64) + SOURCE.bias
    answers = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    share = answers.mean(axis=0)

    start = head_from_source(SOURCE, features_with(("new",), {"new": rows}))

    np.testing.assert_allclose(start.weight[0], share @ SOURCE.weight, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(start.bias[0], share @ SOURCE.bias, rtol=1e-4, atol=1e-5)


def test_only_the_pictures_of_a_class_say_what_it_is_like() -> None:
    alone = head_from_source(SOURCE, features_with(("new",), {"new": any_rows()}))
    beside = head_from_source(SOURCE, features_with(("new", "other"), {"new": any_rows(), "other": any_rows(5, 9)}))

    np.testing.assert_allclose(beside.weight[0], alone.weight[0], rtol=1e-5)


@pytest.mark.parametrize("known", range(5))
def test_a_class_that_the_source_takes_for_one_of_its_own_gets_about_its_row(known: int) -> None:
    sure = 40 * np.eye(5, dtype=np.float32)  # embeddings that make one logit 40 and the others 0
    embeddings = (np.linalg.pinv(SOURCE.weight) @ (sure[known] - SOURCE.bias))[None].astype(np.float32)

    start = head_from_source(SOURCE, features_with(("new",), {"new": np.repeat(embeddings, 3, axis=0)}))

    np.testing.assert_allclose(start.weight[0], SOURCE.weight[known], atol=1e-4)
    np.testing.assert_allclose(start.bias[0], SOURCE.bias[known], atol=1e-4)


def test_rows_come_in_the_order_of_the_labels() -> None:
    labels = ("pizza", "new", "hotdog")
    start = head_from_source(SOURCE, features_with(labels, {label: any_rows(3, n) for n, label in enumerate(labels)}))

    assert start.weight.shape == (3, 7)
    assert start.bias.shape == (3,)
    assert start.weight.dtype == start.bias.dtype == np.float32
    assert np.array_equal(start.weight[[0, 2]], SOURCE.weight[[2, 0]])


def test_huge_logits_are_no_trouble() -> None:
    start = head_from_source(SOURCE, features_with(("new",), {"new": 1e6 * any_rows()}))

    assert np.isfinite(start.weight).all()
    assert np.isfinite(start.bias).all()
