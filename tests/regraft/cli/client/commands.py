"""The command line of a test, on a live server."""

import json
from typing import Any

from typer.testing import CliRunner

from regraft.cli.main import app
from regraft.errors import RegraftError
from tests.live_server import LiveServer


def run(live: LiveServer, *arguments: str, exit_code: int = 0) -> list[Any]:
    """Run a command with --json and return its lines."""
    result = CliRunner().invoke(app, [*arguments, "--target", live.target, "--json"])
    if isinstance(result.exception, RegraftError):
        raise result.exception
    assert result.exit_code == exit_code, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def say(live: LiveServer, *arguments: str) -> str:
    """Run a command as a person does."""
    result = CliRunner().invoke(app, [*arguments, "--target", live.target])
    assert result.exit_code == 0, result.output
    return result.stdout
