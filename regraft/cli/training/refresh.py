"""The command ``regraft refresh``."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from regraft.cli import terminal
from regraft.cli.json_output import print_json
from regraft.cli.options import (
    Augment,
    Database,
    Examples,
    Json,
    Mirror,
    NoAugment,
    Resize,
    Store,
    share_of,
    strength_of,
    with_flags,
)
from regraft.cli.verdict import show_not_promoted, show_objections, show_suspects
from regraft.files import cache_folder
from regraft.stores.models import GateMode, ModelStore
from regraft.v1 import retraining_pb2


def refresh() -> Callable[..., None]:
    """Train a model anew, backbone and all, on its original data and all that was labelled since; the gate decides.

    Backbone, weights, size and shape of the input and precision stay the champion's unless you say otherwise.

    Exit 1 where the gate refused. Every server that watches the store picks the new version up.
    """
    from regraft.cli.settings_flags import flags_of, pop_fields  # noqa: PLC0415 - pydantic takes a moment
    from regraft.gate_limits import GateLimits  # noqa: PLC0415 - as above

    flags = flags_of(GateLimits, unset=True, section="Limits of the gate")
    return with_flags(_refresh, "limits", flags, lambda values: pop_fields(GateLimits, values))


def _refresh(
    limits: dict[str, float],
    data: Annotated[Path, typer.Argument(help="The folder that the model was trained on, perhaps with more in it.")],
    name: Annotated[str, typer.Option(help="The model.")],
    store: Store = Path("models"),
    examples: Examples = "",
    database: Database = "",
    backbone: Annotated[str, typer.Option(help="As in `regraft train`. Default: the champion's.")] = "",
    weights: Annotated[
        str,
        typer.Option(
            help="default, none, or the file of a state dict. Default: those that the champion's network began with; "
            "of another backbone its own."
        ),
    ] = "",
    image_px: Annotated[
        int | None, typer.Option(min=1, help="Side of the input. Default: the champion's; of another backbone its own.")
    ] = None,
    resize: Resize = None,
    strategy: Annotated[str, typer.Option(help="probe, finetune, scratch or auto, as in `regraft train`.")] = "probe",
    precision: Annotated[str, typer.Option(help="fp32, int8 or auto. Default: the champion's.")] = "",
    target_error: Annotated[
        str, typer.Option(help="As in `regraft train`, such as 2%. Default: the champion's, where it has one.")
    ] = "",
    group_by: Annotated[
        str, typer.Option(help="Keeps pictures that are new together in the split, as in `regraft train`.")
    ] = "",
    views: Annotated[int, typer.Option(help="Further views of each training image for the probe.")] = 0,
    augment: Augment = "full",
    no_augment: NoAugment = False,
    mirror: Mirror = None,
    keep_state: Annotated[
        bool, typer.Option(help="Keep the trained weights beside the version, as in `regraft train`.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Of everything that is random.")] = 0,
    gate: Annotated[
        GateMode, typer.Option(help="auto: a blessed version goes live. manual: it waits for promote. off: anyhow.")
    ] = GateMode.AUTO,
    as_json: Json = False,
) -> None:
    from regraft.gate_limits import GateLimits, check_limits  # noqa: PLC0415 - pydantic takes a moment
    from regraft.stores.examples import open_examples  # noqa: PLC0415 - SQLAlchemy takes half a second
    from training.retrain.refresh import network_of  # noqa: PLC0415 - scipy takes a second
    from training.retrain.refresh import refresh as run  # noqa: PLC0415 - as above
    from training.settings import TrainSettings  # noqa: PLC0415 - as above

    check_limits(limits)
    network = network_of(
        ModelStore(store),
        name,
        backbone=backbone,
        weights=weights,
        precision=precision,
        image_px=image_px,
        resize=resize,  # type: ignore[arg-type]  # checked below, as are strategy and precision
    )
    settings = TrainSettings(
        data,
        name,
        store,
        network.backbone,
        network.weights,
        strategy,  # type: ignore[arg-type]  # checked there, as is the precision
        seed,
        target_error=share_of(target_error, "--target-error") if target_error else None,
        group_by=group_by,
        views=views,
        augment=strength_of(augment, no_augment=no_augment),
        mirror=mirror,
        image_px=network.image_px,
        resize=network.resize,
        keep_state=keep_state,
        precision=network.precision,  # type: ignore[arg-type]
    )
    labelled = open_examples(store, examples, database)
    try:
        with terminal.training() as listener:
            made = run(
                settings, labelled, cache=cache_folder(), gate=gate, limits=GateLimits.of(limits), listener=listener
            )
            result = made.to_dict()
    finally:
        labelled.close()
    if as_json:
        print_json(result)
    else:
        _show(result)
    if not (result["promoted"] or result["verdict"]["blessed"]):
        raise typer.Exit(1)


def _show(result: dict[str, Any]) -> None:
    from training.retrain.data import FIRST_SOURCE  # noqa: PLC0415 - ONNX Runtime takes a second

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
    sent = [entry for entry in verdict["suspected"] if entry["source"] != FIRST_SOURCE]
    show_suspects(retraining_pb2.Verdict(suspects=verdict["suspects"], suspected=sent), result["name"])
    for caution in verdict["cautions"]:
        terminal.line((f"- {caution}", "dim"))
    if result["promoted"]:
        terminal.line(f"version {result['version']} is the champion")
    else:
        show_not_promoted(result)
