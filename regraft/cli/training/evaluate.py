"""The command ``regraft evaluate``."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args

import typer

from regraft.auth import is_socket
from regraft.cli import terminal
from regraft.cli.json_output import print_result
from regraft.cli.options import Json, Store, may_ask_servers, model_file
from regraft.client.client import Client, RemoteError
from regraft.client.connection import Connection
from regraft.errors import InvalidRequestError
from regraft.image.limits import configured_limits
from regraft.label_rules import nfc
from regraft.progress import Progress
from regraft.stores.models import ModelStore

if TYPE_CHECKING:  # numpy
    from regraft.client.model_answers import Outcome
    from training.evaluation.evaluate import ModelRun


_CLASSES: Final = 40
_MATRIX: Final = 8
_MISTAKES: Final = 8
_CONFUSIONS: Final = 8


@dataclass(frozen=True)
class _Model:
    """A model to ask; ``folder`` is its version's, if there is one."""

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
    from training.evaluation.evaluate import evaluate_models, evaluation_set  # noqa: PLC0415 - likewise

    if split not in get_args(Part):
        raise typer.BadParameter(f"{split!r}: need one of {', '.join(get_args(Part))}", param_hint="--split")
    opened = _open_models(models, name or [], ModelStore(store), connect)
    with terminal.progress_bars() as progress:
        dataset = scan_part(data, split, progress, group_by)  # type: ignore[arg-type]  # checked above
        pictures = evaluation_set(dataset, data)
        result = evaluate_models(pictures, [_ask(model, pictures.files, progress) for model in opened])
    print_result(result.to_dict(), _show, as_json)
    if report:
        from training.evaluation.report.evaluation_page import page  # noqa: PLC0415 - as above

        terminal.write_page(report, page(result, pictures), "--report")


def _ask(model: _Model, files: Sequence[tuple[str, Path]], progress: Progress) -> "ModelRun":
    from regraft.client.model_answers import gather  # noqa: PLC0415 - numpy
    from training.evaluation.evaluate import ModelRun  # noqa: PLC0415 - as above
    from training.head.features import trained_on  # noqa: PLC0415 - as above

    began_s = time.perf_counter()
    answers = gather(model.ask(files), len(files), progress)
    seconds = time.perf_counter() - began_s
    return ModelRun(model.title, answers, seconds, trained_on(model.folder) if model.folder else None)


