"""The commands ``regraft token`` and ``regraft health``."""

from typing import Annotated

import typer

from regraft.auth import ROLES, hash_token, new_token
from regraft.cli import terminal
from regraft.cli.json_output import print_json
from regraft.cli.options import Json, asks_a_server
from regraft.client.client import Client
from regraft.client.connection import Connection


def token(
    name: Annotated[str, typer.Argument(help="Who shall have it; one word.")],
    role: Annotated[str, typer.Option(help="classify, label or operate.")] = ROLES[0],
    models: Annotated[
        str, typer.Option(help="The models that it may name, such as 'flowers*,cats'; any if empty.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Make a token for a caller of a server.

    It is shown this once, with a line for the server's file of callers, which has just its hash.
    """
    if role not in ROLES:
        raise typer.BadParameter(f"{role!r}: need one of {', '.join(ROLES)}", param_hint="--role")
    if not name or name.startswith("#") or name.split() != [name]:
        raise typer.BadParameter(f"{name!r}: need one word", param_hint="NAME")
    if models and (models.split() != [models] or not all(models.split(","))):
        raise typer.BadParameter(f"{models!r}: need names or patterns, parted by commas alone", param_hint="--models")
    secret = new_token()
    line = f"{name} {role} sha256:{hash_token(secret)}" + (f" models={models}" if models else "")
    if as_json:
        print_json({"token": secret, "line": line})
    else:
        terminal.line(secret)
        terminal.line(line)


@asks_a_server
def health(
    server: Connection,
    service: Annotated[str, typer.Option(help="Of this service alone, such as regraft.v1.Classifier.")] = "",
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the answer.")] = 5.0,
    as_json: Json = False,
) -> None:
    """Ask whether a server is ready (grpc.health.v1).

    Exit code 0 if it is, 1 if not, or if nobody answers.
    """
    with Client(server, timeout) as client:
        is_serving = client.is_serving(service)
    status = "SERVING" if is_serving else "NOT_SERVING"
    if as_json:
        print_json({"status": status})
    else:
        terminal.line(status)
    if not is_serving:
        raise typer.Exit(1)
