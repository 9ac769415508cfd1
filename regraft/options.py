"""Options that several commands have in common."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Name: TypeAlias = Annotated[str, typer.Option(help="The model; not needed while there is just one.")]
Store: TypeAlias = Annotated[Path, typer.Option(help="The model store.", envvar="REGRAFT_STORE")]
Target: TypeAlias = Annotated[str, typer.Option(help="The server, HOST:PORT.", envvar="REGRAFT_TARGET")]
