"""The command ``regraft evaluate``: versions, model files and served models, judged by labelled pictures."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from regraft.cli import terminal
from regraft.cli.json_output import print_json
from regraft.cli.options import Json, Store, may_ask_servers
from regraft.cli.serving import serve
from regraft.cli.training import show_evaluation
from regraft.client.client import Client, RemoteError
from regraft.client.connection import Connection, is_socket
from regraft.errors import InvalidRequestError
from regraft.label_rules import one_form
from regraft.progress import Progress
from regraft.stores.models import ModelStore

if TYPE_CHECKING:  # numpy
    from regraft.client.model_answers import Outcome
    from training.evaluation.evaluate import Asked


@dataclass(frozen=True)
class _Model:
    """A model to ask; ``folder`` knows its training, None where nobody does."""

    title: str
    folder: Path | None
    ask: Callable[[Sequence[tuple[str, Path]]], Iterator["Outcome"]]


@may_ask_servers
def evaluate(
    connect: Callable[[str], Connection],
    models: Annotated[
        list[str],
        typer.Argument(
            help="NAME, NAME:VERSION, a model.onnx, or HOST:PORT of a server; two are compared, picture by picture.",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path, typer.Argument(help="Labelled pictures: a folder or a list, as `regraft train` takes.", exists=True)
    ],
    split: Annotated[
        str,
        typer.Option(
            help="auto: test, or else val, where the data has such a part, and otherwise everything. holdout: what a "
            "training would hold out. train: the rest. all."
        ),
    ] = "auto",
    group_by: Annotated[
        str, typer.Option(help="Pictures that count as fewer, since they belong together; see `regraft train`.")
    ] = "",
    name: Annotated[
        list[str] | None,
        typer.Option(help="The model of a server that has several; given twice, two are compared.", show_default=False),
    ] = None,
    store: Store = Path("models"),
    report: Annotated[
        Path | None, typer.Option(help="Write the page there, with the worst mistakes.", dir_okay=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Judge a model, or compare two, by labelled pictures.

    A model is a version of the store, a file, or what a server answers with.
    """
    from training.data.dataset import Part, scan_part  # noqa: PLC0415 - numpy takes a moment, which other commands spare
    from training.evaluation.evaluate import pictures_of, summarise  # noqa: PLC0415 - likewise

    if split not in get_args(Part):
        raise typer.BadParameter(f"{split!r}: need one of {', '.join(get_args(Part))}", param_hint="--split")
    opened = _models(models, name or [], ModelStore(store), connect)
    with terminal.progress_bars() as progress:
        dataset = scan_part(data, split, progress, group_by)  # type: ignore[arg-type]  # checked above
        pictures = pictures_of(dataset, data)
        result = summarise(pictures, [_ask(model, pictures.files, progress) for model in opened])
    if as_json:
        print_json(result.to_dict())
    else:
        show_evaluation.evaluation(result.to_dict())
    if report:
        from training.evaluation.report.evaluation_page import page  # noqa: PLC0415 - as above

        terminal.write_page(report, page(result, pictures), "--report")


def _ask(model: _Model, files: Sequence[tuple[str, Path]], progress: Progress) -> "Asked":
    from regraft.client.model_answers import gather  # noqa: PLC0415 - numpy
    from training.evaluation.evaluate import Asked  # noqa: PLC0415 - as above
    from training.head.features import trained_on  # noqa: PLC0415 - as above

    began_s = time.perf_counter()
    answers = gather(model.ask(files), len(files), progress)
    seconds = time.perf_counter() - began_s
    return Asked(model.title, answers, seconds, trained_on(model.folder) if model.folder else None)


def _models(
    texts: Sequence[str], names: Sequence[str], store: ModelStore, connect: Callable[[str], Connection]
) -> list[_Model]:
    """Return the one or two models that are meant, opened.

    Raises:
        InvalidRequestError: there are more, or a name is given and no server.
    """
    servers = [text for text in texts if _is_server(text, store)]
    if len(texts) == 1 and len(names) == 2:  # two models of one server
        texts, servers = [*texts, *texts], [*servers, *servers]
    if len(texts) > 2:
        raise InvalidRequestError(f"{len(texts)} models: one is judged, two are compared; the last argument is DATA")
    if names and not servers:
        raise InvalidRequestError("--name: says which model of a server, and none of the models is HOST:PORT")
    if len(names) not in (0, 1, len(servers)):
        raise InvalidRequestError(f"--name: {len(names)} names, and {len(servers)} of the models are servers")
    named = iter(names if len(names) > 1 else [*names, *names])
    return [
        _of_server(text, next(named, ""), store, connect) if text in servers else _of_file(text, store)
        for text in texts
    ]


def _is_server(text: str, store: ModelStore) -> bool:
    """Tell HOST:PORT from NAME:VERSION: the latter is a name of the store."""
    host, colon, _ = text.partition(":")
    return not Path(text).is_file() and (is_socket(text) or (bool(colon) and one_form(host) not in store.names()))


def _of_file(text: str, store: ModelStore) -> _Model:
    file = serve.file_of(text, store.root)
    from regraft.model.card import IMPORTED  # noqa: PLC0415 - pydantic and numpy, which other commands spare

    title = text if Path(text).is_file() else ":".join(map(str, store.find(text)))
    opened = serve.open_without_server(file)
    return _Model(title, None if opened.version.card.strategy == IMPORTED else file.parent, opened.replies)


def _of_server(text: str, name: str, store: ModelStore, connect: Callable[[str], Connection]) -> _Model:
    connection = connect(text)

    def ask(files: Sequence[tuple[str, Path]]) -> Iterator["Outcome"]:
        from regraft.client.model_answers import replies_of_server  # noqa: PLC0415 - numpy

        try:
            with Client(connection) as client:
                yield from replies_of_server(client, files, name)
        except RemoteError as error:
            if error.code != "UNAVAILABLE":
                raise
            raise RemoteError(
                error.code, f"{error}; nor is there a model {text.partition(':')[0]!r} in the store {store.root}"
            ) from error

    return _Model(f"{name} at {text}" if name else text, None, ask)
