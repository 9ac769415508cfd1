"""Classes come and go with their pictures: a retrain learns what it can, and says what it left out."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.errors import PreconditionError
from regraft.label_rules import image_hash
from regraft.stores.jobs import JobState, RetrainJob
from regraft.stores.models import FEATURES_FILE, REPORT_JSON_FILE
from tests.tiny import picture
from tests.training.conftest import colour_challenger, embed
from tests.training.workshop import MODEL, Workshop, known, new_pictures, open_workshop
from training.head.additional import Additional
from training.retrain.classes import FEWEST, settle_classes
from training.versions.diff import version_diff
from training.versions.publish import publish
from training.versions.verify import verify

LABELS = ("blue", "green", "red")


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    workshop = open_workshop(tmp_path, labels=LABELS)
    yield workshop
    workshop.examples.close()


def remove(workshop: Workshop, label: str, numbers: range) -> None:
    for number in numbers:
        data = picture(label, number)
        workshop.add(label, [data])
        workshop.examples.labels.remove(MODEL, image_hash(data))


def cautions(job: RetrainJob) -> list[str]:
    assert job.verdict is not None
    return list(job.verdict["cautions"])


@pytest.mark.parametrize(("train", "held"), [(1, 0), (0, 2)])
def test_a_mistyped_class_is_left_out_and_said_and_the_rest_is_learned(
    workshop: Workshop, train: int, held: int
) -> None:
    typo, right = new_pictures("grey", train, held), new_pictures("red", 6, 2)
    workshop.add("gery", typo)
    workshop.add("red", right)

    job = workshop.retrain()

    assert job.state is JobState.SUCCEEDED, job.message
    assert workshop.artifact(2).card.labels == LABELS
    assert set(map(image_hash, right)) <= set(workshop.features(2).sha256)
    assert not set(map(image_hash, typo)) & set(workshop.features(2).sha256)
    remark = next(caution for caution in cautions(job) if "gery" in caution)
    assert remark.startswith("class 'gery' is left out: ")
    assert remark in job.message
    report = json.loads((workshop.store.folder(MODEL, 2) / REPORT_JSON_FILE).read_text())
    assert {entry["file"] for entry in report["left_out"]} == set(map(image_hash, typo))


def test_a_class_that_is_too_small_joins_once_it_has_enough(workshop: Workshop) -> None:
    pictures = new_pictures("grey", 8, 3)
    workshop.add("grey", pictures[:1])
    workshop.add("red", new_pictures("red", 6, 2))
    assert workshop.retrain().state is JobState.SUCCEEDED
    workshop.add("grey", pictures[1:])

    job = workshop.retrain()

    assert job.state is JobState.SUCCEEDED, job.message
    assert workshop.artifact(3).card.labels == (*LABELS, "grey")
    assert set(map(image_hash, pictures)) <= set(workshop.features(3).sha256)


def test_where_nothing_came_but_a_class_that_is_too_small_there_is_nothing_new_and_it_is_said_why(
    workshop: Workshop,
) -> None:
    workshop.add("gery", new_pictures("grey", 1, 0))

    job = workshop.retrain()

    assert job.state is JobState.REFUSED
    assert job.message == (
        "nothing new: version 1 was fitted on the very same images and labels; class 'gery' is left out: "
        "1 training image of it, and 2 to train on are needed"
    )
    assert workshop.store.versions(MODEL) == [1]


def test_a_class_without_pictures_leaves_and_the_others_keep_their_order(workshop: Workshop) -> None:
    remove(workshop, "green", range(28))

    job = workshop.retrain()

    assert job.state is JobState.SUCCEEDED, job.message
    assert workshop.artifact(2).card.labels == ("blue", "red")
    assert "class 'green' leaves: no image bears its label any more" in cautions(job)
    assert job.verdict is not None
    assert [entry["label"] for entry in job.verdict["classes"]] == ["blue", "red"]
    assert (job.verdict["champion_accuracy"], job.verdict["challenger_accuracy"]) == (1, 1)
    assert workshop.store.champion(MODEL) == 2


def test_all_pictures_of_a_class_relabelled_make_it_leave_judged_by_what_both_know(workshop: Workshop) -> None:
    workshop.add("blue", [picture("green", number) for number in range(28)])

    job = workshop.retrain(max_drop=100, max_class_drop=100, max_slice_drop=100, max_suspects=100)

    assert job.state is JobState.SUCCEEDED, job.message
    assert workshop.artifact(2).card.labels == ("blue", "red")
    assert job.verdict is not None
    assert job.verdict["holdout_images"] == 24
    features = workshop.features(2)
    assert {features.labels[index] for index in features.label_index} == {"blue", "red"}


def test_a_class_that_left_may_come_back_behind_the_others(workshop: Workshop) -> None:
    remove(workshop, "green", range(28))
    assert workshop.retrain().state is JobState.SUCCEEDED
    workshop.add("green", new_pictures("green", 10, 4))

    job = workshop.retrain()

    assert job.state is JobState.SUCCEEDED, job.message
    assert workshop.artifact(3).card.labels == ("blue", "red", "green")


def test_holdout_pictures_of_a_class_that_lost_its_training_pictures_show_the_loss(workshop: Workshop) -> None:
    workshop.add("blue", [known("green", held=False, number=number) for number in range(20)])

    job = workshop.retrain(max_suspects=100)

    assert job.state is JobState.REFUSED
    assert "class 'green' loses 100.0 points of recall, from 1.000 to 0.000 on 8 holdout images" in job.message
    assert "class 'green' leaves: 0 training and 8 holdout images of it, and 2 to train on are needed" in job.message
    assert workshop.store.champion(MODEL) == 1


def test_a_version_whose_class_left_verifies_and_differs_by_that_class(workshop: Workshop) -> None:
    remove(workshop, "green", range(28))
    assert workshop.retrain().state is JobState.SUCCEEDED

    found, changed = verify(workshop.store, MODEL), version_diff(workshop.store, f"{MODEL}:1", MODEL)

    assert found.holds
    assert (changed.labels_gone, changed.labels_added) == (("green",), ())
    assert changed.recall["green"] == (1.0, None)
    assert set(changed.data.removed.values()) == {"green"}


def test_rows_beside_the_features_leave_with_their_class_and_the_others_keep_theirs(workshop: Workshop) -> None:
    features = workshop.features(1)
    train = features.train()
    count = len(train.sha256)
    views = Additional(train.embedding, train.label_index, np.ones(count), np.arange(count))
    second_set = Additional(
        np.array([embed(picture(label, 9000)) for label in LABELS]), np.arange(3), np.ones(3), np.full(3, -1)
    )
    additional = views.joined(second_set)
    first = colour_challenger(features, MODEL, additional=additional, settings={"views": 1})
    workshop.store.move(MODEL, publish(workshop.store, first, left_out=[], who="a", why="b"), who="a", why="b")
    remove(workshop, "green", range(28))

    assert workshop.retrain().state is JobState.SUCCEEDED

    kept, now = Additional.read(workshop.store.folder(MODEL, 3) / FEATURES_FILE), workshop.features(3)
    assert kept is not None
    assert now.labels == ("blue", "red")
    own = kept.parent < 0
    assert kept.label_index[own].tolist() == [0, 1]
    assert (kept.label_index[~own] == now.train().label_index[kept.parent[~own]]).all()
    assert int((~own).sum()) == len(now.train().sha256)
    assert verify(workshop.store, MODEL).head is True


LABELLED = st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=40)


@given(st.permutations("abcd"), LABELLED)
def test_the_champions_order_is_kept_new_labels_follow_by_name_and_every_other_class_is_explained(
    known: list[str], labelled: list[tuple[str, bool]]
) -> None:
    enough = {label for label, _ in labelled if labelled.count((label, False)) >= FEWEST}
    if len(enough) < 2:
        with pytest.raises(PreconditionError, match="a head needs two classes"):
            settle_classes(known, labelled)
        return

    classes = settle_classes(known, labelled)

    assert set(classes.labels) == enough
    assert list(classes.labels) == [*(x for x in known if x in enough), *sorted(enough - set(known))]
    assert set(classes.left_out) == {*known, *(label for label, _ in labelled)} - enough


@pytest.mark.parametrize(
    ("counts", "remark"),
    [
        ((0, 0), "class 'old' leaves: no image bears its label any more"),
        ((1, 0), "class 'old' leaves: 1 training image of it, and 2 to train on are needed"),
        ((0, 3), "class 'old' leaves: 0 training and 3 holdout images of it, and 2 to train on are needed"),
    ],
)
def test_it_is_said_why_a_class_leaves(counts: tuple[int, int], remark: str) -> None:
    labelled = [("a", False), ("b", False)] * 2 + [("old", False)] * counts[0] + [("old", True)] * counts[1]

    assert settle_classes(["a", "b", "old"], labelled).remarks == (remark,)


def test_a_new_class_of_one_picture_is_left_out_and_not_said_to_leave() -> None:
    classes = settle_classes(
        ["a", "b"], [("a", False), ("b", False), ("typo", False)] * 1 + [("a", False), ("b", False)]
    )

    assert classes.remarks == ("class 'typo' is left out: 1 training image of it, and 2 to train on are needed",)
