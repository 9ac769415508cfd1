"""Looks at the next head, which write nothing."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from regraft.errors import PreconditionError
from regraft.label_rules import image_hash
from regraft.stores.examples import ExamplesStore
from regraft.stores.labelling.present_names import KnownLabels
from regraft.stores.models import ModelStore
from tests.training.conftest import block, embed, in_a_child
from tests.training.workshop import MODEL, Workshop, begin_workshop, new_pictures, open_workshop
from training.preview.preview import curve_of, preview
from training.versions.ground import read_beginning
from training.versions.read import read_version


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    workshop = open_workshop(tmp_path)
    yield workshop
    workshop.examples.close()


def add(workshop: Workshop, label: str, pictures: list[bytes], *, embedded: bool = True) -> None:
    """Send pictures, embedded as a server does in the background."""
    workshop.add(label, pictures)
    if embedded:
        key = read_version(workshop.store, MODEL, 1).key
        workshop.examples.embeddings.put(key, {image_hash(data): embed(data) for data in pictures})


def look(root: Path, *arguments: str, environment: dict[str, str] | None = None) -> Any:  # noqa: ANN401 - any JSON
    """Return what the process answers."""
    command = ["-m", "training.preview", "--store", str(root), "--name", MODEL, *arguments]
    child = in_a_child(command, environment or {})
    return json.loads(child.stdout)


def test_a_preview_is_of_the_head_that_the_retrain_then_makes(workshop: Workshop) -> None:
    add(workshop, "green", new_pictures("green", 10, 4))

    seen = preview(workshop.store, workshop.examples, MODEL)
    job = workshop.retrain()

    made = read_version(workshop.store, MODEL, job.version or 0)
    assert seen.champion == 1
    assert seen.labels == made.features.labels == ("blue", "red", "green")
    assert seen.train_images == made.artifact.card.train_images
    assert seen.new_images == 14
    assert json.loads(json.dumps(seen.to_dict()["verdict"])) == workshop.store.verdict(MODEL, 2)
    assert seen.holdout == made.artifact.card.metrics


def test_a_preview_follows_a_renamed_label_as_the_retrain_does(workshop: Workshop) -> None:
    add(workshop, "green", new_pictures("green", 10, 4))
    workshop.examples.label_changes.rename(MODEL, "red", "crimson", known=KnownLabels(("blue", "red")))

    assert preview(workshop.store, workshop.examples, MODEL).labels == ("blue", "crimson", "green")


def test_a_preview_writes_nothing(workshop: Workshop) -> None:
    add(workshop, "green", new_pictures("green", 10, 4))

    preview(workshop.store, workshop.examples, MODEL)

    assert workshop.store.versions(MODEL) == [1]
    assert workshop.examples.jobs.list(MODEL) == []
    assert workshop.examples.split.sides(MODEL) == {}


def test_every_picture_is_behind_one_cell_of_the_confusion_matrix(workshop: Workshop) -> None:
    add(workshop, "green", [*new_pictures("green", 10, 4), *new_pictures("blue", 0, 1)])

    seen = preview(workshop.store, workshop.examples, MODEL)

    hashes = [sha256 for cell in seen.cells for sha256 in cell.sha256]
    assert len(hashes) == len(set(hashes)) == seen.train_images + seen.holdout_images == seen.metrics.images
    mixed = next(cell for cell in seen.cells if (cell.label, cell.answer) == ("green", "blue"))
    assert image_hash(new_pictures("blue", 0, 1)[0]) in mixed.sha256
    for cell in seen.cells:
        row, column = seen.labels.index(cell.label), seen.labels.index(cell.answer)
        assert seen.metrics.confusion[row][column] == cell.images


def test_labels_that_a_retrain_would_quarantine_are_named_and_stay_as_they_are(workshop: Workshop) -> None:
    wrong = new_pictures("blue", 1, 0)
    add(workshop, "red", wrong)

    seen = preview(workshop.store, workshop.examples, MODEL)

    assert [suspect.sha256 for suspect in seen.suspects] == [image_hash(wrong[0])]
    assert seen.new_images == 0
    assert workshop.examples.labels.in_force(MODEL, quarantined=True) == []
    assert seen.verdict.quarantined == 1


def test_pictures_that_are_not_embedded_yet_are_counted_and_take_no_part(workshop: Workshop) -> None:
    add(workshop, "green", new_pictures("green", 10, 4), embedded=False)

    seen = preview(workshop.store, workshop.examples, MODEL)

    assert seen.not_embedded == 14
    assert seen.labels == ("blue", "red")


def test_a_learning_curve_is_of_all_that_is_labelled_now(workshop: Workshop) -> None:
    add(workshop, "green", new_pictures("green", 10, 4))

    assert curve_of(workshop.store, workshop.examples, MODEL).labels == 2 * 28 + 14


def test_the_process_answers_in_json_and_never_imports_torch(workshop: Workshop, tmp_path: Path) -> None:
    blocked = block(tmp_path / "blocked", ("torch", "torchvision", "timm"), "raise SystemExit('torch was imported')")

    seen = look(workshop.store.root, environment=blocked)["answer"]

    assert seen["metrics"]["images"] == seen["learning_curve"]["labels"] == 56
    assert [point["labels"] for point in seen["learning_curve"]["points"]] == [14, 28, 42, 56]


@pytest.fixture
def begun(tmp_path: Path) -> Iterator[Workshop]:
    workshop = begin_workshop(tmp_path)
    yield workshop
    workshop.examples.close()


def test_a_preview_of_a_model_without_a_version_is_of_its_first(begun: Workshop) -> None:
    key = read_beginning(begun.store, MODEL, begun.examples.label_changes).key
    for colour in ("blue", "red"):
        pictures = new_pictures(colour, 20, 5)
        begun.add(colour, pictures)
        begun.examples.embeddings.put(key, {image_hash(data): embed(data) for data in pictures})

    seen, curve = preview(begun.store, begun.examples, MODEL), curve_of(begun.store, begun.examples, MODEL)
    begun.retrain()

    assert (seen.champion, seen.labels, seen.train_images) == (0, ("red", "blue"), 40)
    assert seen.holdout == begun.artifact(1).card.metrics
    assert json.loads(json.dumps(seen.to_dict()["verdict"])) == begun.store.verdict(MODEL, 1)
    assert seen.learning_curve == curve
    assert curve.labels == 50


def test_a_preview_of_a_model_without_a_version_says_what_is_missing(begun: Workshop) -> None:
    begun.add("red", new_pictures("red", 3, 0))

    with pytest.raises(PreconditionError, match=r"label more; 3 labelled pictures are not embedded yet"):
        preview(begun.store, begun.examples, MODEL)


def test_a_preview_with_nothing_says_what_is_missing(tmp_path: Path) -> None:
    with (
        closing(ExamplesStore(tmp_path / "examples")) as examples,
        pytest.raises(PreconditionError, match="no champion"),
    ):
        preview(ModelStore(tmp_path), examples, MODEL)
