"""Geometry of the report's line charts."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

LEFT, RIGHT, TOP, BOTTOM = 46.0, 366.0, 30.0, 205.0
"""Where the lines are drawn, in units of the chart's viewBox."""

_STEPS: Final = (1, 2, 5, 10)
_MOST_STEPS: Final = 5


@dataclass(frozen=True)
class Tick:
    """A round value on the vertical axis, and where it is."""

    value: float
    y: float


@dataclass(frozen=True)
class Chart:
    """Lines on shared axes, each the ``points`` of an SVG polyline."""

    ticks: tuple[Tick, ...]
    lines: tuple[str, ...]


def chart(series: Iterable[Sequence[float]]) -> Chart:
    """Lay out series of equal length; skip values that are not finite."""
    drawn = [list(values) for values in series]
    ticks = _round_values([value for values in drawn for value in values if math.isfinite(value)])
    low, high = ticks[0], ticks[-1]

    def y(value: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * (value - low) / (high - low), 1)

    return Chart(tuple(Tick(value, y(value)) for value in ticks), tuple(_line(values, y) for values in drawn))


def _round_values(values: Sequence[float]) -> list[float]:
    """Choose round values that enclose all others."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / _MOST_STEPS))
    step = next(times * power for times in _STEPS if times * power * _MOST_STEPS >= span * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 12) for place in range(first, max(last, first + 1) + 1)]


def _line(values: Sequence[float], y: Callable[[float], float]) -> str:
    step = (RIGHT - LEFT) / max(1, len(values) - 1)
    points = [f"{round(LEFT + step * at, 1)},{y(value)}" for at, value in enumerate(values) if math.isfinite(value)]
    return " ".join(points * 2 if len(points) == 1 else points)  # a line from a point to itself is drawn as a dot
