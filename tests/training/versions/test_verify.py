from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from regraft.stores.jobs import JobState
from regraft.stores.models import FEATURES_FILE
from tests.tiny import publish_tiny
from tests.training.workshop import MODEL, Workshop, new_pictures, open_workshop
from training.versions.verify import verify


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    workshop = open_workshop(tmp_path)
    yield workshop
    workshop.examples.close()


def test_versions_are_fitted_anew_to_the_same_bytes(workshop: Workshop) -> None:
    workshop.add("green", new_pictures("green", 10, 4))
    assert workshop.retrain().state is JobState.SUCCEEDED

    for version in (1, 2):
        found = verify(workshop.store, f"{MODEL}:{version}")

        assert (found.data, found.metrics, found.head, found.holds) == (True, True, True, True)
        assert (found.libraries, found.largest_difference) == ({}, 0)


def test_a_label_that_was_changed_afterwards_is_noticed(workshop: Workshop) -> None:
    features = workshop.features(1)
    labels = features.label_index.copy()
    row = int(np.flatnonzero(~features.is_holdout)[0])
    labels[row] = 1 - labels[row]
    replace(features, label_index=labels).save(workshop.store.folder(MODEL, 1) / FEATURES_FILE)

    found = verify(workshop.store, MODEL)

    assert (found.data, found.metrics, found.head, found.holds) == (False, True, False, False)
    assert found.largest_difference is not None
    assert found.largest_difference > 0.01


def test_a_head_that_is_not_what_its_card_says_is_noticed(workshop: Workshop) -> None:
    publish_tiny(workshop.store, name="shades")  # its head is written by hand, its card says that it was fitted

    found = verify(workshop.store, "shades")

    assert (found.head, found.holds) == (False, False)
