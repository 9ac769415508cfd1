"""Pictures that belong together are on one side of the split, also in retrains; nobody chooses the gate's evidence."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.label_rules import image_hash, is_holdout
from regraft.stores.jobs import JobState
from regraft.stores.labels import NewExample
from regraft.stores.models import FEATURES_FILE
from tests.training.conftest import (
    colour_rows,
    features_of,
)
from tests.training.workshop import MODEL, Workshop, known, new_pictures, open_workshop
from training.data.groups import group_named
from training.gate.anchor import load_anchor
from training.retrain.data import labels_in_force


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    workshop = open_workshop(tmp_path)
    yield workshop
    workshop.examples.close()


def side(workshop: Workshop, version: int, data: bytes) -> bool | None:
    """Tell whether a picture is holdout in a version; None where it takes no part."""
    features = workshop.features(version)
    names = dict(zip(features.sha256, map(bool, features.is_holdout), strict=True))
    return names.get(image_hash(data))


def group(workshop: Workshop, version: int, data: bytes) -> int:
    features = workshop.features(version)
    return int(features.group[features.sha256.index(image_hash(data))])


def otherwise(data: bytes, *, held: bool) -> bytes:
    """Return the same picture in other bytes, whose hash puts it on this side."""
    return next(longer for number in range(1000) if is_holdout(image_hash(longer := data + b"%d" % number)) is held)


def learn(workshop: Workshop) -> None:
    job = workshop.retrain(gate="off")
    assert job.state is JobState.SUCCEEDED, job.message


@pytest.mark.parametrize("held", [False, True])
def test_a_few_bytes_behind_a_picture_do_not_move_it_across_the_split(workshop: Workshop, held: bool) -> None:
    data = known("red", held=held)
    moved = otherwise(data, held=not held)
    workshop.add("red", [moved])

    learn(workshop)

    assert side(workshop, 2, moved) is side(workshop, 1, data) is held
    assert group(workshop, 2, moved) == group(workshop, 2, data)


def test_copies_that_come_together_are_on_one_side_whichever_is_first(tmp_path: Path) -> None:
    data = new_pictures("red", 1, 0)[0]
    copies = [otherwise(data, held=True), otherwise(data, held=False), otherwise(data + b"!", held=True)]
    sides = []
    for number, order in enumerate((copies, copies[::-1])):
        workshop = open_workshop(tmp_path / str(number))
        workshop.add("red", order)
        learn(workshop)
        sides.append([side(workshop, 2, each) for each in copies])
        workshop.examples.close()

    assert sides[0] == sides[1]
    assert len(set(sides[0])) == 1


def test_a_group_that_people_named_is_on_one_side_and_a_later_picture_of_it_too(workshop: Workshop) -> None:
    pictures = new_pictures("red", 6, 4)
    workshop.examples.add_all(MODEL, [NewExample(data, "red", group="patient 7") for data in pictures[:-1]])
    learn(workshop)
    workshop.examples.add_all(MODEL, [NewExample(pictures[-1], "red", group="patient 7")])

    learn(workshop)

    assert len({side(workshop, 3, data) for data in pictures}) == 1
    assert {group(workshop, 3, data) for data in pictures} == {group_named("patient 7")}


def test_what_belongs_with_both_sides_is_trained_on_by_nobody_judges_nobody_and_is_told(workshop: Workshop) -> None:
    bridge, copy = new_pictures("red", 2, 0)[0], otherwise(known("red", held=True), held=False)
    workshop.examples.add_all(
        MODEL,
        [NewExample(known("red", held=False), "red", group="a scene"), NewExample(bridge, "red", group="a scene")],
    )
    workshop.examples.add_all(MODEL, [NewExample(copy, "red", group="a scene")])

    job = workshop.retrain()

    assert job.state is JobState.REFUSED  # there is nothing else
    assert "nothing new" in job.message
    assert "2 images belong with training and with holdout images" in job.message
    assert image_hash(bridge) not in workshop.examples.split.sides(MODEL)


def test_sides_that_a_refused_retrain_decided_stay(workshop: Workshop) -> None:
    first, second = (next(iter(new_pictures("red", *count))) for count in ((1, 0), (0, 1)))
    workshop.add("red", [first, second])
    assert workshop.retrain(min_accuracy=100, max_drop=-100).state is JobState.REFUSED
    before = [side(workshop, 2, data) for data in (first, second)]
    link = NewExample(new_pictures("red", 2, 0)[1], "red", group="a scene")
    workshop.examples.add_all(MODEL, [NewExample(first, "red", group="a scene"), link])
    workshop.examples.add_all(MODEL, [NewExample(second, "red", group="a scene")])

    learn(workshop)

    assert [side(workshop, 3, data) for data in (first, second)] == before == [False, True]
    assert side(workshop, 3, link.data) is None


def test_what_was_held_out_stays_out_of_training_though_it_was_removed_and_sent_again(workshop: Workshop) -> None:
    data = new_pictures("red", 0, 1)[0]
    workshop.add("red", [data])
    learn(workshop)
    workshop.examples.labels.remove(MODEL, image_hash(data))
    learn(workshop)
    copy = otherwise(data, held=False)
    workshop.add("red", [copy])

    learn(workshop)

    assert side(workshop, 3, data) is None
    assert side(workshop, 4, copy) is True


OLD = features_of(
    ("blue", "red"),
    [
        row
        for label in ("blue", "red")
        for row in (*colour_rows(label, range(4), held=False), *colour_rows(label, range(4, 6), held=True))
    ],
)
HASHES = [*OLD.sha256, *(image_hash(str(number).encode()) for number in range(8))]
SENT = st.dictionaries(st.sampled_from(HASHES), st.sampled_from(["blue", "red", "green"]))


@settings(max_examples=80)
@given(SENT, st.sets(st.sampled_from(HASHES)))
def test_every_picture_has_its_newer_label_and_what_was_removed_leaves_although_the_champion_was_fitted_on_it(
    sent: dict[str, str], removed: set[str]
) -> None:
    labels = labels_in_force(OLD, sent, removed)

    assert list(labels) == sorted({*OLD.sha256, *sent} - removed)
    known = {sha256: OLD.labels[index] for sha256, index in zip(OLD.sha256, OLD.label_index, strict=True)}
    assert all(label == sent.get(sha256, known.get(sha256)) for sha256, label in labels.items())


def test_original_pictures_that_were_kept_are_no_news(workshop: Workshop, tmp_path: Path) -> None:
    workshop.keep_originals(tmp_path / "photos")

    job = workshop.retrain()

    assert (job.state, job.version) == (JobState.REFUSED, None)
    assert "nothing new" in job.message


def test_a_retrain_beside_kept_originals_is_the_very_same(tmp_path: Path) -> None:
    seen = []
    for name, is_kept in (("with", True), ("without", False)):
        workshop = open_workshop(tmp_path / name)
        if is_kept:
            workshop.keep_originals(tmp_path / "photos")
        workshop.add("green", new_pictures("green", 8, 4))
        for data in (*new_pictures("red", 3, 1), known("red", held=False), known("red", held=True)):
            workshop.examples.add(MODEL, data, "blue", "a phone")
        job = workshop.retrain(gate="off")
        assert job.state is JobState.SUCCEEDED, job.message
        anchor = load_anchor(workshop.store.folder(MODEL, 2) / FEATURES_FILE)
        assert anchor is not None
        features = workshop.features(2)
        seen.append((workshop.artifact(2).card.head_digest, features.digest(), job.verdict, anchor.sha256))
        workshop.examples.close()

    assert seen[0] == seen[1]


@pytest.mark.parametrize("held", [False, True])
def test_an_original_that_a_person_relabels_keeps_its_side_and_takes_the_label(
    workshop: Workshop, tmp_path: Path, held: bool
) -> None:
    workshop.keep_originals(tmp_path / "photos")
    sha256 = image_hash(known("red", held=held))
    workshop.examples.labels.relabel(MODEL, sha256, "blue")
    workshop.vouch(known("red", held=held), "blue")

    learn(workshop)

    features = workshop.features(2)
    row = features.sha256.index(sha256)
    assert (features.labels[features.label_index[row]], features.is_holdout[row]) == ("blue", held)
    assert len(features.sha256) == len(workshop.features(1).sha256)


def test_an_original_that_a_person_removes_is_learned_no_more(workshop: Workshop, tmp_path: Path) -> None:
    workshop.keep_originals(tmp_path / "photos")
    sha256 = image_hash(known("red", held=False))
    workshop.examples.labels.remove(MODEL, sha256)

    learn(workshop)

    assert sha256 not in workshop.features(2).sha256
