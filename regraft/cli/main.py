"""The commands of ``regraft``.

Exit codes: 0 done, 1 failed, 2 wrong usage. ``--json`` prints for machines; progress always goes to standard error.
"""

import io
import sys
from typing import Final

import typer

from regraft.cli import terminal
from regraft.cli.client import (
    access,
    bench,
    classify,
    examples,
    insight,
    label,
    listed_backbones,
    many_examples,
    models,
    pictures,
    preview,
    reports,
    retrain,
    suggest,
)
from regraft.cli.commands import Command, Group, GroupWithDefault, LateCommand
from regraft.cli.demo import demo
from regraft.cli.serving import plan, serve
from regraft.cli.training import (
    backbones,
    compare,
    evaluate,
    export,
    import_,
    look,
    quantise,
    refresh,
    stored_backbones,
    train,
    upgrade,
    versions,
)
from regraft.client.proxies import spare_loopback
from regraft.errors import InvalidRequestError, RegraftError

app: Final = typer.Typer(
    help="Transfer learning, all the way to production.",
    no_args_is_help=True,
    cls=Group,
    pretty_exceptions_enable=False,
)
models_app: Final = typer.Typer(help="What is served, and which version should be.", no_args_is_help=True, cls=Group)
examples_app: Final = typer.Typer(help="Labelled pictures that a model learns from.", no_args_is_help=True, cls=Group)
backbones_app: Final = typer.Typer(
    help="Networks to train on, and backbones of a store, for models to begin with.", cls=GroupWithDefault
)
app.add_typer(models_app, name="models")
app.add_typer(backbones_app, name="backbones")
app.add_typer(examples_app, name="examples")
pictures_app: Final = typer.Typer(help="Pictures without labels, to be labelled.", no_args_is_help=True, cls=Group)
app.add_typer(pictures_app, name="pictures")

app.command(cls=LateCommand)(serve.serve)
app.command(cls=Command)(plan.plan)
app.command(cls=LateCommand)(train.train)
app.command(cls=Command)(classify.classify)
app.command(cls=LateCommand)(compare.compare)
app.command(cls=Command)(evaluate.evaluate)
app.command(cls=Command)(look.look)
app.command(cls=Command)(bench.bench)
app.command(cls=Command)(label.label)
app.command(cls=Command)(suggest.suggest)
app.command(cls=Command)(export.export)
app.command("import", cls=Command)(import_.import_)
app.command(cls=Command)(insight.explain)
app.command(cls=Command)(preview.preview)
app.command(cls=LateCommand)(retrain.retrain)
app.command(cls=Command)(retrain.jobs)
app.command(cls=Command)(access.token)
app.command(cls=Command)(access.health)
app.command(cls=Command)(versions.verify)
app.command(cls=LateCommand)(refresh.refresh)
app.command(cls=Command)(upgrade.upgrade)
app.command(cls=Command)(demo.demo)

backbones_app.command(cls=Command)(backbones.networks)
backbones_app.command(cls=Command)(stored_backbones.add)
backbones_app.command("list", cls=Command)(listed_backbones.list_backbones)
backbones_app.command(cls=Command)(stored_backbones.export)
backbones_app.command("import", cls=Command)(stored_backbones.import_)
backbones_app.command(cls=Command)(stored_backbones.remove)

models_app.command("list", cls=Command)(models.list_models)
models_app.command("show", cls=Command)(models.show_model)
models_app.command(cls=Command)(models.create)
models_app.command(cls=Command)(models.delete)
models_app.command(cls=Command)(models.restore)
models_app.command(cls=Command)(models.promote)
models_app.command(cls=Command)(models.rollback)
models_app.command(cls=Command)(models.shadow)
models_app.command(cls=Command)(reports.report)
models_app.command(cls=Command)(reports.confusion)
models_app.command(cls=Command)(reports.export)
models_app.command(cls=LateCommand)(retrain.train)
models_app.command(cls=Command)(quantise.quantise)
models_app.command(cls=Command)(versions.diff)

examples_app.command("list", cls=Command)(examples.list_examples)
examples_app.command("show", cls=Command)(examples.show_example)
examples_app.command(cls=Command)(examples.relabel)
examples_app.command(cls=Command)(examples.remove)
examples_app.command(cls=Command)(examples.release)
examples_app.command(cls=Command)(insight.neighbours)
examples_app.command("map", cls=Command)(insight.show_map)
examples_app.command(cls=Command)(preview.curve)
examples_app.command("relabel-many", cls=Command)(many_examples.relabel_many)
examples_app.command("remove-many", cls=Command)(many_examples.remove_many)
examples_app.command(cls=Command)(many_examples.restore)
examples_app.command(cls=Command)(many_examples.rename)
examples_app.command("remove-label", cls=Command)(many_examples.remove_label)
examples_app.command(cls=Command)(examples.export)

pictures_app.command(cls=Command)(pictures.add)
pictures_app.command("list", cls=Command)(pictures.list_pictures)
pictures_app.command(cls=Command)(pictures.remove)


def main() -> None:
    """Run the command line."""
    spare_loopback()
    for stream in (sys.stdout, sys.stderr):  # a label or a dash that a terminal's encoding lacks must end no command
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except InvalidRequestError as error:
        terminal.error(str(error))
        sys.exit(2)
    except RegraftError as error:
        terminal.error(str(error))
        sys.exit(1)
    except KeyboardInterrupt as stop:
        if str(stop):
            terminal.error(str(stop))
        sys.exit(130)
