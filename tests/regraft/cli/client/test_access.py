import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from regraft.cli.main import app
from regraft.stores.models import ModelStore
from serving.rpc.security.roles import Caller, Callers, Role
from tests.live_server import LiveServer
from tests.tiny import publish_tiny

run = CliRunner().invoke


def test_a_token_that_was_made_is_known_by_its_line(tmp_path: Path) -> None:
    made = json.loads(run(app, ["token", "ada", "--role", "operate", "--json"]).stdout)
    (tmp_path / "callers").write_text(made["line"])

    assert Callers(tmp_path / "callers").with_token(made["token"]) == Caller("ada", Role.OPERATE)


def test_without_json_a_token_and_its_line_can_be_copied() -> None:
    token, line = run(app, ["token", "shop"], env={"COLUMNS": "40"}).stdout.splitlines()

    assert token.startswith("regraft_")
    assert line.startswith("shop classify sha256:")


@pytest.mark.parametrize("arguments", [["ada", "--role", "root"], ["two words"], [""], ["#ada"]])
def test_what_makes_no_line_is_wrong_usage(arguments: list[str]) -> None:
    assert run(app, ["token", *arguments]).exit_code == 2


def test_health_says_whether_a_server_is_ready(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    with LiveServer(store) as live:
        ask = ["health", "--target", live.target, "--json"]
        not_ready = run(app, ask)
        publish_tiny(store)
        while run(app, ask).exit_code:
            pass
        ready = run(app, [*ask, "--service", "regraft.v1.Classifier"])

    assert (not_ready.exit_code, json.loads(not_ready.stdout)) == (1, {"status": "NOT_SERVING"})
    assert (ready.exit_code, json.loads(ready.stdout)) == (0, {"status": "SERVING"})
