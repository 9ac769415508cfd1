import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from typer.testing import CliRunner, Result

from regraft.auth import hash_token
from regraft.cli.main import app
from regraft.client.client import RemoteError
from regraft.errors import DatasetError, InvalidRequestError, NotFoundError, PreconditionError, StorageError
from regraft.model.artifact import read, rehead
from regraft.model.card import IMPORTED, Abstention
from regraft.stores.models import FEATURES_FILE, MODEL_FILE, ModelStore
from tests.live_server import LiveServer
from tests.tiny import picture, publish_tiny
from tests.training.conftest import colour_challenger, crayons, features_of
from training.data.dataset import scan
from training.versions.publish import publish

LABELS = ("red", "green", "blue")
SPARED = ("sqlalchemy", "prometheus_client", "scipy", "torch")
PROMISE = Abstention(target_error=0.05, threshold=0.9, answered=0.8, error=0.04, images=60)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server of two models; ``colours`` declines answers, and its version 2, which serves nobody, is less sure."""
    store = ModelStore(tmp_path_factory.mktemp("evaluated") / "store")
    publish_tiny(store, abstention=PROMISE)
    publish_tiny(store, sharpness=0.5, promote=False)
    publish_tiny(store, ("green", "red", "blue"), name="others", scale=0.5)
    with LiveServer(store) as server:
        yield server


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of the models' classes and of grey; some were trained on, one is wrong, one is no picture."""
    folder = tmp_path_factory.mktemp("evaluated") / "photos"
    for label in (*LABELS, "grey"):
        (folder / label).mkdir(parents=True)
        for number in range(20, 36):  # below 30 the models know them
            (folder / label / f"{number}.png").write_bytes(picture(label, number))
    (folder / "red" / "wrong.png").write_bytes(picture("blue", 99))
    (folder / "red" / "broken.png").write_bytes(b"no picture")
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)], catch_exceptions=False)


