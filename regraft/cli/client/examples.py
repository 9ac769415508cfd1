"""The commands around labels: ``regraft label``, ``regraft suggest`` and ``regraft examples``. They ask a server."""

import csv
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer

from regraft.cli import terminal
from regraft.cli.json_output import message_to_dict, print_json
from regraft.cli.options import Json, Name, asks_a_server
from regraft.client.client import MOST_BYTES, Client, MessageTooLargeError, too_large
from regraft.client.connection import Connection
from regraft.datasets import labelled_files
from regraft.datasets.labelled_files import Found
from regraft.datasets.manifest import LabelledFile
from regraft.errors import InvalidRequestError, StorageError
from regraft.files import storage_errors
from regraft.image.file_kinds import read_kind
from regraft.label_rules import check_label
from regraft.user import user_name
from regraft.v1 import examples_pb2, retraining_pb2

app: Final = typer.Typer(help="The labelled pictures that a model learns from.", no_args_is_help=True)

_OUTCOMES: Final = ("accepted", "duplicate", "relabelled", "conflicting", "rejected")
_ENDINGS: Final = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WebP": ".webp",
    "GIF": ".gif",
    "BMP": ".bmp",
    "TIFF": ".tiff",
    "AVIF": ".avif",
}
"""By the format; for people, and for programs that go by names."""

