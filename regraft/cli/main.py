"""The commands of ``regraft``.

Exit codes: 0 done, 1 failed, 2 wrong usage. ``--json`` prints for machines; progress always goes to standard error.
"""

import io
import sys
from typing import Final

import typer

from regraft.cli import terminal
from regraft.cli.client import access, bench, classify, examples, label, models, retrain, suggest
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
    train,
    upgrade,
    versions,
)
from regraft.client.proxies import spare_loopback
from regraft.errors import InvalidRequestError, RegraftError

app: Final = typer.Typer(
    help="Transfer learning, all the way to production.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models_app: Final = typer.Typer(help="What is served, and which version should be.", no_args_is_help=True)
examples_app: Final = typer.Typer(help="The labelled pictures that a model learns from.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(examples_app, name="examples")

app.command()(serve.serve)
app.command()(plan.plan)
app.command()(train.train)
app.command()(backbones.backbones)
app.command()(classify.classify)
app.command()(compare.compare)
app.command()(evaluate.evaluate)
app.command()(look.look)
app.command()(bench.bench)
app.command()(label.label)
app.command()(suggest.suggest)
app.command()(export.export)
app.command("import")(import_.import_)
app.command()(retrain.retrain)
app.command()(retrain.jobs)
app.command()(access.token)
app.command()(access.health)
app.command()(versions.verify)
app.command()(refresh.refresh)
app.command()(upgrade.upgrade)
app.command()(demo.demo)

models_app.command("list")(models.list_models)
models_app.command("show")(models.show_model)
models_app.command()(models.promote)
models_app.command()(models.rollback)
models_app.command()(models.shadow)
models_app.command()(quantise.quantise)
models_app.command()(versions.diff)

examples_app.command("list")(examples.list_examples)
examples_app.command("show")(examples.show_example)
examples_app.command()(examples.relabel)
examples_app.command()(examples.remove)
examples_app.command()(examples.release)
examples_app.command()(examples.export)


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
