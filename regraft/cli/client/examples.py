"""The commands ``regraft examples``: the labelled pictures of a server."""

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli import terminal
from regraft.cli.json_output import message_to_dict, picture_to_dict, print_json
from regraft.cli.options import Json, Name, asks_a_server
from regraft.client.client import Client
from regraft.client.connection import Connection
from regraft.client.message_values import time_text
from regraft.datasets.labelled_files import write_list, write_picture
from regraft.errors import InvalidRequestError
from regraft.machine import user_name
from regraft.v1 import examples_pb2

_Hash = Annotated[str, typer.Argument(help="The SHA-256 of the picture, or its beginning.")]


@asks_a_server
def list_examples(
    server: Connection,
    label: Annotated[str, typer.Option(help="Of this label only.")] = "",
    quarantined: Annotated[
        bool, typer.Option("--quarantined", help="Only those that no retrain learns from until somebody has looked.")
    ] = False,
    name: Name = "",
    as_json: Json = False,
) -> None:
    """List the examples in force; with --json one a line."""
    rows = terminal.table("sha256", "label", "source", "group", "added", *(["why"] if quarantined else []))
    count = 0
    with Client(server) as client:
        examples = client.list_examples(name=name, label=label, quarantined=quarantined)
        for count, example in enumerate(examples, start=1):  # noqa: B007 - the last is shown
            if as_json:
                print_json(picture_to_dict(example))
            else:
                why = [example.quarantine] if quarantined else []
                added = time_text(example.added_at)
                rows.add_row(example.sha256[:12], example.label, example.source, example.group, added, *why)
    if quarantined and not as_json:
        if count:
            terminal.out.print(rows)
        terminal.line(f"{count} in quarantine" + ("; `regraft examples release HASH` lets one out" if count else ""))
    elif not as_json:
        if count:
            terminal.out.print(rows)
        terminal.line(f"{count} examples" if count else "no examples yet: send some with `regraft label`")


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
