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
    """Suggest pictures to label next.

    Of those without labels (`regraft pictures add`), and of served ones where the server keeps some (`regraft serve
    --keep-requests`).
    """
    with Client(server) as client:
        suggestions = list(client.suggest(count, name=name, with_images=save is not None))
    if save:
        rows = [
            {
                "file": write_picture(save, "", entry.sha256, entry.image),
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
            "nothing to suggest: there is no picture without a label that the backbone in service has seen; send some "
            "with `regraft pictures add`, or see `regraft serve --keep-requests`"
        )
    else:
        table = terminal.table("picture", "reason", "read as", "why")
        for entry in suggestions:
            table.add_row(entry.request_id or entry.sha256, _reason(entry), entry.label, entry.why)
        terminal.out.print(table)
        first = suggestions[0]
        named = f"--request {first.request_id}" if first.request_id else f"--sha256 {first.sha256}"
        terminal.line(
            f"correct the labels in {save / 'suggestions.csv'}, then: regraft label {save / 'suggestions.csv'}"
            if save
            else f"label one: regraft label {named} --label LABEL; look at them: --save FOLDER"
        )


def _reason(suggestion: examples_pb2.Suggestion) -> str:
    return word_of(examples_pb2.Suggestion.Reason, suggestion.reason).lower()
