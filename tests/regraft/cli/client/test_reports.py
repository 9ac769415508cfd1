import json
from pathlib import Path

from typer.testing import CliRunner, Result

from regraft.cli.main import app
from regraft.stores.models import ModelStore
from tests.live_server import LiveServer
from tests.serving.rpc.versions.test_reports import PAGE, publish_confused


def models(live: LiveServer, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["models", *arguments, "--target", live.target])


def test_a_report_is_written_to_a_file_or_printed_as_json(live: LiveServer, tmp_path: Path) -> None:
    version = publish_confused(ModelStore(tmp_path / "store"))
    page = tmp_path / "page.html"

    assert models(live, "report", str(version), "--out", str(page)).exit_code == 0
    printed = models(live, "report", str(version), "--json")

    assert page.read_bytes() == PAGE
    assert json.loads(printed.stdout) == {"name": "colours"}


def test_what_names_no_version_is_about_the_champion(live: LiveServer) -> None:
    printed = models(live, "confusion", "--json")

    assert json.loads(printed.stdout)["version"] == 1


def test_what_a_version_confuses_is_shown_with_the_pictures_to_look_at(live: LiveServer, tmp_path: Path) -> None:
    version = publish_confused(ModelStore(tmp_path / "store"))

    shown = models(live, "confusion", str(version), "--mistakes").stdout
    printed = json.loads(models(live, "confusion", str(version), "--mistakes", "--json").stdout)

    (first, second) = printed["cells"]
    assert {(cell["label"], cell["answer"]) for cell in (first, second)} == {("red", "green"), ("green", "red")}
    assert f"version {version} answers {printed['right']} of {printed['images']} holdout pictures rightly" in shown
    assert first["sha256"][0][:12] in shown
    assert "regraft examples relabel HASH LABEL" in shown
