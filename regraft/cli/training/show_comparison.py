"""A comparison on the terminal. Machines get JSON instead, from `regraft.cli.training.compare`."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from regraft.cli import terminal


def comparison(result: Mapping[str, Any]) -> None:
    """Show what `training.compare.results.Comparison.to_dict` returns, with the ``folder`` it was written to."""
    for data in result["datasets"]:
        _models(data, [row for row in result["rows"] if row["data"] == data["name"] and row.get("model")])
        _learning_curves(result, data["name"])
    for row in result["rows"]:
        if row["error"]:
            run = ", ".join(str(row[key]) for key in ("backbone", "strategy", "share"))
            terminal.line((f"{row['data']}, {run}, seed {row['seed']}: ", "red"), row["error"])
    terminal.line(
        ("★", "yellow"),
        " on the Pareto front: no other is at least as accurate, small and fast, and better in one; bold: the best",
    )
    for gain in result["gains"]:
        if gain["share"] == "all":
            data = f"{gain['data']}, " if len(result["datasets"]) > 1 else ""
            colour = "green" if gain["points"] > 0 else "red"
            style = colour if gain["is_clear"] else ""
            terminal.line((f"{data}{gain['backbone']}", "bold"), ": ", (gain["sentence"], style))
    for winner in result["published"]:
        _published(winner)
    terminal.line(f"look at it: {result['folder']}/comparison.html")
    terminal.line(f"serve them: regraft serve --store {result['folder']}/models")


def _models(data: Mapping[str, Any], made: Sequence[Mapping[str, Any]]) -> None:
    best = _best(made)
    images = f"{data['train_images']} training and {data['holdout_images']} holdout images"
    title = f"{data['name']}: {data['labels']} classes, {images}"
    numbers = ("accuracy", "95 % interval", "macro F1", "on training", "MB", "M params", "ms", "training s", "images/s")
    rows = terminal.table("", "backbone", "strategy", title=title, numbers=numbers)
    for row, following in zip(made, [*made[1:], {}], strict=True):
        rows.add_row(*_cells(row, best), end_section=row["backbone"] != following.get("backbone"))
    terminal.out.print(rows)


def _learning_curves(result: Mapping[str, Any], data: str) -> None:
    """Show accuracy by number of training pictures.

    It is the mean and the range over the seeds.
    """
    points = [point for point in result["learning_curves"] if point["data"] == data]
    counts = sorted({round(point["train_images"]) for point in points})
    if len(counts) < 2:
        return
    seeds = len(result["seeds"])
    title = f"accuracy by training pictures{f', mean and range of {seeds} seeds' if seeds > 1 else ''}"
    rows = terminal.table("backbone", "strategy", title=title, numbers=[str(count) for count in counts])
    for backbone, strategy in dict.fromkeys((point["backbone"], point["strategy"]) for point in points):
        mine = {
            round(point["train_images"]): point
            for point in points
            if (point["backbone"], point["strategy"]) == (backbone, strategy)
        }
        rows.add_row(backbone, strategy, *(_range(mine.get(count)) for count in counts))
    terminal.out.print(rows)


def _range(point: Mapping[str, Any] | None) -> str:
    if point is None:
        return "-"
    spread = f" ({point['lowest']:.1%}-{point['highest']:.1%})" if point["seeds"] > 1 else ""
    return f"{point['mean']:.1%}{spread}"


def _published(winner: Mapping[str, Any]) -> None:
    made = f"{winner['backbone']}, {winner['strategy']}"
    terminal.line(f"published: {winner['name']}, version {winner['version']}: {made}: {winner['why']}")
    terminal.objections(winner)
    if not winner["promoted"]:
        terminal.not_promoted(winner)


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
        Text(f"{row['train_accuracy']:.1%}"),
        _figure(row, "model_mb", best, "{:.1f}"),
        Text(f"{row['parameters'] / 1e6:.2f}"),
        _figure(row, "ms", best, "{:.2f}"),
        _figure(row, "seconds", best, "{:.1f}"),
        Text(f"{row['images_per_s']:.0f}"),
    ]


def _figure(row: Mapping[str, Any], key: str, best: Mapping[str, float], form: str) -> Text:
    value = row[key]
    if value is None:
        return Text("-")
    return Text(form.format(value), "bold" if form.format(value) == form.format(best[key]) else "")
