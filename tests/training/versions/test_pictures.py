from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from regraft.label_rules import image_hash
from regraft.stores.examples import ExamplesStore, open_examples
from regraft.stores.models import FEATURES_FILE, ModelStore
from tests.tiny import picture
from tests.training.classifiers import LABELS, save_classifier
from tests.training.conftest import CRAYONS, crayons
from training.head.features import load_features
from training.importing.import_version import ImportSettings, import_version
from training.train import TrainResult
from training.versions.pictures import ExamplesPlace
from training.versions.read import read_champion

MODEL = "crayons"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return crayons(tmp_path / MODEL, 5)


def bring(data: Path, place: ExamplesPlace) -> TrainResult:
    """Make a first version and keep its pictures, without torch."""
    file = save_classifier(data.parent / "colours.onnx")
    settings = ImportSettings(file, MODEL, place.store, labels=LABELS, data=data)
    return import_version(settings, cache=data.parent / "cache", examples=place, keep=True)


@pytest.fixture
def place(tmp_path: Path) -> ExamplesPlace:
    return ExamplesPlace(tmp_path / "models")


@pytest.fixture
def result(data: Path, place: ExamplesPlace) -> TrainResult:
    return bring(data, place)


@pytest.fixture
def examples(place: ExamplesPlace, result: TrainResult) -> Iterator[ExamplesStore]:
    """The examples of that store, where a server of it looks."""
    assert result.pictures is not None
    with closing(open_examples(place.store)) as examples:
        yield examples


def test_the_pictures_of_a_run_are_examples_with_its_labels_and_sides(
    examples: ExamplesStore, place: ExamplesPlace, result: TrainResult
) -> None:
    features = load_features(place.store / MODEL / "1" / FEATURES_FILE)
    expected = {image_hash(picture(label, number, side_px=24)): label for label in CRAYONS for number in range(5)}

    listed = examples.labels.in_force(MODEL)
    assert {example.sha256: example.label for example in listed} == expected
    assert all(example.is_original for example in listed)
    assert examples.split.sides(MODEL) == dict(zip(features.sha256, map(bool, features.is_holdout), strict=True))
    champion = read_champion(ModelStore(place.store), MODEL)
    assert examples.labels.without_embedding(MODEL, champion.key, 1) == {}
    assert result.to_dict()["pictures"] == {
        "place": str(place.store / ".examples"),
        "examples": 15,
        "linked": 15,
        "removed": 0,
        "changed": 0,
        "problem": "",
    }


def test_an_examples_store_that_is_away_costs_no_training(data: Path, tmp_path: Path) -> None:
    away = f"sqlite:///{tmp_path}/nowhere/examples.sqlite"

    result = bring(data, ExamplesPlace(tmp_path / "models", database=away))

    assert result.promoted
    assert result.pictures is not None
    assert "cannot open the database" in result.pictures.problem
    assert ModelStore(tmp_path / "models").champion(MODEL) == 1


def test_a_place_where_nothing_can_be_written_costs_no_training(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    result = bring(data, ExamplesPlace(tmp_path / "models", str(tmp_path / "file")))

    assert result.promoted
    assert result.pictures is not None
    assert str(tmp_path / "file") in result.pictures.problem
