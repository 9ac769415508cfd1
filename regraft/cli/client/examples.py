"""The commands ``regraft examples``: the labelled pictures of a server."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.timestamp_pb2 import Timestamp

from regraft.cli import terminal
from regraft.cli.json_output import message_to_dict, picture_to_dict, print_json
from regraft.cli.options import Json, Name, asks_a_server
from regraft.client.client import Client
from regraft.client.connection import Connection
from regraft.client.message_values import time_text, to_timestamp
from regraft.datasets.labelled_files import write_list, write_picture
from regraft.errors import InvalidRequestError
from regraft.machine import user_name
from regraft.v1 import examples_pb2

_Hash = Annotated[str, typer.Argument(help="The SHA-256 of the picture, or its beginning.")]


class Order(StrEnum):
    """An order of `regraft examples list`."""

    HASH = "hash"
    NEWEST = "newest"
    LIKELY_WRONG = "likely-wrong"
    LEAST_SURE = "least-sure"
    MOST_NOVEL = "most-novel"


class Outcome(StrEnum):
    """Verdict of the served version on a label."""

    RIGHT = "right"
    WRONG = "wrong"


class Split(StrEnum):
    """The side of the split."""

    TRAINING = "training"
    HOLDOUT = "holdout"
    UNDECIDED = "undecided"


@asks_a_server
def list_examples(
    server: Connection,
    label: Annotated[str, typer.Option(help="Of this label only.")] = "",
    split: Annotated[Split | None, typer.Option(help="Of this side; undecided: no retrain has used it yet.")] = None,
    source: Annotated[str, typer.Option(help="From this source only.")] = "",
    annotator: Annotated[str, typer.Option(help="Whose label this annotator set.")] = "",
    outcome: Annotated[Outcome | None, typer.Option(help="Those that the served version answers so.")] = None,
    suspected: Annotated[bool, typer.Option("--suspected", help="Only those whose label is likely wrong.")] = False,
    quarantined: Annotated[
        bool, typer.Option("--quarantined", help="Only those that no retrain learns from until somebody has looked.")
    ] = False,
    since: Annotated[str, typer.Option(help="Only those added then or later, such as 2026-05-01.")] = "",
    order: Annotated[Order, typer.Option(help="Which come first.")] = Order.HASH,
    most: Annotated[int, typer.Option(help="The most to list; all if 0.", min=0)] = 0,
    predictions: Annotated[bool, typer.Option("--predictions", help="With what the served version answers.")] = False,
    name: Name = "",
    as_json: Json = False,
) -> None:
    """List the examples in force; with --json one a line."""
    of_predictions = order in (Order.LIKELY_WRONG, Order.LEAST_SURE, Order.MOST_NOVEL)
    with_predictions = predictions or suspected or outcome is not None or of_predictions
    request = {
        "name": name,
        "label": label,
        "split": _value(examples_pb2.Split, "SPLIT", split),
        "source": source,
        "annotator": annotator,
        "outcome": _value(examples_pb2.ListExamplesRequest.Outcome, "OUTCOME", outcome),
        "suspected": suspected,
        "quarantined": quarantined,
        "since": _time(since),
        "order": _value(examples_pb2.ListExamplesRequest.Order, "ORDER", None if order is Order.HASH else order),
        "with_predictions": with_predictions,
        "page_size": most,
    }
    rows = terminal.table(
        "sha256",
        "label",
        *(["answer", "probability", "suspicion", "novelty"] if with_predictions else []),
        "source",
        "group",
        "added",
        *(["why"] if quarantined else []),
    )
    count = pending = 0
    with Client(server) as client:
        for page in client.example_pages(**request):
            pending = page.predictions_pending
            for example in page.examples[: most - count if most else None]:
                count += 1
                if as_json:
                    print_json(picture_to_dict(example))
                else:
                    rows.add_row(*_cells(example, with_predictions, quarantined))
            if most and count >= most:
                break
    if pending:
        terminal.remark(f"the answers to {pending} examples are still to be made: ask again in a moment")
    if as_json:
        return
    if count:
        terminal.out.print(rows)
    if quarantined:
        terminal.line(f"{count} in quarantine" + ("; `regraft examples release HASH` lets one out" if count else ""))
    elif count or any((label, split, source, annotator, outcome, suspected, since)):
        terminal.line(f"{count} examples")
    else:
        terminal.line("no examples yet: send some with `regraft label`")


def _value(enum: EnumTypeWrapper, prefix: str, word: str | None) -> int:
    """Return the value that a word names; 0 for none."""
    return enum.Value(f"{prefix}_{word.replace('-', '_').upper()}") if word else 0


def _time(text: str) -> Timestamp | None:
    """Return the time of a text, in UTC unless it says otherwise."""
    try:
        return to_timestamp(text) if text else None
    except ValueError:
        raise typer.BadParameter(f"{text!r}: need a time, such as 2026-05-01T12:00", param_hint="--since") from None


def _cells(example: examples_pb2.Example, with_predictions: bool, quarantined: bool) -> list[str]:
    """Return an example's cells of the table."""
    answer: list[str] = []
    if with_predictions:
        prediction = example.prediction
        suspicion = f"{prediction.suspicion:.2f}" if prediction.HasField("suspicion") else ""
        answer = [prediction.label, f"{prediction.probability:.2f}", suspicion, f"{prediction.novelty:.2f}"]
        answer = answer if example.HasField("prediction") else [""] * len(answer)
    why = [example.quarantine] if quarantined else []
    added = time_text(example.added_at)
    return [example.sha256[:12], example.label, *answer, example.source, example.group, added, *why]


