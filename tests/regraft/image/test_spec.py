import math
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

from regraft.errors import ArtifactError
from regraft.image.spec import RULE_VERSION, ImageSpec, ResizeRule, Window


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (None, ImageSpec("crop", 256, 224)),
        ("crop", ImageSpec("crop", 256, 224)),
        ("squash", ImageSpec("squash", 224, 224)),
        ("pad", ImageSpec("pad", 224, 224)),
    ],
)
def test_another_rule_shows_all_of_the_picture_and_a_networks_own_stays_as_it_is(
    rule: ResizeRule | None, expected: ImageSpec
) -> None:
    assert ImageSpec("crop", 256, 224).resized_by(rule) == expected
    assert expected.resized_by(rule) == expected  # so that a refresh keeps it
    assert ImageSpec("squash", 256, 224).resized_by("squash") == ImageSpec("squash", 256, 224)


@pytest.mark.parametrize(
    "sides",
    [(-0.1, 0, 0.5, 0.5), (0, 0, 0, 1), (0, 0, 1, -0.5), (0.5, 0, 0.6, 1), (0, 0.5, 1, 0.6), (math.nan, 0, 1, 1)],
)
def test_a_window_that_is_no_part_of_a_picture_is_refused(sides: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="no part of a picture"):
        Window(*sides)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"resize": "stretch"}, "resize is 'stretch'"),
        ({"resize": ""}, "resize is ''"),
        ({"interpolation": "nearest"}, "interpolation is 'nearest'"),
        ({"crop_px": 0}, "crop_px <= resize_px"),
        ({"crop_px": -1}, "crop_px <= resize_px"),
        ({"crop_px": 257}, "not 257 and 256"),
        ({"resize_px": 4097}, "<= 4096"),
        ({"rule_version": RULE_VERSION + 1}, f"image rule {RULE_VERSION + 1}, this Regraft has rule {RULE_VERSION}"),
        ({"rule_version": 0}, "image rule 0"),
    ],
)
def test_a_spec_that_no_picture_could_satisfy_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ArtifactError, match=complaint):
        ImageSpec(**changes)


def test_the_digest_of_a_spec_tells_every_field_apart() -> None:
    spec = ImageSpec("crop", 256, 224, "bicubic")
    others = [
        replace(spec, resize="pad"),
        replace(spec, resize_px=255),
        replace(spec, crop_px=223),
        replace(spec, interpolation="bilinear"),
        replace(spec, resize_px=224),
    ]

    assert ImageSpec("crop", 256, 224, "bicubic").digest() == spec.digest()
    for one, other in combinations([spec, *others], 2):
        assert one.digest() != other.digest()


def test_the_digest_of_a_spec_is_the_same_in_every_process_and_release() -> None:
    # The key of every cached embedding: written down, so that nobody changes it unknowingly.
    assert ImageSpec().digest() == "798bddb1077347f0f4dc546ea11a19d35da7110de457994f3bfa8f42b3bbde21"
