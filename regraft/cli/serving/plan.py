"""An execution plan on the terminal, with what it was chosen from."""

from collections.abc import Mapping
from typing import Any

from regraft.cli.terminal import line, out, table


def plan(report: Mapping[str, Any]) -> None:
    """Show what `regraft.cli.serving.plan_report.plan_report` returns; bars, since a curve is to be looked at."""
    chosen = report["plan"]
    best = max(point["pictures_per_s"] for point in report["measured"])
    rows = table(
        title=f"{report['backbone']} on {report['provider']}, {report['cpus']} CPUs ({report['processor']})",
        numbers=("lanes", "threads a lane", "batch", "pictures/s", "ms a run"),
    )
    rows.add_column("")
    for point in report["measured"]:
        is_chosen = tuple(point[key] for key in ("lanes", "threads", "batch")) == (
            chosen["lanes"],
            chosen["threads"],
            chosen["max_batch"],
        )
        rows.add_row(
            *(str(point[key]) for key in ("lanes", "threads", "batch")),
            f"{point['pictures_per_s']:.1f}",
            f"{point['run_ms']:.2f}",
            "█" * round(30 * point["pictures_per_s"] / best) + (" <- chosen" if is_chosen else ""),
            style="bold" if is_chosen else "",
        )
    out.print(rows)
    if report["fallback_reason"]:
        line(f"not on CUDA: {report['fallback_reason']}")
    if report["doubt"]:
        line((f"in doubt, and not kept: {report['doubt']}; the next start, or --fresh, measures again", "yellow"))
    line(
        f"for {report['optimise']}: {chosen['text']}, that is {chosen['lanes']} run(s) at once, {chosen['threads']} "
        f"thread(s) each, up to {chosen['max_batch']} picture(s) a run, answers of {chosen['turn']} run(s) together"
    )
