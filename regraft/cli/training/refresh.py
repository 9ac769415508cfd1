"""The command ``regraft refresh``."""

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from regraft.cli import terminal
from regraft.cli.json_output import print_result
from regraft.cli.options import Database, Examples, Json, KeepPictures, read_training_flags, with_flags
from regraft.cli.training.train import show_pictures
from regraft.cli.verdict import show_not_promoted, show_objections, show_suspects
from regraft.files import cache_folder
from regraft.stores.models import GateMode, ModelStore
from regraft.v1 import retraining_pb2

if TYPE_CHECKING:  # pydantic, which other commands spare
    from training.settings import TrainSettings

_CHAMPION: Final = {"backbone": "", "weights": "", "precision": "", "image_px": None, "resize": None}
"""Flags whose default is what the champion has."""
_ONLY_TRAIN: Final = (
    "cv",
    "init",
    "balance",
    "extra",
    "extra_weighting",
    "resume",
    "publish",
    "max_minutes",
    "tensorboard",
    "mlflow",
)


def refresh() -> Callable[..., None]:
    """Train a model anew, backbone and all.

    It learns from its original data, perhaps with more in it, and all that was labelled since; the gate decides.
    Backbone, weights, size and shape of the input and precision stay the champion's unless you say otherwise.

    Exit 1 where the gate refused. Every server that watches the store picks the new version up.
    """
    from regraft.cli.settings_flags import REQUIRED, takes_limits, training_flags  # noqa: PLC0415 - pydantic takes a moment
    from training.settings import TrainSettings  # noqa: PLC0415 - as above

    def settings(values: dict[str, Any]) -> TrainSettings:
        from training.retrain.refresh import network_of  # noqa: PLC0415 - scipy, which --help spares

        network = network_of(ModelStore(values["store"]), values["name"], **{flag: values[flag] for flag in _CHAMPION})
        return TrainSettings(**{**read_training_flags(values), **asdict(network)})

    defaults = {"name": REQUIRED, **_CHAMPION}
    flags = training_flags(without=_ONLY_TRAIN, defaults=defaults)
    return with_flags(takes_limits(_refresh), "settings", flags, settings)


def _refresh(
    settings: "TrainSettings",
    limits: dict[str, float],
    examples: Examples = "",
    database: Database = "",
    gate: Annotated[
        GateMode, typer.Option(help="auto: a blessed version goes live. manual: it waits for promote. off: anyhow.")
    ] = GateMode.AUTO,
    keep_pictures: KeepPictures = True,
    as_json: Json = False,
) -> None:
    from regraft.gate_limits import GateLimits, check_limits  # noqa: PLC0415 - as above
    from regraft.stores.examples import open_examples  # noqa: PLC0415 - SQLAlchemy takes half a second
    from training.retrain.refresh import refresh as run  # noqa: PLC0415 - as above
    from training.versions.pictures import ExamplesPlace  # noqa: PLC0415 - as above

    check_limits(limits)
    labelled = open_examples(settings.store, examples, database)
    try:
        with terminal.training() as listener:
            result = run(
                settings,
                labelled,
                cache=cache_folder(),
                gate=gate,
                limits=GateLimits.of(limits),
                listener=listener,
                keep_in=ExamplesPlace(settings.store, examples, database) if keep_pictures else None,
            ).to_dict()
    finally:
        labelled.close()
    print_result(result, _show, as_json)
    if not (result["promoted"] or result["verdict"]["blessed"]):
        raise typer.Exit(1)


def _show(result: dict[str, Any]) -> None:
    verdict = result["verdict"]
    rows = terminal.table(f"{result['name']}, {result['strategy']}", numbers=("champion", "refreshed"))
    rows.add_row("version", str(result["parent_version"]), str(result["version"]))
    accuracies = (verdict["champion_accuracy"], verdict["challenger_accuracy"])
    rows.add_row(f"accuracy on {verdict['holdout_images']} holdout images", *(f"{share:.4f}" for share in accuracies))
    for entry in verdict["classes"]:
        before = "new" if entry["is_new"] else f"{entry['champion_recall']:.3f}"
        rows.add_row(f"recall of {entry['label']}", before, f"{entry['challenger_recall']:.3f}")
    terminal.out.print(rows)
    show_objections(verdict)
    suspected = verdict["suspected"] if result["pictures"] else _sent(verdict)
    show_suspects(retraining_pb2.Verdict(suspects=verdict["suspects"], suspected=suspected), result["name"])
    for caution in verdict["cautions"]:
        terminal.line((f"- {caution}", "dim"))
    if result["pictures"]:
        show_pictures(result["pictures"])
    if result["promoted"]:
        terminal.line(f"version {result['version']} is the champion")
    else:
        show_not_promoted(result)


def _sent(verdict: dict[str, Any]) -> list[Any]:
    """Return the suspects that are examples, which `regraft examples relabel` finds."""
    from regraft.stores.originals import FIRST_SOURCE  # noqa: PLC0415 - SQLAlchemy takes half a second

    return [entry for entry in verdict["suspected"] if entry["source"] != FIRST_SOURCE]
