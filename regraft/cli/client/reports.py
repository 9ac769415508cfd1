"""The commands ``regraft models report`` and ``regraft models confusion``."""

import json
from pathlib import Path
from typing import Annotated, Final

import typer

from regraft.cli import terminal
from regraft.cli.json_output import message_to_dict, print_json
from regraft.cli.options import Json, Name, asks_a_server
from regraft.client.client import Client
from regraft.client.connection import Connection
from regraft.files import storage_errors
from regraft.v1 import reports_pb2

_SHOWN: Final = 3
_Version = Annotated[int, typer.Argument(min=1, help="The version; the champion if you name none.", show_default=False)]


@asks_a_server
def report(
    server: Connection,
    version: _Version = 0,
    out: Annotated[Path, typer.Option(help="The file to write; .html.")] = Path("report.html"),
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Fetch the report of a version: the file, or its figures with --json."""
    with Client(server) as client:
        data = client.get_report(version, name=name, as_json=as_json)
    if as_json:
        print_json(json.loads(data))
        return
    with storage_errors(f"cannot write {out}"):
        out.write_bytes(data)
    terminal.line(f"{out}: open it in a browser")


@asks_a_server
def confusion(
    server: Connection,
    version: _Version = 0,
    mistakes: Annotated[bool, typer.Option("--mistakes", help="Only what was answered wrongly.")] = False,
    label: Annotated[str, typer.Option(help="Only pictures of this label.")] = "",
    answer: Annotated[str, typer.Option(help="Only pictures that were answered so.")] = "",
    pictures: Annotated[int, typer.Option(min=1, max=1000, help="How many are named of each, at most.")] = 20,
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Show what a version confuses on its holdout, with the pictures behind."""
    with Client(server) as client:
        found = client.get_confusion(
            version, name=name, mistakes=mistakes, label=label, answer=answer, pictures=pictures
        )
    if as_json:
        print_json({key: value for key, value in message_to_dict(found).items() if key != "next_page_token"})
    else:
        _show(found)


def _show(found: reports_pb2.GetConfusionResponse) -> None:
    rows = terminal.table("label", "read as", "surest", numbers=("pictures",))
    for cell in found.cells:
        surest = " ".join(sha256[:12] for sha256 in cell.sha256[:_SHOWN])
        rows.add_row(cell.label, cell.answer, surest, str(cell.images))
    if found.cells:
        terminal.out.print(rows)
    terminal.line(f"version {found.version} answers {found.right} of {found.images} holdout pictures rightly")
    if found.cells:
        terminal.line("look at one: regraft examples show HASH; put it right: regraft examples relabel HASH LABEL")
