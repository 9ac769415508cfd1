"""The command ``regraft compare``."""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from regraft.cli import terminal
from regraft.cli.json_output import print_result
from regraft.cli.options import Database, Json, KeepPictures, RunExamples, Store, with_flags
from regraft.cli.training.train import show_pictures
from regraft.cli.verdict import show_not_promoted, show_objections
from regraft.stores.models import GateMode

_PUBLISHING: Final = "Publishing the winner"


def compare() -> Callable[..., None]:
    """Train several networks on the same photos in several ways.

    It weighs accuracy against speed, size and pictures. What learned from all pictures becomes a model with its own
    report in the store OUT/models; OUT/comparison.html has the charts. Exit 1 where the gate refused the winner.
    """
    from regraft.cli.settings_flags import flags_of, pop_fields  # noqa: PLC0415 - it takes a second, which others spare
    from training.settings import TUNING, TrainSettings  # noqa: PLC0415 - as above
    from training.strategies.finetuning.recipe import FLAG_NAMES, Recipe  # noqa: PLC0415 - as above

    def recipe(values: dict[str, Any]) -> dict[str, Any]:
        return {"changes": pop_fields(Recipe, values, FLAG_NAMES), **values}

    flags = flags_of(Recipe, names=FLAG_NAMES, unset=True, section=TUNING)
    return with_flags(_compare, "recipe", {**flags, "init": flags_of(TrainSettings)["init"]}, recipe)


def _compare(
    recipe: dict[str, Any],
    data: Annotated[list[Path], typer.Argument(help="One or more folders of labelled photos, or lists of them.")],
    backbones: Annotated[str, typer.Option(help="Names with commas between, see `regraft backbones`.")],
    strategies: Annotated[str, typer.Option(help="Some of probe, finetune, scratch, auto.")] = "probe",
    shares: Annotated[
        str,
        typer.Option(help="Of the training pictures, such as 20,50,200,all or 10%,all; each is a part of the next."),
    ] = "all",
    seeds: Annotated[
        int, typer.Option(min=1, help="Runs of each, for mean and range; each draws shares of its own.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="The first of them, of everything that is random.")] = 0,
    out: Annotated[Path | None, typer.Option(help="The folder to write. Default: compare-<DATA>.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the runs that an interrupted comparison has finished.")
    ] = False,
    weights: Annotated[
        str, typer.Option(help="default or none; REGRAFT_WEIGHTS may name a folder of state dicts, <backbone>.pth.")
    ] = "default",
    publish: Annotated[
        str,
        typer.Option(
            help="best: train the winner once more, into the store. The holdout does not choose it: the accuracy on "
            "training pictures that it had not seen does.",
            rich_help_panel=_PUBLISHING,
        ),
    ] = "",
    store: Store = Path("models"),
    name: Annotated[
        str, typer.Option(help="Of the model there; the data's if not given.", rich_help_panel=_PUBLISHING)
    ] = "",
    gate: Annotated[
        GateMode, typer.Option(help="As of `regraft train`, where it has a champion.", rich_help_panel=_PUBLISHING)
    ] = GateMode.AUTO,
    examples: RunExamples = "",
    database: Database = "",
    keep_pictures: KeepPictures = True,
    as_json: Json = False,
) -> None:
    from training.compare.settings import CompareSettings  # noqa: PLC0415 - as above
    from training.compare.sweep import compare as run  # noqa: PLC0415 - as above

    settings = CompareSettings(
        tuple(data),
        _names(backbones),
        _names(strategies),
        out=out,
        weights=weights,
        seed=seed,
        seeds=seeds,
        shares=_names(shares),
        resume=resume,
        publish=publish,
        store=store,
        name=name,
        gate=gate,
        examples=examples,
        database=database,
        keep_pictures=keep_pictures,
        **recipe,
    )
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    result = {"folder": str(settings.folder), **run(settings, _listen).to_dict()}
    print_result(result, show_comparison, as_json)
    if any(winner["reasons"] and not winner["promoted"] for winner in result["published"]):
        raise typer.Exit(1)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",")) if text.strip() else ()


@contextmanager
def _listen(title: str) -> Iterator[terminal.TrainingView]:
    terminal.remark(title)
    with terminal.training() as listener:
        yield listener


def show_comparison(result: Mapping[str, Any]) -> None:
    """Show what `training.compare.results.SweepResult.to_dict` returns, with the ``folder`` it was written to."""
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


def _models(data: Mapping[str, Any], trained: Sequence[Mapping[str, Any]]) -> None:
    best = _best(trained)
    images = f"{data['train_images']} training and {data['holdout_images']} holdout images"
    title = f"{data['name']}: {data['labels']} classes, {images}"
    numbers = ("accuracy", "95 % interval", "macro F1", "on training", "MB", "M params", "ms", "training s", "images/s")
    rows = terminal.table("", "backbone", "strategy", title=title, numbers=numbers)
    for row, following in zip(trained, [*trained[1:], {}], strict=True):
        rows.add_row(*_cells(row, best), end_section=row["backbone"] != following.get("backbone"))
    terminal.out.print(rows)


def _learning_curves(result: Mapping[str, Any], data: str) -> None:
    """Show accuracy by training pictures: mean and range over seeds."""
    points = [point for point in result["learning_curves"] if point["data"] == data]
    counts = sorted({round(point["train_images"]) for point in points})
    if len(counts) < 2:
        return
    seeds = len(result["seeds"])
    title = f"accuracy by training pictures{f', mean and range of {seeds} seeds' if seeds > 1 else ''}"
    rows = terminal.table("backbone", "strategy", title=title, numbers=[str(count) for count in counts])
    for backbone, strategy in dict.fromkeys((point["backbone"], point["strategy"]) for point in points):
        curve = {
            round(point["train_images"]): point
            for point in points
            if (point["backbone"], point["strategy"]) == (backbone, strategy)
        }
        rows.add_row(backbone, strategy, *(_range(curve.get(count)) for count in counts))
    terminal.out.print(rows)


def _range(point: Mapping[str, Any] | None) -> str:
    if point is None:
        return "-"
    spread = f" ({point['lowest']:.1%}-{point['highest']:.1%})" if point["seeds"] > 1 else ""
    return f"{point['mean']:.1%}{spread}"


def _published(winner: Mapping[str, Any]) -> None:
    winner_name = f"{winner['backbone']}, {winner['strategy']}"
    terminal.line(f"published: {winner['name']}, version {winner['version']}: {winner_name}: {winner['why']}")
    show_objections(winner)
    if winner["pictures"]:
        show_pictures(winner["pictures"])
    if not winner["promoted"]:
        show_not_promoted(winner)


def _best(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the best value of each compared column."""
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