def found(*arguments: object) -> dict[str, Any]:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def same(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return the figures without title, time and last digits, which may differ."""
    if isinstance(value, dict):
        changing = ("model", "seconds", "images_per_s", "trained_on", "unseen", "split", "labels")
        return {key: same(entry) for key, entry in value.items() if key not in changing}
    if isinstance(value, list):
        return [same(entry) for entry in value]
    return round(value, 4) if isinstance(value, float) else value


def test_a_version_its_file_and_a_server_agree_to_the_picture(served: LiveServer, photos: Path, tmp_path: Path) -> None:
    store = served.settings.store
    bare = shutil.copy(ModelStore(store).folder("colours", 1) / MODEL_FILE, tmp_path / "elsewhere.onnx")

    version = found("colours:1", photos, "--store", store)
    paired = found("colours:1", served.target, photos, "--store", store, "--name", "colours")["paired"]
    file, server = found(bare, photos), found(served.target, photos, "--name", "colours")

    by_label = {entry["label"]: entry for entry in server["models"][0]["metrics"]["per_class"]}
    for entry in version["models"][0]["metrics"]["per_class"]:
        assert same(entry) == same(by_label[entry["label"]])
    assert same({**file["models"][0], "version": 1}) == same(version["models"][0])
    for each in (version, file, server):
        model = each["models"][0]
        assert model["metrics"]["images"] == 49
        assert model["metrics"]["accuracy"] == pytest.approx(48 / 49)
        [loss] = model["top_losses"]
        assert (loss["file"], loss["label"], loss["answer"]) == ("red/wrong.png", "red", "blue")
        assert same(model["declined"]) == same(version["models"][0]["declined"])
        assert same(model["unknown"]) == [{"label": "grey", "novel": {"count": 16, "images": 16}}]
        assert [entry["file"] for entry in each["left_out"]] == ["red/broken.png"]
    assert (paired["agreed"], paired["differing_found"], paired["p_value"]) == (49, 0, 1.0)
    assert paired["gain"] == pytest.approx(0, abs=1e-5)


def test_a_model_is_judged_without_libraries_that_only_others_need(served: LiveServer, photos: Path) -> None:
    """Importing one of them takes as long as judging dozens of pictures."""
    without = f"import sys\nsys.modules.update(dict.fromkeys({SPARED}))\nfrom regraft.__main__ import main\nmain()"
    arguments = ("evaluate", "colours", str(photos), "--store", str(served.settings.store), "--json")
    done = subprocess.run([sys.executable, "-c", without, *arguments], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["models"][0]["metrics"]["images"] == 49


def test_pictures_of_the_versions_training_are_told(served: LiveServer, photos: Path) -> None:
    model = found("colours", photos, "--store", served.settings.store)["models"][0]

    assert 0 < model["trained_on"] < 30
    assert model["unseen"]["images"] == 49 - model["trained_on"]
    said = run("colours", photos, "--store", served.settings.store).stdout
    assert f"{model['trained_on']} of these pictures were trained on; on the other" in said


def test_the_holdout_of_a_versions_own_data_gives_the_figures_of_its_card(tmp_path: Path) -> None:
    data = crayons(tmp_path / "photos", 15)
    dataset = scan(data)
    rows = [(image.path.read_bytes(), image.label, image.is_holdout) for image in dataset.images]
    challenger = colour_challenger(features_of(dataset.labels, rows))
    store = ModelStore(tmp_path / "store")
    publish(store, challenger, left_out=[], who="test", why="test")

    asked = ("colours:1", data, "--store", store.root, "--split", "holdout")
    model = found(*asked)["models"][0]

    card = challenger.card.metrics
    assert card is not None
    assert model["metrics"]["accuracy_interval"] == pytest.approx(card.accuracy_interval)
    assert model["metrics"]["log_loss"] == pytest.approx(card.log_loss, abs=1e-5)
    assert model["metrics"]["confusion"] == [list(row) for row in card.confusion]
    assert model["trained_on"] == 0
    assert "this version was fitted on none of these pictures" in run(*asked).stdout


def test_two_versions_are_compared_on_the_same_pictures(served: LiveServer, photos: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = found("colours:1", "colours:2", photos, "--store", served.settings.store, "--report", page)

    assert [each["version"] for each in result["models"]] == [1, 2]
    assert result["paired"]["images"] == 49
    assert result["paired"]["gain"] < 0
    assert "McNemar" in page.read_text()


def test_two_models_of_one_server_are_compared_by_their_names(served: LiveServer, photos: Path) -> None:
    result = found(served.target, photos, "--name", "colours", "--name", "others")

    assert [each["name"] for each in result["models"]] == ["colours", "others"]
    assert result["paired"]["agreed"] == 49


@pytest.mark.parametrize(("split", "images"), [("auto", 6), ("holdout", 6), ("train", 9), ("all", 15)])
def test_the_holdout_is_judged_by_where_somebody_made_a_split(
    split: str, images: int, served: LiveServer, tmp_path: Path
) -> None:
    for part, numbers in (("train", range(40, 43)), ("val", range(43, 45))):
        for label in LABELS:
            (tmp_path / part / label).mkdir(parents=True)
            for number in numbers:
                (tmp_path / part / label / f"{number}.png").write_bytes(picture(label, number))

    assert found("colours", tmp_path, "--store", served.settings.store, "--split", split)["images"] == images


def test_a_list_is_data_too_and_its_groups_count_as_fewer_pictures(
    served: LiveServer, photos: Path, tmp_path: Path
) -> None:
    rows = [f"{photos}/{label}/{number}.png,{label},{label}" for label in LABELS for number in range(20, 28)]
    (tmp_path / "alone.csv").write_text("\n".join(["file,label,note", *rows]))
    (tmp_path / "grouped.csv").write_text("\n".join(["file,label,group", *rows]))

    alone, grouped = (
        found("colours", tmp_path / name, "--store", served.settings.store)["models"][0]["metrics"]
        for name in ("alone.csv", "grouped.csv")
    )

    assert alone["accuracy"] == grouped["accuracy"] == 1
    assert grouped["accuracy_interval"][0] < alone["accuracy_interval"][0]


def test_a_file_that_lies_elsewhere_does_not_know_what_it_was_trained_on(
    served: LiveServer, photos: Path, tmp_path: Path
) -> None:
    version = ModelStore(served.settings.store).folder("colours", 1)
    shutil.copy(version / MODEL_FILE, tmp_path)

    said = run(tmp_path / MODEL_FILE, photos).stdout
    shutil.copy(version / FEATURES_FILE, tmp_path)

    assert "whether some of these pictures were trained on is not known" in said
    assert "of these pictures were trained on; on the other" in run(tmp_path / MODEL_FILE, photos).stdout


def test_nobody_knows_what_an_imported_classifier_was_trained_on(
    served: LiveServer, photos: Path, tmp_path: Path
) -> None:
    version = ModelStore(served.settings.store).folder("colours", 1)
    artifact = read(version / MODEL_FILE)
    imported = artifact.card.model_copy(update={"strategy": IMPORTED})
    onnx.save_model(rehead(artifact, artifact.head, imported), tmp_path / MODEL_FILE)
    shutil.copy(version / FEATURES_FILE, tmp_path)  # of the pictures that it was proven on

    assert found(tmp_path / MODEL_FILE, photos)["models"][0]["trained_on"] is None


def test_what_nobody_knows_is_neither_a_model_nor_a_server(served: LiveServer, photos: Path, tmp_path: Path) -> None:
    store = served.settings.store
    with pytest.raises(PreconditionError, match="model 'flowers' has no champion"):
        run("flowers", photos, "--store", store)
    with pytest.raises(NotFoundError, match="has no version 7"):
        run("colours:7", photos, "--store", store)
    with pytest.raises(
        RemoteError, match=r"no server answers at 127\.0\.0\.1:1.*nor is there a model '127\.0\.0\.1' in the store"
    ):
        run("127.0.0.1:1", photos, "--store", store)
    with pytest.raises(InvalidRequestError, match=r"gone\.onnx: there is no such file"):
        run(tmp_path / "gone.onnx", photos)


def test_usage_that_makes_no_sense_is_refused_with_the_flag(served: LiveServer, photos: Path) -> None:
    store = ("--store", served.settings.store)
    assert "need one of auto, holdout, train, all" in run("colours", photos, "--split", "test", *store).output
    with pytest.raises(InvalidRequestError, match="3 models: one is judged, two are compared"):
        run("colours", "colours:1", "colours:2", photos, *store)
    with pytest.raises(InvalidRequestError, match="--name: says which model of a server"):
        run("colours", photos, "--name", "colours", *store)
    with pytest.raises(InvalidRequestError, match="--name: 3 names, and 1 of the models are servers"):
        run(served.target, photos, *("--name", "colours") * 3)
    with pytest.raises(InvalidRequestError, match="--name: 2 names, and 1 of the models are servers"):
        run("colours", served.target, photos, *("--name", "colours") * 2, *store)


def test_a_page_that_cannot_be_written_costs_nobody_the_figures(
    served: LiveServer, photos: Path, tmp_path: Path
) -> None:
    nowhere = tmp_path / "nowhere" / "page.html"

    done = CliRunner().invoke(
        app, ["evaluate", "colours", str(photos), "--store", str(served.settings.store), "--report", str(nowhere)]
    )

    assert isinstance(done.exception, StorageError)
    assert f"--report {nowhere}" in str(done.exception)
    assert "accuracy 0.9796" in done.stdout


def test_the_least_role_of_a_server_is_enough(store: ModelStore, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "callers").write_text(f"shop classify sha256:{hash_token('secret')}")
    with LiveServer(store, callers=tmp_path / "callers") as live:
        model = found(live.target, photos, "--token", "secret")["models"][0]
        with pytest.raises(RemoteError) as refused:
            run(live.target, photos)

    assert model["metrics"]["images"] == 49
    assert refused.value.code == "UNAUTHENTICATED"


def test_data_of_other_classes_is_refused(served: LiveServer, tmp_path: Path) -> None:
    (tmp_path / "grey").mkdir()
    (tmp_path / "grey" / "0.png").write_bytes(picture("grey"))

    with pytest.raises(
        DatasetError, match="colours:1 knows no label of the data: it has red, green, blue, the data has grey"
    ):
        run("colours", tmp_path, "--store", served.settings.store)
