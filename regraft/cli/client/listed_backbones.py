"""The command ``regraft backbones list``."""

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.backbone_table import backbone_to_dict, show_backbones
from regraft.cli.json_output import message_to_dict, print_result
from regraft.cli.options import Json, asks_a_server
from regraft.client.client import Client
from regraft.client.connection import Connection
from regraft.stores.backbones import BackboneStore


@asks_a_server
def list_backbones(
    server: Connection,
    store: Annotated[
        Path | None, typer.Option(help="Look into this model store, and ask no server.", show_default=False)
    ] = None,
    addable: Annotated[
        bool, typer.Option("--addable", help="Those too that the server could add with torch: some seconds.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the backbones that a model can begin with."""
    if store is not None:
        entries = [backbone_to_dict(each) for each in BackboneStore(store).list()]
    else:
        with Client(server) as client:
            entries = [message_to_dict(each) for each in client.list_backbones(show_addable=addable)]
    print_result(entries, show_backbones, as_json)
