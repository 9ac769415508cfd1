"""The commands ``regraft pictures``: pictures of a server without labels."""

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli import terminal
from regraft.cli.client.label import send_all
from regraft.cli.json_output import picture_to_dict, print_json
from regraft.cli.options import Json, Name, asks_a_server
from regraft.client.client import Client
from regraft.client.connection import Connection
from regraft.client.message_values import time_text
from regraft.client.upload import UnlabelledUpload
from regraft.datasets.unlabelled_files import find_unlabelled

_MB = 1e6


@asks_a_server
def add(
    server: Connection,
    paths: Annotated[list[Path], typer.Argument(help="Pictures, folders of them, or zip archives.")],
    source: Annotated[str, typer.Option(help="Where they come from.")] = "",
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Send pictures without labels, to be suggested and labelled.

    No retrain learns from them before that.
    """
    upload = UnlabelledUpload(find_unlabelled(paths), name, source=source)
    send_all(upload, server, "send", as_json)
    if not as_json:
        terminal.line("label some: regraft suggest")


@asks_a_server
def list_pictures(server: Connection, name: Name = "", as_json: Json = False) -> None:
    """List the pictures without labels, newest first; with --json one a line."""
    rows = terminal.table("sha256", "source", "added", numbers=("bytes",))
    page = None
    with Client(server) as client:
        for page in client.list_pictures(name=name):
            for picture in page.pictures:
                if as_json:
                    print_json(picture_to_dict(picture))
                else:
                    size = f"{picture.size_bytes:,}"
                    rows.add_row(picture.sha256, picture.source, time_text(picture.added_at), size)
    if as_json or page is None:
        return
    if page.total_pictures:
        terminal.out.print(rows)
    room = f"of at most {page.most_pictures:,}, {page.total_bytes / _MB:,.0f} of {page.most_bytes / _MB:,.0f} MB"
    terminal.line(f"{page.total_pictures:,} pictures without a label {room}")
    if not page.total_pictures:
        terminal.line("send some with `regraft pictures add`")


@asks_a_server
def remove(
    server: Connection,
    sha256: Annotated[list[str], typer.Argument(help="The SHA-256 of pictures.")],
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Remove pictures without labels for good, bytes included."""
    with Client(server) as client:
        removed = client.remove_pictures(sha256, name=name)
    if as_json:
        print_json({"removed": removed})
    else:
        terminal.line(f"{len(removed)} removed" + ("" if removed else ": none of them is there without a label"))
