import errno
import json
import logging
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from regraft.errors import NotFoundError, PreconditionError, StorageError, TrainingError
from regraft.label_rules import image_hash, is_holdout
from regraft.model.artifact import read
from regraft.model.fitted_pictures import FittedPictures
from regraft.stores.database.engine import open_database, sqlite_url
from regraft.stores.examples import ExamplesStore
from regraft.stores.images import EXAMPLES_FOLDER
from regraft.stores.jobs import JobState, RetrainJob, RetrainJobs
from regraft.stores.labelling.present_names import KnownLabels
from regraft.stores.labels import NewExample
from regraft.stores.models import FEATURES_FILE, MODEL_FILE, REPORT_FILE, REPORT_JSON_FILE, ModelStore
from regraft.stores.recovery import OUT_OF_MEMORY, job_lock, settle_interrupted
from tests.tiny import SPEC, picture
from tests.training.conftest import (
    COLOUR_KEY,
    colour_challenger,
    colour_features,
    embed,
    in_a_child,
    tiny_session,
)
from tests.training.workshop import MODEL, Workshop, begin_workshop, first_version, known, new_pictures, open_workshop
from training.data.random_crop import Augmentation
from training.head.additional import Additional
from training.head.features import load_features
from training.head.views import view
from training.retrain.job import run_job
from training.versions.diff import version_diff
from training.versions.publish import publish
from training.versions.verify import verify


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    workshop = open_workshop(tmp_path)
    yield workshop
    workshop.examples.close()


def answer(workshop: Workshop, version: int, data: bytes) -> str:
    read = workshop.artifact(version)
    return read.card.labels[int(read.head.probabilities(embed(data)[None]).argmax())]


def test_a_new_class_is_learned_and_its_version_promoted(workshop: Workshop) -> None:
    workshop.add("green", new_pictures("green", 10, 4))

    job = workshop.retrain()

    assert (job.state, job.champion, job.version, job.fraction) == (JobState.SUCCEEDED, 1, 2, 1.0)
    assert job.finished_at is not None
    assert "version 2 is the champion" in job.message
    assert workshop.store.champion(MODEL) == 2
    assert workshop.artifact(2).card.labels == ("blue", "red", "green")
    for colour in ("blue", "red", "green"):
        assert answer(workshop, 2, picture(colour, 5000)) == colour
    assert answer(workshop, 1, picture("green", 5000)) != "green"


def test_new_classes_are_appended_and_never_sorted_in(workshop: Workshop) -> None:
    workshop.add("amber", new_pictures("grey", 5, 2))
    workshop.add("lime", new_pictures("green", 5, 2))

    workshop.retrain()

    assert workshop.artifact(2).card.labels == ("blue", "red", "amber", "lime")


def test_the_new_version_is_fitted_on_old_and_new_images_together(workshop: Workshop) -> None:
    pictures = new_pictures("green", 10, 4)
    workshop.add("green", pictures)

    workshop.retrain()

    old, new = workshop.features(1), workshop.features(2)
    assert set(new.sha256) == set(old.sha256) | {image_hash(data) for data in pictures}
    for row, name in enumerate(new.sha256):
        if name in old.sha256:
            before = old.sha256.index(name)
            assert new.embedding[row].tobytes() == old.embedding[before].tobytes()
            assert new.is_holdout[row] == old.is_holdout[before]
        else:
            assert new.is_holdout[row] == is_holdout(name)
            assert new.labels[new.label_index[row]] == "green"


def test_the_card_of_the_new_version_says_where_it_comes_from(workshop: Workshop) -> None:
    workshop.add("green", new_pictures("green", 10, 4))

    workshop.retrain(max_drop=0.25)

    old, new = workshop.artifact(1).card, workshop.artifact(2).card
    assert (new.parent_version, new.strategy, new.name, new.seed) == (1, "retrain", MODEL, old.seed)
    assert (new.backbone, new.image, new.embedding_size) == (old.backbone, old.image, old.embedding_size)
    assert new.settings["max_drop"] == 0.25
    assert new.train_images == old.train_images + 10
    assert new.metrics is not None
    assert old.metrics is not None
    assert new.metrics.images == old.metrics.images + 4
    assert new.data_digest == workshop.features(2).digest() != old.data_digest
    assert (workshop.store.folder(MODEL, 2) / REPORT_FILE).is_file()


def test_the_history_says_who_asked_for_what_and_why(workshop: Workshop) -> None:
    workshop.add("green", new_pictures("green", 10, 4))

    job = workshop.retrain()

    publication, promotion = workshop.store.history(MODEL)[-2:]
    assert (publication.event, promotion.event) == ("publish", "promote")
    for entry in (publication, promotion):
        assert (entry.version, entry.previous, entry.who, entry.job) == (2, 1, "Ann", job.id)
        assert "holdout accuracy 0.8000 -> 1.0000" in entry.why  # 16 of the 20 are of classes that the champion knows


def test_the_verdict_is_in_the_job_with_every_number(workshop: Workshop) -> None:
    workshop.add("green", new_pictures("green", 10, 4))

    verdict = workshop.retrain().verdict

    assert verdict is not None
    assert verdict["blessed"] is True
    assert (verdict["champion_known_accuracy"], verdict["challenger_known_accuracy"]) == (1, 1)
    assert verdict["challenger_accuracy"] == 1
    assert [entry["holdout_images"] for entry in verdict["classes"]] == [8, 8, 4]
    assert [entry["is_new"] for entry in verdict["classes"]] == [False, False, True]


def test_more_of_a_known_class_is_learned_too(workshop: Workshop) -> None:
    workshop.add("red", new_pictures("red", 5, 1))

    job = workshop.retrain()

    assert job.state is JobState.SUCCEEDED
    assert workshop.artifact(2).card.labels == ("blue", "red")
    assert len(workshop.features(2).sha256) == len(workshop.features(1).sha256) + 6


def test_one_retrain_builds_on_the_other(workshop: Workshop) -> None:
    workshop.add("green", new_pictures("green", 10, 4))
    workshop.retrain()
    workshop.add("grey", new_pictures("grey", 10, 4))

    job = workshop.retrain()

    assert (job.state, job.champion, job.version) == (JobState.SUCCEEDED, 2, 3)
    assert workshop.artifact(3).card.parent_version == 2
    assert workshop.artifact(3).card.labels == ("blue", "red", "green", "grey")


@pytest.mark.parametrize("held", [False, True])
def test_a_relabelled_image_takes_the_new_label_and_keeps_its_split(workshop: Workshop, held: bool) -> None:
    data = next(d for n in range(8) if is_holdout(image_hash(d := known("red", held=held, number=n))) is not held)
    workshop.add("blue", [data])
    workshop.vouch(data, "blue")

    workshop.retrain(max_drop=100, max_class_drop=100)

    features = workshop.features(2)
    row = features.sha256.index(image_hash(data))
    assert features.labels[features.label_index[row]] == "blue"
    assert bool(features.is_holdout[row]) is held
    assert len(features.sha256) == len(workshop.features(1).sha256)


