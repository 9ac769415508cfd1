"""Charts of a comparison, drawn with matplotlib."""

import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

from regraft.errors import MissingPackageError
from training.compare.results import EpochPoint, FinishedRun, LearningPoint, times_of
from training.evaluation.pareto import pareto_front

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS: Final = {"probe": "#2f6fde", "finetune": "#0d8a72", "scratch": "#c8551b", "auto": "#8a5cd1"}
"""By strategy; told apart without red and green."""

_INK: Final = "#1b2330"
_SOFT: Final = "#5d6778"
_LINE: Final = "#dfe3ea"
_DASHES: Final[tuple[Any, ...]] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))
"""By backbone, where there are several."""
_DIGITS: Final = ((1, 2, 5), (1, 1.5, 2, 3, 5, 7))
_LARGEST: Final = 30.0
"""Radius of the largest bubble, in points."""
_SMALLEST: Final = 5.0
_CORNERS: Final = ((5, 4), (-11, 4), (5, -13), (-11, -13))
"""Where a number stands beside the middle of its bubble, in points; by turns, for models that are alike."""
_STYLE: Final = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _SOFT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _LINE,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
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


def speed_chart(models: Sequence[FinishedRun]) -> bytes:
    """Draw accuracy against time as an SVG, bubbles by size and number."""
    measured = [(number, row) for number, row in enumerate(models, start=1) if row.accuracy is not None]
    with _figure((11.0, 6.2)) as (figure, finish):
        axes = figure.add_subplot()
        axes.set_xlabel("ms a picture, one thread (log scale); faster to the left")
        axes.set_ylabel("holdout accuracy, %, with 95% interval")
        if measured:
            _bubbles(axes, measured)
            _front(axes, [row for _, row in measured])
            axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
            _log_ticks(axes, [row.ms for _, row in measured])
        else:
            axes.text(0.5, 0.5, "no holdout pictures: no accuracy", ha="center", transform=axes.transAxes)
    return finish()


def learning_chart(points: Sequence[LearningPoint]) -> bytes:
    """Draw learning curves as an SVG, a line for each combination."""
    with _figure((11.0, 6.2)) as (figure, finish):
        axes = figure.add_subplot()
        for combination, style in _styles(points).items():
            own = [point for point in points if (point.backbone, point.strategy) == combination]
            counts = [point.train_images for point in own]
            several = any(point.seeds > 1 for point in own)
            bands = [(point.lowest, point.highest) if several else point.interval for point in own]
            axes.plot(counts, [100 * point.mean for point in own], marker="o", linewidth=2.2, **style)
            low, high = zip(*bands, strict=True)
            axes.fill_between(
                counts,
                [100 * value for value in low],
                [100 * value for value in high],
                color=style["color"],
                alpha=0.15,
                linewidth=0,
            )
        _log_ticks(axes, sorted({round(point.train_images) for point in points}), at_values=True)
        axes.set_xlabel("training pictures (log scale)")
        axes.set_ylabel("holdout accuracy, %")
        axes.legend(loc="lower right")
    return finish()


def training_chart(rows: Sequence[FinishedRun]) -> bytes:
    """Draw accuracy over epochs and seconds as an SVG, a line a combination.

    Args:
        rows: all runs on all pictures; the seconds are those of the runs whose models were kept, which began with
            nothing in a cache. A run that ended sooner counts with the accuracy that it ended with.
    """
    with _figure((11.0, 5.2)) as (figure, finish):
        epochs, seconds = figure.subplots(1, 2, sharey=True)
        for (backbone, strategy), style in _styles(rows).items():
            own = [row for row in rows if (row.backbone, row.strategy) == (backbone, strategy)]
            curves = [row.curve for row in own if row.curve]
            if curves:
                _over_epochs(epochs, curves, style)
            for row in own:
                if row.model and row.curve:
                    times, values = zip(*((moment.seconds, 100 * moment.accuracy) for moment in row.curve), strict=True)
                    seconds.plot(times, values, linewidth=2.2, **style)
                elif row.model and row.unseen_accuracy is not None:
                    level = 100 * row.unseen_accuracy
                    epochs.axhline(level, linewidth=1.6, **{**style, "linestyle": (0, (2, 2))})
                    seconds.plot(row.seconds, level, marker="o", markersize=9, **style)
        epochs.set_xlabel("epoch")
        seconds.set_xlabel("seconds since the start (log scale)")
        models = [row for row in rows if row.model]
        _log_ticks(
            seconds, [time for row in models for time in [moment.seconds for moment in row.curve] or [row.seconds]]
        )
        epochs.set_ylabel("accuracy on training pictures set aside, %")
        epochs.legend(loc="lower right")
    return finish()


