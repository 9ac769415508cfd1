import pytest
from typer.testing import CliRunner, Result

from regraft.cli.client.models import show_models
from regraft.cli.json_output import model_to_dict
from regraft.cli.main import app
from regraft.client.client import RemoteError
from regraft.stores.models import ModelStore
from regraft.v1 import models_pb2
from tests.live_server import LiveServer
from tests.tiny import publish_tiny


def models(live: LiveServer, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["models", *arguments, "--target", live.target, "--json"])


def test_promote_and_rollback_change_nothing_where_the_champion_is_another_by_now(store: ModelStore) -> None:
    publish_tiny(store, sharpness=5.0)
    with LiveServer(store) as live:
        for command in (["promote", "1", "--expected", "1"], ["rollback", "--expected", "1"]):
            refused = models(live, *command).exception
            assert isinstance(refused, RemoteError)
            assert "is now version 2, not 1: look again" in str(refused)
        assert store.champion("colours") == 2

        assert models(live, "promote", "1", "--expected", "2").exit_code == 0
        assert models(live, "rollback", "--expected", "1").exit_code == 0
        assert [entry.version for entry in store.history("colours")[-2:]] == [1, 2]


def test_a_number_of_examples_that_nobody_knows_is_told_from_none(capsys: pytest.CaptureFixture[str]) -> None:
    unknown, none = models_pb2.Model(name="a"), models_pb2.Model(name="b", examples=0)

    show_models([unknown, none])

    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[-1] for row in rows if row and row[0] in ("a", "b")] == ["unknown", "0"]
    assert "examples" not in model_to_dict(unknown)
    assert model_to_dict(none)["examples"] == 0
