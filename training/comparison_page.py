"""The page of a comparison: one HTML file without scripts or outside files; links lead to the models' own reports."""

from collections.abc import Sequence
from typing import Any

from training.comparison import Comparison, Row, gains_of
from training.comparison_chart import COLOURS
from training.report import templates


def render(comparison: Comparison, chart: bytes) -> str:
    """Return the page; ``chart`` is what `training.comparison_chart.draw` made."""
    rows = comparison.rows
    return (
        templates()
        .get_template("comparison.html.j2")
        .render(
            comparison=comparison,
            rows=rows,
            best=_best(rows),
            gains=gains_of(rows),
            chart=chart,
            colours=COLOURS,
        )
    )


def _best(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the winners, as tiles show them: what for, the figure, who."""
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
