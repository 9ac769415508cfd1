"""A training asked for over gRPC, and the version that it makes."""

import json
from pathlib import Path

from typer.testing import CliRunner

from regraft.cli.main import app
from regraft.stores.models import ModelStore
from tests.live_server import LiveServer
from tests.tiny import picture
from tests.training.classifiers import LABELS, save_classifier
from tests.training.conftest import crayons
from training.importing.import_version import ImportSettings, import_version
from training.versions.pictures import ExamplesPlace


def test_a_model_is_trained_anew_by_its_server_on_pictures_that_no_folder_has_any_more(tmp_path: Path) -> None:
    data, place = crayons(tmp_path / "crayons", 10), ExamplesPlace(tmp_path / "models")
    file = save_classifier(tmp_path / "colours.onnx")
    settings = ImportSettings(file, "crayons", place.store, labels=LABELS, data=data)
    import_version(settings, cache=tmp_path / "cache", examples=place, keep=True)
    data.rename(tmp_path / "away")

    with LiveServer(ModelStore(place.store)) as live:
        assert live.client.get_model().examples == 0, "nobody sent any"
        assert {example.is_original for example in live.client.list_examples()} == {True}
        list(live.client.add_examples((picture("grey", number, side_px=24), "grey") for number in range(10)))
        arguments = ["models", "train", "--target", live.target, "--gate", "off", "--key", "once", "--wait", "--json"]
        done = CliRunner().invoke(app, arguments)
        again = live.client.train(idempotency_key="once")

        assert done.exit_code == 0, done.output
        job = json.loads(done.stdout)
        assert (job["kind"], job["state"], job["champion"], job["version"]) == ("TRAIN", "SUCCEEDED", 1, 2)
        assert again.id == job["id"]
        assert list(live.client.get_model().labels) == [*LABELS, "grey"]
        assert live.client.classify(picture("grey", 99, side_px=24)).version == 2
        assert live.metric("regraft_train_seconds_count", model="crayons") == 1
        assert live.metric("regraft_retrain_seconds_count", model="crayons") == 0
