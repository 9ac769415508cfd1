from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from regraft.errors import PreconditionError
from regraft.model.card import EmbeddingKey
from regraft.stores.examples import ExamplesStore, open_examples
from regraft.stores.models import FEATURES_FILE, ModelStore
from regraft.stores.originals import OriginalPicture
from serving.retraining.training_conditions import check_trainable, has_torch


@pytest.fixture
def examples(store: ModelStore) -> Iterator[ExamplesStore]:
    with closing(open_examples(store.root)) as examples:
        yield examples


def test_without_torch_a_training_says_what_to_install(store: ModelStore, examples: ExamplesStore) -> None:
    assert has_torch(), "the tests of training need it"
    with pytest.raises(PreconditionError, match=r"needs torch.*pip install 'regraft\[train\]'"):
        check_trainable(store, examples, "colours", 1, torch_is_here=lambda: False)


def test_pictures_of_the_champion_have_to_be_among_the_examples_or_to_have_been(
    store: ModelStore, examples: ExamplesStore
) -> None:
    with np.load(store.folder("colours", 1) / FEATURES_FILE) as features:
        hashes = [str(sha256) for sha256 in features["sha256"]]
    every = len(hashes)
    pictures = [
        OriginalPicture(sha256, store.root / sha256, "red", is_holdout=False, embedding=np.zeros(1, np.float32))
        for sha256 in hashes
    ]

    with pytest.raises(PreconditionError, match=rf"{every} of {every} pictures.*regraft refresh DATA --name colours"):
        check_trainable(store, examples, "colours", 1)
    examples.originals.record("colours", pictures[1:], "ada", is_live=True)
    with pytest.raises(PreconditionError, match=rf"1 of {every} pictures of 'colours'.*the first is {hashes[0]}"):
        check_trainable(store, examples, "colours", 1)
    examples.originals.record("colours", pictures[:1], "ada", is_live=True)
    examples.labels.remove("colours", hashes[0])
    assert examples.embeddings.get(EmbeddingKey("", ""), hashes) == {}

    check_trainable(store, examples, "colours", 1)
