"""The command ``regraft compare``."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from regraft.cli import terminal
from regraft.cli.json_output import print_json
from regraft.cli.options import Batch, Epochs, Freeze, HeadLr, Init, Json, Lr, Optimizer, Store
from regraft.cli.training import show_comparison
from regraft.stores.models import GateMode

_PUBLISHING: Final = "Publishing the winner"


def compare(
    data: Annotated[list[Path], typer.Argument(help="One or more folders of labelled photos, or lists of them.")],
    backbones: Annotated[str, typer.Option(help="Names with commas between, see `regraft backbones`.")],
    strategies: Annotated[str, typer.Option(help="Some of probe, finetune, scratch, auto.")] = "probe",
    shares: Annotated[
        str,
        typer.Option(help="Of the training pictures, such as 20,50,200,all or 10%,all; each is a part of the next."),
    ] = "all",
    seeds: Annotated[
        int, typer.Option(min=1, help="Runs of each, for mean and range; each draws shares of its own.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="The first of them, of everything that is random.")] = 0,
    out: Annotated[Path | None, typer.Option(help="The folder to write. Default: compare-<DATA>.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the runs that an interrupted comparison has finished.")
    ] = False,
    weights: Annotated[
        str, typer.Option(help="default or none; REGRAFT_WEIGHTS may name a folder of state dicts, <backbone>.pth.")
    ] = "default",
    epochs: Epochs = None,
    batch: Batch = None,
    optimizer: Optimizer = None,
    lr: Lr = None,
    head_lr: HeadLr = None,
    freeze: Freeze = None,
    init: Init = "head",
    publish: Annotated[
        str,
        typer.Option(
            help="best: train the winner once more, into the store. The holdout does not choose it: the accuracy on "
            "training pictures that it had not seen does.",
            rich_help_panel=_PUBLISHING,
        ),
    ] = "",
    store: Store = Path("models"),
    name: Annotated[
        str, typer.Option(help="Of the model there; the data's if not given.", rich_help_panel=_PUBLISHING)
    ] = "",
    gate: Annotated[
        GateMode, typer.Option(help="As of `regraft train`, where it has a champion.", rich_help_panel=_PUBLISHING)
    ] = GateMode.AUTO,
    as_json: Json = False,
) -> None:
    """Train several networks on the same photos in several ways, and weigh accuracy against speed, size and pictures.

    What learned from all pictures becomes a model with its own report in the store OUT/models; OUT/comparison.html has
    the charts. Exit 1 where the gate refused the winner.
    """
    from training.compare.settings import CompareSettings  # noqa: PLC0415 - likewise
    from training.compare.sweep import compare as run  # noqa: PLC0415 - scikit-learn takes a second

    changes: dict[str, Any] = {
        "freeze": freeze,
        "epochs": epochs,
        "batch": batch,
        "optimizer": optimizer,
        "backbone_lr": lr,
        "head_lr": head_lr,
    }
    settings = CompareSettings(
        tuple(data),
        _names(backbones),
        _names(strategies),
        out=out,
        weights=weights,
        seed=seed,
        seeds=seeds,
        shares=_names(shares),
        init=init,
        changes={key: value for key, value in changes.items() if value is not None},
        resume=resume,
        publish=publish,
        store=store,
        name=name,
        gate=gate,
    )
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    result = {"folder": str(settings.folder), **run(settings, _listen).to_dict()}
    if as_json:
        print_json(result)
    else:
        show_comparison.comparison(result)
    if any(winner["reasons"] and not winner["promoted"] for winner in result["published"]):
        raise typer.Exit(1)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",")) if text.strip() else ()


@contextmanager
def _listen(title: str) -> Iterator[terminal.TrainingView]:
    terminal.remark(title)
    with terminal.training() as listener:
        yield listener