def _open_models(
    texts: Sequence[str], names: Sequence[str], store: ModelStore, connect: Callable[[str], Connection]
) -> list[_Model]:
    """Open one or two models.

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
    return not Path(text).is_file() and (is_socket(text) or (bool(colon) and nfc(host) not in store.names()))


def _of_file(text: str, store: ModelStore) -> _Model:
    from regraft.model.card import IMPORTED  # noqa: PLC0415 - pydantic and numpy, which other commands spare
    from serving.standalone import StandaloneModel  # noqa: PLC0415 - likewise, ONNX Runtime

    file = model_file(text, store.root)
    title = text if Path(text).is_file() else ":".join(map(str, store.find(text)))
    opened = StandaloneModel.open(file, configured_limits())
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


def _show(result: Mapping[str, Any]) -> None:
    """Show a `training.evaluation.evaluate.EvaluationResult`."""
    terminal.left_out(result["left_out"], "all are in --report and in --json")
    terminal.line(f"{result['images']} pictures of {result['data']}, {result['split']}")
    for each in result["models"]:
        _show_model(each)
    if result["paired"]:
        _show_comparison(result["paired"], [each["model"] for each in result["models"]])


def _show_model(judged: Mapping[str, Any]) -> None:
    metrics = judged["metrics"]
    _show_classes(judged, metrics)
    _show_confusion(metrics)
    low, high = metrics["accuracy_interval"]
    terminal.line(
        "accuracy ",
        (f"{metrics['accuracy']:.4f}", "bold"),
        f" (95 % interval {low:.3f} to {high:.3f}), macro F1 {metrics['macro_f1']:.4f}, log loss "
        f"{metrics['log_loss']:.3f}, on {metrics['images']} pictures",
    )
    if judged["trained_on"]:
        _show_trained_on(judged)
    elif judged["trained_on"] == 0:
        terminal.line(("this version was fitted on none of these pictures", "dim"))
    else:
        terminal.line(("whether some of these pictures were trained on is not known", "dim"))
    served = judged["reliability"]
    terminal.line(
        f"calibration error {served['unbiased']:.1%}; a model whose confidence is its accuracy would look as bad in "
        f"{served['p_value']:.1%} of such samples"
    )
    terminal.line(f"novelty: {_share(judged['novel'])} are unlike the training images")
    if declined := judged["declined"]:
        terminal.line(
            f"abstention: {_share(declined['answered'])} are answered, those surer than {declined['threshold']:.3f}; "
            f"{_share(declined['wrong'])} of these are wrong, {declined['target_error']:.1%} may be"
        )
    for each in judged["unknown"]:
        terminal.line(
            ("a label that the model does not know: ", "yellow"),
            f"{each['label']}, {each['novel']['images']} pictures, {each['novel']['count']} of them called novel",
        )
    _show_mistakes(judged["top_losses"])
    terminal.line((f"{judged['images_per_s']:.1f} pictures a second, {judged['seconds']:.1f} s", "dim"))


def _show_trained_on(judged: Mapping[str, Any]) -> None:
    text = f"{judged['trained_on']} of these pictures were trained on"
    if unseen := judged["unseen"]:
        low, high = unseen["accuracy_interval"]
        text += f"; on the other {unseen['images']}: {unseen['accuracy']:.4f} (95 % interval {low:.3f} to {high:.3f})"
    terminal.line((text, "yellow"))


def _show_classes(judged: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
    version = f", version {judged['version']}" if judged["version"] else ""
    title = f"{judged['model']}: {judged['name']}{version}"
    rows = terminal.table("class", title=title, numbers=("precision", "recall", "F1", "pictures", "novel"))
    weakest = sorted(metrics["per_class"], key=lambda entry: (not entry["support"], entry["f1"]))
    for entry in weakest[:_CLASSES]:
        shares = (f"{entry[key]:.3f}" for key in ("precision", "recall", "f1"))
        novel = judged["novel_by_label"].get(entry["label"], {"count": 0})["count"]
        rows.add_row(entry["label"], *shares, str(entry["support"]), str(novel))
    terminal.out.print(rows)
    if len(weakest) > _CLASSES:
        terminal.line((f"the {_CLASSES} weakest of {len(weakest)} classes; all are in --json", "dim"))


def _show_confusion(metrics: Mapping[str, Any]) -> None:
    labels, counts = [entry["label"] for entry in metrics["per_class"]], metrics["confusion"]
    if len(labels) <= _MATRIX:
        rows = terminal.table("truth \\ answer", numbers=labels)
        for label, row in zip(labels, counts, strict=True):
            rows.add_row(label, *(str(count) if count else "" for count in row))
        terminal.out.print(rows)
        return
    mistakes = sorted(
        (-count, truth, answer)
        for truth, row in enumerate(counts)
        for answer, count in enumerate(row)
        if count and truth != answer
    )
    for count, truth, answer in mistakes[:_CONFUSIONS]:
        terminal.line(f"{-count} x {labels[truth]} taken for {labels[answer]}")


def _show_mistakes(worst: list[dict[str, Any]]) -> None:
    if not worst:
        return
    rows = terminal.table("worst mistakes", "label", "answer", numbers=("label's", "answer's probability"))
    for each in worst[:_MISTAKES]:
        shares = (f"{each['label_probability']:.3f}", f"{each['probability']:.3f}")
        rows.add_row(each["file"], each["label"], each["answer"], *shares)
    terminal.out.print(rows)


def _show_comparison(paired: Mapping[str, Any], models: list[str]) -> None:
    first, second = paired["accuracy"]
    terminal.line(
        (f"{models[0]} {first:.4f}, {models[1]} {second:.4f}", "bold"),
        f" on the {paired['images']} pictures that both answer and whose label both know",
    )
    terminal.line(
        f"right by the first alone {paired['only_first']}, by the second alone {paired['only_second']}: "
        f"p = {paired['p_value']:.3g} (McNemar's exact test); log loss of the second less that of the first "
        f"{0.0 - paired['gain']:+.4f}, standard error {paired['gain_error']:.4f}"
    )
    if not paired["differing"]:
        terminal.line("no picture is answered differently")
        return
    title = f"answered differently: {paired['differing_found']}"
    rows = terminal.table("picture", "label", "first", "second", title=title)
    for each in paired["differing"][:_MISTAKES]:
        pairs = zip(each["answers"], each["probabilities"], strict=True)
        rows.add_row(each["file"], each["label"], *(f"{answer} {probability:.3f}" for answer, probability in pairs))
    terminal.out.print(rows)


def _share(share: Mapping[str, int]) -> str:
    part = share["count"] / share["images"] if share["images"] else 0.0
    return f"{share['count']} of {share['images']} ({part:.1%})"
