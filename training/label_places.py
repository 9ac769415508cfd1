"""Where to write labels beside bubbles so that nothing covers anything. Pure geometry, in points."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

_DIRECTIONS: Final = 24
_DISTANCES: Final = (4.0, 12.0, 22.0, 34.0, 50.0, 70.0, 95.0)
_OUTSIDE: Final = 40.0
_PER_POINT: Final = 3.0
_MARGIN: Final = 2.0
_ROUNDING: Final = 1e-6
_CROSSING: Final = 0.3
"""A letter on a thin line can be read."""


@dataclass(frozen=True)
class Box:
    """A rectangle; y grows upwards."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: "Box") -> float:
        """Return the area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)

    def grown(self, by: float) -> "Box":
        """Return it larger on all sides."""
        return Box(self.left - by, self.bottom - by, self.right + by, self.top + by)

    @property
    def area(self) -> float:
        """Its area."""
        return (self.right - self.left) * (self.top - self.bottom)


@dataclass(frozen=True)
class Bubble:
    """A circle, its error bar from ``low`` to ``high``, and the size of its label."""

    x: float
    y: float
    radius: float
    low: float
    high: float
    width: float
    height: float

    def obstacles(self) -> tuple[Box, Box]:
        """Return what labels should not cover."""
        circle = Box(self.x, self.y, self.x, self.y).grown(self.radius + 1)
        return circle, Box(self.x - 3, self.low, self.x + 3, self.high)


def place(bubbles: Sequence[Bubble], frame: Box, lines: Sequence[Box] = ()) -> list[Box]:
    """Return a box for each label: near its bubble, inside the frame, on nothing else.

    Bubbles with the least room choose first; each takes the place of the least cost, if there is one inside the frame
    and on no other label.

    Args:
        bubbles: what to label.
        frame: that the labels should stay in.
        lines: small boxes along lines that are better not covered.
    """
    obstacles = [box for bubble in bubbles for box in bubble.obstacles()]
    placed: dict[int, Box] = {}
    for index in sorted(range(len(bubbles)), key=lambda index: -_crowd(bubbles[index], bubbles)):
        taken = [box.grown(_MARGIN) for box in placed.values()]
        best = min(
            _candidates(bubbles[index]),
            key=lambda candidate: (
                _outside(candidate[0], frame) > _ROUNDING,
                any(candidate[0].overlap(other) for other in taken),
                candidate[1] + _cost(candidate[0], obstacles, lines, frame),
            ),
        )
        placed[index] = best[0]
    return [placed[index] for index in range(len(bubbles))]


def _crowd(bubble: Bubble, bubbles: Sequence[Bubble]) -> float:
    return sum(1 / (10 + math.hypot(other.x - bubble.x, other.y - bubble.y)) for other in bubbles)


def _candidates(bubble: Bubble) -> Iterator[tuple[Box, float]]:
    """Yield boxes round the bubble with what their distance costs; right and left of it come cheapest."""
    for distance in _DISTANCES:
        for step in range(_DIRECTIONS):
            angle = 2 * math.pi * step / _DIRECTIONS
            reach = bubble.radius + distance
            x, y = bubble.x + reach * math.cos(angle), bubble.y + reach * math.sin(angle)
            left = x - bubble.width * (1 - math.cos(angle)) / 2
            bottom = y - bubble.height * (1 - math.sin(angle)) / 2
            box = Box(left, bottom, left + bubble.width, bottom + bubble.height)
            yield box, _PER_POINT * distance + 8 * abs(math.sin(angle))


def _cost(box: Box, obstacles: Sequence[Box], lines: Sequence[Box], frame: Box) -> float:
    covered = sum(box.overlap(other) for other in obstacles)
    crossed = sum(box.overlap(line) for line in lines)
    return 5 * covered + _CROSSING * crossed + _OUTSIDE * _outside(box, frame)


def _outside(box: Box, frame: Box) -> float:
    return box.area - box.overlap(frame)
