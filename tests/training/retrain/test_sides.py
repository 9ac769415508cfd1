"""The laws of the split: a picture is on the side of those that it belongs with, in any order, and for ever."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.label_rules import HOLDOUT_SHARE, is_holdout
from training.data.groups import group_named, group_of_one
from training.retrain.sides import Pair, Sides, leave_enough, settle_sides

PICTURES = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(12)]
GROUPS = ["patient 1", "patient 2", "patient 3"]


@dataclass(frozen=True)
class World:
    """Pictures that look alike in pairs, and bear names of groups; some have a side and a group already."""

    pairs: list[Pair]
    named: dict[str, list[str]]
    known: dict[str, bool]
    groups: dict[str, int] = field(default_factory=dict)

    def settle(self, names: Sequence[str], fixed: dict[str, bool]) -> Sides:
        pairs = [pair for pair in self.pairs if set(pair) <= {*names, *fixed}]
        return settle_sides(names, pairs, fixed=fixed, groups=self.groups, named=self.named)

    def belong(self, name: str, other: str) -> bool:
        """Tell whether two pictures look alike, or share a group."""
        alike = (name, other) in self.pairs or (other, name) in self.pairs
        return alike or bool(self.ties(name) & self.ties(other))

    def ties(self, name: str) -> set[int]:
        known = {self.groups[name]} if name in self.groups else set()
        return known | set(map(group_named, self.named.get(name, [])))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    pairs = draw(st.lists(st.tuples(st.sampled_from(PICTURES), st.sampled_from(PICTURES)), max_size=10))
    known = draw(st.dictionaries(st.sampled_from(PICTURES), st.booleans(), max_size=6))
    groups = {name: draw(st.sampled_from([group_of_one(name), group_named(GROUPS[0])])) for name in sorted(known)}
    named = draw(st.dictionaries(st.sampled_from(PICTURES), st.lists(st.sampled_from(GROUPS), max_size=2)))
    return World([pair for pair in pairs if pair[0] != pair[1]], named, known, groups)


@given(worlds(), st.randoms())
def test_any_order_of_arrival_gives_the_same_sides_and_groups(world: World, random: Random) -> None:
    names, pairs = list(PICTURES), [pair[::-1] for pair in world.pairs]
    random.shuffle(names)
    random.shuffle(pairs)

    shuffled = World(pairs, world.named, world.known, world.groups)

    assert shuffled.settle(names, world.known) == world.settle(PICTURES, world.known)


@given(worlds(), st.lists(st.integers(0, 3), min_size=len(PICTURES), max_size=len(PICTURES)))
def test_whatever_comes_when_what_was_held_out_is_never_trained_on_nor_the_other_way_round(
    world: World, arrival: list[int]
) -> None:
    fixed = dict(world.known)
    for turn in range(4):
        there = [name for name, when in zip(PICTURES, arrival, strict=True) if when <= turn or name in world.known]

        sides = world.settle(there, fixed)

        assert fixed.items() <= sides.is_holdout.items()
        assert sides.is_holdout.keys() | sides.on_both == set(there)
        assert not sides.is_holdout.keys() & sides.on_both
        fixed = sides.is_holdout


@given(worlds())
def test_no_newcomer_belongs_with_a_picture_on_the_other_side(world: World) -> None:
    sides = world.settle(PICTURES, world.known)

    for name in sides.is_holdout.keys() - world.known.keys():
        for other in sides.is_holdout:
            if world.belong(name, other):
                assert sides.is_holdout[name] is sides.is_holdout[other]


@given(worlds())
def test_a_newcomer_belongs_to_nobody_exactly_where_it_is_joined_with_both_sides(world: World) -> None:
    sides = world.settle(PICTURES, world.known)

    for name in set(PICTURES) - world.known.keys():
        reached, ahead = {name}, [name]
        while ahead:  # pictures with a side lead no additional: they are where they are
            here = ahead.pop()
            for other in PICTURES:
                if other not in reached and world.belong(here, other):
                    reached.add(other)
                    ahead += [other] if other not in world.known else []
        told = {world.known[other] for other in reached if other in world.known}
        assert (name in sides.on_both) is (len(told) == 2)
        if len(told) == 1:
            assert sides.is_holdout[name] in told


@given(worlds())
def test_groups_of_the_champion_stay_and_newcomers_that_belong_together_share_one(world: World) -> None:
    sides = world.settle(PICTURES, world.known)

    assert all(sides.group[name] == world.groups[name] for name in world.known)
    for name in sides.is_holdout.keys() - world.known.keys():
        beside = [other for other in sides.is_holdout if other != name and world.belong(name, other)]
        newcomers = [other for other in beside if other not in world.known]
        assert all(sides.group[other] == sides.group[name] for other in newcomers)
        if len(beside) == 1 and beside[0] in world.known:
            assert sides.group[name] <= world.groups[beside[0]]


@given(st.lists(st.binary(max_size=8), unique=True, max_size=50))
def test_a_picture_that_is_alone_is_on_the_side_that_its_hash_says(contents: list[bytes]) -> None:
    names = [hashlib.sha256(content).hexdigest() for content in contents]

    sides = settle_sides(names, [], fixed={})

    assert sides.is_holdout == {name: is_holdout(name) for name in names}
    assert sides.group == {name: group_of_one(name) for name in names}


def test_large_groups_are_held_out_as_often_as_pictures_that_are_alone() -> None:
    bursts = [[hashlib.sha256(f"{burst}/{shot}".encode()).hexdigest() for shot in range(6)] for burst in range(1000)]
    pairs = [(burst[shot], burst[shot + 1]) for burst in bursts for shot in range(5)]

    sides = settle_sides([name for burst in bursts for name in burst], pairs, fixed={})

    for burst in bursts:
        assert len({sides.is_holdout[name] for name in burst}) == len({sides.group[name] for name in burst}) == 1
    assert abs(np.mean([sides.is_holdout[burst[0]] for burst in bursts]) - HOLDOUT_SHARE) < 0.04


def test_a_group_that_people_named_is_on_one_side_whoever_comes_first_and_whoever_left() -> None:
    named = {name: ["patient 7"] for name in PICTURES}

    first = settle_sides(PICTURES[:1], [], fixed={}, named=named)
    every = settle_sides(PICTURES, [], fixed={}, named=named)
    held = not first.is_holdout[PICTURES[0]]
    late = settle_sides(PICTURES[1:], [], fixed={PICTURES[0]: held}, named=named)  # the first of them was removed

    assert set(every.is_holdout.values()) == set(first.is_holdout.values())
    assert set(every.group.values()) == {group_named("patient 7")}
    assert set(late.is_holdout.values()) == {held}


@settings(max_examples=20)
@given(st.integers(0, 11), st.booleans())
def test_a_copy_takes_the_side_of_the_picture_that_it_looks_like(number: int, held: bool) -> None:
    known, copy = PICTURES[number], hashlib.sha256(b"one more byte").hexdigest()

    sides = settle_sides([known, copy], [(known, copy)], fixed={known: held}, groups={known: group_of_one(known)})

    assert sides.is_holdout[copy] is held
    assert sides.group[copy] == group_of_one(known)


@given(worlds(), st.dictionaries(st.sampled_from(PICTURES), st.sampled_from("ab")), st.integers(1, 3))
def test_a_small_class_is_left_enough_to_train_on_as_whole_groups_and_no_decided_side_moves(
    world: World, labels: dict[str, str], fewest: int
) -> None:
    before = world.settle(PICTURES, world.known)

    after = leave_enough(before, labels, fewest, world.known)

    assert after.is_holdout.keys() == before.is_holdout.keys()
    moved = {name for name, held in after.is_holdout.items() if held != before.is_holdout[name]}
    assert all(before.is_holdout[name] for name in moved)
    assert not moved & world.known.keys()
    for name in moved:
        assert all(not after.is_holdout[other] for other in after.group if after.group[other] == after.group[name])
    train = Counter(labels[name] for name, held in after.is_holdout.items() if not held and name in labels)
    for name, held in after.is_holdout.items():
        alike = {other for other in after.group if after.group[other] == after.group[name]}
        if held and name in labels and train[labels[name]] < fewest:
            assert alike & world.known.keys() or not all(before.is_holdout[other] for other in alike)
    assert leave_enough(after, labels, fewest, world.known) == after
