"""Pareto fronts."""

from collections.abc import Sequence


def pareto_front(costs: Sequence[Sequence[float]]) -> set[int]:
    """Return the indexes of points that no other dominates."""
    return {index for index, cost in enumerate(costs) if not any(_dominates(other, cost) for other in costs)}


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