def test_a_renamed_label_reaches_the_pictures_that_only_the_champion_has_and_nothing_is_lost(
    workshop: Workshop,
) -> None:
    workshop.add("red", new_pictures("red", 3, 1))
    first = workshop.retrain()
    change = workshop.examples.label_changes.rename(MODEL, "red", "crimson", annotator="ada").change
    workshop.add("crimson", new_pictures("red", 6, 2)[3:6])

    job = workshop.retrain()

    card = workshop.artifact(3).card
    assert (job.state, card.labels, card.labels_as_of) == (JobState.SUCCEEDED, ("blue", "crimson"), change.at)
    before, now = workshop.features(2), workshop.features(3)
    assert len(now.sha256) == len(before.sha256) + 3
    assert (now.label_index == 1).sum() == (before.label_index == 1).sum() + 3
    verdict = job.verdict or {}
    assert verdict["anchor"]["images"] == (first.verdict or {})["anchor"]["images"], (
        "what the best answered still counts"
    )
    assert verdict["champion_accuracy"] == verdict["champion_known_accuracy"] == 1.0, "its red is their crimson"
    assert any("'red' is called 'crimson'" in each and "count as that" in each for each in verdict["cautions"])
    assert workshop.retrain().state is JobState.REFUSED, "the change is followed once"


def test_a_label_that_was_merged_is_judged_by_the_sum_of_both_and_the_old_name_may_be_given_anew(
    tmp_path: Path,
) -> None:
    workshop = open_workshop(tmp_path, labels=("blue", "green", "red"))
    workshop.examples.label_changes.rename(MODEL, "green", "blue", merge=True, known=KnownLabels(("blue", "green")))
    workshop.add("green", new_pictures("grey", 6, 2))

    job = workshop.retrain()

    now = workshop.features(2)
    assert (job.state, now.labels) == (JobState.SUCCEEDED, ("blue", "red", "green"))
    assert (now.label_index == 0).sum() == 2 * (now.label_index == 1).sum()
    assert (now.label_index == 2).sum() == 8, "those that were sent under the name since"
    assert (job.verdict or {})["champion_known_accuracy"] == 1.0
    workshop.examples.close()


def test_a_removed_label_takes_its_pictures_along_and_the_gate_judges_by_what_both_know(tmp_path: Path) -> None:
    workshop = open_workshop(tmp_path, labels=("blue", "green", "red"))
    workshop.add("green", new_pictures("green", 3, 1))
    workshop.examples.label_changes.remove(MODEL, "green")
    back = known("green", held=True)
    workshop.add("red", [back])
    workshop.vouch(back, "red")

    job = workshop.retrain()

    now = workshop.features(2)
    assert (job.state, now.labels) == (JobState.SUCCEEDED, ("blue", "red")), job.message
    assert len(now.sha256) == len(workshop.features(1).sha256) * 2 // 3 + 1
    assert bool(now.is_holdout[now.sha256.index(image_hash(back))]) is True, "it keeps the side that it had"
    cautions = (job.verdict or {})["cautions"]
    assert any("'green' was removed since" in each for each in cautions)
    assert any("'green' leaves: no image bears its label any more" in each for each in cautions)
    workshop.examples.close()


def test_a_version_keeps_the_answers_of_heads_that_had_not_seen_the_picture(workshop: Workshop) -> None:
    workshop.add("green", new_pictures("green", 10, 4))
    workshop.retrain()

    train = workshop.features(2).train()
    fitted = FittedPictures.read(workshop.store.folder(MODEL, 2) / FEATURES_FILE)
    assert [each.decode() for each in fitted.sha256] == list(train.sha256)
    np.testing.assert_array_equal(fitted.label_index, train.label_index)
    np.testing.assert_array_equal(fitted.answer_index, train.label_index)
    assert (fitted.label_probability > 0.5).all()
    np.testing.assert_array_equal(fitted.rows([train.sha256[3], "0" * 64]), [3, -1])


def test_nothing_new_is_refused_without_a_new_version(workshop: Workshop) -> None:
    job = workshop.retrain()

    assert job.state is JobState.REFUSED
    assert "nothing new: version 1 was fitted on the very same images and labels" in job.message
    assert (job.champion, job.version, job.verdict) == (1, None, None)
    assert workshop.store.versions(MODEL) == [1]


def test_an_example_that_cannot_be_decoded_is_nothing_new(workshop: Workshop) -> None:
    workshop.add("red", [b"was damaged on the disk"])

    job = workshop.retrain()

    assert job.state is JobState.REFUSED
    assert "nothing new" in job.message


def test_examples_that_the_champion_knows_with_the_same_labels_are_nothing_new(workshop: Workshop) -> None:
    workshop.add("red", [known("red", held=False), known("red", held=True)])

    assert workshop.retrain().state is JobState.REFUSED
    assert workshop.store.versions(MODEL) == [1]


def test_what_a_retrain_has_learned_is_nothing_new_to_the_next(workshop: Workshop) -> None:
    workshop.add("green", new_pictures("green", 10, 4))
    assert workshop.retrain().state is JobState.SUCCEEDED

    job = workshop.retrain()

    assert (job.state, job.champion) == (JobState.REFUSED, 2)
    assert workshop.store.versions(MODEL) == [1, 2]


def poison(workshop: Workshop) -> None:
    """Send many red pictures that are called blue, and as many the other way round: a head weighs classes alike.

    Somebody says that all of these labels are right, or they would be in quarantine.
    """
    for colour, called in (("red", "blue"), ("blue", "red")):
        pictures = new_pictures(colour, 60, 6)
        workshop.add(called, pictures)
        hashes = [image_hash(data) for data in pictures]
        workshop.examples.labels.quarantine(MODEL, dict.fromkeys(hashes, (called, "likely wrong")))
        for sha256 in hashes:
            workshop.examples.labels.release(MODEL, sha256, annotator="Mallory")


def test_poisoned_labels_are_refused_with_the_reasons_and_the_champion_stays(workshop: Workshop) -> None:
    poison(workshop)

    job = workshop.retrain()

    assert (job.state, job.champion, job.version, job.fraction) == (JobState.REFUSED, 1, 2, 1.0)
    assert "loses 100.0 points of accuracy, from 1.000 to 0.000" in job.message
    assert job.verdict is not None
    assert job.verdict["reasons"]
    assert job.message == "; ".join(job.verdict["reasons"])
    assert workshop.store.champion(MODEL) == 1
    assert answer(workshop, 1, picture("red", 5000)) == "red"


def test_a_refused_version_is_published_so_that_it_can_be_looked_into(workshop: Workshop) -> None:
    poison(workshop)

    job = workshop.retrain()

    assert workshop.store.versions(MODEL) == [1, 2]
    assert workshop.artifact(2).card.parent_version == 1
    last = workshop.store.history(MODEL)[-1]
    assert (last.event, last.version, last.job) == ("publish", 2, job.id)
    assert last.why == f"refused: {job.message}"


def test_the_limits_of_the_gate_come_with_the_job(workshop: Workshop) -> None:
    poison(workshop)

    job = workshop.retrain(max_drop=100, max_class_drop=100, max_slice_drop=100, max_suspects=100)

    assert job.state is JobState.SUCCEEDED
    assert workshop.store.champion(MODEL) == 2


@pytest.fixture
def mallory(tmp_path: Path) -> Iterator[tuple[Workshop, list[bytes]]]:
    """Label red pictures, eight of which Mallory calls blue; some of those would be holdout."""
    workshop = open_workshop(tmp_path, train=80)
    pictures = new_pictures("red", 28, 8)
    wrong = [*pictures[20:26], *pictures[28:30]]
    workshop.add("red", [*pictures[:20], *pictures[30:]])
    for data in wrong:
        workshop.examples.add(MODEL, data, "blue", source="Mallory")
    yield workshop, wrong
    workshop.examples.close()


