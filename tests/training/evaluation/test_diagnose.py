from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from regraft.image.encode import encode_png
from regraft.model.artifact import FloatArray
from tests.tiny import picture
from tests.training.conftest import blobs
from training.evaluation.diagnose import MAX_LABEL_ERRORS, diagnose, thumbnails
from training.evaluation.findings import NOTHING_FOUND, Findings, Judged, Pair, Picture
from training.head.features import Features
from training.head.fit import FittedHead, fit


def told(features: Features, fitted: FittedHead) -> FloatArray:
    """Return what a head says of the training rows; here they may well be those it was fitted on."""
    return fitted.head.probabilities(features.train().embedding)


def look(features: Features, files: dict[str, str] | None = None) -> Findings:
    """Diagnose features with a head that was fitted on them."""
    fitted = fit(features)
    rows = np.arange(int((~features.is_holdout).sum()))
    return diagnose(features, fitted.head, fitted.temperature, rows, told(features, fitted), files or {})


def relabelled(features: Features, row: int, label: int) -> Features:
    labels = features.label_index.copy()
    labels[row] = label
    return replace(features, label_index=labels)


def rows_held(features: Features, *, held: bool) -> list[int]:
    return [int(row) for row in np.flatnonzero(features.is_holdout == held)]


def test_a_wrong_label_in_training_is_named_with_its_file_and_its_split() -> None:
    features = blobs((30, 30, 30), 16, holdout=10, apart=8)
    row = next(row for row in rows_held(features, held=False) if features.label_index[row] == 0)
    wrong = relabelled(features, row, 2)
    fitted = fit(features)
    name = features.sha256[row]

    found = diagnose(wrong, fitted.head, 1.0, np.arange(90), told(wrong, fitted), {name: "cats/tom.jpg"})

    (suspect,) = found.label_errors
    assert (suspect.sha256, suspect.file, suspect.split) == (name, "cats/tom.jpg", "train")
    assert (suspect.label, suspect.answer) == ("class 2", "class 0")
    assert suspect.label_probability < 0.1
    assert suspect.probability > 0.8
    assert found.label_errors_found == 1
    assert found.top_losses == ()


def test_a_wrong_answer_on_the_holdout_is_a_top_loss_and_a_suspicious_label() -> None:
    features = blobs((30, 30, 30), 16, holdout=10, apart=8)
    row = next(row for row in rows_held(features, held=True) if features.label_index[row] == 1)

    found = look(relabelled(features, row, 0))

    assert [(loss.sha256, loss.split, loss.label, loss.answer) for loss in found.top_losses] == [
        (features.sha256[row], "holdout", "class 0", "class 1")
    ]
    assert found.label_errors == found.top_losses


def test_training_images_are_judged_by_what_unseen_heads_said() -> None:
    features = blobs((20, 20), 8, holdout=5, apart=8)
    fitted = fit(features)
    said = told(features, fitted)
    said[4] = said[4][::-1]

    found = diagnose(features, fitted.head, 1.0, np.arange(40), said, {})

    assert [suspect.sha256 for suspect in found.label_errors] == [features.train().sha256[4]]


def test_training_images_that_no_unseen_head_judged_are_left_alone() -> None:
    features = blobs((20, 20), 8, holdout=5, apart=8)
    fitted = fit(features)
    rows = np.array([7, 3, 30])
    said = told(features, fitted)[rows]

    found = diagnose(relabelled(features, rows_held(features, held=False)[5], 0), fitted.head, 1.0, rows, said, {})

    assert found.label_errors == ()


def test_near_duplicates_are_named_and_those_across_the_splits_are_noted() -> None:
    features = blobs((30, 30), 16, holdout=10)
    one, other = rows_held(features, held=False)[0], rows_held(features, held=True)[0]
    embedding = features.embedding.copy()
    embedding[other] = embedding[one] + np.float32(0.01)
    files = {features.sha256[one]: "a.jpg", features.sha256[other]: "b.jpg"}

    found = look(replace(features, embedding=embedding), files)

    (pair,) = found.duplicates
    assert {pair.first.file, pair.second.file} == {"a.jpg", "b.jpg"}
    assert {pair.first.split, pair.second.split} == {"train", "holdout"}
    assert (found.duplicates_found, found.duplicates_across) == (1, 1)
    assert any("across training and holdout images: 1" in note for note in found.notes)


def test_clean_data_raise_no_notes() -> None:
    found = look(blobs((30, 30), 16, holdout=10, apart=8))

    assert found == replace(NOTHING_FOUND, calibration=found.calibration)
    assert found.calibration is not None


def test_classes_of_few_images_are_named() -> None:
    (note,) = look(blobs((3, 30, 30), 16, apart=8)).notes

    assert "class 0" in note
    assert "class 1" not in note


def test_without_holdout_the_training_images_are_still_looked_at() -> None:
    features = blobs((30, 30), 16, apart=8)
    fitted = fit(features)
    said = told(features, fitted)
    said[2] = said[2][::-1]

    found = diagnose(features, fitted.head, 1.0, np.arange(60), said, {})

    assert (found.calibration, found.top_losses) == (None, ())
    assert len(found.label_errors) == 1


def test_where_no_training_image_was_judged_the_holdout_is() -> None:
    features = blobs((30, 30), 16, holdout=10)
    fitted = fit(features)
    nothing = np.empty((0, 2), np.float32)

    assert diagnose(features, fitted.head, 1.0, np.empty(0, np.int64), nothing, {}).calibration is not None


def test_the_list_of_label_errors_is_cut_off_and_all_are_counted() -> None:
    features = blobs((300, 300), 8, apart=10)
    fitted = fit(features)
    said = told(features, fitted)
    said[:100] = said[:100, ::-1]

    found = diagnose(features, fitted.head, 1.0, np.arange(600), said, {})

    assert len(found.label_errors) == MAX_LABEL_ERRORS
    assert found.label_errors_found == 100


def judged(name: str) -> Judged:
    return Judged(name, f"{name}.png", "train", "red", "blue", 0.9, 0.1)


def shown(name: str) -> Picture:
    return Picture(name, f"{name}.png", "train", "red")


def test_every_picture_that_the_page_shows_gets_a_thumbnail(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.png" for name in "abcde"}
    for number, path in enumerate(paths.values()):
        path.write_bytes(picture("red", number, side_px=300))
    findings = Findings(
        top_losses=(judged("a"),),
        label_errors=(judged("b"), judged("a")),
        duplicates=(Pair(shown("c"), shown("d"), 0.9),),
    )

    found = thumbnails(findings, paths)

    assert found.keys() == set("abcd")
    assert all(data.startswith(b"\xff\xd8") for data in found.values())


@pytest.mark.parametrize("trouble", ["no picture", "missing", "not known"])
def test_a_picture_that_cannot_be_read_is_passed_over(tmp_path: Path, trouble: str) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(encode_png(np.zeros((4, 4, 3), np.uint8)))
    if trouble == "no picture":
        bad.write_bytes(b"text")
    paths = {"good": good, "bad": bad} if trouble != "not known" else {"good": good}

    assert thumbnails(Findings(top_losses=(judged("good"), judged("bad"))), paths).keys() == {"good"}
