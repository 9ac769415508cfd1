"""The command ``regraft classify``."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from regraft.cli import terminal
from regraft.cli.json_output import answer_to_dict, print_json
from regraft.cli.options import Json, Name, Store, asks_a_server, model_file
from regraft.client.classify_files import classify_files
from regraft.client.client import Client
from regraft.client.connection import Connection
from regraft.datasets.folders import list_folder
from regraft.errors import InvalidRequestError
from regraft.files import text_of
from regraft.image.limits import configured_limits
from regraft.v1 import classifier_pb2


@asks_a_server
def classify(
    server: Connection,
    images: Annotated[
        list[Path], typer.Argument(help="Pictures, and folders of pictures, however deep they lie.", exists=True)
    ],
    name: Name = "",
    file: Annotated[
        str, typer.Option(help="Without a server: a model.onnx, or NAME[:VERSION] of the store.", show_default=False)
    ] = "",
    store: Store = Path("models"),
    top_k: Annotated[int, typer.Option(min=1, help="How many labels to show.")] = 5,
    as_json: Json = False,
) -> None:
    """Ask a server, or a model file, what is in pictures.

    Exit 1 where one cannot be read.
    """
    if file and name:
        raise typer.BadParameter("--file says which model already", param_hint="--name")
    files, failures = _pictures(images)
    for result in failures:
        _show(result, as_json)
    failed = bool(failures)
    for answer in _answers(server, files, name, file, store, top_k):
        result = answer_to_dict(answer)
        failed |= "error" in result
        _show(result, as_json)
    if failed:
        raise typer.Exit(1)


def _pictures(paths: Sequence[Path]) -> tuple[list[tuple[str, Path]], list[dict[str, str]]]:
    """Return the files with their names, and the failures."""
    files: list[Path] = []
    failures = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        inside = list_folder(path)
        if not inside.files:
            raise InvalidRequestError(f"{text_of(path)}: there are no files in it")
        files += sorted(inside.files)
        failures += [{"file": text_of(each), "error": reason} for each, reason in inside.left_out]
    return [(text_of(each), each) for each in files], failures


def _answers(
    server: Connection, files: Sequence[tuple[str, Path]], name: str, file: str, store: Path, top_k: int
) -> Iterator[classifier_pb2.ClassifyStreamResponse]:
    if file:
        from serving.standalone import classify_standalone  # noqa: PLC0415 - ONNX Runtime takes a moment

        yield from classify_standalone(model_file(file, store), files, top_k=top_k, limits=configured_limits())
        return
    with Client(server) as client:
        yield from classify_files(client, files, name=name, top_k=top_k)


def _show(result: Mapping[str, Any], as_json: bool) -> None:
    """Show one picture's answer on a line, with its runners-up."""
    if as_json:
        print_json(result)
        return
    if "error" in result:
        terminal.line((result["file"], "red"), f": {result['error']}")
        return
    first, *others = result["predictions"]
    rest = ", ".join(f"{entry['label']} {entry['probability']:.3f}" for entry in others)
    mark = "  unlike the training images" if result["novelty"]["is_novel"] else ""
    unsure = f"  abstains: less sure than {result['abstention']['threshold']:.3f}" if result["abstain"] else ""
    terminal.line(
        f"{result['file']}: ",
        (f"{first['label']} {first['probability']:.3f}", "bold"),
        (f"  {rest}", "dim"),
        (unsure + mark, "yellow"),
        (f"  version {result['version']}, {result['timings_ms']['total']:.1f} ms", "dim"),
    )