def learned(workshop: Workshop, version: int) -> set[str]:
    return set(load_features(workshop.store.folder(MODEL, version) / FEATURES_FILE).sha256)


def test_wrong_labels_go_into_quarantine_and_everybody_elses_are_learned(
    mallory: tuple[Workshop, list[bytes]],
) -> None:
    workshop, wrong = mallory

    job = workshop.retrain()

    assert job.state is JobState.SUCCEEDED
    hashes = {image_hash(data) for data in wrong}
    assert {example.sha256 for example in workshop.examples.labels.in_force(MODEL, quarantined=True)} == hashes
    assert learned(workshop, 2) == learned(workshop, 1) | {
        example.sha256 for example in workshop.examples.labels.in_force(MODEL) if example.source != "Mallory"
    }
    assert job.verdict is not None
    assert (job.verdict["quarantined"], job.verdict["in_quarantine"], job.verdict["suspects"]) == (8, 8, 8)
    assert {entry["sha256"] for entry in job.verdict["suspected"]} == hashes
    report = json.loads((workshop.store.folder(MODEL, 2) / REPORT_JSON_FILE).read_text())
    assert {entry["sha256"] for entry in report["findings"]["doubted"]} == hashes
    page = (workshop.store.folder(MODEL, 2) / REPORT_FILE).read_text()
    assert page.count("data:image/jpeg") == 8
    assert "In quarantine, and not learned from until somebody has looked: 8 labels" in page


def test_a_version_without_the_quarantined_labels_is_fitted_anew_to_the_same_bytes(
    mallory: tuple[Workshop, list[bytes]],
) -> None:
    workshop, _ = mallory
    workshop.retrain()

    assert verify(workshop.store, f"{MODEL}:2").holds


def test_a_class_counts_in_the_fit_as_if_its_pictures_in_quarantine_were_there(
    mallory: tuple[Workshop, list[bytes]],
) -> None:
    workshop, wrong = mallory
    for_training = [name for name in map(image_hash, wrong) if not is_holdout(name)]

    def missing() -> object:
        return read(workshop.store.folder(MODEL, workshop.retrain().version or 0) / MODEL_FILE).card.settings["missing"]

    assert missing() == {"red": len(for_training)}
    workshop.examples.labels.relabel(MODEL, for_training[0], "red")
    assert missing() == {"red": len(for_training) - 1}, "what was put right is there"


def test_labels_in_quarantine_stay_out_of_later_retrains_until_they_are_released(
    mallory: tuple[Workshop, list[bytes]],
) -> None:
    workshop, wrong = mallory
    workshop.retrain()
    workshop.add("red", [picture("red", 9000)])

    workshop.retrain()
    assert not learned(workshop, 3) & {image_hash(data) for data in wrong}

    freed = image_hash(wrong[0])
    workshop.examples.labels.release(MODEL, freed, annotator="Ada")
    workshop.retrain()
    assert learned(workshop, 4) & {image_hash(data) for data in wrong} == {freed}
    features = load_features(workshop.store.folder(MODEL, 4) / FEATURES_FILE)
    row = features.sha256.index(freed)
    assert features.labels[features.label_index[row]] == "blue"
    assert bool(features.is_holdout[row]) == is_holdout(freed), "what was held out is never trained on"


def test_a_label_in_quarantine_that_is_put_right_is_learned(mallory: tuple[Workshop, list[bytes]]) -> None:
    workshop, wrong = mallory
    workshop.retrain()

    workshop.examples.labels.relabel(MODEL, image_hash(wrong[0]), "red")
    workshop.retrain()

    assert image_hash(wrong[0]) in learned(workshop, 3)


def test_where_all_that_is_new_is_in_quarantine_the_job_says_so_and_publishes_nothing(tmp_path: Path) -> None:
    workshop = open_workshop(tmp_path, train=80)
    for data in new_pictures("red", 6, 2):
        workshop.examples.add(MODEL, data, "blue", source="Mallory")

    first, second = workshop.retrain(), workshop.retrain()

    workshop.examples.close()
    for job in (first, second):
        assert (job.state, job.version) == (JobState.REFUSED, None)
        assert "8 labels are in quarantine: see `regraft examples list --quarantined`" in job.message
    assert workshop.store.versions(MODEL) == [1]


def test_a_known_picture_whose_new_label_is_in_quarantine_keeps_the_one_it_was_trained_with(tmp_path: Path) -> None:
    workshop = open_workshop(tmp_path, train=80)
    known_red = picture("red", 0)
    workshop.examples.add(MODEL, known_red, "blue", source="Mallory")
    workshop.add("red", [picture("red", 9000)])

    workshop.retrain()

    workshop.examples.close()
    features = load_features(workshop.store.folder(MODEL, 2) / FEATURES_FILE)
    row = features.sha256.index(image_hash(known_red))
    assert features.labels[features.label_index[row]] == "red"


def test_a_typed_limit_of_suspects_refuses_though_they_are_in_quarantine(
    mallory: tuple[Workshop, list[bytes]],
) -> None:
    workshop, _ = mallory

    job = workshop.retrain(max_suspects=5)

    assert job.state is JobState.REFUSED
    assert "8 of 8 new labels from 'Mallory' are likely wrong (100.0%; of the labels before 0.0%)" in job.message
    assert job.verdict is not None
    assert (job.verdict["suspects"], job.verdict["in_quarantine"]) == (8, 8)
    assert "new labels are likely wrong (2" in job.message


def test_a_golden_picture_that_is_answered_wrong_is_named(workshop: Workshop) -> None:
    folder = workshop.store.root / MODEL / "golden" / "red"
    folder.mkdir(parents=True)
    (folder / "good.png").write_bytes(picture("red", 7000))
    (folder / "bad.png").write_bytes(picture("blue", 7000))
    (folder / "broken.png").write_bytes(b"no picture")
    workshop.add("green", new_pictures("green", 10, 4))

    job = workshop.retrain()

    assert job.state is JobState.REFUSED
    assert job.message == "golden images answered wrong: red/bad.png, red/broken.png"


def test_with_the_gate_on_manual_a_blessed_version_waits(workshop: Workshop) -> None:
    workshop.add("green", new_pictures("green", 10, 4))

    job = workshop.retrain(gate="manual")

    assert (job.state, job.version) == (JobState.SUCCEEDED, 2)
    assert "waits: regraft models promote 2 --name colours" in job.message
    assert workshop.store.champion(MODEL) == 1


def test_with_the_gate_off_a_version_goes_live_and_the_history_says_what_the_gate_thought(workshop: Workshop) -> None:
    poison(workshop)

    job = workshop.retrain(gate="off")

    assert (job.state, workshop.store.champion(MODEL)) == (JobState.SUCCEEDED, 2)
    assert "the gate was off, and would have refused it: " in workshop.store.history(MODEL)[-1].why


