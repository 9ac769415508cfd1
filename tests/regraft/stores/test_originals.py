from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from regraft.label_rules import image_hash
from regraft.model.card import EmbeddingKey
from regraft.stores.examples import ExamplesStore
from regraft.stores.labels import AddOutcome, Example
from regraft.stores.originals import FIRST_SOURCE, KeptOriginals, OriginalPicture
from tests.regraft.stores.conftest import MODEL, data, labels_by_hash

KEY = EmbeddingKey("backbone", "image spec")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of somebody's own pictures, 0 to 3."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.png").write_bytes(data(number))
    return folder


@pytest.fixture
def pictures(photos: Path) -> list[OriginalPicture]:
    """Those pictures as a training run knows them.

    0 and 1 are red, 2 and 3 blue; 1 and 3 are held out.
    """
    return [
        OriginalPicture(
            image_hash(data(number)),
            photos / f"{number}.png",
            "red" if number < 2 else "blue",
            bool(number % 2),
            np.full(3, number, np.float32),
            group="one scene" if number < 2 else "",
        )
        for number in range(4)
    ]


@pytest.fixture
def kept(examples_store: ExamplesStore, pictures: list[OriginalPicture]) -> ExamplesStore:
    """A store that has kept them."""
    assert keep(examples_store, pictures) == KeptOriginals(examples=4, linked=4)
    return examples_store


def keep(store: ExamplesStore, pictures: list[OriginalPicture], *, is_live: bool = True) -> KeptOriginals:
    return store.keep_originals(MODEL, pictures, KEY, annotator="ada", is_live=is_live)


def test_pictures_of_a_training_run_are_examples_that_nobody_sent(
    kept: ExamplesStore, pictures: list[OriginalPicture]
) -> None:
    first = pictures[0]

    listed = {example.sha256: example for example in kept.labels.in_force(MODEL)}
    assert listed.keys() == {picture.sha256 for picture in pictures}
    one = Example(first.sha256, "red", FIRST_SOURCE, group="one scene", annotator="ada", is_original=True)
    assert listed[first.sha256] == one
    assert kept.labels.find(MODEL, first.sha256[:12]) == listed[first.sha256]
    assert kept.image_file(first.sha256).read_bytes() == data(0)
    assert kept.split.sides(MODEL) == {picture.sha256: picture.is_holdout for picture in pictures}
    (entry,) = kept.labels.history(MODEL, first.sha256)
    assert (entry.label, entry.annotator, entry.source) == ("red", "ada", FIRST_SOURCE)

    assert kept.labels.sent(MODEL) == []
    assert kept.labels.count(MODEL) == 0
    assert kept.labels.labelled_since(MODEL, "2000-01-01T00:00:00") == 0


def test_the_embeddings_of_the_run_are_kept_so_that_none_is_made_twice(
    kept: ExamplesStore, pictures: list[OriginalPicture]
) -> None:
    assert kept.labels.without_embedding(MODEL, KEY, 10) == {}
    vectors = kept.embeddings.get(KEY, [pictures[3].sha256])
    assert vectors[pictures[3].sha256].tolist() == [3, 3, 3]


def test_a_label_that_a_person_gives_an_original_is_news(kept: ExamplesStore, pictures: list[OriginalPicture]) -> None:
    changed = kept.labels.relabel(MODEL, pictures[0].sha256, "blue", annotator="bob")
    assert kept.add(MODEL, data(1), "blue") == AddOutcome.RELABELLED
    assert kept.add(MODEL, data(2), "blue") == AddOutcome.DUPLICATE

    assert not changed.is_original
    assert [example.sha256 for example in kept.labels.sent(MODEL)] == sorted(each.sha256 for each in pictures[:2])
    assert changed in kept.labels.sent(MODEL)
    assert kept.labels.count(MODEL) == 2
    assert kept.labels.labelled_since(MODEL, "2000-01-01T00:00:00") == 2


def test_a_removed_original_is_removed_and_counts_as_news(kept: ExamplesStore, pictures: list[OriginalPicture]) -> None:
    kept.labels.remove(MODEL, pictures[0].sha256)

    assert kept.labels.removed(MODEL) == {pictures[0].sha256}
    assert kept.labels.labelled_since(MODEL, "2000-01-01T00:00:00") == 1


def test_what_people_said_holds_against_a_later_training_run(
    kept: ExamplesStore, pictures: list[OriginalPicture]
) -> None:
    kept.labels.relabel(MODEL, pictures[0].sha256, "green")
    kept.labels.remove(MODEL, pictures[1].sha256)
    before = kept.labels.in_force(MODEL)

    assert keep(kept, pictures) == KeptOriginals(examples=3, linked=4, removed=1)

    assert kept.labels.in_force(MODEL) == before
    assert kept.labels.removed(MODEL) == {pictures[1].sha256}


def test_a_picture_that_was_sent_before_stays_one_that_was_sent(
    examples_store: ExamplesStore, pictures: list[OriginalPicture]
) -> None:
    examples_store.add(MODEL, data(0), "green", "a phone")

    keep(examples_store, pictures)

    (sent,) = examples_store.labels.sent(MODEL)
    assert (sent.sha256, sent.label, sent.source) == (pictures[0].sha256, "green", "a phone")


@pytest.mark.parametrize(("is_live", "label", "side"), [(True, "green", True), (False, "red", False)])
def test_labels_and_sides_of_a_later_run_hold_once_its_version_goes_live(
    kept: ExamplesStore, pictures: list[OriginalPicture], is_live: bool, label: str, side: bool
) -> None:
    moved = replace(pictures[0], label="green", is_holdout=True)

    keep(kept, [moved, *pictures[1:]], is_live=is_live)

    assert labels_by_hash(kept)[moved.sha256] == label
    assert kept.split.sides(MODEL)[moved.sha256] is side
    assert kept.labels.sent(MODEL) == []


def test_a_file_that_changed_or_went_since_the_run_read_it_is_not_kept(
    examples_store: ExamplesStore, pictures: list[OriginalPicture]
) -> None:
    pictures[0].file.write_bytes(b"something else")
    pictures[1].file.unlink()

    assert keep(examples_store, pictures) == KeptOriginals(examples=2, linked=2, changed=2)

    assert labels_by_hash(examples_store).keys() == {each.sha256 for each in pictures[2:]}
    assert not examples_store.image_file(pictures[0].sha256).exists()


def test_pictures_of_several_models_are_stored_once(
    kept: ExamplesStore, pictures: list[OriginalPicture], tmp_path: Path
) -> None:
    kept.keep_originals("another", pictures, KEY)

    assert len(kept.labels.in_force("another")) == 4
    assert len([file for file in (tmp_path / "examples/images").rglob("*") if file.is_file()]) == 4
