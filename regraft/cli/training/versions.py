"""The commands that say where versions come from: ``regraft models diff`` and ``regraft verify``."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from regraft.cli import terminal
from regraft.cli.json_output import print_json
from regraft.cli.options import Json, Store
from regraft.stores.models import ModelStore

_Version = Annotated[str, typer.Argument(help="NAME:VERSION, or NAME for its champion.")]


def diff(
    first: _Version,
    second: Annotated[str, typer.Argument(help="Likewise; a bare number is a version of the same model.")],
    store: Store = Path("models"),
    as_json: Json = False,
) -> None:
    """Show what is different between two versions: labels, metrics, settings, and what they were fitted on."""
    from training.versions.diff import version_diff  # noqa: PLC0415 - scikit-learn takes a second

    other = f"{first.partition(':')[0]}:{second}" if second.isdecimal() else second
    found = version_diff(ModelStore(store), first, other).to_dict()
    if as_json:
        print_json(found)
    else:
        _show_diff(found)


def verify(version: _Version, store: Store = Path("models"), as_json: Json = False) -> None:
    """Fit a version's head anew from the data kept with it, and compare the bytes; exit 1 if anything differs."""
    from training.versions.verify import verify as run  # noqa: PLC0415 - as above

    with terminal.progress_bars() as progress:
        found = run(ModelStore(store), version, progress)
    if as_json:
        print_json(found.to_dict())
    else:
        _show_verified(found.to_dict())
    if not found.holds:
        raise typer.Exit(1)


def _show_diff(found: dict[str, Any]) -> None:
    before, now = found["versions"]
    if found["heads"][0] == found["heads"][1]:
        terminal.line("the heads are the very same")
    for what, labels in (("labels added", found["labels_added"]), ("labels gone", found["labels_gone"])):
        if labels:
            terminal.line(f"{what}: {', '.join(labels)}")
    rows = terminal.table(found["name"], numbers=(f"version {before}", f"version {now}"))
    rows.add_row("holdout images", *map(str, found["holdout_images"]))
    rows.add_row("accuracy", *map(_share, found["accuracy"]))
    for label, recalls in found["recall"].items():
        rows.add_row(f"recall of {label}", *map(_share, recalls))
    if found["backbone"]:
        rows.add_row("backbone", *found["backbone"])
    for name, values in found["settings"].items():
        rows.add_row(name, *(f"{value:.6g}" if isinstance(value, float) else str(value) for value in values))
    terminal.out.print(rows)
    data = found["data"]
    for what in ("added", "removed"):
        counts = Counter(data[what].values())
        by_label = ", ".join(f"{label} {count}" for label, count in sorted(counts.items()))
        terminal.line(f"pictures {what}: {len(data[what])}" + (f" ({by_label})" if by_label else ""))
    relabelled = Counter((entry["before"], entry["now"]) for entry in data["relabelled"])
    changes = ", ".join(f"{old} to {new} {count}" for (old, new), count in sorted(relabelled.items()))
    terminal.line(f"relabelled: {len(data['relabelled'])}" + (f" ({changes})" if changes else ""))
    if data["moved"]:
        terminal.line(f"moved between training and holdout: {len(data['moved'])}")


def _show_verified(found: dict[str, Any]) -> None:
    head = {True: "the same bytes", False: "OTHER bytes", None: f"not fitted on features ({found['strategy']})"}
    terminal.line(f"{found['name']}, version {found['version']}")
    terminal.line(f"data: {'as the card says' if found['data'] else 'NOT what the card says'}")
    terminal.line(f"metrics: {'as the card says' if found['metrics'] else 'NOT what the card says'}")
    terminal.line(f"head, fitted anew: {head[found['head']]}")
    if found["head"] is False:
        terminal.line(f"largest difference of a probability: {found['largest_difference']:.2g}")
    for library, (then, now) in found["libraries"].items():
        terminal.line((f"{library} was {then or 'not there'}, is {now or 'not there'}", "dim"))


def _share(value: float | None) -> str:
    return f"{value:.4f}" if value is not None else "unknown"
