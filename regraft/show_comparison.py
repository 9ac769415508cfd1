"""A comparison on the terminal. Machines get JSON instead, from `regraft.train_cli`."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from regraft import show


def comparison(result: Mapping[str, Any]) -> None:
    """Show what `training.comparison.Comparison.to_dict` returns, with the ``folder`` it was written to."""
    made = [row for row in result["rows"] if not row["error"]]
    best = _best(made)
    title = f"{result['data']}: {result['labels']} classes, {result['holdout_images']} holdout images"
    numbers = ("accuracy", "95 % interval", "macro F1", "MB", "M params", "ms an image", "training s")
    rows = show.table("", "backbone", "strategy", title=title, numbers=numbers)
    for row, following in zip(made, [*made[1:], {}], strict=True):
        rows.add_row(*_cells(row, best), end_section=row["backbone"] != following.get("backbone"))
    show.out.print(rows)
    for row in result["rows"]:
        if row["error"]:
            show.line((f"{row['backbone']}, {row['strategy']}: ", "red"), row["error"])
    show.line(
        ("★", "yellow"),
        " on the Pareto front: no other is at least as accurate, small and fast, and better in one; bold: the best",
    )
    for gain in result["gains"]:
        colour = "green" if gain["points"] > 0 else "red"
        show.line((gain["backbone"], "bold"), ": ", (gain["sentence"], colour))
    show.line(f"look at it: {result['folder']}/comparison.html")
    show.line(f"serve them: regraft serve --store {result['folder']}/models")


def _best(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the best value of each column that is a contest."""
    measured = [row for row in rows if row["accuracy"] is not None]
    highest = {key: max(row[key] for row in measured) for key in ("accuracy", "macro_f1") if measured}
    return highest | {key: min(row[key] for row in rows) for key in ("model_mb", "ms", "seconds") if rows}


def _cells(row: Mapping[str, Any], best: Mapping[str, float]) -> list[Text]:
    strategy = row["strategy"] + (f" ({row['carried_out']})" if row["carried_out"] != row["strategy"] else "")
    low, high = row["accuracy_interval"] or (None, None)
    return [
        Text("★" if row["is_pareto"] else "", "yellow"),
        Text(row["backbone"]),
        Text(strategy),
        _figure(row, "accuracy", best, "{:.1%}"),
        Text("" if low is None else f"{low:.1%} to {high:.1%}", "dim"),
        _figure(row, "macro_f1", best, "{:.3f}"),
        _figure(row, "model_mb", best, "{:.1f}"),
        Text(f"{row['parameters'] / 1e6:.2f}"),
        _figure(row, "ms", best, "{:.2f}"),
        _figure(row, "seconds", best, "{:.1f}"),
    ]


def _figure(row: Mapping[str, Any], key: str, best: Mapping[str, float], form: str) -> Text:
    value = row[key]
    if value is None:
        return Text("-")
    return Text(form.format(value), "bold" if form.format(value) == form.format(best[key]) else "")
