"""The commands ``regraft explain``, ``regraft examples neighbours`` and ``regraft examples map``."""

import base64
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import ascii_letters
from typing import Annotated, Final

import typer

from regraft.cli import terminal
from regraft.cli.json_output import message_to_dict, print_json
from regraft.cli.options import Json, Name, asks_a_server
from regraft.client.client import Client
from regraft.client.connection import Connection
from regraft.client.message_values import word_of
from regraft.errors import InvalidRequestError
from regraft.v1 import examples_pb2

_WIDTH, _HEIGHT = 72, 24
_SHADES: Final = " .:-=+*#%@"
_Picture = Annotated[str, typer.Argument(help="A file, or the SHA-256 of one that the server has, or its beginning.")]


@asks_a_server
def neighbours(
    server: Connection,
    picture: _Picture,
    count: Annotated[int, typer.Option(min=1, max=100, help="How many at most.")] = 10,
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Find the labelled pictures that are most like one."""
    image, sha256 = _named(picture)
    with Client(server) as client:
        found = client.neighbours(image=image, sha256=sha256, name=name, count=count)
    if as_json:
        print_json(message_to_dict(found))
        return
    terminal.line("answered ", (found.answer, "bold"), f" ({found.probability:.3f}) by version {found.version}")
    rows = terminal.table("sha256", "label", "source", "split", "learned", numbers=("similarity",))
    for each in found.neighbours:
        split = word_of(examples_pb2.Split, each.split).lower()
        rows.add_row(
            each.sha256[:12],
            each.label,
            each.source,
            split,
            "yes" if each.is_learned else "not yet",
            f"{each.similarity:.3f}",
        )
    terminal.out.print(rows)


@asks_a_server
def show_map(server: Connection, name: Name = "", as_json: Json = False) -> None:
    """Draw all labelled pictures by their likeness; with --json one a line."""
    labels: Sequence[str] = ()
    points: list[examples_pb2.MapResponse.Point] = []
    not_embedded = 0
    with Client(server) as client:
        for message in client.map(name=name):
            labels, not_embedded = labels or message.labels, not_embedded or message.not_embedded
            if not as_json:
                points += message.points
                continue
            for point in message.points:
                fields = message_to_dict(point)
                print_json({**fields, "label": labels[fields.pop("label_index")]})
    if as_json:
        return
    for line in _drawn(points):
        terminal.line(line)
    counts = Counter(point.label_index for point in points)
    for index, label in enumerate(labels):
        terminal.line((_letter(index), "bold"), f" {label}: {counts[index]}")
    if not_embedded:
        terminal.line((f"{not_embedded} pictures are not embedded yet", "yellow"))


@asks_a_server
def explain(
    server: Connection,
    picture: _Picture,
    label: Annotated[str, typer.Option(help="Why it is, or is not, this label; the answer if empty.")] = "",
    save: Annotated[
        Path | None, typer.Option(help="Write the picture there, red where the network looked: a PNG.")
    ] = None,
    name: Name = "",
    as_json: Json = False,
) -> None:
    """Show where the network looked.

    Parts of the picture are hidden in turn: what takes most of the answer away is what it depends on.
    """
    image, sha256 = _named(picture)
    with Client(server) as client:
        explained = client.explain(image=image, sha256=sha256, label=label, name=name)
    if save:
        save.write_bytes(explained.overlay)
    if as_json:
        fields = message_to_dict(explained)
        print_json({**fields, "overlay": "" if save else base64.b64encode(explained.overlay).decode()})
        return
    terminal.line((explained.label, "bold"), f" ({explained.probability:.3f}) by version {explained.version}")
    most = max(*explained.heat, 1e-12)
    for start in range(0, len(explained.heat), explained.cells):
        row = explained.heat[start : start + explained.cells]
        terminal.line(*(_SHADES[round((len(_SHADES) - 1) * max(0.0, heat) / most)] * 2 for heat in row))
    terminal.line(f"the picture is in {save}" if save else "see the picture itself: --save FILE.png")


def _named(picture: str) -> tuple[bytes, str]:
    """Return the bytes of a file, or else a hash."""
    if Path(picture).is_file():
        return Path(picture).read_bytes(), ""
    if not picture.isalnum():
        raise InvalidRequestError(f"{picture}: there is no such file, and it is no SHA-256")
    return b"", picture.lower()


def _drawn(points: Sequence[examples_pb2.MapResponse.Point]) -> Iterator[str]:
    """Yield the lines of a plot of each place's commonest label."""
    if not points:
        return
    left, right = min(point.x for point in points), max(point.x for point in points)
    low, high = min(point.y for point in points), max(point.y for point in points)
    cells: defaultdict[tuple[int, int], Counter[int]] = defaultdict(Counter)
    for point in points:
        column = round((_WIDTH - 1) * (point.x - left) / max(right - left, 1e-12))
        row = round((_HEIGHT - 1) * (high - point.y) / max(high - low, 1e-12))
        cells[row, column][point.label_index] += 1
    for row in range(_HEIGHT):
        letters = (cells.get((row, column)) for column in range(_WIDTH))
        yield "".join(_letter(counts.most_common(1)[0][0]) if counts else " " for counts in letters).rstrip()


def _letter(index: int) -> str:
    return ascii_letters[index % len(ascii_letters)]
