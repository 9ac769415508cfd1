from pathlib import Path

import numpy as np
import pytest

from regraft.errors import ArtifactError
from regraft.model.fitted_pictures import FittedPictures, unseen_arrays
from tests.tiny import tiny_backbone, tiny_features

LABELS = ("red", "green")


def test_of_a_version_from_before_answers_were_kept_the_pictures_are_known_alone(tmp_path: Path) -> None:
    features = tiny_features(tiny_backbone(), LABELS)
    features.save(tmp_path / "features.npz")
    fitted = FittedPictures.read(tmp_path / "features.npz")

    assert [each.decode() for each in fitted.sha256] == list(features.train().sha256)
    assert np.isnan(fitted.label_probability).all()
    assert (fitted.answer_index == -1).all()


def test_what_is_kept_is_of_the_rows_that_were_answered(tmp_path: Path) -> None:
    features = tiny_features(tiny_backbone(), LABELS)
    label_index = features.train().label_index
    rows = np.array([4, 2])
    answers = np.array([[0.9, 0.1], [0.25, 0.75]], np.float32)
    features.save(tmp_path / "features.npz", unseen_arrays(rows, answers, label_index))
    fitted = FittedPictures.read(tmp_path / "features.npz")

    assert fitted.label_probability[rows].tolist() == answers[[0, 1], label_index[rows]].tolist()
    assert fitted.answer_index[rows].tolist() == [0, 1]
    assert (fitted.answer_index >= 0).sum() == 2


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "features.npz").write_bytes(b"damaged")

    with pytest.raises(ArtifactError, match=r"features\.npz: cannot read"):
        FittedPictures.read(tmp_path / "features.npz")


def test_no_pictures_have_no_rows() -> None:
    assert FittedPictures.none().rows(["a" * 64]).tolist() == [-1]
