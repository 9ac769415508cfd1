"""The command ``regraft suggest``."""

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli import terminal
from regraft.cli.json_output import picture_to_dict, print_json
from regraft.cli.options import Json, Name, asks_a_server
from regraft.client.client import Client
from regraft.client.connection import Connection
from regraft.client.message_values import word_of
from regraft.datasets.labelled_files import write_list, write_picture
from regraft.v1 import examples_pb2


@asks_a_server
def suggest(
    server: Connection,
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 20,
    save: Annotated[
        Path | None, typer.Option(help="Write the pictures there, with suggestions.csv to correct and to label.")
    ] = None,
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Suggest served pictures to label next.

    The server has to keep some (`regraft serve --keep-requests`).
    """
    with Client(server) as client:
        suggestions = list(client.suggest(count, name=name, with_images=save is not None))
    if save:
        rows = [
            {
                "file": write_picture(save, "", entry.request_id, entry.image),
                "label": entry.label,
                "source": f"suggest:{_reason(entry)}",  # the gate compares pictures by it
                "request_id": entry.request_id,
            }
            for entry in suggestions
        ]
        write_list(save / "suggestions.csv", rows)
    if as_json:
        for entry in suggestions:
            print_json(picture_to_dict(entry))
    elif not suggestions:
        terminal.line(
            "nothing to suggest: of the served pictures none is kept that has no label yet and that the backbone in "
            "service has seen; see `regraft serve --keep-requests`"
        )
    else:
        table = terminal.table("request", "why", "read as", numbers=("probability", "novelty"))
        for entry in suggestions:
            figures = (f"{entry.probability:.3f}", f"{entry.novelty:.3f}")
            table.add_row(entry.request_id, _reason(entry), entry.label, *figures)
        terminal.out.print(table)
        terminal.line(
            f"correct the labels in {save / 'suggestions.csv'}, then: regraft label {save / 'suggestions.csv'}"
            if save
            else "label one: regraft label --request REQUEST --label LABEL; look at them: --save FOLDER"
        )


def _reason(suggestion: examples_pb2.Suggestion) -> str:
    return word_of(examples_pb2.Suggestion.Reason, suggestion.reason).lower()
