"""Labelled pictures and their embeddings, in blocks."""

from pathlib import Path

import numpy as np
import pytest

from regraft.errors import ArtifactError
from regraft.label_rules import image_hash
from regraft.model.card import EmbeddingKey
from regraft.stores.examples import ExamplesStore
from regraft.stores.labelling.present_names import KnownLabels
from regraft.stores.models import FEATURES_FILE, ModelStore
from serving.insight.labelled_pictures import BLOCK, LabelledPictures, embeddings, embeddings_at
from tests.tiny import picture
from tests.training.conftest import COLOUR_KEY, blobs
from training.head.features import load_features

NEW = picture("red", 900)


def features_of(store: ModelStore) -> Path:
    return store.folder("colours", 1) / FEATURES_FILE


def pictures_of(store: ModelStore, examples: ExamplesStore, key: EmbeddingKey = COLOUR_KEY) -> LabelledPictures:
    return LabelledPictures(features_of(store), examples, "colours", key)


def test_they_are_those_of_the_version_and_the_examples_since(store: ModelStore, examples: ExamplesStore) -> None:
    learned = load_features(features_of(store))
    examples.add("colours", NEW, "red")
    examples.add("colours", picture("blue", 901), "blue")
    examples.embeddings.put(COLOUR_KEY, {image_hash(NEW): np.ones(learned.embedding.shape[1], np.float32)})

    pictures = pictures_of(store, examples)
    blocks = list(pictures.blocks())

    assert set(pictures.by_hash) == {*learned.sha256, image_hash(NEW), image_hash(picture("blue", 901))}
    found = {each.sha256: row for block in blocks for each, row in zip(block.pictures, block.embedding, strict=True)}
    assert set(found) == {*learned.sha256, image_hash(NEW)}, "the other one is not embedded"
    for sha256, row in zip(learned.sha256, learned.embedding, strict=True):
        np.testing.assert_array_equal(found[sha256], row)
        np.testing.assert_array_equal(pictures.embedding(sha256), row)
    assert not pictures.by_hash[image_hash(NEW)].is_learned
    assert pictures.by_hash[image_hash(NEW)].is_holdout is None


def test_a_label_of_the_version_has_its_present_name_and_one_that_was_removed_has_no_pictures(
    store: ModelStore, examples: ExamplesStore
) -> None:
    known = KnownLabels(("red", "green", "blue"))
    first = examples.label_changes.rename("colours", "red", "crimson", known=known).change
    examples.label_changes.remove("colours", "green", known=known)

    by_hash = pictures_of(store, examples).by_hash

    assert {each.label for each in by_hash.values()} == {"crimson", "blue"}
    assert all(each.is_learned for each in by_hash.values())
    followed = LabelledPictures(features_of(store), examples, "colours", COLOUR_KEY, first.at).by_hash
    assert {each.label for each in followed.values()} == {"red", "blue"}, "as of a version that follows the first"


def test_a_label_in_force_wins_and_what_was_removed_or_is_doubted_is_left_out(
    store: ModelStore, examples: ExamplesStore
) -> None:
    relabelled, removed, doubted = (picture("red", number) for number in range(3))
    examples.add("colours", relabelled, "green")
    examples.add("colours", removed, "red")
    examples.labels.remove("colours", image_hash(removed), source="blurred")
    examples.add("colours", doubted, "blue")
    examples.labels.quarantine("colours", {image_hash(doubted): ("blue", "likely wrong")})

    by_hash = pictures_of(store, examples).by_hash

    assert by_hash[image_hash(relabelled)].label == "green"
    assert not by_hash[image_hash(relabelled)].is_learned
    assert image_hash(removed) not in by_hash
    assert image_hash(doubted) not in by_hash


def test_many_embeddings_come_a_block_at_a_time(tmp_path: Path) -> None:
    features = blobs([BLOCK, 3], 4)
    features.save(tmp_path / FEATURES_FILE)

    blocks = list(embeddings(tmp_path / FEATURES_FILE))

    assert [len(block) for block in blocks] == [BLOCK, 3]
    np.testing.assert_array_equal(np.concatenate(blocks), features.embedding)


@pytest.mark.parametrize("rows", [[0, 7, BLOCK - 1, BLOCK, BLOCK + 2], [BLOCK + 1], [5], []])
def test_some_embeddings_are_those_of_their_rows_in_whichever_block(tmp_path: Path, rows: list[int]) -> None:
    features = blobs([BLOCK, 3], 4)
    features.save(tmp_path / FEATURES_FILE)

    found = [row for block in embeddings_at(tmp_path / FEATURES_FILE, rows) for row in block]

    np.testing.assert_array_equal(np.reshape(found, (-1, 4)), features.embedding[np.array(rows, np.intp)])


def test_a_damaged_file_is_named(store: ModelStore, examples: ExamplesStore) -> None:
    features_of(store).write_bytes(b"half a file")

    with pytest.raises(ArtifactError, match=FEATURES_FILE):
        pictures_of(store, examples)
    with pytest.raises(ArtifactError, match=FEATURES_FILE):
        list(embeddings(features_of(store)))
