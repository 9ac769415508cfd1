"""Laws of nested shares."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.errors import InvalidRequestError
from regraft.label_rules import image_hash
from training.data.dataset import Dataset, LabelledImage
from training.data.subsets import check_share, take_share

SIZES = st.lists(st.integers(2, 30), min_size=2, max_size=4)


def dataset(sizes: list[int]) -> Dataset:
    labels = tuple(f"class {number}" for number in range(len(sizes)))
    images = [
        LabelledImage(
            Path(f"{label}/{number}.png"), label, number >= size, sha256=image_hash(f"{label}/{number}".encode())
        )
        for label, size in zip(labels, sizes, strict=True)
        for number in range(size + 2)
    ]
    return Dataset(labels, tuple(images), (), "as given")


def trained_on(dataset: Dataset) -> set[str]:
    return {image.sha256 for image in dataset.images if not image.is_holdout}


@given(SIZES, st.data(), st.integers(0, 3))
def test_a_smaller_share_is_a_part_of_a_larger_one_and_the_holdout_stays(
    sizes: list[int], data: st.DataObject, seed: int
) -> None:
    whole = dataset(sizes)
    counts = st.integers(2 * len(sizes), sum(sizes))
    small, large = sorted((data.draw(counts), data.draw(counts)))

    one, other = (take_share(whole, str(count), seed) for count in (small, large))

    assert len(trained_on(one)) == small
    assert trained_on(one) <= trained_on(other) <= trained_on(whole)
    assert {image.sha256 for image in one.images} - trained_on(one) == {
        image.sha256 for image in whole.images if image.is_holdout
    }


@given(SIZES, st.data())
def test_classes_keep_their_proportions_and_each_has_two_pictures_at_least(
    sizes: list[int], data: st.DataObject
) -> None:
    whole = dataset(sizes)
    count = data.draw(st.integers(2 * len(sizes), sum(sizes)))

    share = take_share(whole, str(count), 0)

    found = Counter(image.label for image in share.images if not image.is_holdout)
    for label, size in zip(whole.labels, sizes, strict=True):
        assert found[label] >= 2
        assert abs(found[label] - count * size / sum(sizes)) <= 1 + 2 * len(sizes)


def test_a_seed_draws_the_same_pictures_in_any_order_of_arrival_and_another_seed_others() -> None:
    whole = dataset([30, 30])
    turned = Dataset(whole.labels, whole.images[::-1], (), "as given")

    assert trained_on(take_share(whole, "20", 0)) == trained_on(take_share(turned, "20", 0))
    assert trained_on(take_share(whole, "20", 0)) != trained_on(take_share(whole, "20", 1))


def test_a_share_may_be_a_percentage_or_all() -> None:
    whole = dataset([30, 20])

    assert len(trained_on(take_share(whole, "10%", 0))) == 5
    assert take_share(whole, "all", 0) is whole


@pytest.mark.parametrize("share", ["", "-3", "0", "1.5", "half", "0%", "100%", "٣"])
def test_what_is_no_share_is_refused(share: str) -> None:
    with pytest.raises(InvalidRequestError, match="--shares: "):
        check_share(share)


@pytest.mark.parametrize("share", ["3", "51", "5%"])
def test_a_share_that_leaves_a_class_without_pictures_or_has_more_than_there_are_is_refused(share: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"--shares: {share}: of these 50 .* a share has 4 to 50"):
        take_share(dataset([30, 20]), share, 0)
