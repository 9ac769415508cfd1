from collections.abc import Iterator
from pathlib import Path

import pytest

from regraft.errors import InvalidRequestError, NotFoundError
from regraft.label_rules import image_hash
from regraft.stores.jobs import JobState
from tests.tiny import publish_tiny
from tests.training.workshop import MODEL, Workshop, known, new_pictures, open_workshop
from training.versions.diff import version_diff


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    workshop = open_workshop(tmp_path)
    yield workshop
    workshop.examples.close()


def test_a_diff_tells_labels_metrics_settings_and_pictures_apart(workshop: Workshop) -> None:
    green, gone = new_pictures("green", 10, 4), new_pictures("red", 3, 1)
    workshop.add("green", green)
    workshop.add("red", gone)
    assert workshop.retrain().state is JobState.SUCCEEDED
    workshop.add("blue", [known("red", held=False)])
    workshop.vouch(known("red", held=False), "blue")
    workshop.examples.labels.remove(MODEL, image_hash(gone[0]))
    assert workshop.retrain(max_suspects=100).state is JobState.SUCCEEDED

    first = version_diff(workshop.store, f"{MODEL}:1", f"{MODEL}:2")
    second = version_diff(workshop.store, f"{MODEL}:2", MODEL)

    assert (first.versions, first.labels_added, first.labels_gone, first.backbone) == ((1, 2), ("green",), (), None)
    assert set(first.data.added) == {image_hash(data) for data in (*green, *gone)}
    assert first.recall["green"] == (None, 1.0)
    assert first.holdout_images == (16, 21)
    assert first.settings["strategy"] == ("probe", "retrain")
    assert list(second.data.removed) == [image_hash(gone[0])]
    ((relabelled),) = second.data.relabelled
    assert (relabelled.sha256, relabelled.before, relabelled.now) == (
        image_hash(known("red", held=False)),
        "red",
        "blue",
    )
    assert second.settings["max_suspects"] == (None, 100)
    assert (second.data.added, second.data.moved) == ({}, ())


def test_a_version_is_no_different_from_itself(workshop: Workshop) -> None:
    same = version_diff(workshop.store, MODEL, f"{MODEL}:1")

    assert (same.settings, same.data.added, same.data.removed, same.data.relabelled) == ({}, {}, {}, ())
    assert same.heads[0] == same.heads[1]


def test_versions_of_different_models_are_not_compared(workshop: Workshop) -> None:
    publish_tiny(workshop.store, name="shades")

    with pytest.raises(InvalidRequestError, match="different models"):
        version_diff(workshop.store, MODEL, "shades")


def test_a_version_that_is_not_there_is_not_found(workshop: Workshop) -> None:
    with pytest.raises(NotFoundError, match="no version 7"):
        version_diff(workshop.store, MODEL, f"{MODEL}:7")
