"""The chart of a comparison: accuracy against time, with the size as the area of a bubble. Draws with matplotlib."""

import io
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from regraft.errors import MissingPackageError
from training.comparison import Comparison, Row, pareto_front, times_of
from training.label_places import Box, Bubble, place

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS: Final = {"probe": "#2f6fde", "finetune": "#0d8a72", "scratch": "#c8551b", "auto": "#8a5cd1"}
"""By strategy; told apart without red and green."""

_INK: Final = "#1b2330"
_SOFT: Final = "#5d6778"
_LINE: Final = "#dfe3ea"
_WIDTH_IN: Final = 11.0
_HEIGHT_IN: Final = 6.2
_PLOT: Final = (0.07, 0.1, 0.735, 0.79)
"""Left, bottom, width and height of the plot as shares of the figure; what remains on the right is the legend's."""

_POINTS: Final = 72
"""An inch; also the resolution, so that what matplotlib calls a pixel is a point."""
_LARGEST: Final = 30.0
"""Radius of the largest bubble, in points."""
_SMALLEST: Final = 4.0
_LABEL: Final = 10.5
_STYLE: Final = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _SOFT,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "svg.fonttype": "path",
    "svg.hashsalt": "regraft",
}


def require_matplotlib() -> Any:  # noqa: ANN401 - a module
    """Import matplotlib.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra, and only comparisons draw
        import matplotlib.figure  # noqa: PLC0415 - likewise
    except ImportError as error:
        raise MissingPackageError(f"the chart needs matplotlib: pip install 'regraft[train]' ({error})") from error
    return mpl


def draw(comparison: Comparison) -> bytes:
    """Return the chart as an SVG. Its letters are shapes, so that it looks the same everywhere."""
    mpl = require_matplotlib()
    rows = [row for row in comparison.rows if row.accuracy is not None]
    with mpl.rc_context(_STYLE):
        figure = mpl.figure.Figure((_WIDTH_IN, _HEIGHT_IN), dpi=_POINTS, facecolor="white")
        axes = _axes(figure, comparison, rows)
        if rows:
            _bubbles(axes, rows)
            front = _front(axes, rows)
            _labels(figure, axes, rows, front)
            _legend(figure, rows, with_front=len(front) > 1)
        else:
            axes.text(0.5, 0.5, "no holdout images: no accuracy", ha="center", transform=axes.transAxes)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "Regraft"})
    return buffer.getvalue()


def _axes(figure: "Figure", comparison: Comparison, rows: Sequence[Row]) -> "Axes":
    axes = figure.add_axes(_PLOT)
    axes.set_xscale("log")
    times = [row.ms for row in rows] or [1.0, 10.0]
    # At least a factor of four, or the noise of the clock would fill the chart.
    margin = max(1.35, math.sqrt(4 * min(times) / max(times)))
    axes.set_xlim(min(times) / margin, max(times) * margin)
    ticks = _ticks(min(times) / margin, max(times) * margin)
    axes.set_xticks(ticks, [f"{value:g}" for value in ticks])
    axes.set_xticks([], minor=True)
    low = min((row.accuracy_interval[0] for row in rows if row.accuracy_interval), default=0.0)
    high = max((row.accuracy_interval[1] for row in rows if row.accuracy_interval), default=1.0)
    room = max(0.09 * (high - low), 0.01)
    axes.set_ylim(100 * (low - room), 100 * (high + room))
    axes.set_xlabel("ms an image, one thread (log scale); faster to the left")
    axes.set_ylabel("holdout accuracy, %, with 95% interval")
    axes.grid(color=_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0)
    told = f"{comparison.labels} classes, accuracy on {comparison.holdout_images} holdout images"
    figure.text(_PLOT[0], 0.945, comparison.data, fontsize=16, fontweight="bold", parse_math=False)
    figure.text(_PLOT[0], 0.908, told, color=_SOFT)
    return axes


def _ticks(low: float, high: float) -> list[float]:
    coarse = [value for value in _round(1, 2, 5) if low <= value <= high]
    fine = [value for value in _round(1, 1.5, 2, 3, 4, 5, 7) if low <= value <= high]
    return coarse if len(coarse) >= 4 else fine


def _round(*digits: float) -> list[float]:
    return [digit * 10.0**power for power in range(-4, 6) for digit in digits]


def _radius(row: Row, rows: Sequence[Row]) -> float:
    """Return a radius in points whose square, the area, goes with the size."""
    return max(_SMALLEST, _LARGEST * math.sqrt(row.model_mb / max(other.model_mb for other in rows)))


def _bubbles(axes: "Axes", rows: Sequence[Row]) -> None:
    for row in sorted(rows, key=lambda row: -row.model_mb):  # the small ones on top
        accuracy, radius, colour = 100 * (row.accuracy or 0.0), _radius(row, rows), COLOURS[row.strategy]
        axes.scatter(row.ms, accuracy, s=(2 * radius) ** 2, color=colour, alpha=0.28, linewidths=0, zorder=3)
        axes.scatter(
            row.ms,
            accuracy,
            s=(2 * radius) ** 2,
            facecolors="none",
            edgecolors=_INK if row.is_pareto else colour,
            linewidths=1.8 if row.is_pareto else 1.0,
            zorder=4,
        )
        if row.accuracy_interval:
            below, above = (abs(100 * end - accuracy) for end in row.accuracy_interval)
            axes.errorbar(
                row.ms, accuracy, [[below], [above]], color=colour, elinewidth=1.4, capsize=3.5, capthick=1.4, zorder=5
            )
        axes.scatter(row.ms, accuracy, s=14, color=colour, zorder=6)


def _front(axes: "Axes", rows: Sequence[Row]) -> list[tuple[float, float]]:
    """Draw the best accuracy for each time as a line, and return its corners; size plays no part in it."""
    costs = [(time, -(row.accuracy or 0.0)) for time, row in zip(times_of(rows), rows, strict=True)]
    best = sorted((rows[index].ms, 100 * (rows[index].accuracy or 0.0)) for index in pareto_front(costs))
    if len(best) > 1:
        axes.plot(*zip(*best, strict=True), color=_SOFT, linewidth=1.6, linestyle=(0, (5, 3)), zorder=2)
    return best


def _labels(figure: "Figure", axes: "Axes", rows: Sequence[Row], front: Sequence[tuple[float, float]]) -> None:
    """Write the backbones where there is room; a thin line leads to a label that had to move away."""
    texts = [
        axes.text(
            row.ms,
            0,
            row.backbone,
            fontsize=_LABEL,
            fontweight="bold" if row.is_pareto else "normal",
            color=COLOURS[row.strategy],
            parse_math=False,
            zorder=8,
        )
        for row in rows
    ]
    figure.canvas.draw()
    bubbles = []
    for row, text in zip(rows, texts, strict=True):
        extent = text.get_window_extent()
        x, y = axes.transData.transform((row.ms, 100 * (row.accuracy or 0.0)))
        ends = [axes.transData.transform((row.ms, 100 * end))[1] for end in row.accuracy_interval or (0.0, 1.0)]
        bubbles.append(Bubble(x, y, _radius(row, rows), ends[0], ends[1], extent.width, extent.height))
    area = axes.get_window_extent()
    frame = Box(area.x0, area.y0, area.x1, area.y1)
    line = [axes.transData.transform(corner) for corner in front]
    for text, bubble, box in zip(texts, bubbles, place(bubbles, frame, _along(line)), strict=True):
        left, bottom = axes.transData.inverted().transform((box.left, box.bottom))
        text.set_position((left, bottom))
        text.set_verticalalignment("bottom")
        _lead(axes, bubble, box, str(text.get_color()))


def _along(corners: Sequence[Any], step: float = 4.0) -> list[Box]:
    """Return small boxes along a line."""
    boxes = []
    for start, end in pairwise(corners):
        count = max(2, int(math.dist(start, end) / step))
        boxes += [Box(x, y, x, y).grown(2) for x, y in np.linspace(start, end, count)]
    return boxes


def _lead(axes: "Axes", bubble: Bubble, box: Box, colour: str) -> None:
    x = min(max(bubble.x, box.left), box.right)
    y = min(max(bubble.y, box.bottom), box.top)
    away = math.hypot(x - bubble.x, y - bubble.y)
    if away < bubble.radius + 9:
        return
    start = (bubble.x + (x - bubble.x) * bubble.radius / away, bubble.y + (y - bubble.y) * bubble.radius / away)
    ends = axes.transData.inverted().transform([start, (x, y)])
    axes.plot(ends[:, 0], ends[:, 1], color=colour, linewidth=0.8, alpha=0.7, zorder=7)


def _legend(figure: "Figure", rows: Sequence[Row], *, with_front: bool) -> None:
    """Explain colours, sizes, outline and line in the right margin, whose units are points from its top left."""
    left, width, height = _PLOT[0] + _PLOT[2] + 0.02, 1 - _PLOT[0] - _PLOT[2] - 0.02, _PLOT[3]
    margin = figure.add_axes((left, _PLOT[1], width, height))
    margin.set_xlim(0, width * _WIDTH_IN * _POINTS)
    margin.set_ylim(height * _HEIGHT_IN * _POINTS, 0)
    margin.set_axis_off()
    y = 10.0
    for strategy, colour in COLOURS.items():
        if any(row.strategy == strategy for row in rows):
            margin.scatter(14, y, s=150, color=colour, alpha=0.28, linewidths=0)
            margin.scatter(14, y, s=14, color=colour)
            margin.text(32, y, strategy, va="center", color=colour)
            y += 22
    y += 8
    margin.scatter(14, y, s=150, facecolors="none", edgecolors=_INK, linewidths=1.8)
    margin.text(32, y, "Pareto front:\naccuracy, speed, size", va="center", fontsize=9.5)
    y += 32
    if with_front:
        margin.plot((3, 25), (y, y), color=_SOFT, linewidth=1.6, linestyle=(0, (5, 3)))
        margin.text(32, y, "Pareto front:\naccuracy, speed", va="center", fontsize=9.5)
        y += 32
    margin.text(3, y + 8, "area: size of the model file", fontsize=9.5, va="center")
    y += 24
    largest = max(row.model_mb for row in rows)
    for size in _round_sizes(largest):
        radius = _LARGEST * math.sqrt(size / largest)
        y += radius
        margin.scatter(34, y, s=(2 * radius) ** 2, facecolors="none", edgecolors=_SOFT, linewidths=1)
        margin.text(72, y, f"{size:g} MB", va="center", fontsize=9.5)
        y += radius + 8


def _round_sizes(largest: float) -> list[float]:
    """Return three round sizes, the first at most the largest, each about a quarter of the one before."""
    fits = [value for value in _round(1, 2, 5) if value <= largest]
    return [fits[-1], fits[-3], fits[-5]]
