"""Axes of the map, which stay."""

from pathlib import Path

import numpy as np
import pytest

from regraft.errors import ArtifactError
from regraft.model.card import EmbeddingKey
from serving.insight.picture_map import kept_axes, principal_axes
from tests.training.conftest import COLOUR_KEY, blobs


def features(folder: Path, seed: int = 0) -> Path:
    file = folder / f"{seed}.npz"
    blobs([40, 40, 40], 6, seed=seed, centres_seed=seed).save(file)
    return file


def test_the_axes_are_the_two_principal_ones_in_units_of_the_first() -> None:
    random = np.random.default_rng(0)
    x = np.asarray(random.normal(size=(500, 3)) * (1, 5, 2) + 7, np.float32)

    axes = principal_axes(1, [x[:300], x[300:]])
    places = axes.place(x)

    assert np.abs(axes.directions).argmax(axis=1).tolist() == [1, 2]
    np.testing.assert_allclose(places.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(places.std(axis=0), (1, 0.4), atol=0.03)


def test_axes_are_kept_whatever_becomes_of_the_version_that_they_are_of(tmp_path: Path) -> None:
    first, other = features(tmp_path), features(tmp_path, 1)

    made = kept_axes(tmp_path, COLOUR_KEY, lambda: (1, first))
    kept = kept_axes(tmp_path, COLOUR_KEY, lambda: (2, other))

    assert kept.version == made.version == 1
    np.testing.assert_array_equal(kept.directions, made.directions)
    np.testing.assert_array_equal(kept.origin, made.origin)


def test_another_backbone_has_axes_of_its_own(tmp_path: Path) -> None:
    first, other = features(tmp_path), features(tmp_path, 1)
    kept_axes(tmp_path, COLOUR_KEY, lambda: (1, first))

    axes = kept_axes(tmp_path, EmbeddingKey("f" * 64, COLOUR_KEY.image_spec), lambda: (2, other))

    assert axes.version == 2


def test_damaged_axes_are_named_with_what_to_do(tmp_path: Path) -> None:
    first = features(tmp_path)
    kept_axes(tmp_path, COLOUR_KEY, lambda: (1, first))
    (file,) = tmp_path.glob("map-*.npz")
    file.write_bytes(b"half a file")

    with pytest.raises(ArtifactError, match=r"map-.*remove it"):
        kept_axes(tmp_path, COLOUR_KEY, lambda: (1, first))