_Hash = Annotated[str, typer.Argument(help="The SHA-256 of the picture, or its beginning.")]


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
    source: Annotated[str, typer.Option(help="Where they come from.")] = "regraft label",
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Send labelled pictures to a server, for the next retrain."""
    delivery = _Delivery(_named(path, label, request), name, source)
    try:
        with Client(server) as client, terminal.progress_bars() as progress:
            for _ in delivery.answers(client):
                progress("label", len(delivery.fates), len(delivery.files))
    finally:  # whatever ended it, what was acknowledged is kept
        _tell(delivery, as_json)
    if delivery.rejections() or delivery.unanswered:
        raise typer.Exit(1)


class _Delivery:
    """Pictures on their way to a server, and what became of each: ``fates``, by its number in ``files``."""

    def __init__(self, found: Found, name: str, source: str) -> None:
        """Prepare to send what was ``found`` to the model ``name``; ``source`` is that of those that say none."""
        self.files = found.files
        self._bad = found.bad
        self.fates: dict[int, retraining_pb2.AddExamplesResponse] = {}
        self._name = name
        self._source = source
        self._user = user_name()
        self._limit_bytes = MOST_BYTES

    def answers(self, client: Client) -> Iterator[retraining_pb2.AddExamplesResponse]:
        """Send what has no fate yet, and yield the server's answers.

        A message that is larger than the server's limit ends a stream without an answer to what came before. So the
        largest picture goes first: once its stream has told the limit, another takes the rest.
        """
        while True:
            sent: deque[int] = deque()
            try:
                for answer in client.send_examples(self._requests(sent)):
                    self.fates[sent.popleft()] = answer
                    yield answer
            except MessageTooLargeError as error:
                if error.limit_bytes >= self._limit_bytes:
                    raise  # no news: the next stream would end likewise
                self._limit_bytes = error.limit_bytes
            else:
                return

    @property
    def unanswered(self) -> int:
        """How many have no fate, since something ended it all."""
        return len(self.files) - len(self.fates)

    def rejections(self) -> list[dict[str, str]]:
        """Return what was not kept, and why."""
        bad = [{"file": line.place, "label": "", "reason": line.reason} for line in self._bad]
        return bad + [
            {
                "file": _whole(self.files[number].name),
                "label": _whole(self.files[number].label),
                "reason": fate.reason,
            }
            for number, fate in sorted(self.fates.items())
            if fate.reason
        ]

    def counts(self) -> dict[str, int]:
        """Count the outcomes, of which each has its place."""
        names = retraining_pb2.AddExamplesResponse.Outcome
        found = Counter(names.Name(fate.outcome).lower() for fate in list(self.fates.values()))
        found["rejected"] += len(self._bad)
        return {outcome: found[outcome] for outcome in _OUTCOMES}

    def _requests(self, sent: deque[int]) -> Iterator[retraining_pb2.AddExamplesRequest]:
        """Yield what can be sent, the largest picture first, and note its number; the others are rejected here."""
        left = [number for number in range(len(self.files)) if number not in self.fates]
        first = max(left, key=lambda number: self.files[number].size_bytes, default=None)
        for number in sorted(left, key=lambda number: number != first):
            try:
                request = self._request(self.files[number])
            except OSError as error:
                self._reject(number, f"cannot be read: {error.strerror or error}")
            except InvalidRequestError as error:
                self._reject(number, str(error))
            except UnicodeError as error:  # JSON can say half a character
                self._reject(number, f"cannot be sent: {error}")
            else:
                sent.append(number)
                yield request

    def _request(self, file: LabelledFile) -> retraining_pb2.AddExamplesRequest:
        self._check_size(file.size_bytes)  # of what is far too large not even the bytes are read
        image = file.path.read_bytes() if file.path else b""
        request = retraining_pb2.AddExamplesRequest(
            image=image,
            label=file.label,
            name=self._name,
            source=file.source or self._source,
            annotator=file.annotator or self._user,
            request_id=file.request_id,
            group=file.group,
        )
        self._check_size(request.ByteSize())
        return request

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._limit_bytes:
            raise InvalidRequestError(too_large(size_bytes, self._limit_bytes))

    def _reject(self, number: int, reason: str) -> None:
        rejected = retraining_pb2.AddExamplesResponse.REJECTED
        self.fates[number] = retraining_pb2.AddExamplesResponse(outcome=rejected, reason=reason)


def _whole(text: str) -> str:
    """Return a text that can be printed: names of files, and JSON, may have half characters."""
    return text.encode(errors="replace").decode()


def _tell(delivery: _Delivery, as_json: bool) -> None:
    """Say what became of the pictures, and how many are left where something ended it all."""
    counts, rejections = delivery.counts(), delivery.rejections()
    if delivery.unanswered:
        counts["unanswered"] = delivery.unanswered
    if as_json:
        print_json({**counts, "rejections": rejections})
        return
    for entry in rejections:
        terminal.line((entry["file"], "red"), f": {entry['reason']}")
    terminal.line(", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count))


def _named(path: Path | None, label: str, request: str) -> Found:
    if request:
        if path or not label:
            raise InvalidRequestError("--request: needs --label, and no path")
        check_label(label)
        return Found((LabelledFile(None, label, request_id=request),))
    if path is None:
        raise InvalidRequestError("which pictures? Give a folder, a list, or --request")
    return labelled_files.find_all(path, label)


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
                "source": f"suggest:{_reason(entry)}",  # the gate compares pictures by it
                "request_id": entry.request_id,
            }
            for entry in found
        ]
        _write_list(save / "suggestions.csv", rows)
    if as_json:
        for entry in found:
            print_json({key: value for key, value in message_to_dict(entry).items() if key != "image"})
    elif not found:
        terminal.line(
            "nothing to suggest: of the served pictures none is kept that has no label yet and that the backbone in "
            "service has seen; see `regraft serve --keep-requests`"
        )
    else:
        rows_shown = terminal.table("request", "why", "read as", numbers=("probability", "novelty"))
        for entry in found:
            figures = (f"{entry.probability:.3f}", f"{entry.novelty:.3f}")
            rows_shown.add_row(entry.request_id, _reason(entry), entry.label, *figures)
        terminal.out.print(rows_shown)
        terminal.line(
            f"correct the labels in {save / 'suggestions.csv'}, then: regraft label {save / 'suggestions.csv'}"
            if save
            else "label one: regraft label --request REQUEST --label LABEL; look at them: --save FOLDER"
        )


def _reason(suggestion: examples_pb2.Suggestion) -> str:
    return examples_pb2.Suggestion.Reason.Name(suggestion.reason).lower()


@app.command("list")
@asks_a_server
def list_examples(
    server: Connection,
    label: Annotated[str, typer.Option(help="Of this label only.")] = "",
    quarantined: Annotated[
        bool, typer.Option("--quarantined", help="Only those that no retrain learns from until somebody has looked.")
    ] = False,
    name: Name = "",
    as_json: Json = False,
) -> None:
    """List the examples in force; with --json one a line."""
    rows = terminal.table("sha256", "label", "source", "group", "added", *(["why"] if quarantined else []))
    count = 0
    with Client(server) as client:
        found = client.list_examples(name=name, label=label, quarantined=quarantined)
        for count, example in enumerate(found, start=1):  # noqa: B007 - the last is shown
            if as_json:
                print_json(_fields(example))
            else:
                why = [example.quarantine] if quarantined else []
                rows.add_row(example.sha256[:12], example.label, example.source, example.group, example.added_at, *why)
    if quarantined and not as_json:
        if count:
            terminal.out.print(rows)
        terminal.line(f"{count} in quarantine" + ("; `regraft examples release HASH` lets one out" if count else ""))
    elif not as_json:
        if count:
            terminal.out.print(rows)
        terminal.line(f"{count} examples" if count else "no examples yet: send some with `regraft label`")


@app.command("show")
@asks_a_server
def show_example(server: Connection, sha256: _Hash, name: Name = "", as_json: Json = False) -> None:
    """Show an example, or one that was removed, and every label that it ever had."""
    with Client(server) as client:
        found = client.get_example(sha256, name=name)
    if as_json:
        print_json({**_fields(found.example), "history": [message_to_dict(entry) for entry in found.history]})
        return
    terminal.line(f"{found.example.sha256}: ", (found.example.label or _removal(found.history[-1]), "bold"))
    if found.example.quarantine:
        terminal.line(("in quarantine: ", "yellow"), found.example.quarantine)
    if found.example.group:
        terminal.line(f"group {found.example.group}")
    rows = terminal.table("when", "label", "annotator", "source", "request", "from", title="history")
    for entry in found.history:
        label = entry.label or "(removed)"
        rows.add_row(entry.at, label, entry.annotator, entry.source, entry.request_id, entry.caller)
    terminal.out.print(rows)


def _removal(entry: examples_pb2.Labelling) -> str:
    who = entry.annotator or entry.caller or "somebody unknown"
    return f"removed {entry.at} by {who}" + (f": {entry.source}" if entry.source else "")


@app.command()
@asks_a_server
def relabel(
    server: Connection,
    sha256: _Hash,
    label: Annotated[str, typer.Argument(help="The label that it should have.")],
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Give an example another label; one that was removed is one again."""
    with Client(server) as client:
        _show_one(client.relabel_example(sha256, label, name=name, annotator=user_name()), "is now", as_json)


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
            removed = client.remove_example(each, name=name, why=why, annotator=user_name())
            _show_one(removed, "is removed; it was", as_json)


