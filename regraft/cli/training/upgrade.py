"""The command ``regraft upgrade``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regraft.cli import terminal
from regraft.cli.json_output import print_json
from regraft.cli.options import Database, Examples, Json
from regraft.cli.verdict import show_not_promoted, show_objections
from regraft.files import cache_folder
from regraft.stores.images import EXAMPLES_FOLDER
from regraft.stores.models import GateMode, ModelStore

if TYPE_CHECKING:  # it takes onnx, which the other commands' help spares
    from regraft.stores.older_versions import OlderVersion


def upgrade(
    store: Annotated[Path, typer.Argument(help="The model store.", envvar="REGRAFT_STORE")] = Path("models"),
    check: Annotated[bool, typer.Option("--check", help="Only say what is to be done: exit 1 if anything is.")] = False,
    data: Annotated[
        Path | None, typer.Option(help="The folder of photos that was trained on; not for what came over gRPC.")
    ] = None,
    examples: Examples = "",
    database: Database = "",
    gate: Annotated[
        GateMode, typer.Option(help="auto: a blessed version goes live. manual: it waits for promote. off: anyhow.")
    ] = GateMode.AUTO,
    as_json: Json = False,
) -> None:
    """Redo versions of an older Regraft that this one cannot serve.

    From the kept pictures; the gate decides. Champions get their embeddings and their head anew; the network stays.
    Exit 1 where one still cannot be served.
    """
    from regraft.stores.older_versions import find_older  # noqa: PLC0415 - see above

    models = ModelStore(store)
    older = list(find_older(models))
    if check:
        _check(older, store, as_json=as_json)
        return
    results = _upgrade(models, data, examples, database, gate) if any(each.is_champion for each in older) else []
    if as_json:
        print_json(results)
    else:
        for result in results:
            _show(result)
        if not results:
            terminal.line("nothing to do: this Regraft can serve every champion")
    if not all(result["promoted"] or result["verdict"]["blessed"] for result in results):
        raise typer.Exit(1)


def _check(older: "list[OlderVersion]", store: Path, *, as_json: bool) -> None:
    if as_json:
        print_json([each.to_dict() for each in older])
    elif not older:
        terminal.line("this Regraft can serve every version")
    for each in older if not as_json else ():
        mark = ", the champion" if each.is_champion else ""
        terminal.line((f"{each.name}:{each.version}", "bold"), f"{mark}: {each.reason}")
    if any(each.is_champion for each in older):
        if not as_json:
            terminal.line("before servers of this Regraft start: ", (f"regraft upgrade {store} --data FOLDER", "bold"))
        raise typer.Exit(1)


def _upgrade(
    store: ModelStore, data: Path | None, examples: str, database: str, gate: GateMode
) -> list[dict[str, Any]]:
    from regraft.stores.examples import open_examples  # noqa: PLC0415 - SQLAlchemy takes half a second
    from training.retrain.upgrade import upgrade as run  # noqa: PLC0415 - scikit-learn takes a second

    labelled = open_examples(store.root, examples, database)
    places = examples or str(store.root / EXAMPLES_FOLDER)
    try:
        with terminal.progress_bars() as progress:
            upgraded = run(store, labelled, places, data, cache=cache_folder(), gate=gate, progress=progress)
            return [each.to_dict() for each in upgraded]
    finally:
        labelled.close()


def _show(result: dict[str, Any]) -> None:
    verdict = result["verdict"]
    accuracies = f"{verdict['champion_accuracy']:.4f} -> {verdict['challenger_accuracy']:.4f}"
    terminal.line(
        (result["name"], "bold"),
        f": version {result['parent_version']} -> {result['version']}, accuracy {accuracies} on "
        f"{verdict['holdout_images']} holdout images",
    )
    show_objections(verdict)
    if result["promoted"]:
        terminal.line(f"version {result['version']} is the champion")
    else:
        show_not_promoted(result)
