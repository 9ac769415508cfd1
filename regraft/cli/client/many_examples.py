"""The commands ``regraft examples`` that change many labels at once."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from regraft.cli import terminal
from regraft.cli.json_output import message_to_dict, print_json
from regraft.cli.options import Json, Name, asks_a_server
from regraft.client.client import Client
from regraft.client.connection import Connection
from regraft.client.message_values import time_text
from regraft.errors import InvalidRequestError
from regraft.machine import user_name
from regraft.v1 import examples_pb2

_Hashes = Annotated[Path, typer.Argument(help="A file of whole SHA-256s, one a line; - reads standard input.")]
_Why = Annotated[str, typer.Option(help="The reason, for the history.")]
_Result = (
    examples_pb2.RelabelExamplesResponse | examples_pb2.RemoveExamplesResponse | examples_pb2.RestoreExamplesResponse
)


@asks_a_server
def relabel_many(
    server: Connection,
    label: Annotated[str, typer.Argument(help="The label that they should have.")],
    hashes: _Hashes,
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Give up to 10,000 examples a label: all of them or none."""
    wanted = _read(hashes)
    with Client(server) as client:
        _show(client.relabel_examples(wanted, label, name=name, annotator=user_name()), f"are {label} now", as_json)


@asks_a_server
def remove_many(server: Connection, hashes: _Hashes, why: _Why = "", name: Name = "", as_json: Json = False) -> None:
    """Take up to 10,000 examples out of training: all or none."""
    wanted = _read(hashes)
    with Client(server) as client:
        _show(client.remove_examples(wanted, name=name, why=why, annotator=user_name()), "are removed", as_json)


@asks_a_server
def restore(server: Connection, hashes: _Hashes, name: Name = "", as_json: Json = False) -> None:
    """Give up to 10,000 removed examples back their labels: all or none."""
    wanted = _read(hashes)
    with Client(server) as client:
        _show(client.restore_examples(wanted, name=name, annotator=user_name()), "are back", as_json)


@asks_a_server
def rename(
    server: Connection,
    label: Annotated[str, typer.Argument(help="The label that there is.")],
    new_label: Annotated[str, typer.Argument(help="What its pictures are called from now on.")],
    merge: Annotated[bool, typer.Option("--merge", help="NEW_LABEL is there already: make one label of both.")] = False,
    why: _Why = "",
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Rename a label, or merge it with another one.

    The served version answers with the old name until the next retrain is live.
    """
    with Client(server) as client:
        renamed = client.rename_label(label, new_label, merge=merge, name=name, annotator=user_name(), why=why)
    _show_change(renamed, as_json)


@asks_a_server
def remove_label(
    server: Connection,
    label: Annotated[str, typer.Argument(help="The label; all its pictures leave training.")],
    why: _Why = "",
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Remove a label, and all its pictures from training."""
    with Client(server) as client:
        removed = client.remove_label(label, name=name, annotator=user_name(), why=why)
    _show_change(removed, as_json)


def _read(hashes: Path) -> list[str]:
    """Read hashes; empty lines are passed over.

    Raises:
        InvalidRequestError: the file cannot be read, or has none.
    """
    try:
        text = sys.stdin.read() if hashes == Path("-") else hashes.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{hashes}: cannot be read ({error})") from error
    if not (found := text.split()):
        raise InvalidRequestError(f"{hashes}: has no hash; `regraft examples list --json` tells them")
    return found


def _show(result: _Result, what: str, as_json: bool) -> None:
    if as_json:
        print_json(message_to_dict(result))
    else:
        before = f"; {result.unchanged} were so already" if result.unchanged else ""
        terminal.line(f"{result.changed} examples {what}{before}")


def _show_change(changed: examples_pb2.RenameLabelResponse | examples_pb2.RemoveLabelResponse, as_json: bool) -> None:
    if as_json:
        print_json(message_to_dict(changed))
        return
    change = changed.change
    became = f"is called {change.new_label}" if change.new_label else "is removed"
    terminal.line((change.label, "bold"), f" {became} since {time_text(change.at)}: {changed.examples} examples")
    terminal.line("the served version follows with the next `regraft retrain`")