@app.command()
@asks_a_server
def release(
    server: Connection,
    sha256: Annotated[list[str], typer.Argument(help="The SHA-256 of pictures, or its beginning.")],
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Say that the labels of examples in quarantine are right: the next retrain learns from them."""
    with Client(server) as client:
        for each in sha256:
            released = client.release_example(each, name=name, annotator=user_name())
            _show_one(released, "is out of quarantine; it is", as_json)


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
    with Client(server) as client, terminal.progress_bars() as progress:
        total = sum(1 for _ in client.list_examples(name=name, label=label))
        for example in client.list_examples(name=name, label=label, with_images=True):
            file = _write(folder, example.label, example.sha256, example.image)
            rows.append({"file": file, "label": example.label, "source": example.source, "group": example.group})
            progress("export", len(rows), total)
    _write_list(folder / "examples.csv", rows)
    if as_json:
        print_json({"folder": str(folder), "examples": len(rows)})
    else:
        terminal.line(f"{len(rows)} examples in {folder}")


def _write(folder: Path, label: str, stem: str, image: bytes) -> str:
    """Write a picture and return its path within ``folder``."""
    try:
        if label:
            check_label(label)  # what a server calls a label must not lead out of the folder
        if not stem.isalnum():
            raise InvalidRequestError(f"the server calls a picture {stem!r}")
    except InvalidRequestError as error:
        raise StorageError(f"{folder}: {error}") from error
    ending = _ENDINGS.get(read_kind(image), "")
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
        terminal.line(f"{example.sha256[:12]} {what} ", (example.label, "bold"))


def _fields(example: examples_pb2.Example) -> dict[str, object]:
    return {key: value for key, value in message_to_dict(example).items() if key != "image"}
