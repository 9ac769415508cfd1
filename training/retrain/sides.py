"""Sides of the split, fixed for ever by a picture's group.

A picture belongs with those of the same named group, with those it looks nearly like, and with those that these belong
with. Its bytes decide only where it is alone: a byte more behind a JPEG's end makes another file, and no other picture.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from scipy.cluster.hierarchy import DisjointSet

from regraft.label_rules import HOLDOUT_SHARE
from training.data.groups import group_named, group_of_one

BOTH_SIDES: Final = "belongs with training and with holdout images, so it is neither trained on nor judged by"

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_LOWER_BITS: Final = 28
"""The bits of a group beyond those of a hash that `regraft.label_rules.is_holdout` looks at."""

Pair = tuple[str, str]
_Side = tuple[int, bool]
"""A group, on one side of the split."""


@dataclass(frozen=True)
class Sides:
    """Sides and groups of pictures, by image hash.

    Attributes:
        is_holdout: by hash.
        group: see `training.head.features.Features`.
        on_both: pictures that belong with both sides, and so to none.
    """

    is_holdout: dict[str, bool]
    group: dict[str, int]
    on_both: frozenset[str]


def settle_sides(
    names: Collection[str],
    pairs: Collection[Pair],
    *,
    fixed: Mapping[str, bool],
    groups: Mapping[str, int] = _NOTHING,
    named: Mapping[str, Collection[str]] = _NOTHING,
) -> Sides:
    """Assign pictures to the side of those that they belong with.

    What has a side keeps it. The others go to the side of those that they belong with; to none where these are on both;
    and where none of these has a side, all go to one by the name of their group. The order makes no difference.

    Args:
        names: image hashes.
        pairs: of pictures that look nearly alike.
        fixed: whether a picture is holdout, of those that a version was fitted on or judged by; of others too.
        groups: of the pictures that the champion knows.
        named: names that people gave to groups of a picture; of others too.
    """
    ties = {name: _ties(name, groups, named) for name in [*names, *(name for name in fixed if name in named)]}
    is_holdout = {name: fixed[name] for name in names if name in fixed}
    on_both = set()
    for free, sides in _with_neighbours(ties, pairs, fixed):
        if len(sides) == 2:
            on_both |= free
        else:
            side = sides.pop() if sides else _is_held_out(_name_of(free, ties))
            is_holdout |= dict.fromkeys(free, side)
    return Sides(is_holdout, dict(_groups_of(ties, pairs, is_holdout, groups)), frozenset(on_both))


def leave_enough(sides: Sides, labels: Mapping[str, str], fewest: int, fixed: Collection[str]) -> Sides:
    """Move groups of small classes from the holdout to the training images.

    Of a few pictures chance may hold out all. Until a class has so many to train on as it needs, its groups move, in
    the order of their names; those that had a side before stay.

    Args:
        sides: of all pictures.
        labels: of the pictures.
        fewest: training images that a class needs.
        fixed: hashes of pictures that had a side before.
    """
    is_holdout = dict(sides.is_holdout)
    members: defaultdict[int, list[str]] = defaultdict(list)
    for name in sorted(is_holdout):
        members[sides.group[name]].append(name)
    counts = Counter(labels[name] for name, held in is_holdout.items() if not held and name in labels)
    for _, names in sorted(members.items()):
        is_free = all(is_holdout[name] and name not in fixed for name in names)
        if is_free and any(counts[labels[name]] < fewest for name in names if name in labels):
            is_holdout |= dict.fromkeys(names, False)
            counts.update(labels[name] for name in names if name in labels)
    return replace(sides, is_holdout=is_holdout)


def _with_neighbours(
    ties: Mapping[str, frozenset[int]], pairs: Collection[Pair], fixed: Mapping[str, bool]
) -> Iterator[tuple[set[str], set[bool]]]:
    """Yield pictures without a side, grouped, with their neighbours' sides."""
    together: DisjointSet = DisjointSet()
    for name in ties.keys() - fixed.keys():
        for tie in ties[name]:
            _merge(together, name, tie)
    for first, second in pairs:
        if first not in fixed and second not in fixed:
            _merge(together, first, second)
    sides: defaultdict[Any, set[bool]] = defaultdict(set)
    for name in ties.keys() & fixed.keys():
        for tie in ties[name]:
            if tie in together:
                sides[together[tie]].add(fixed[name])
    for pair in pairs:
        for name, other in (pair, pair[::-1]):
            if name not in fixed and other in fixed:
                sides[together[name]].add(fixed[other])
    for members in together.subsets():
        yield {each for each in members if isinstance(each, str)}, sides[together[next(iter(members))]]


def _groups_of(
    ties: Mapping[str, frozenset[int]], pairs: Iterable[Pair], is_holdout: Mapping[str, bool], groups: Mapping[str, int]
) -> Iterator[tuple[str, int]]:
    """Yield each picture's group; newcomers join the champion's lowest."""
    together: DisjointSet = DisjointSet()
    for name, side in is_holdout.items():
        for tie in ties[name]:
            _merge(together, (groups[name], side) if name in groups else name, (tie, side))
    for first, second in pairs:
        if first in is_holdout and is_holdout[first] == is_holdout.get(second):
            ends = [(groups[name], is_holdout[name]) if name in groups else name for name in (first, second)]
            if not all(isinstance(end, tuple) for end in ends):
                _merge(together, *ends)
    existing = {(group, is_holdout[name]) for name, group in groups.items() if name in is_holdout}
    for members in together.subsets():
        joined = sorted(members & existing)
        free = {each for each in members if isinstance(each, str)}
        group: int = joined[0][0] if joined else _name_of(free, ties)
        yield from ((each, group) for each in free)
    yield from ((name, known_as) for name, known_as in groups.items() if name in is_holdout)


def _merge(together: DisjointSet, first: Any, second: Any) -> None:  # noqa: ANN401 - names and groups
    for each in (first, second):
        together.add(each)
    together.merge(first, second)


def _ties(name: str, groups: Mapping[str, int], named: Mapping[str, Collection[str]]) -> frozenset[int]:
    """Return a picture's given groups, or its own."""
    existing = [groups[name]] if name in groups else []
    return frozenset([*existing, *map(group_named, named.get(name, ()))]) or frozenset([group_of_one(name)])


def _name_of(names: Collection[str], ties: Mapping[str, frozenset[int]]) -> int:
    """Return a group's given name, or one drawn from its pictures' names.

    The lowest of several hashes is lower than any, which would hold out large groups more often than others.
    """
    own = {group_of_one(name) for name in names}
    every = {tie for name in names for tie in ties[name]}
    chosen = every - own or every
    return min(chosen) if len(chosen) == 1 else group_named(f"joined {min(chosen)}")


def _is_held_out(group: int) -> bool:
    """Decide whether a group is holdout.

    Of a picture that is alone it is as `regraft.label_rules.is_holdout` has it.
    """
    return (group >> _LOWER_BITS) < HOLDOUT_SHARE * 2**32