def test_the_report_says_what_is_new_since_the_version_before(workshop: Workshop) -> None:
    pictures = new_pictures("green", 10, 4)
    workshop.add("green", pictures)
    workshop.add("blue", [known("red", held=False)])
    workshop.vouch(known("red", held=False), "blue")

    workshop.retrain(max_suspects=100)

    report = json.loads((workshop.store.folder(MODEL, 2) / REPORT_JSON_FILE).read_text())
    changes = report["findings"]["changes"]
    assert changes["added"] == dict.fromkeys(sorted(map(image_hash, pictures)), "green")
    assert changes["relabelled"] == [{"sha256": image_hash(known("red", held=False)), "before": "red", "now": "blue"}]


def open_with_views(root: Path, **settings: object) -> Workshop:
    """Return a workshop whose champion was fitted on a view of each picture too."""
    workshop = open_workshop(root)
    features = workshop.features(1)
    train = features.train()
    additional = Additional(
        train.embedding[:, ::-1].copy(), train.label_index, np.ones(len(train.sha256)), np.arange(len(train.sha256))
    )
    first = colour_challenger(features, MODEL, additional=additional, settings={"views": 1, **settings})
    publish(workshop.store, first, left_out=[], who="tester", why="views")
    workshop.store.move(MODEL, 2, who="tester", why="views")
    return workshop


def with_views(root: Path, arrivals: list[list[tuple[str, bytes]]]) -> Workshop:
    """Return a workshop whose champion was fitted on views too, after retrains on what arrived."""
    workshop = open_with_views(root)
    for arrived in arrivals:
        for label, data in arrived:
            workshop.add(label, [data])
        assert workshop.retrain().state is JobState.SUCCEEDED
    workshop.examples.close()
    return workshop


def test_views_are_kept_with_a_version_and_those_of_new_pictures_join_them(tmp_path: Path) -> None:
    green = [("green", data) for data in new_pictures("green", 10, 4)]

    workshop = with_views(tmp_path, [green])

    features, additional = workshop.features(3), Additional.read(workshop.store.folder(MODEL, 3) / FEATURES_FILE)
    assert additional is not None
    train = features.train()
    assert additional.parent.tolist() == list(range(len(train.sha256)))
    assert (additional.label_index == train.label_index).all()
    was_there = {name: row for row, name in enumerate(workshop.features(2).train().sha256)}
    for row, name in enumerate(train.sha256):
        if name in was_there:
            assert (additional.embedding[row] == train.embedding[row, ::-1]).all()
    assert workshop.artifact(3).card.settings["views"] == 1


def test_a_retrain_keeps_the_target_error_and_chooses_the_threshold_anew(tmp_path: Path) -> None:
    workshop = open_with_views(tmp_path, target_error=0.4)
    workshop.add("green", new_pictures("green", 12, 4))

    assert workshop.retrain().state is JobState.SUCCEEDED

    before, after = (workshop.artifact(version).card for version in (2, 3))
    assert after.settings["target_error"] == 0.4
    assert before.abstention is not None
    assert after.abstention is not None
    assert after.abstention.target_error == 0.4
    assert after.abstention.images == after.train_images > before.abstention.images
    report = json.loads((workshop.store.folder(MODEL, 3) / REPORT_JSON_FILE).read_text())
    assert report["findings"]["selective"]["images"] == after.train_images
    workshop.examples.close()


def test_views_of_new_pictures_are_made_as_the_card_says(tmp_path: Path) -> None:
    green = [("green", data) for data in new_pictures("green", 10, 4)]

    workshop = open_with_views(tmp_path, augment="light", mirror=False)
    for label, data in green:
        workshop.add(label, [data])
    workshop.retrain()
    workshop.examples.close()

    card, features = workshop.artifact(3).card, workshop.features(3).train()
    additional = Additional.read(workshop.store.folder(MODEL, 3) / FEATURES_FILE)
    assert (card.settings["augment"], card.settings["mirror"]) == ("light", False)
    assert additional is not None
    for _, data in green:
        if (name := image_hash(data)) in features.sha256:
            seen = view(data, name, spec=SPEC, number=1, seed=0, augmentation=Augmentation("light", mirror=False))
            row = features.sha256.index(name)
            expected = tiny_session().session.run(["embedding"], {"image": seen[None]})[0][0]
            np.testing.assert_allclose(additional.embedding[additional.parent == row][0], expected, atol=1e-6)


def test_invariant_7_holds_with_views_too(tmp_path: Path) -> None:
    green = [("green", data) for data in new_pictures("green", 10, 4)]
    grey = [("grey", data) for data in new_pictures("grey", 8, 3)]

    one = with_views(tmp_path / "one", [[*green, *grey]])
    two = with_views(tmp_path / "two", [green, grey])

    assert one.artifact(3).card.head_digest == two.artifact(4).card.head_digest


def test_a_new_class_without_holdout_images_is_named_and_missing_evidence_refuses_nothing(workshop: Workshop) -> None:
    workshop.add("green", new_pictures("green", 10, 0))

    job = workshop.retrain()

    assert job.state is JobState.SUCCEEDED
    assert job.verdict is not None
    assert any("class 'green' is new, and it has no holdout images" in caution for caution in job.verdict["cautions"])
    assert workshop.store.champion(MODEL) == 2


def test_a_model_without_any_holdout_image_is_refused(tmp_path: Path) -> None:
    workshop = open_workshop(tmp_path, train=10, holdout=0)
    workshop.add("red", new_pictures("red", 5, 0))

    job = workshop.retrain()

    workshop.examples.close()
    assert job.state is JobState.REFUSED
    assert "no holdout images" in job.message


def test_embeddings_that_were_cached_while_serving_are_used_and_need_no_file(workshop: Workshop) -> None:
    pictures = new_pictures("green", 10, 4)
    workshop.add("green", pictures)
    marked = {image_hash(data): embed(data) + np.float32(0.001) for data in pictures}
    workshop.examples.embeddings.put(COLOUR_KEY, marked)
    for name in marked:
        workshop.examples.image_file(name).unlink()

    assert workshop.retrain().state is JobState.SUCCEEDED

    features = workshop.features(2)
    for name, vector in marked.items():
        assert features.embedding[features.sha256.index(name)].tobytes() == vector.tobytes()


def test_embeddings_that_are_missing_are_computed_and_kept(workshop: Workshop) -> None:
    pictures = new_pictures("green", 10, 4)
    workshop.add("green", pictures)

    workshop.retrain()

    names = [image_hash(data) for data in pictures]
    cached = workshop.examples.embeddings.get(COLOUR_KEY, names)
    assert cached.keys() == set(names)
    for data in pictures:
        np.testing.assert_allclose(cached[image_hash(data)], embed(data), atol=1e-6)


