"""The front door: ``regraft <command>``.

Exit codes: 0 done, 1 failed, 2 wrong usage. ``--json`` prints for machines; progress always goes to standard error.
"""

import io
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from regraft.cli import terminal
from regraft.cli.client import access, bench, classify, examples, retrain, show_traffic
from regraft.cli.json_output import model_to_dict, print_json
from regraft.cli.options import Json, Name, asks_a_server
from regraft.cli.serving import serve
from regraft.cli.training import compare, evaluate, export, import_, look, quantise, refresh, train, upgrade, versions
from regraft.client.client import Client
from regraft.client.connection import Connection
from regraft.client.proxies import spare_loopback
from regraft.errors import InvalidRequestError, RegraftError
from regraft.user import user_name

app: Final = typer.Typer(
    help="Transfer learning, all the way to production.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models_app: Final = typer.Typer(help="What is served, and which version should be.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(examples.app, name="examples")
app.command()(serve.serve)
app.command()(serve.plan)
app.command()(train.train)
app.command()(train.backbones)
app.command()(classify.classify)
app.command()(compare.compare)
app.command()(evaluate.evaluate)
app.command()(look.look)
app.command()(bench.bench)
app.command()(examples.label)
app.command()(examples.suggest)
app.command()(export.export)
app.command("import")(import_.import_)
app.command()(retrain.retrain)
app.command()(retrain.jobs)
app.command()(access.token)
app.command()(access.health)
models_app.command()(quantise.quantise)
models_app.command()(versions.diff)
app.command()(versions.verify)
app.command()(refresh.refresh)
app.command()(upgrade.upgrade)

_Why = Annotated[str, typer.Option(help="The reason, for the history.")]
_Expected = Annotated[
    int | None,
    typer.Option(min=0, help="The champion that you go by, 0 for none: if it is another by now, nothing changes."),
]


@models_app.command("list")
@asks_a_server
def list_models(server: Connection, as_json: Json = False) -> None:
    """List the models of a server's store."""
    with Client(server) as client:
        found = client.list_models()
    if as_json:
        print_json([model_to_dict(model) for model in found])
    else:
        terminal.models(found)


@models_app.command("show")
@asks_a_server
def show_model(
    server: Connection,
    name: Annotated[str, typer.Argument(help="The model; not needed while there is just one.")] = "",
    as_json: Json = False,
) -> None:
    """Show a model: its versions, card, provider and history."""
    with Client(server) as client:
        _show_model(client.get_model(name), as_json)


@models_app.command()
@asks_a_server
def promote(
    server: Connection,
    version: Annotated[int, typer.Argument(min=1, help="The version that shall serve.")],
    name: Name = "",
    why: _Why = "",
    expected: _Expected = None,
    as_json: Json = False,
) -> None:
    """Make a version the champion; when this returns it serves."""
    with Client(server) as client:
        _show_model(client.promote(version, name=name, who=user_name(), why=why, expected=expected), as_json)


@models_app.command()
@asks_a_server
def rollback(
    server: Connection, name: Name = "", why: _Why = "", expected: _Expected = None, as_json: Json = False
) -> None:
    """Go back to the champion before; when this returns it serves."""
    with Client(server) as client:
        _show_model(client.rollback(name=name, who=user_name(), why=why, expected=expected), as_json)


@models_app.command()
@asks_a_server
def shadow(
    server: Connection,
    version: Annotated[
        int | None, typer.Argument(min=1, help="The version that shall judge beside the champion.")
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="End the shadow.")] = False,
    name: Name = "",
    why: _Why = "",
    as_json: Json = False,
) -> None:
    """Let a version judge live traffic beside the champion, unseen; `regraft models show` has what it says."""
    if (version is None) != off:
        raise typer.BadParameter("give either a version or --off", param_hint="VERSION")
    with Client(server) as client:
        _show_model(client.shadow(version or 0, name=name, who=user_name(), why=why), as_json)


@app.command()
def demo(
    data: Annotated[Path | None, typer.Argument(help="Your own folder of labelled photos instead of digits.")] = None,
    folder: Annotated[Path, typer.Option(help="Where the demo works; emptied first.")] = Path("demo-run"),
    as_json: Json = False,
) -> None:
    """Play the whole story: train, serve, label, retrain, swap under load."""
    from regraft.cli.demo.demo import run_demo  # noqa: PLC0415 - scikit-learn takes a second, which other commands spare

    summary = run_demo(folder, data)
    if as_json:
        print_json(summary)


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


def _show_model(model: Any, as_json: bool) -> None:  # noqa: ANN401 - a message
    fields = model_to_dict(model)
    if as_json:
        print_json(fields)
    else:
        terminal.model(model, fields["card"])
        show_traffic.traffic(model)
