"""The commands ``regraft models diff`` and ``regraft verify``."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from regraft.cli import terminal
from regraft.cli.json_output import print_result
from regraft.cli.options import Json, Store
from regraft.stores.models import ModelStore

_Version = Annotated[str, typer.Argument(help="NAME:VERSION, or NAME for its champion.")]


def diff(
    first: _Version,
    second: Annotated[str, typer.Argument(help="Likewise; a bare number is a version of the same model.")],
    store: Store = Path("models"),
    as_json: Json = False,
) -> None:
    """Show the differences between two versions.

    Labels, metrics, settings, and the pictures that they were fitted on.
    """
    from training.versions.diff import version_diff  # noqa: PLC0415 - scikit-learn takes a second

    other = f"{first.partition(':')[0]}:{second}" if second.isdecimal() else second
    outcome = version_diff(ModelStore(store), first, other).to_dict()
    print_result(outcome, _show_diff, as_json)


def verify(version: _Version, store: Store = Path("models"), as_json: Json = False) -> None:
    """Fit a version's head anew, and compare the bytes.

    From the data kept with it. Exit 1 if anything differs.
    """
    from training.versions.verify import verify as run  # noqa: PLC0415 - as above

    with terminal.progress_bars() as progress:
        outcome = run(ModelStore(store), version, progress)
    print_result(outcome.to_dict(), _show_verified, as_json)
    if not outcome.holds:
        raise typer.Exit(1)


def _show_diff(outcome: dict[str, Any]) -> None:
    before, now = outcome["versions"]
    if outcome["heads"][0] == outcome["heads"][1]:
        terminal.line("the heads are the very same")
    for what, labels in (("labels added", outcome["labels_added"]), ("labels gone", outcome["labels_gone"])):
        if labels:
            terminal.line(f"{what}: {', '.join(labels)}")
    rows = terminal.table(outcome["name"], numbers=(f"version {before}", f"version {now}"))
    rows.add_row("holdout images", *map(str, outcome["holdout_images"]))
    rows.add_row("accuracy", *map(_share, outcome["accuracy"]))
    for label, recalls in outcome["recall"].items():
        rows.add_row(f"recall of {label}", *map(_share, recalls))
    if outcome["backbone"]:
        rows.add_row("backbone", *outcome["backbone"])
    for name, values in outcome["settings"].items():
        rows.add_row(name, *(f"{value:.6g}" if isinstance(value, float) else str(value) for value in values))
    terminal.out.print(rows)
    data = outcome["data"]
    for what in ("added", "removed"):
        counts = Counter(data[what].values())
        by_label = ", ".join(f"{label} {count}" for label, count in sorted(counts.items()))
        terminal.line(f"pictures {what}: {len(data[what])}" + (f" ({by_label})" if by_label else ""))
    relabelled = Counter((entry["before"], entry["now"]) for entry in data["relabelled"])
    changes = ", ".join(f"{old} to {new} {count}" for (old, new), count in sorted(relabelled.items()))
    terminal.line(f"relabelled: {len(data['relabelled'])}" + (f" ({changes})" if changes else ""))
    if data["moved"]:
        terminal.line(f"moved between training and holdout: {len(data['moved'])}")


def _show_verified(outcome: dict[str, Any]) -> None:
    head = {True: "the same bytes", False: "OTHER bytes", None: f"not fitted on features ({outcome['strategy']})"}
    terminal.line(f"{outcome['name']}, version {outcome['version']}")
    terminal.line(f"data: {'as the card says' if outcome['data'] else 'NOT what the card says'}")
    terminal.line(f"metrics: {'as the card says' if outcome['metrics'] else 'NOT what the card says'}")
    terminal.line(f"head, fitted anew: {head[outcome['head']]}")
    if outcome["head"] is False:
        terminal.line(f"largest difference of a probability: {outcome['largest_difference']:.2g}")
    for library, (then, now) in outcome["libraries"].items():
        terminal.line((f"{library} was {then or 'not there'}, is {now or 'not there'}", "dim"))


def _share(value: float | None) -> str:
    return f"{value:.4f}" if value is not None else "unknown"
