import subprocess
import sys
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.label_rules import image_hash
from training.data.groups import NO_PAIRS, group_named, group_of_one, groups_of_one, hold_out, join


def test_a_group_is_the_same_in_every_process() -> None:
    program = "from training.data.groups import group_named; print(group_named('patient 7'))"

    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert int(other.stdout) == group_named("patient 7")


@given(st.lists(st.binary(), unique=True))
def test_pictures_are_groups_of_their_own_that_fit_an_int64(pictures: list[bytes]) -> None:
    names = [image_hash(data) for data in pictures]

    groups = groups_of_one(names)

    assert groups.tolist() == [group_of_one(name) for name in names]
    assert len(set(groups.tolist())) == len(names)
    assert (groups >= 0).all()


@given(st.text())
def test_any_text_names_a_group(name: str) -> None:
    assert 0 <= group_named(name) < 2**63


Index = npt.NDArray[np.int64]


def lone(count: int) -> Index:
    return groups_of_one(image_hash(str(number).encode()) for number in range(count))


def together(group: Index) -> set[frozenset[int]]:
    """Return the rows of each group."""
    return {frozenset(np.flatnonzero(group == each).tolist()) for each in np.unique(group)}


def test_pictures_without_any_link_keep_their_own_groups() -> None:
    assert join(lone(5), [()] * 5).tolist() == lone(5).tolist()


def test_what_is_linked_in_a_chain_by_names_and_by_pairs_is_one_group() -> None:
    names = [("a",), ("a", "b"), (), ("b",), (), ()]

    group = join(lone(6), names, np.array([[3, 4]]))

    assert together(group) == {frozenset({0, 1, 3, 4}), frozenset({2}), frozenset({5})}
    assert group[2] == lone(6)[2]


def test_a_group_that_a_name_alone_holds_together_is_called_after_it() -> None:
    assert set(join(lone(3), [("p1",)] * 3).tolist()) == {group_named("p1")}


PAIRS = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=12)
NAMES = st.lists(st.lists(st.sampled_from("abcd"), max_size=2, unique=True), min_size=12, max_size=12)


@given(NAMES, PAIRS, st.randoms())
def test_groups_are_the_same_in_any_order_of_the_pictures(
    names: list[list[str]], pairs: list[tuple[int, int]], random: Random
) -> None:
    order = list(range(12))
    random.shuffle(order)
    place = {row: number for number, row in enumerate(order)}
    links = np.array(pairs, np.int64).reshape(len(pairs), 2)
    shuffled = np.array([(place[b], place[a]) for a, b in pairs], np.int64).reshape(len(pairs), 2)

    group = join(lone(12), names, links)
    other = join(lone(12)[order], [names[row] for row in order], shuffled)

    assert together(other[[place[row] for row in range(12)]]) == together(group)
    assert all(group[a] == group[b] for a, b in pairs)


@given(NAMES, PAIRS)
def test_what_was_joined_once_stays_joined(names: list[list[str]], pairs: list[tuple[int, int]]) -> None:
    group = join(lone(12), names, np.array(pairs, np.int64).reshape(len(pairs), 2))

    assert together(join(group, names)) == together(group)
    assert join(group, [()] * 12).tolist() == group.tolist()


SIZES = st.lists(st.lists(st.integers(1, 5), min_size=2, max_size=15), min_size=1, max_size=4)


@given(SIZES, st.integers(0, 99))
def test_a_fifth_of_each_class_is_held_out_by_whole_groups(sizes: list[list[int]], seed: int) -> None:
    each = [(label, f"{seed}/{label}/{number}") for label, groups in enumerate(sizes) for number in range(len(groups))]
    counts = [size for groups in sizes for size in groups]
    y = np.repeat([label for label, _ in each], counts)
    group = np.repeat([group_named(name) for _, name in each], counts)

    held = hold_out(y, group)

    assert all(len(set(held[group == one])) == 1 for one in set(group.tolist()))
    for label, groups in enumerate(sizes):
        images, out = sum(groups), int(held[y == label].sum())
        if images > 2:
            assert images - out >= 2
            assert abs(out - max(1, round(images / 5))) <= max(groups) or out == min(groups)
            assert out or images - min(groups) < 2


def test_patients_of_all_classes_are_held_out_whole() -> None:
    patient = np.repeat(lone(50), 4)
    y = np.tile([0, 1, 2, 0], 50)

    held = hold_out(y, patient)

    assert all(len(set(held[patient == one])) == 1 for one in set(patient.tolist()))
    assert [int(held[y == label].sum()) for label in range(3)] == [20, 10, 10]


def test_a_class_of_one_group_stays_whole_and_is_trained_on() -> None:
    y = np.repeat([0, 1], 10)
    group = np.concatenate([np.repeat(group_named("a burst"), 10), lone(10)])

    held = hold_out(y, group)

    assert not held[y == 0].any()
    assert held[y == 1].sum() == 2


@pytest.mark.parametrize("rows", [0, 1])
def test_there_may_be_next_to_nothing(rows: int) -> None:
    assert join(lone(rows), [()] * rows, NO_PAIRS).tolist() == lone(rows).tolist()
    assert not hold_out(np.zeros(rows, np.int64), lone(rows)).any()