@asks_a_server
def show_example(server: Connection, sha256: _Hash, name: Name = "", as_json: Json = False) -> None:
    """Show an example with the history of its labels.

    It may be one that was removed.
    """
    with Client(server) as client:
        details = client.get_example(sha256, name=name)
    if as_json:
        print_json(
            {**picture_to_dict(details.example), "history": [message_to_dict(entry) for entry in details.history]}
        )
        return
    terminal.line(f"{details.example.sha256}: ", (details.example.label or _removal(details.history[-1]), "bold"))
    if details.example.quarantine:
        terminal.line(("in quarantine: ", "yellow"), details.example.quarantine)
    if details.example.group:
        terminal.line(f"group {details.example.group}")
    rows = terminal.table("when", "label", "annotator", "source", "request", "from", title="history")
    for entry in details.history:
        label = entry.label or "(removed)"
        rows.add_row(time_text(entry.at), label, entry.annotator, entry.source, entry.request_id, entry.caller)
    terminal.out.print(rows)


def _removal(entry: examples_pb2.Labelling) -> str:
    who = entry.annotator or entry.caller or "somebody unknown"
    return f"removed {time_text(entry.at)} by {who}" + (f": {entry.source}" if entry.source else "")


@asks_a_server
def relabel(
    server: Connection,
    sha256: _Hash,
    label: Annotated[str, typer.Argument(help="The label that it should have.")],
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Give an example another label; one that was removed is one again."""
    with Client(server) as client:
        _show_one(client.relabel_example(sha256, label, name=name, annotator=user_name()), "is now", as_json)


@asks_a_server
def remove(
    server: Connection,
    sha256: Annotated[list[str], typer.Argument(help="The SHA-256 of pictures, or its beginning.")],
    why: Annotated[str, typer.Option(help="The reason, for the history.")] = "",
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Take examples out of training, from the next retrain on.

    Their bytes and their history stay.
    """
    with Client(server) as client:
        for each in sha256:
            removed = client.remove_example(each, name=name, why=why, annotator=user_name())
            _show_one(removed, "is removed; it was", as_json)


@asks_a_server
def release(
    server: Connection,
    sha256: Annotated[list[str], typer.Argument(help="The SHA-256 of pictures, or its beginning.")],
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Release examples from quarantine.

    Their labels are right: the next retrain learns from them.
    """
    with Client(server) as client:
        for each in sha256:
            released = client.release_example(each, name=name, annotator=user_name())
            _show_one(released, "is out of quarantine; it is", as_json)


@asks_a_server
def export(
    server: Connection,
    folder: Annotated[Path, typer.Argument(help="Where to; must not exist yet, or be empty.")],
    label: Annotated[str, typer.Option(help="Of this label only.")] = "",
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Write the examples into a folder for each class.

    With examples.csv beside them; `regraft train` and `label` read both.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidRequestError(f"{folder}: is there already; name a new folder")
    rows = []
    with Client(server) as client, terminal.progress_bars() as progress:
        total = sum(1 for _ in client.list_examples(name=name, label=label))
        for example in client.list_examples(name=name, label=label, with_images=True):
            file = write_picture(folder, example.label, example.sha256, example.image)
            rows.append({"file": file, "label": example.label, "source": example.source, "group": example.group})
            progress("export", len(rows), total)
    write_list(folder / "examples.csv", rows)
    if as_json:
        print_json({"folder": str(folder), "examples": len(rows)})
    else:
        terminal.line(f"{len(rows)} examples in {folder}")


def _show_one(example: examples_pb2.Example, what: str, as_json: bool) -> None:
    if as_json:
        print_json(picture_to_dict(example))
    else:
        terminal.line(f"{example.sha256[:12]} {what} ", (example.label, "bold"))
