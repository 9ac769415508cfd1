"""A finished classifier enters the store: what the version promises, and what becomes of it; no torch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regraft.errors import DatasetError, InvalidRequestError, PreconditionError
from regraft.model import artifact
from regraft.stores.backbones import BackboneStore
from regraft.stores.examples import ExamplesStore
from regraft.stores.images import EXAMPLES_FOLDER
from regraft.stores.jobs import JobState
from regraft.stores.models import FEATURES_FILE, MODEL_FILE, REPORT_FILE, GateMode, ModelStore
from tests.tiny import picture
from tests.training.classifiers import BIAS, LABELS, WEIGHT, save_classifier
from tests.training.conftest import crayons
from training.export.export import export_version
from training.head.features import load_features
from training.importing.import_version import ImportSettings, import_version, read_labels
from training.quantisation.version import quantise_version
from training.retrain.job import run_job
from training.retrain.refresh import network_of
from training.settings import TrainSettings
from training.train import TrainResult, train
from training.versions.verify import verify


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("file") / "colours.onnx")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return crayons(tmp_path_factory.mktemp("data") / "crayons", 20)


@pytest.fixture(scope="module")
def bare(file: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """The file, imported without pictures."""
    return bring(tmp_path_factory.mktemp("bare") / "models", file)


@pytest.fixture(scope="module")
def proven(file: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """The file, imported with pictures."""
    return bring(tmp_path_factory.mktemp("proven") / "models", file, data=data)


def bring(store: Path, file: Path, gate: GateMode = GateMode.AUTO, **others: object) -> TrainResult:
    given: dict[str, Any] = {"labels": LABELS, **others}  # fields by name, checked there
    settings = ImportSettings(file, "crayons", store, **given)
    return import_version(settings, cache=store.parent / "cache", gate=gate)


def next_version(store: ModelStore, data: Path, name: str = "crayons") -> TrainResult:
    """Train on the imported backbone, which needs no torch."""
    settings = TrainSettings(data, name, store.root, "store:crayons:1", tensorboard=False)
    return train(settings, cache=store.root.parent / "cache")


def store_of(result: TrainResult) -> ModelStore:
    return ModelStore(result.path.parents[2])


def report_of(result: TrainResult) -> str:
    return result.path.with_name(REPORT_FILE).read_text()


def test_the_card_says_what_came_and_how_it_was_proven(bare: TrainResult, file: Path) -> None:
    card = bare.card

    assert (card.labels, card.strategy, card.temperature, card.train_images) == (LABELS, "import", 1.0, 0)
    assert card.backbone.weights.startswith("imported from colours.onnx, sha256 ")
    assert (card.recipe["strategy"], card.recipe["file"]) == ("import", file.name)
    assert (card.recipe["proof_pictures"], card.recipe["proof_generated"]) == (0, 10)
    assert 0 <= float(str(card.recipe["proof_difference"])) <= 1e-3
    assert "on 10 generated pictures no answer is off" in report_of(bare)
    (kept,) = BackboneStore(store_of(bare).root).list()
    assert (kept.name, kept.digest) == ("crayons:1", card.backbone.digest)


def test_without_pictures_nothing_is_novel_and_nothing_is_measured(bare: TrainResult) -> None:
    made = artifact.read(bare.path)
    embedding = np.random.default_rng(0).normal(size=(5, made.card.embedding_size)).astype(np.float32)

    assert (made.card.novelty_method, made.card.metrics) == ("none", None)
    assert (made.head.novelty(embedding) < made.card.novelty_threshold).all()
    assert bare.promoted


def test_pictures_measure_it_and_tell_what_is_novel(proven: TrainResult) -> None:
    card, held = proven.card, load_features(proven.path.with_name(FEATURES_FILE)).holdout()

    assert card.metrics is not None
    assert (card.metrics.accuracy, card.metrics.images) == (1.0, len(held.sha256))
    assert card.recipe["proof_pictures"] == 32
    assert card.novelty_method != "none"
    assert card.temperature == 1.0
    assert "Nobody can tell here whether the classifier learned from these pictures" in report_of(proven)


def test_a_class_without_pictures_is_kept_and_measured_by_none(file: Path, tmp_path: Path) -> None:
    data = crayons(tmp_path / "two", 6)
    for each in (data / "green").iterdir():
        each.unlink()

    made = bring(tmp_path / "models", file, data=data)

    assert made.card.labels == LABELS
    assert artifact.read(made.path).head.prototypes[LABELS.index("green")].tolist() == [0.0] * 12


def test_the_temperature_is_fitted_where_that_is_asked_for(
    file: Path, data: Path, proven: TrainResult, tmp_path: Path
) -> None:
    made = bring(tmp_path / "models", file, data=data, calibrate=True)

    before, after = artifact.read(proven.path).head, artifact.read(made.path).head
    assert made.card.temperature != 1.0
    np.testing.assert_allclose(after.weight * made.card.temperature, before.weight, rtol=1e-4, atol=1e-6)


def test_retraining_waits_for_pictures_of_every_class_and_says_how(bare: TrainResult, tmp_path: Path) -> None:
    examples = ExamplesStore(tmp_path / EXAMPLES_FOLDER)
    for number in range(30):
        examples.add("crayons", picture("grey", number), "grey")

    job = run_job(store_of(bare), examples, examples.jobs.create("crayons", {}, "Ann").id)

    assert job.state == JobState.FAILED
    assert "crayons:1 was imported, and a head is fitted on pictures" in job.message
    assert "too few there are of 'red', 'green', 'blue'" in job.message
    assert "regraft train DATA --backbone store:crayons:1" in job.message


@pytest.mark.parametrize("came_with", ["nothing", "pictures"])
def test_a_fourth_class_joins_by_a_retrain(came_with: str, file: Path, data: Path, tmp_path: Path) -> None:
    made = bring(tmp_path / "models", file, data=data if came_with == "pictures" else None)
    examples = ExamplesStore(tmp_path / EXAMPLES_FOLDER)
    for label in ("grey",) if came_with == "pictures" else (*LABELS, "grey"):
        for number in range(100, 130):
            examples.add("crayons", picture(label, number), label)

    job = run_job(store_of(made), examples, examples.jobs.create("crayons", {}, "Ann").id)

    assert job.state == JobState.SUCCEEDED, job.message
    after = artifact.read(store_of(made).folder("crayons", 2) / MODEL_FILE).card
    assert after.labels == (*LABELS, "grey")
    assert after.novelty_method != "none"
    assert after.backbone == made.card.backbone


def test_an_import_onto_a_champion_asks_the_gate(file: Path, data: Path, tmp_path: Path) -> None:
    store = tmp_path / "models"
    bring(store, file, data=data)
    worse = save_classifier(tmp_path / "worse.onnx", numbers={"w": WEIGHT[::-1].copy()})

    with pytest.raises(PreconditionError, match="has a champion, and without pictures nothing says"):
        bring(store, file)
    judged = bring(store, worse, data=data)
    anyhow = bring(store, worse, GateMode.OFF)

    assert judged.verdict is not None
    assert not judged.verdict.blessed
    assert not judged.promoted
    assert anyhow.promoted


def test_labels_keep_the_champions_order(file: Path, data: Path, tmp_path: Path, proven: TrainResult) -> None:
    other = {"w": WEIGHT[::-1].copy(), "b": BIAS[::-1].copy()}
    bring(tmp_path / "models", file, data=data)

    made = bring(
        tmp_path / "models", save_classifier(tmp_path / "other.onnx", numbers=other), labels=LABELS[::-1], data=data
    )

    assert made.promoted
    assert made.card.labels == LABELS
    np.testing.assert_array_equal(artifact.read(made.path).head.weight, artifact.read(proven.path).head.weight)


def test_a_training_does_not_drop_the_classes_that_were_imported(file: Path, tmp_path: Path, data: Path) -> None:
    made = bring(tmp_path / "models", file, labels=("red", "mauve", "blue"))

    result = next_version(store_of(made), data)

    assert result.verdict is not None
    assert "1 classes would be gone that version 1 was imported with, the first is 'mauve'" in result.verdict.reasons[0]


def test_verify_holds_and_a_refresh_begins_with_its_backbone(bare: TrainResult, proven: TrainResult) -> None:
    assert verify(store_of(proven), "crayons").holds
    assert verify(store_of(bare), "crayons").holds
    assert network_of(store_of(bare), "crayons").backbone == "store:crayons:1"


def test_what_needs_pictures_says_so_of_a_version_without(bare: TrainResult, data: Path, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "none")

    with pytest.raises(PreconditionError, match="crayons:1 has no pictures to calibrate with"):
        quantise_version(store_of(bare), "crayons", data, examples=nowhere, cache=tmp_path)
    with pytest.raises(PreconditionError, match="has no validation images"):
        export_version(store_of(bare), "crayons", "onnx", tmp_path / "out", data=data, examples=nowhere)


def test_an_imported_version_is_exported_like_any_other(proven: TrainResult, data: Path, tmp_path: Path) -> None:
    out, nowhere = tmp_path / "out", str(tmp_path / "none")

    export_version(store_of(proven), "crayons:1", "onnx", out, data=data, examples=nowhere)

    assert (out / "README.md").is_file()


def test_it_is_a_source_for_other_data(bare: TrainResult, data: Path) -> None:
    made = next_version(store_of(bare), data, "next")

    assert made.card.backbone.digest == bare.card.backbone.digest
    assert made.card.recipe["backbone"] == "store:crayons:1"


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"labels": ("red", "green")}, "--labels: 2 labels, but colours.onnx has 3 answers"),
        ({"labels": ()}, "--labels: colours.onnx has 3 answers: name them, in its order"),
        ({"labels": ("red", "red", "blue")}, "--labels: 'red' is there twice"),
        ({"labels": ("red", "a/b", "blue")}, "path separators are not allowed"),
        ({"calibrate": True}, "--calibrate: by which pictures"),
        ({"weights": "none"}, "--weights: the file has them"),
    ],
)
def test_what_does_not_fit_is_refused_in_plain_words(
    file: Path, tmp_path: Path, others: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        bring(tmp_path / "models", file, **others)

    assert not (tmp_path / "models").exists()


def test_pictures_of_another_class_are_refused_with_the_classes_that_there_are(
    file: Path, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match="class 'green' is none of the classifier's: red, lime, blue"):
        bring(tmp_path / "models", file, labels=("red", "lime", "blue"), data=data)


def test_labels_come_from_a_file_or_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("red fox\n\ngrey wolf \n", "utf-8")

    assert read_labels(str(tmp_path / "labels.txt")) == ("red fox", "grey wolf")
    assert read_labels("red fox, grey wolf") == ("red fox", "grey wolf")
