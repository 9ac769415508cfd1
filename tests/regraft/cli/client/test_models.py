import json

import pytest
from typer.testing import CliRunner, Result

from regraft.cli.client.models import show_models
from regraft.cli.json_output import model_to_dict
from regraft.cli.main import app
from regraft.client.client import RemoteError
from regraft.stores.models import ModelStore
from regraft.v1 import models_pb2
from tests.live_server import LiveServer
from tests.tiny import add_tiny_backbone, publish_tiny


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


def test_a_model_is_created_deleted_listed_and_restored(empty_store: ModelStore) -> None:
    add_tiny_backbone(empty_store)
    with LiveServer(empty_store) as live:
        created = models(
            live, "create", "flowers", "--backbone", "tiny", "--label", "rose", "--label", "tulip", "--closed"
        )
        assert created.exit_code == 0, created.output
        told = json.loads(created.stdout)
        assert (told["labels"], told["label_set"], told["effect"]["event"]) == (["rose", "tulip"], "CLOSED", "create")

        deleted = json.loads(models(live, "delete", "flowers", "--why", "a mistake").stdout)
        assert (deleted["effect"]["why"], deleted["kept_until"][:2]) == ("a mistake", "20")
        assert json.loads(models(live, "list").stdout) == []
        assert [model["name"] for model in json.loads(models(live, "list", "--deleted").stdout)] == ["flowers"]

        assert json.loads(models(live, "restore", "flowers").stdout)["effect"]["event"] == "restore"


def test_a_model_without_a_version_and_one_in_the_trash_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    begun = models_pb2.Model(name="a", missing="2 classes with 2 pictures each; there are 1 and 0")
    deleted = models_pb2.Model(name="b")
    deleted.kept_until.FromJsonString("2026-01-31T00:00:00Z")

    show_models([begun, deleted])

    out = capsys.readouterr().out
    assert "a: no version yet; it needs 2 classes with 2 pictures each; there are 1 and 0" in out
    assert "b: in the trash until 2026-01-31T00:00:00+00:00" in out
