"""The commands ``regraft models`` that ask a server.

They are ``list``, ``show``, ``create``, ``promote`` and others.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import typer

from regraft.cli import terminal
from regraft.cli.json_output import message_to_dict, model_to_dict, print_json
from regraft.cli.options import Json, Name, asks_a_server
from regraft.client.client import Client
from regraft.client.connection import Connection
from regraft.client.message_values import time_text
from regraft.machine import user_name
from regraft.v1 import models_pb2 as pb

_FLIPS: Final = 5

_Why = Annotated[str, typer.Option(help="The reason, for the history.")]
_Expected = Annotated[
    int | None,
    typer.Option(min=0, help="The champion that you go by, 0 for none: if it is another by now, nothing changes."),
]


@asks_a_server
def list_models(
    server: Connection,
    deleted: Annotated[bool, typer.Option("--deleted", help="Those in the trash too.")] = False,
    as_json: Json = False,
) -> None:
    """List the models of a server's store."""
    with Client(server) as client:
        models = client.list_models(show_deleted=deleted)
    if as_json:
        print_json([model_to_dict(model) for model in models])
    else:
        show_models(models)


@asks_a_server
def show_model(
    server: Connection,
    name: Annotated[str, typer.Argument(help="The model; not needed while there is just one.")] = "",
    as_json: Json = False,
) -> None:
    """Show a model: its versions, card, provider and history."""
    with Client(server) as client:
        model = client.get_model(name)
    if as_json:
        print_json(model_to_dict(model))
    else:
        _show(model)


@asks_a_server
def create(
    server: Connection,
    name: Annotated[str, typer.Argument(help="The name of the model.")],
    backbone: Annotated[
        str,
        typer.Option(help="A backbone of the store, or the beginning of its digest; not needed while it has just one."),
    ] = "",
    label: Annotated[list[str] | None, typer.Option(help="A class that it begins with; may be repeated.")] = None,
    closed: Annotated[bool, typer.Option("--closed", help="Refuse labels beyond those.")] = False,
    why: _Why = "",
    as_json: Json = False,
) -> None:
    """Begin a model on a stored backbone; its first retrain makes version 1."""
    label_set = "closed" if closed else ""
    with Client(server) as client:
        done = client.create_model(name, backbone, label or (), label_set=label_set, who=user_name(), why=why)
    _show_move(done, as_json)
    if not as_json:
        terminal.line(f"next: regraft label FOLDER --name {name}, then regraft retrain --name {name} --wait")


@asks_a_server
def delete(
    server: Connection,
    name: Annotated[str, typer.Argument(help="The model.")],
    why: _Why = "",
    as_json: Json = False,
) -> None:
    """Put a model into the trash, which keeps it for a while."""
    with Client(server) as client:
        done = client.delete_model(name, who=user_name(), why=why)
    kept_until = time_text(done.kept_until)
    if as_json:
        print_json({"effect": message_to_dict(done.effect), "kept_until": kept_until})
    else:
        terminal.line(f"{name} is in the trash until {kept_until}; to bring it back: regraft models restore {name}")


@asks_a_server
def restore(
    server: Connection,
    name: Annotated[str, typer.Argument(help="The model.")],
    why: _Why = "",
    as_json: Json = False,
) -> None:
    """Bring a model back from the trash."""
    with Client(server) as client:
        _show_move(client.restore_model(name, who=user_name(), why=why), as_json)


@asks_a_server
def promote(
    server: Connection,
    version: Annotated[int, typer.Argument(min=1, help="The version that shall serve.")],
    name: Name = "",
    why: _Why = "",
    expected: _Expected = None,
    as_json: Json = False,
) -> None:
    """Make a version the champion; when this returns it serves."""
    with Client(server) as client:
        _show_move(client.promote(version, name=name, who=user_name(), why=why, expected=expected), as_json)


@asks_a_server
def rollback(
    server: Connection, name: Name = "", why: _Why = "", expected: _Expected = None, as_json: Json = False
) -> None:
    """Go back to the champion before; when this returns it serves."""
    with Client(server) as client:
        _show_move(client.rollback(name=name, who=user_name(), why=why, expected=expected), as_json)


@asks_a_server
def shadow(
    server: Connection,
    version: Annotated[
        int | None, typer.Argument(min=1, help="The version that shall judge beside the champion.")
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="End the shadow.")] = False,
    name: Name = "",
    why: _Why = "",
    as_json: Json = False,
) -> None:
    """Let a version judge live traffic beside the champion, unseen.

    `regraft models show` has its answers.
    """
    if (version is None) != off:
        raise typer.BadParameter("give either a version or --off", param_hint="VERSION")
    with Client(server) as client:
        _show_move(client.shadow(version or 0, name=name, who=user_name(), why=why), as_json)