def test_an_example_that_cannot_be_read_is_left_out_and_named_in_the_log(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = new_pictures("green", 10, 4)
    workshop.add("green", [*pictures, b"no picture at all"])
    gone = image_hash(pictures[0])
    workshop.examples.image_file(gone).unlink()

    with caplog.at_level(logging.WARNING):
        job = workshop.retrain()

    assert job.state is JobState.SUCCEEDED
    lost = {gone, image_hash(b"no picture at all")}
    assert not lost & set(workshop.features(2).sha256)
    for name in lost:
        assert f"example {name} (green, from unknown) is left out" in caplog.text


def test_a_picture_that_was_embedded_and_cannot_be_read_any_more_does_not_end_the_job(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = new_pictures("green", 10, 4)
    workshop.add("green", pictures)
    workshop.examples.embeddings.put(COLOUR_KEY, {image_hash(data): embed(data) for data in pictures})
    for data in pictures:
        Path(str(workshop.examples.image_file(image_hash(data)))).write_bytes(data[:-40])

    with caplog.at_level(logging.WARNING):
        job = workshop.retrain()

    assert (job.state, workshop.store.champion(MODEL)) == (JobState.SUCCEEDED, 2)
    assert any(f"image {image_hash(data)} (" in caplog.text for data in pictures)


def test_a_picture_over_the_limits_of_the_environment_is_left_out_by_hash_and_name(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = picture("green", 3, side_px=40)
    workshop.add("green", [*new_pictures("green", 10, 4), large])
    monkeypatch.setenv("REGRAFT_MAX_IMAGE_PIXELS", "1500")

    job = workshop.retrain()

    assert job.state is JobState.SUCCEEDED
    assert image_hash(large) not in workshop.features(2).sha256
    report = json.loads((workshop.store.folder(MODEL, 2) / REPORT_JSON_FILE).read_text())
    (left_out,) = report["left_out"]
    assert left_out["file"] == f"{image_hash(large)} (green, from unknown)"
    assert "40 x 40 px; the limit is 1,500 pixels in all (REGRAFT_MAX_IMAGE_PIXELS)" in left_out["reason"]


MOEWE = "Möwe"
MAC = unicodedata.normalize("NFD", MOEWE)
"""The same, as a Mac calls a folder."""


def relabelled_workshop(root: Path, *labels: str) -> Workshop:
    """Return a workshop whose champion calls blue, red and green otherwise."""
    features = replace(colour_features(("blue", "red", "green"), 20, 8), labels=labels)
    store = ModelStore(root / "models")
    publish(store, colour_challenger(features, MODEL), left_out=[], who="tester", why="a test")
    store.move(MODEL, 1, who="tester", why="a test")
    return Workshop(store, ExamplesStore(store.root / EXAMPLES_FOLDER))


def test_a_champion_from_a_mac_learns_its_own_class_from_labels_of_others(tmp_path: Path) -> None:
    workshop = relabelled_workshop(tmp_path, "blue", "red", MAC)
    workshop.add(MOEWE, new_pictures("green", 6, 2))

    job = workshop.retrain()

    assert job.state is JobState.SUCCEEDED
    assert workshop.artifact(2).card.labels == ("blue", "red", MOEWE)
    assert workshop.features(2).label_index.tolist().count(2) == 28 + 8
    diff = version_diff(workshop.store, f"{MODEL}:1", f"{MODEL}:2")
    assert (diff.labels_added, diff.labels_gone, diff.data.relabelled) == ((), (), ())
    workshop.examples.close()


def test_a_champion_that_has_both_forms_of_a_label_is_retrained_to_one_class(tmp_path: Path) -> None:
    workshop = relabelled_workshop(tmp_path, MOEWE, "red", MAC)

    job = workshop.retrain()

    assert job.state is JobState.SUCCEEDED, job.message
    assert workshop.artifact(2).card.labels == (MOEWE, "red")
    assert job.verdict is not None
    assert job.verdict["champion_accuracy"] == 1, "either form of its answer is right"
    assert workshop.retrain().state is JobState.REFUSED, "nothing is new any more"
    workshop.examples.close()


def test_a_golden_folder_from_a_mac_is_that_of_its_label(tmp_path: Path) -> None:
    workshop = relabelled_workshop(tmp_path, "blue", "red", MOEWE)
    folder = workshop.store.root / MODEL / "golden" / MAC
    folder.mkdir(parents=True)
    (folder / "one.png").write_bytes(picture("green", 77))
    workshop.add("red", new_pictures("red", 3, 1))

    verdict = workshop.retrain().verdict

    assert verdict is not None
    assert (verdict["golden_images"], verdict["golden_failures"]) == (1, [])
    workshop.examples.close()


def test_invariant_7_the_order_of_arrival_does_not_change_the_head_bytes(tmp_path: Path) -> None:
    arrivals = [("green", data) for data in new_pictures("green", 10, 4)]
    arrivals += [("grey", data) for data in new_pictures("grey", 8, 3)]
    arrivals += [("red", data) for data in new_pictures("red", 5, 1)]
    shuffled = [arrivals[row] for row in np.random.default_rng(1).permutation(len(arrivals))]

    digests = []
    for name, order in (("one", arrivals), ("two", arrivals[::-1]), ("three", shuffled)):
        workshop = open_workshop(tmp_path / name)
        for label, data in order:
            workshop.add(label, [data])
        assert workshop.retrain().state is JobState.SUCCEEDED
        digests.append(workshop.artifact(2).card.head_digest)
        workshop.examples.close()

    assert len(set(digests)) == 1


def test_invariant_7_examples_in_one_go_or_in_two_give_the_same_head_bytes(tmp_path: Path) -> None:
    green, grey = new_pictures("green", 10, 4), new_pictures("grey", 8, 3)
    one, two = open_workshop(tmp_path / "one"), open_workshop(tmp_path / "two")
    one.add("green", green)
    one.add("grey", grey)
    one.retrain()
    two.add("green", green)
    two.retrain()
    two.add("grey", grey)
    two.retrain()

    heads = one.artifact(2).card.head_digest, two.artifact(3).card.head_digest

    one.examples.close()
    two.examples.close()
    assert heads[0] == heads[1]


def test_a_model_without_a_champion_fails_with_what_to_do(workshop: Workshop) -> None:
    job = workshop.examples.jobs.create("nobody", {}, "Ann")

    job = run_job(workshop.store, workshop.examples, job.id)

    assert job.state is JobState.FAILED
    assert "model 'nobody' has no champion to improve on: train and promote a version first" in job.message


def test_where_only_one_class_is_left_to_train_on_the_job_fails_and_says_what_can_be_done(workshop: Workshop) -> None:
    for number in range(28):
        data = known("red", held=False, number=number)
        workshop.add("red", [data])
        workshop.examples.labels.remove(MODEL, image_hash(data))

    job = workshop.retrain()

    assert job.state is JobState.FAILED
    assert job.message == (
        "a head needs two classes of at least 2 images to train on: 'red' has 0: label more, or promote a version "
        "from before those images were removed or relabelled"
    )
    assert workshop.store.versions(MODEL) == [1]
    assert workshop.store.champion(MODEL) == 1


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("file", [MODEL_FILE, FEATURES_FILE])
@pytest.mark.parametrize("damage", [Path.unlink, cut_off])
def test_a_damaged_champion_fails_the_job_and_names_the_file(
    workshop: Workshop, file: str, damage: Callable[[Path], None]
) -> None:
    workshop.add("green", new_pictures("green", 10, 4))
    damage(workshop.store.folder(MODEL, 1) / file)

    job = workshop.retrain()

    assert job.state is JobState.FAILED
    assert f"{MODEL}/1/{file}" in job.message
    assert workshop.store.versions(MODEL) == [1]


class Meddling(ModelStore):
    """A model store in which something happens whenever a version was published, or the champion is asked for."""

    def __init__(
        self,
        root: Path,
        *,
        on_publish: Callable[[], object] = lambda: None,
        on_champion: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(root)
        self.on_publish, self.on_champion = on_publish, on_champion

    def publish(self, name: str, write: Callable[[Path], None], *, who: str, why: str, job: str = "") -> int:
        version = super().publish(name, write, who=who, why=why, job=job)
        self.on_publish()
        return version

    def champion(self, name: str) -> int | None:
        champion = super().champion(name)
        self.on_champion()
        return champion


def test_a_champion_that_moved_meanwhile_fails_the_job_and_stays(workshop: Workshop) -> None:
    workshop.add("green", new_pictures("green", 10, 4))
    publish(workshop.store, first_version(10, 0), left_out=[], who="Bob", why="another idea")

    job = workshop.retrain(
        Meddling(
            workshop.store.root, on_publish=lambda: workshop.store.move(MODEL, 2, who="Bob", why="changed my mind")
        )
    )

    assert (job.state, job.champion, job.version) == (JobState.FAILED, 1, 3)
    assert "the champion of 'colours' is now version 2, not 1" in job.message
    assert workshop.store.champion(MODEL) == 2
    assert workshop.store.versions(MODEL) == [1, 2, 3]


def cancel_all(workshop: Workshop) -> None:
    for job in workshop.examples.jobs.list(MODEL):
        workshop.examples.jobs.request_cancel(job.id)


def test_a_job_cancelled_before_it_started_does_not_run(workshop: Workshop) -> None:
    workshop.add("green", new_pictures("green", 10, 4))
    job = workshop.examples.jobs.create(MODEL, {}, "Ann")
    workshop.examples.jobs.request_cancel(job.id)

    with pytest.raises(PreconditionError, match=f"retrain job {job.id} is CANCELLED, not PENDING"):
        run_job(workshop.store, workshop.examples, job.id)

    assert workshop.store.versions(MODEL) == [1]


def test_a_job_cancelled_at_the_start_stops_before_any_version_is_made(workshop: Workshop) -> None:
    workshop.add("green", new_pictures("green", 10, 4))

    job = workshop.retrain(Meddling(workshop.store.root, on_champion=lambda: cancel_all(workshop)))

    assert (job.state, job.message, job.version) == (JobState.CANCELLED, "cancelled", None)
    assert job.finished_at is not None
    assert workshop.store.versions(MODEL) == [1]


def test_a_job_cancelled_after_publication_promotes_nothing(workshop: Workshop) -> None:
    workshop.add("green", new_pictures("green", 10, 4))

    job = workshop.retrain(Meddling(workshop.store.root, on_publish=lambda: cancel_all(workshop)))

    assert job.state is JobState.CANCELLED
    assert workshop.store.champion(MODEL) == 1
    assert workshop.store.versions(MODEL) == [1, 2]


def test_a_cancelled_job_makes_room_for_the_next(workshop: Workshop) -> None:
    workshop.add("green", new_pictures("green", 10, 4))
    workshop.retrain(Meddling(workshop.store.root, on_champion=lambda: cancel_all(workshop)))

    assert workshop.retrain().state is JobState.SUCCEEDED


def full_disk() -> None:
    raise StorageError("cannot publish a version of 'colours': No space left on device")


def bug() -> None:
    raise ZeroDivisionError("a secret detail")


def test_a_full_disk_fails_the_job_with_the_reason(workshop: Workshop) -> None:
    workshop.add("green", new_pictures("green", 10, 4))

    job = workshop.retrain(Meddling(workshop.store.root, on_publish=full_disk))

    assert job.state is JobState.FAILED
    assert "No space left on device" in job.message
    assert workshop.store.champion(MODEL) == 1


class ReadOnly(ModelStore):
    """A model store on a disk that takes nothing."""

    def publish(self, name: str, write: Callable[[Path], None], *, who: str, why: str, job: str = "") -> int:
        def refuse(folder: Path) -> None:
            write(folder)
            raise OSError(errno.EROFS, "Read-only file system", str(folder))

        return super().publish(name, refuse, who=who, why=why, job=job)


def test_a_store_that_takes_nothing_fails_the_job_and_is_as_it_was(workshop: Workshop) -> None:
    workshop.add("green", new_pictures("green", 10, 4))

    job = workshop.retrain(ReadOnly(workshop.store.root))

    assert job.state is JobState.FAILED
    assert "cannot publish a version of 'colours': Read-only file system" in job.message
    assert workshop.store.versions(MODEL) == [1]
    assert [path.name for path in (workshop.store.root / MODEL).iterdir() if path.is_dir()] == ["1"]
    assert workshop.retrain().state is JobState.SUCCEEDED


class Away(RetrainJobs):
    """The table of jobs of a database that goes away when a phase begins."""

    phase: str
    gone = False

    def report(self, job_id: str, phase: str, fraction: float, message: str, **fields: int) -> None:
        self.gone |= phase == self.phase
        self._fail_if_gone()
        super().report(job_id, phase, fraction, message, **fields)

    def finish(self, job_id: str, state: JobState, message: str, **fields: Any) -> bool:  # noqa: ANN401 - as there
        self._fail_if_gone()
        return super().finish(job_id, state, message, **fields)

    def _fail_if_gone(self) -> None:
        if self.gone:
            raise StorageError("cannot update the retrain job: server closed the connection unexpectedly")


@pytest.mark.parametrize("phase", ["read", "fit", "publish"])
def test_a_database_that_goes_away_ends_the_process_and_the_job_is_settled_when_it_is_back(
    workshop: Workshop, phase: str
) -> None:
    engine = open_database(sqlite_url(workshop.store.root / EXAMPLES_FOLDER / "examples.sqlite"))
    here, away = workshop.examples.jobs, Away(engine)
    away.phase = phase
    workshop.add("green", new_pictures("green", 10, 4))
    workshop.examples.jobs = away

    with pytest.raises(StorageError, match="closed the connection"):
        workshop.retrain()

    engine.dispose()
    workshop.examples.jobs = here
    assert workshop.store.champion(MODEL) == 1
    settled = settle(workshop, "its database was away")
    assert settled.state is JobState.PENDING
    assert "its database was away" in settled.message
    assert run_job(workshop.store, workshop.examples, settled.id).state is JobState.SUCCEEDED


def settle(workshop: Workshop, why: str = "it was killed") -> RetrainJob:
    (running,) = workshop.examples.jobs.list(MODEL, JobState.RUNNING)
    settled = settle_interrupted(workshop.examples, workshop.store, running, why)
    assert settled is not None
    return settled


class Killed(BaseException):
    """Ends a job as kill -9 does: it can say nothing more."""


def kill() -> None:
    raise Killed


def killed_after_publication(workshop: Workshop, **settings: float | str) -> RetrainJob:
    """Kill a job that has published version 2 but has not promoted it, and put it back."""
    workshop.add("green", new_pictures("green", 10, 4))
    with pytest.raises(Killed):
        workshop.retrain(Meddling(workshop.store.root, on_publish=kill), **settings)
    settled = settle(workshop)
    assert settled.state is JobState.PENDING
    assert (workshop.store.versions(MODEL), workshop.store.champion(MODEL)) == ([1, 2], 1)
    return settled


def test_a_version_that_was_published_before_the_interruption_is_promoted_and_not_published_twice(
    workshop: Workshop,
) -> None:
    waiting = killed_after_publication(workshop)

    job = run_job(workshop.store, workshop.examples, waiting.id)

    assert (job.state, job.champion, job.version) == (JobState.SUCCEEDED, 1, 2)
    assert "version 2 is the champion; retrain: holdout accuracy 0.8000 -> 1.0000 (second attempt" in job.message
    assert job.verdict is not None
    assert job.verdict["blessed"]
    assert job.verdict["challenger_accuracy"] == 1
    assert (workshop.store.versions(MODEL), workshop.store.champion(MODEL)) == ([1, 2], 2)
    publication, promotion = workshop.store.history(MODEL)[-2:]
    assert (publication.event, promotion.event) == ("publish", "promote")
    assert (promotion.who, promotion.why, promotion.job) == ("Ann", publication.why, job.id)


def test_a_version_that_was_published_before_the_interruption_still_waits_for_a_person_where_the_gate_is_manual(
    workshop: Workshop,
) -> None:
    waiting = killed_after_publication(workshop, gate="manual")

    job = run_job(workshop.store, workshop.examples, waiting.id)

    assert job.state is JobState.SUCCEEDED
    assert "version 2 is blessed and waits" in job.message
    assert (workshop.store.versions(MODEL), workshop.store.champion(MODEL)) == ([1, 2], 1)


def test_a_version_that_was_published_before_the_interruption_does_not_replace_another_champion(
    workshop: Workshop,
) -> None:
    waiting = killed_after_publication(workshop)
    publish(workshop.store, first_version(10, 0), left_out=[], who="Bob", why="another idea")
    workshop.store.move(MODEL, 3, who="Bob", why="changed my mind")

    job = run_job(workshop.store, workshop.examples, waiting.id)

    assert job.state is JobState.FAILED
    assert "the champion of 'colours' is now version 3, not 1" in job.message
    assert workshop.store.champion(MODEL) == 3


def test_where_the_published_version_is_damaged_the_second_attempt_publishes_the_same_head_anew(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = killed_after_publication(workshop)
    (workshop.store.folder(MODEL, 2) / REPORT_JSON_FILE).write_text("{")

    job = run_job(workshop.store, workshop.examples, waiting.id)

    assert (job.state, job.version, workshop.store.champion(MODEL)) == (JobState.SUCCEEDED, 3, 3)
    assert "version 2 of colours is damaged" in caplog.text
    first, second = workshop.artifact(2), workshop.artifact(3)
    assert first.head.digest() == second.head.digest()
    assert first.card.settings == second.card.settings


def no_memory() -> None:
    raise MemoryError


def test_a_job_that_needs_more_memory_than_it_may_have_fails_and_says_so(workshop: Workshop) -> None:
    job = workshop.retrain(Meddling(workshop.store.root, on_champion=no_memory))

    assert (job.state, job.message) == (JobState.FAILED, "it needs more memory than there is")


def test_a_job_that_is_stopped_after_its_promotion_succeeded(workshop: Workshop) -> None:
    """Invariant 6."""
    workshop.add("green", new_pictures("green", 10, 4))

    job = workshop.retrain(StoppedOncePromoted(workshop.store.root))

    assert (job.state, job.version) == (JobState.SUCCEEDED, 2)
    assert workshop.store.champion(MODEL) == 2


class StoppedOncePromoted(ModelStore):
    """A model store whose process is at its limit when it has promoted a version."""

    def move(self, *args: Any, **named: Any) -> NoReturn:  # noqa: ANN401 - whatever a store takes
        super().move(*args, **named)
        raise TrainingError("it needs more memory than its limit of 1 MB")


DEAF = """
import signal, sys, threading
from pathlib import Path
from regraft.stores.examples import EXAMPLES_FOLDER, ExamplesStore
from regraft.stores.models import ModelStore
from training.retrain.job import run_job

class Deaf(ModelStore):
    def champion(self, name):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})  # as in native code that does not return
        taken = b"x" * (400 * 2**20)
        threading.Event().wait()

root = Path(sys.argv[1])
run_job(Deaf(root), ExamplesStore(root / EXAMPLES_FOLDER), sys.argv[2], memory_mb=350)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has the memory's size")
def test_a_job_beyond_its_memory_that_heeds_nothing_fails_all_the_same_and_its_process_ends(workshop: Workshop) -> None:
    job = workshop.examples.jobs.create(MODEL, {}, "Ann")

    child = in_a_child(["-c", DEAF, str(workshop.store.root), job.id])

    assert child.returncode == OUT_OF_MEMORY, child.stderr
    job = workshop.examples.jobs.get(job.id)
    assert job.state is JobState.FAILED
    assert job.message.startswith("it needs more memory than its limit of 350 MB, and had ")


def test_a_bug_fails_the_job_with_a_fixed_text_and_goes_on_to_whoever_started_it(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    workshop.add("green", new_pictures("green", 10, 4))

    with pytest.raises(ZeroDivisionError):
        workshop.retrain(Meddling(workshop.store.root, on_publish=bug))

    (job,) = workshop.examples.jobs.list(MODEL)
    assert (job.state, job.message) == (JobState.FAILED, "internal error; its log has the traceback")
    assert "a secret detail" in caplog.text


def test_a_job_that_does_not_exist_is_an_error(workshop: Workshop) -> None:
    with pytest.raises(NotFoundError, match="no retrain job 'nothing'"):
        run_job(workshop.store, workshop.examples, "nothing")


def test_a_job_runs_once(workshop: Workshop) -> None:
    workshop.add("green", new_pictures("green", 10, 4))
    job = workshop.retrain()

    with pytest.raises(PreconditionError, match="is SUCCEEDED, not PENDING"):
        run_job(workshop.store, workshop.examples, job.id)

    assert workshop.store.versions(MODEL) == [1, 2]


def test_a_second_process_on_the_same_model_is_refused_and_the_job_keeps_waiting(workshop: Workshop) -> None:
    workshop.add("green", new_pictures("green", 10, 4))
    job = workshop.examples.jobs.create(MODEL, {}, "Ann")

    with (
        job_lock(workshop.examples, MODEL),
        pytest.raises(PreconditionError, match="being retrained by another process"),
    ):
        run_job(workshop.store, workshop.examples, job.id)

    assert workshop.examples.jobs.get(job.id).state is JobState.PENDING
    assert run_job(workshop.store, workshop.examples, job.id).state is JobState.SUCCEEDED


class Listening(RetrainJobs):
    """The table of jobs, keeping what is reported to it."""

    reported: list[tuple[str, float]]

    def report(self, job_id: str, phase: str, fraction: float, message: str, **fields: int) -> None:
        super().report(job_id, phase, fraction, message, **fields)
        self.reported.append((phase, fraction))
        assert message


def test_a_job_reports_its_phases_in_order_and_never_goes_back(workshop: Workshop) -> None:
    engine = open_database(sqlite_url(workshop.store.root / EXAMPLES_FOLDER / "examples.sqlite"))
    jobs = Listening(engine)
    jobs.reported = []
    workshop.examples.jobs = jobs
    workshop.add("green", new_pictures("green", 10, 4))

    workshop.retrain()

    engine.dispose()
    fractions = [fraction for _, fraction in jobs.reported]
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] <= fractions[-1] <= 1
    phases = [phase for phase, _ in jobs.reported]
    assert list(dict.fromkeys(phases)) == ["read", "embed", "fit", "check", "judge", "publish"]


@pytest.fixture
def begun(tmp_path: Path) -> Iterator[Workshop]:
    workshop = begin_workshop(tmp_path)
    yield workshop
    workshop.examples.close()


def test_the_first_retrain_of_a_model_without_a_version_publishes_version_1(begun: Workshop) -> None:
    for colour in ("blue", "green", "red"):
        begun.add(colour, new_pictures(colour, 8, 3))

    job = begun.retrain(min_accuracy=90)

    assert (job.state, job.champion, job.version) == (JobState.SUCCEEDED, None, 1)
    assert begun.store.champion(MODEL) == 1
    card = begun.artifact(1).card
    assert (card.labels, card.parent_version, card.strategy, card.train_images) == (
        ("red", "blue", "green"),
        None,
        "probe",
        24,
    )
    assert card.metrics is not None
    assert (card.metrics.images, card.metrics.accuracy) == (9, 1)
    assert card.reference is not None
    assert card.settings["min_accuracy"] == 90
    assert card.recipe["backbone"] == "tiny"
    for colour in ("blue", "green", "red"):
        assert answer(begun, 1, picture(colour, 5000)) == colour
    assert verify(begun.store, f"{MODEL}:1").holds
    report = (begun.store.folder(MODEL, 1) / REPORT_FILE).read_text()
    assert "Gate: blessed" in report
    assert "It is a first version" in report


def test_the_evidence_on_a_first_version_is_its_own(begun: Workshop) -> None:
    for colour in ("blue", "red"):
        begun.add(colour, new_pictures(colour, 8, 3))

    job = begun.retrain()

    assert job.verdict is not None
    first = job.verdict["first"]
    assert (first["images"], first["cross_validated_accuracy"], first["holdout_images"]) == (16, 1, 6)
    assert 0.7 < first["low"] < first["high"] == 1
    assert (first["holdout_accuracy"], first["accuracy"]) == (1, 1)
    assert "first version, cross-validated accuracy 1.0000 (0.8" in job.message
    assert [(entry["label"], entry["holdout_images"]) for entry in job.verdict["classes"]] == [("red", 3), ("blue", 3)]


def test_a_first_version_below_a_floor_is_refused_and_the_next_retrain_is_a_first_one_again(begun: Workshop) -> None:
    same = [picture("grey", number) for number in range(40)]
    for number, data in enumerate(same):  # nothing tells them apart
        begun.examples.add(MODEL, data, ("red", "blue")[number % 2])

    job = begun.retrain(min_accuracy=95, min_class_recall=95)

    assert (job.state, job.version, begun.store.champion(MODEL)) == (JobState.REFUSED, 1, None)
    assert "images that the head asked was not fitted on is below the floor of 95 %" in job.message
    assert "class 'red' has a recall of" in job.message
    sides = begun.examples.split.sides(MODEL)
    for colour in ("red", "blue"):
        begun.add(colour, new_pictures(colour, 40, 10))
    for data in same:
        begun.examples.labels.remove(MODEL, image_hash(data))
    again = begun.retrain(min_accuracy=95)
    assert (again.state, again.champion, again.version) == (JobState.SUCCEEDED, None, 2)
    assert sides.items() <= begun.examples.split.sides(MODEL).items()


def test_two_classes_of_two_pictures_are_enough_whatever_their_hashes_say(begun: Workshop) -> None:
    for colour in ("red", "blue"):
        begun.add(colour, new_pictures(colour, 0, 2))  # all of them would be held out

    job = begun.retrain()

    assert (job.state, job.version) == (JobState.SUCCEEDED, 1), job.message
    assert begun.artifact(1).card.train_images == 4
    assert job.verdict is not None
    assert any("say little" in caution for caution in job.verdict["cautions"])
    assert "nothing was held out: about one image in five is, of those to come" in job.verdict["cautions"]


def test_a_first_retrain_without_two_classes_says_what_there_is(begun: Workshop) -> None:
    assert "of at least 2 images to train on: there is none: label more" in begun.retrain().message
    begun.add("red", new_pictures("red", 30, 5))
    begun.add("blue", new_pictures("blue", 1, 0))

    job = begun.retrain()

    assert (job.state, begun.store.versions(MODEL)) == (JobState.FAILED, [])
    assert job.message.endswith("of at least 2 images to train on: 'blue' has 1: label more")


def test_named_groups_stay_on_one_side_in_a_first_version_too(begun: Workshop) -> None:
    pictures = new_pictures("red", 8, 4)
    begun.examples.add_all(MODEL, [NewExample(data, "red", group="scene") for data in pictures])
    for colour in ("blue", "green"):
        begun.add(colour, new_pictures(colour, 8, 2))

    begun.retrain()

    features = begun.features(1)
    sides = dict(zip(features.sha256, features.is_holdout.tolist(), strict=True))
    assert len({sides[image_hash(data)] for data in pictures}) == 1


def test_a_first_version_is_the_ground_that_later_ones_are_held_against(begun: Workshop) -> None:
    for colour in ("blue", "red"):
        begun.add(colour, new_pictures(colour, 20, 8))
    begun.retrain()
    begun.add("green", new_pictures("green", 10, 4))

    job = begun.retrain()

    assert (job.state, job.champion, job.version) == (JobState.SUCCEEDED, 1, 2), job.message
    assert job.verdict is not None
    assert job.verdict["first"] is None
    assert job.verdict["anchor"]["images"] == 16
    assert begun.artifact(2).card.labels == ("red", "blue", "green")


def test_a_first_retrain_that_was_killed_before_its_promotion_promotes_what_it_published(begun: Workshop) -> None:
    for colour in ("blue", "red"):
        begun.add(colour, new_pictures(colour, 8, 3))
    job = begun.retrain(gate="manual")
    assert job.state is JobState.SUCCEEDED
    assert "waits: regraft models promote 1" in job.message

    again = begun.examples.jobs.create(MODEL, {}, "Ann")
    history = begun.store.root / MODEL / "history.jsonl"
    history.write_text(history.read_text().replace(job.id, again.id))  # as the first attempt of this one left it
    done = run_job(begun.store, begun.examples, again.id)

    assert (done.state, done.version, begun.store.champion(MODEL)) == (JobState.SUCCEEDED, 1, 1)


def test_a_first_retrain_whose_backbone_is_gone_says_how_to_get_one(begun: Workshop) -> None:
    for colour in ("blue", "red"):
        begun.add(colour, new_pictures(colour, 4, 1))
    shutil.rmtree(begun.store.root / ".backbones")

    job = begun.retrain()

    assert job.state is JobState.FAILED
    assert "`regraft backbones add efficientnet_lite0` makes one" in job.message


def test_labels_of_a_first_version_are_its_first_training_which_wrong_ones_are_found_by(begun: Workshop) -> None:
    for colour in ("blue", "red"):
        begun.add(colour, new_pictures(colour, 30, 8))
    assert begun.retrain().state is JobState.SUCCEEDED
    wrong = [picture("blue", number) for number in range(6000, 6008)]
    begun.examples.add_all(MODEL, [NewExample(data, "red", source="Mallory") for data in wrong])
    begun.add("green", new_pictures("green", 10, 4))

    job = begun.retrain()

    assert job.verdict is not None
    assert job.verdict["quarantined"] == 8
    assert {entry.sha256 for entry in begun.examples.labels.in_force(MODEL, quarantined=True)} == set(
        map(image_hash, wrong)
    )
