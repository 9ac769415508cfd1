"""The command ``regraft label``."""

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli import terminal
from regraft.cli.json_output import print_json
from regraft.cli.options import Json, Name, asks_a_server
from regraft.client.client import Client
from regraft.client.connection import Connection
from regraft.client.upload import LabelledUpload, UnlabelledUpload
from regraft.datasets.labelled_files import LabelledFiles, find_labelled
from regraft.datasets.manifest import LabelledFile
from regraft.errors import InvalidRequestError
from regraft.label_rules import check_label
from regraft.machine import user_name


@asks_a_server
def label(
    server: Connection,
    path: Annotated[
        Path | None,
        typer.Argument(
            help="A folder for each class; a list, .csv, .jsonl or .parquet, with file and label, and if you like "
            "source, group, annotator and request_id; with --label, a picture or a folder of them."
        ),
    ] = None,
    label: Annotated[str, typer.Option(help="The label of all of them.")] = "",
    request: Annotated[str, typer.Option(help="Instead of a picture: a request that was kept, by its id.")] = "",
    sha256: Annotated[str, typer.Option(help="Instead of a picture: one without a label, by its SHA-256.")] = "",
    source: Annotated[str, typer.Option(help="Where they come from.")] = "regraft label",
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Send labelled pictures to a server, for the next retrain."""
    upload = LabelledUpload(_pictures(path, label, request, sha256), name, source=source, annotator=user_name())
    send_all(upload, server, "label", as_json)


def _pictures(path: Path | None, label: str, request: str, sha256: str) -> LabelledFiles:
    """Return the pictures of a path, or one of the server's."""
    if request or sha256:
        if path or not label or (request and sha256):
            raise InvalidRequestError("--request or --sha256: one of them, with --label and no path")
        check_label(label)
        return LabelledFiles((LabelledFile(None, label, request_id=request, sha256=sha256),))
    if path is None:
        raise InvalidRequestError("which pictures? Give a folder, a list, --request or --sha256")
    return find_labelled(path, label)


def send_all(upload: LabelledUpload | UnlabelledUpload, server: Connection, stage: str, as_json: bool) -> None:
    """Send the pictures of an upload, and show the outcomes.

    Exit 1 unless all of them are stored.
    """
    try:
        with Client(server) as client, terminal.progress_bars() as progress:
            for _ in upload.send(client):
                progress(stage, len(upload.answers), len(upload.files))
    finally:  # whatever ended it, what was acknowledged is kept
        _show_outcomes(upload, as_json)
    if upload.rejections() or upload.refusal or upload.unanswered:
        raise typer.Exit(1)


def _show_outcomes(upload: LabelledUpload | UnlabelledUpload, as_json: bool) -> None:
    """Show the outcomes, and the number of pictures without one."""
    counts, rejections = upload.counts(), upload.rejections()
    if upload.unanswered:
        counts["unanswered"] = upload.unanswered
    if as_json:
        print_json({**counts, "rejections": rejections})
        return
    for entry in rejections:
        terminal.line((entry["file"], "red"), f": {entry['reason']}")
    if upload.refusal:
        terminal.line((upload.refusal, "red"))
    terminal.line(", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count))
