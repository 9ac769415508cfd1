"""Page of a comparison: one HTML file without scripts."""

from collections.abc import Mapping, Sequence
from typing import Any

from training.compare.chart import COLOURS, learning_chart, speed_chart, training_chart
from training.compare.results import FinishedRun, SweepResult, gains_of, learning_curves
from training.data.subsets import ALL
from training.evaluation.report.page import templates

Charts = Mapping[str, Mapping[str, bytes]]
"""Of each data set, by what they show."""


def draw_charts(comparison: SweepResult) -> Charts:
    """Draw the charts of each data set as SVGs."""
    return {each.name: _charts(comparison.of(each.name)) for each in comparison.datasets}


def render(comparison: SweepResult, charts: Charts) -> str:
    """Return the page; ``charts`` is what `draw_charts` made."""
    parts = [comparison.of(each.name) for each in comparison.datasets]
    template = templates().get_template("comparison.html.j2")
    return template.render(
        comparison=comparison,
        parts=[
            {
                "data": part.datasets[0],
                "models": part.models,
                "failures": part.failures,
                "best": _best(part.models),
                "gains": [gain for gain in gains_of(part.rows) if gain.share == ALL],
                "curves": _curves(part),
                "published": part.published,
                "charts": charts[part.datasets[0].name],
            }
            for part in parts
        ],
        colours=COLOURS,
    )


def _charts(part: SweepResult) -> Mapping[str, bytes]:
    points = learning_curves(part.rows)
    whole = [row for row in part.rows if row.share == ALL]
    charts = {"speed": speed_chart(part.models)} if part.models else {}
    if len({point.share for point in points}) > 1:
        charts["pictures"] = learning_chart(points)
    if any(row.curve for row in whole):
        charts["epochs"] = training_chart(whole)
    return charts


def _curves(part: SweepResult) -> dict[str, Any]:
    """Tabulate the learning curves: the shares, and a row for each combination."""
    points = learning_curves(part.rows)
    counts = {point.share: round(point.train_images) for point in points}
    shares = sorted(counts, key=lambda share: counts[share])
    point_of = {(point.backbone, point.strategy, point.share): point for point in points}
    combinations = list(dict.fromkeys((point.backbone, point.strategy) for point in points))
    rows = [(*names, [point_of.get((*names, share)) for share in shares]) for names in combinations]
    return {"counts": [counts[share] for share in shares], "rows": rows}


def _best(rows: Sequence[FinishedRun]) -> dict[str, Any]:
    """Return the winners as tiles: of what, the figure, the model."""
    measured = [row for row in rows if row.accuracy is not None]
    if not measured:
        return {}
    accurate = max(measured, key=lambda row: row.accuracy or 0.0)
    fast, small = min(rows, key=lambda row: row.ms), min(rows, key=lambda row: row.model_mb)
    return {
        "most accurate": (f"{accurate.accuracy:.1%}", f"{accurate.backbone}, {accurate.strategy}"),
        "fastest": (f"{fast.ms:.1f} ms", fast.backbone),
        "smallest": (f"{small.model_mb:.1f} MB", small.backbone),
    }