def _show_move(
    done: pb.PromoteResponse
    | pb.RollbackResponse
    | pb.ShadowResponse
    | pb.CreateModelResponse
    | pb.RestoreModelResponse,
    as_json: bool,
) -> None:
    if as_json:
        print_json({**model_to_dict(done.model), "effect": message_to_dict(done.effect)})
    else:
        _show(done.model)


def _show(model: pb.Model) -> None:
    show_card(model, model_to_dict(model)["card"])
    _show_traffic(model)


def show_models(entries: Sequence[pb.Model]) -> None:
    """Show models, one a line."""
    if not entries:
        terminal.line("no models yet: train one with `regraft train`, or begin one with `regraft models create`")
        return
    rows = terminal.table("model", "versions", "provider", numbers=("serves", "champion", "labels", "examples"))
    for model in entries:
        rows.add_row(
            model.name,
            ", ".join(map(str, model.versions)),
            model.provider,
            str(model.served_version or "nothing"),
            str(model.champion or "none"),
            str(len(model.labels)),
            str(model.examples) if model.HasField("examples") else "unknown",
        )
    terminal.out.print(rows)
    for model in entries:
        if model.problem:
            terminal.line((f"{model.name}: {model.problem}", "red"))
        elif model.missing:
            terminal.line((f"{model.name}: no version yet; it needs {model.missing}", "yellow"))
        if model.HasField("kept_until"):
            terminal.line((f"{model.name}: in the trash until {time_text(model.kept_until)}", "dim"))


def show_card(entry: pb.Model, card: Mapping[str, Any]) -> None:
    """Show one model with its card and history."""
    show_models([entry])
    if entry.fallback_reason:
        terminal.line((f"not on CUDA: {entry.fallback_reason}", "yellow"))
    if card:
        metrics = card["metrics"]
        backbone = card["backbone"]
        terminal.line(f"labels: {', '.join(card['labels'])}")
        precision = backbone.get("precision", "fp32")  # a server of an earlier Regraft does not say it
        training = f"{card['strategy']}, {precision}, {card['train_images']} images"
        terminal.line(f"backbone: {backbone['name']} ({backbone['weights']}), {training}")
        if sources := backbone.get("sources"):
            origins = (f"{each['name']}:{each['version']} (backbone {each['digest'][:12]})" for each in sources)
            terminal.line(f"went on from {', then '.join(origins)}")
        if state := backbone.get("state"):
            terminal.line(f"weights kept to go on from: {state['size_bytes'] / 1e6:.1f} MB")
        if metrics:
            low, high = metrics["accuracy_interval"]
            terminal.line(
                f"accuracy {metrics['accuracy']:.4f} ({low:.3f} to {high:.3f}) on {metrics['images']} holdout images"
            )
    rows = terminal.table("when", "event", "who", "why", title="history", numbers=("version", "before"))
    for event in entry.history:
        numbers = str(event.version or ""), str(event.previous or "")
        rows.add_row(time_text(event.at), event.event, event.who, event.why, *numbers)
    rows.columns[0].no_wrap = True
    terminal.out.print(rows)


def _show_traffic(model: pb.Model) -> None:
    """Show trial, drift and shadow; docs/drift.md says how to read them."""
    if model.HasField("baking"):
        baking = model.baking
        terminal.line(
            f"baking: version {baking.version} is on trial for {baking.remaining_s:.0f} more seconds, {baking.images} "
            f"pictures so far; if it does worse, the server goes back to version {baking.previous}"
        )
    if model.HasField("drift"):
        terminal.line(*_drift(model.drift))
    if model.HasField("shadow"):
        terminal.line(*_shadow(model.shadow))


def _drift(drift: pb.Drift) -> tuple[str | tuple[str, str], ...]:
    if drift.state == pb.Drift.STATE_NOT_KNOWN:
        return ("drift: not known, since this version's card has no reference; a retrain makes one",)
    if drift.state == pb.Drift.STATE_TOO_FEW:
        return (f"drift: too few pictures yet to say ({drift.images})",)
    shifts = ", ".join(f"{shift.of} {shift.ks:.2f}{'!' if shift.drifted else ''}" for shift in drift.shifts)
    word = ("seen", "yellow") if drift.state == pb.Drift.STATE_DRIFTED else ("none", "green")
    return ("drift: ", word, f" over {drift.images} pictures; KS {shifts}; unknown {drift.unknown_share:.1%}")


def _shadow(shadow: pb.Shadow) -> tuple[str | tuple[str, str], ...]:
    if shadow.problem:
        return (("shadow: ", "red"), shadow.problem)
    if not shadow.images:
        return (f"shadow: version {shadow.version}, no picture yet",)
    flips = ", ".join(f"{flip.champion} → {flip.shadow} {flip.images}" for flip in shadow.flips[:_FLIPS])
    return (
        f"shadow: version {shadow.version} agrees on {shadow.agreed / shadow.images:.1%} of {shadow.images} pictures, "
        f"confidence {shadow.confidence_shift:+.3f}{'; ' if flips else ''}{flips}",
    )
