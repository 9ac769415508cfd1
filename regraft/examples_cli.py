"""The commands around labels: ``regraft label``, ``regraft suggest`` and ``regraft examples``. They ask a server."""

import csv
import getpass
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Final

import typer

from regraft import labelled_files, show
from regraft.as_json import message_to_dict, print_json
from regraft.client import Client
from regraft.connection import Connection
from regraft.errors import InvalidRequestError, StorageError
from regraft.files import storage_errors
from regraft.labelled_files import LabelledFile
from regraft.labels import check_label
from regraft.options import Json, Name, asks_a_server
from regraft.v1 import examples_pb2, retraining_pb2

app: Final = typer.Typer(help="The labelled pictures that a model learns from.", no_args_is_help=True)

_OUTCOMES: Final = ("accepted", "duplicate", "relabelled", "conflicting", "rejected")
_ENDINGS: Final = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG": ".png",
    b"RIFF": ".webp",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\0": ".tiff",
    b"MM\0*": ".tiff",
}
"""By the first bytes; for people, and for programs that go by names."""

_Hash = Annotated[str, typer.Argument(help="The SHA-256 of the picture, or its beginning.")]


@asks_a_server
def label(
    server: Connection,
    path: Annotated[
        Path | None,
        typer.Argument(
            help="A folder for each class; a list that ends in .csv or .jsonl, with file and label, and if you like "
            "source, annotator and request_id; with --label, a picture or a folder of them."
        ),
    ] = None,
    label: Annotated[str, typer.Option(help="The label of all of them.")] = "",
    request: Annotated[str, typer.Option(help="Instead of a picture: a request that was kept, by its id.")] = "",
    source: Annotated[str, typer.Option(help="Where they come from.")] = "regraft label",
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Send labelled pictures to a server, for the next retrain."""
    files = _named(path, label, request)
    counts = dict.fromkeys(_OUTCOMES, 0)
    rejected = []
    with Client(server) as client, show.progress_bars() as progress:
        answers = client.send_examples(_requests(files, name, source))
        for done, (file, answer) in enumerate(zip(files, answers, strict=True), start=1):
            outcome = retraining_pb2.AddExamplesResponse.Outcome.Name(answer.outcome).lower()
            counts[outcome] += 1
            if answer.reason:
                rejected.append({"file": file.name, "label": file.label, "reason": answer.reason})
            progress("label", done, len(files))
    if as_json:
        print_json({**counts, "rejections": rejected})
    else:
        for entry in rejected:
            show.line((entry["file"], "red"), f": {entry['reason']}")
        show.line(", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count))
    if rejected:
        raise typer.Exit(1)


def _named(path: Path | None, label: str, request: str) -> list[LabelledFile]:
    if request:
        if path or not label:
            raise InvalidRequestError("--request: needs --label, and no path")
        check_label(label)
        return [LabelledFile(None, label, request_id=request)]
    if path is None:
        raise InvalidRequestError("which pictures? Give a folder, a list, or --request")
    return labelled_files.find_all(path, label)


def _requests(files: Iterable[LabelledFile], name: str, source: str) -> Iterator[retraining_pb2.AddExamplesRequest]:
    for file in files:
        with storage_errors(f"cannot read {file.name}"):
            image = file.path.read_bytes() if file.path else b""
        yield retraining_pb2.AddExamplesRequest(
            image=image,
            label=file.label,
            name=name,
            source=file.source or source,
            annotator=file.annotator or getpass.getuser(),
            request_id=file.request_id,
        )


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
    """Say which served pictures to label next; the server has to keep some (`regraft serve --keep-requests`)."""
    with Client(server) as client:
        found = list(client.suggest(count, name=name, with_images=save is not None))
    if save:
        rows = [
            {
                "file": _write(save, "", entry.request_id, entry.image),
                "label": entry.label,
                "request_id": entry.request_id,
            }
            for entry in found
        ]
        _write_list(save / "suggestions.csv", rows)
    if as_json:
        for entry in found:
            print_json({key: value for key, value in message_to_dict(entry).items() if key != "image"})
    elif not found:
        show.line("nothing to suggest: no requests were kept; see `regraft serve --keep-requests`")
    else:
        rows_shown = show.table("request", "why", "read as", numbers=("probability", "novelty"))
        for entry in found:
            why = examples_pb2.Suggestion.Reason.Name(entry.reason).lower()
            figures = (f"{entry.probability:.3f}", f"{entry.novelty:.3f}")
            rows_shown.add_row(entry.request_id, why, entry.label, *figures)
        show.out.print(rows_shown)
        show.line(
            f"correct the labels in {save / 'suggestions.csv'}, then: regraft label {save / 'suggestions.csv'}"
            if save
            else "label one: regraft label --request REQUEST --label LABEL; look at them: --save FOLDER"
        )


@app.command("list")
@asks_a_server
def list_examples(
    server: Connection,
    label: Annotated[str, typer.Option(help="Of this label only.")] = "",
    name: Name = "",
    as_json: Json = False,
) -> None:
    """List the examples in force; with --json one a line."""
    rows = show.table("sha256", "label", "source", "added")
    count = 0
    with Client(server) as client:
        for count, example in enumerate(client.list_examples(name=name, label=label), start=1):  # noqa: B007 - the last is shown
            if as_json:
                print_json(_fields(example))
            else:
                rows.add_row(example.sha256[:12], example.label, example.source, example.added_at)
    if not as_json:
        if count:
            show.out.print(rows)
        show.line(f"{count} examples" if count else "no examples yet: send some with `regraft label`")


@app.command("show")
@asks_a_server
def show_example(server: Connection, sha256: _Hash, name: Name = "", as_json: Json = False) -> None:
    """Show an example and every label that it ever had."""
    with Client(server) as client:
        found = client.get_example(sha256, name=name)
    if as_json:
        print_json({**_fields(found.example), "history": [message_to_dict(entry) for entry in found.history]})
        return
    show.line(f"{found.example.sha256}: ", (found.example.label, "bold"))
    rows = show.table("when", "label", "annotator", "source", "request", "from", title="history")
    for entry in found.history:
        label = entry.label or "(removed)"
        rows.add_row(entry.at, label, entry.annotator, entry.source, entry.request_id, entry.caller)
    show.out.print(rows)


@app.command()
@asks_a_server
def relabel(
    server: Connection,
    sha256: _Hash,
    label: Annotated[str, typer.Argument(help="The label that it should have.")],
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Give an example another label."""
    with Client(server) as client:
        _show_one(client.relabel_example(sha256, label, name=name, annotator=getpass.getuser()), "is now", as_json)


@app.command()
@asks_a_server
def remove(
    server: Connection,
    sha256: Annotated[list[str], typer.Argument(help="The SHA-256 of pictures, or its beginning.")],
    why: Annotated[str, typer.Option(help="The reason, for the history.")] = "",
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Take examples out of training, from the next retrain on. Their bytes and their history stay."""
    with Client(server) as client:
        for each in sha256:
            removed = client.remove_example(each, name=name, why=why, annotator=getpass.getuser())
            _show_one(removed, "is removed; it was", as_json)


@app.command()
@asks_a_server
def export(
    server: Connection,
    folder: Annotated[Path, typer.Argument(help="Where to; must not exist yet, or be empty.")],
    label: Annotated[str, typer.Option(help="Of this label only.")] = "",
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Write the examples into a folder for each class, and examples.csv; `regraft train` and `label` read both."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidRequestError(f"{folder}: is there already; name a new folder")
    rows = []
    with Client(server) as client, show.progress_bars() as progress:
        total = sum(1 for _ in client.list_examples(name=name, label=label))
        for example in client.list_examples(name=name, label=label, with_images=True):
            file = _write(folder, example.label, example.sha256, example.image)
            rows.append({"file": file, "label": example.label, "source": example.source})
            progress("export", len(rows), total)
    _write_list(folder / "examples.csv", rows)
    if as_json:
        print_json({"folder": str(folder), "examples": len(rows)})
    else:
        show.line(f"{len(rows)} examples in {folder}")


def _write(folder: Path, label: str, stem: str, image: bytes) -> str:
    """Write a picture and return its path within ``folder``."""
    try:
        if label:
            check_label(label)  # what a server calls a label must not lead out of the folder
        if not stem.isalnum():
            raise InvalidRequestError(f"the server calls a picture {stem!r}")
    except InvalidRequestError as error:
        raise StorageError(f"{folder}: {error}") from error
    ending = next((ending for magic, ending in _ENDINGS.items() if image.startswith(magic)), "")
    file = Path(label) / f"{stem}{ending}"
    with storage_errors(f"cannot write {folder / file}"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(image)
    return str(file)


def _write_list(path: Path, rows: list[dict[str, str]]) -> None:
    with storage_errors(f"cannot write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, labelled_files.FIELDS, restval="")
            writer.writeheader()
            writer.writerows(rows)


def _show_one(example: examples_pb2.Example, what: str, as_json: bool) -> None:
    if as_json:
        print_json(_fields(example))
    else:
        show.line(f"{example.sha256[:12]} {what} ", (example.label, "bold"))


def _fields(example: examples_pb2.Example) -> dict[str, object]:
    return {key: value for key, value in message_to_dict(example).items() if key != "image"}