@contextmanager
def _figure(size_in: tuple[float, float]) -> Iterator[tuple["Figure", Callable[[], bytes]]]:
    """Yield a figure and a function for its SVG, letters as shapes."""
    mpl = require_matplotlib()
    buffer = io.BytesIO()
    with mpl.rc_context(_STYLE):
        figure = mpl.figure.Figure(size_in, facecolor="white", layout="constrained")
        yield figure, buffer.getvalue
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "Regraft"})


def _styles(rows: Sequence[FinishedRun | LearningPoint]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return colour, dashes and label of each backbone and strategy."""
    dashes = dict(zip(dict.fromkeys(row.backbone for row in rows), cycle(_DASHES), strict=False))
    return {
        (row.backbone, row.strategy): {
            "color": COLOURS[row.strategy],
            "linestyle": dashes[row.backbone],
            "label": row.strategy if len(dashes) == 1 else f"{row.backbone}, {row.strategy}",
        }
        for row in rows
    }


def _bubbles(axes: "Axes", measured: Sequence[tuple[int, FinishedRun]]) -> None:
    largest = max(row.model_mb for _, row in measured)
    for number, row in sorted(measured, key=lambda each: -each[1].model_mb):  # the small ones on top
        accuracy, colour = 100 * (row.accuracy or 0.0), COLOURS[row.strategy]
        radius = max(_SMALLEST, _LARGEST * math.sqrt(row.model_mb / largest))
        edge = _INK if row.is_pareto else colour
        axes.scatter(row.ms, accuracy, s=(2 * radius) ** 2, color=colour, alpha=0.25, linewidths=0, zorder=3)
        axes.scatter(
            row.ms, accuracy, s=(2 * radius) ** 2, facecolors="none", edgecolors=edge, linewidths=1.4, zorder=4
        )
        if row.accuracy_interval:
            ends = [[abs(100 * end - accuracy)] for end in row.accuracy_interval]
            axes.errorbar(row.ms, accuracy, ends, color=colour, elinewidth=1.2, capsize=3, zorder=5)
        corner = _CORNERS[(number - 1) % len(_CORNERS)]
        axes.annotate(
            str(number), (row.ms, accuracy), corner, textcoords="offset points", fontweight="bold", color=edge, zorder=6
        )
    for number, row in measured:  # of the legend, in the order of the table
        label = f"{number}  {row.backbone}, {row.strategy}, {row.model_mb:.1f} MB{' ★' if row.is_pareto else ''}"
        axes.scatter([], [], s=60, color=COLOURS[row.strategy], alpha=0.6, label=label)


def _front(axes: "Axes", rows: Sequence[FinishedRun]) -> None:
    """Draw the best accuracy for each time as a line."""
    costs = [(time, -(row.accuracy or 0.0)) for time, row in zip(times_of(rows), rows, strict=True)]
    best = sorted((rows[index].ms, 100 * (rows[index].accuracy or 0.0)) for index in pareto_front(costs))
    if len(best) > 1:
        label = "Pareto front: accuracy, speed"
        axes.plot(*zip(*best, strict=True), color=_SOFT, linewidth=1.6, linestyle=(0, (5, 3)), zorder=2, label=label)


def _over_epochs(axes: "Axes", curves: Sequence[Sequence[EpochPoint]], style: dict[str, Any]) -> None:
    """Draw the mean over the seeds, and their range."""
    longest = max(curves, key=len)
    at = [[100 * curve[min(place, len(curve) - 1)].accuracy for curve in curves] for place in range(len(longest))]
    numbers = [moment.epoch for moment in longest]
    axes.plot(numbers, [fmean(values) for values in at], linewidth=2.2, **style)
    axes.fill_between(
        numbers, [min(values) for values in at], [max(values) for values in at], color=style["color"], alpha=0.15
    )


def _round(digits: Sequence[float]) -> list[float]:
    return [digit * 10.0**power for power in range(-4, 7) for digit in digits]


def _log_ticks(axes: "Axes", values: Sequence[float], *, at_values: bool = False) -> None:
    """Set a logarithmic horizontal axis, with round ticks or the values."""
    axes.set_xscale("log")
    # At least a factor of four, or the noise of the clock would fill the chart.
    margin = 1.15 if at_values else max(1.35, math.sqrt(4 * min(values) / max(values)))
    low, high = min(values) / margin, max(values) * margin
    axes.set_xlim(low, high)
    coarse, fine = ([value for value in _round(digits) if low <= value <= high] for digits in _DIGITS)
    ticks = list(values) if at_values else coarse if len(coarse) > 3 else fine
    axes.set_xticks(ticks, [f"{value:g}" for value in ticks])
    axes.set_xticks([], minor=True)
