import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from regraft.cli.main import app
from regraft.stores.models import ModelStore
from tests.live_server import LiveServer
from tests.tiny import picture, publish_tiny


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveServer]:
    publish_tiny(store := ModelStore(tmp_path / "store"))
    with LiveServer(store) as live:
        yield live


def retrain(live: LiveServer, *arguments: str) -> tuple[int, Any]:
    """Retrain and wait; return the exit code and the job."""
    result = CliRunner().invoke(app, ["retrain", "--wait", *arguments, "--target", live.target, "--json"])
    return result.exit_code, json.loads(result.stdout)


def test_waiting_is_well_where_a_head_went_live_and_where_there_was_nothing_new(live: LiveServer) -> None:
    list(live.client.add_examples((picture("grey", number), "grey") for number in range(30)))

    first, second = retrain(live), retrain(live)

    assert (first[0], first[1]["state"]) == (0, "SUCCEEDED")
    assert (second[0], second[1]["state"]) == (0, "REFUSED")
    assert second[1]["message"].startswith("nothing new")


def test_waiting_fails_where_the_gate_refuses(live: LiveServer, tmp_path: Path) -> None:
    golden = tmp_path / "store" / "colours" / "golden" / "blue"
    golden.mkdir(parents=True)
    (golden / "sky.png").write_bytes(picture("red"))
    list(live.client.add_examples((picture("grey", number), "grey") for number in range(30)))

    code, job = retrain(live)

    assert (code, job["state"]) == (1, "REFUSED")
