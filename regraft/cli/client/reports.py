"""The commands ``regraft models report``, ``confusion`` and ``export``."""

import json
from pathlib import Path
from typing import Annotated, Final

import typer

from regraft.cli import terminal
from regraft.cli.json_output import message_to_dict, print_json
from regraft.cli.options import Json, Name, asks_a_server
from regraft.client.client import Client
from regraft.client.connection import Connection
from regraft.errors import InvalidRequestError
from regraft.files import storage_errors, text_of
from regraft.v1 import reports_pb2

_SHOWN: Final = 3
_CHAMPION: Final = "The version; the champion if you name none."
_Version = Annotated[int | None, typer.Argument(min=1, help=_CHAMPION)]


@asks_a_server
def report(
    server: Connection,
    version: _Version = None,
    out: Annotated[Path, typer.Option(help="The file to write; .html.")] = Path("report.html"),
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Fetch the report of a version: the file, or its figures with --json."""
    with Client(server) as client:
        data = client.get_report(version or 0, name=name, as_json=as_json)
    if as_json:
        print_json(json.loads(data))
        return
    with storage_errors(f"cannot write {out}"):
        out.write_bytes(data)
    terminal.line(f"{out}: open it in a browser")


@asks_a_server
def confusion(
    server: Connection,
    version: _Version = None,
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
            version or 0, name=name, mistakes=mistakes, label=label, answer=answer, pictures=pictures
        )
    if as_json:
        print_json({key: value for key, value in message_to_dict(found).items() if key != "next_page_token"})
    else:
        _show(found)


@asks_a_server
def export(
    server: Connection,
    out: Annotated[Path, typer.Argument(help="The zip to write; must not exist yet.")],
    version: Annotated[int | None, typer.Option(min=1, help=_CHAMPION)] = None,
    to: Annotated[
        str, typer.Option(help="onnx, fp16, int8, ort, mobile, triton or openvino; see docs/export.md.")
    ] = "onnx",
    cpu: Annotated[str, typer.Option(help="What int8 is for: x86-vnni, x86 or arm. Default: the server's.")] = "",
    max_drop: Annotated[float | None, typer.Option(help="Points of accuracy that may be lost. Default: 1.3.")] = None,
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Let a server export a version, and fetch it as a zip.

    The pictures that it was validated on have to be among the server's examples.
    """
    if out.exists():
        raise InvalidRequestError(f"{text_of(out)}: is there already; name a new file")
    told = ""
    partial = out.with_name(f".{out.name}.part")
    try:
        with Client(server) as client, terminal.progress_bars() as progress, storage_errors(f"cannot write {out}"):
            with partial.open("wb") as file:
                for part in client.export(version or 0, name=name, to=to, cpu=cpu, max_drop=max_drop):
                    file.write(part.data)
                    if part.HasField("progress"):
                        progress(part.progress.stage, part.progress.done, part.progress.total)
                    told = part.result.export_json or told
            partial.rename(out)
    finally:
        partial.unlink(missing_ok=True)
    result = json.loads(told)
    if as_json:
        print_json({**result, "folder": "", "zip": str(out)})
        return
    proof = result["proof"]
    accuracies = (f"{proof[side]['accuracy']:.4f} {side}" for side in ("served", "exported"))
    terminal.line(f"{result['name']}:{result['version']} to {result['format']}, on {proof['images']} validation images")
    terminal.line(f"accuracy {', '.join(accuracies)}; the same first label on {proof['agreement']:.1%}")
    terminal.line((str(out), "bold"), ": how to use it is in its README.md")


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
