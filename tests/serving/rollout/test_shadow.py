from collections import Counter
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from regraft.errors import ArtifactError, NotFoundError, PreconditionError
from regraft.model import artifact
from regraft.stores.models import MODEL_FILE, ModelStore
from serving.inference.backbone import Backbone
from serving.inference.models_in_memory import ServedModel
from serving.rollout.shadow import Shadow, ShadowComparison, compare_heads, load_shadow
from tests.serving.broken_versions import SPOIL
from tests.tiny import publish_tiny, tiny_backbone, tiny_features, tiny_head

LABELS = ("red", "green", "blue")


def champion_of(store: ModelStore) -> ServedModel:
    read = artifact.read(store.folder("colours", 1) / MODEL_FILE)
    return ServedModel("colours", 1, read.card, read.head, cast("Backbone", None))


def judged(count: int, labels: tuple[str, ...], sharpness: float = 20.0) -> ShadowComparison:
    """Let another head judge pictures of four colours beside one that knows three."""
    features = tiny_features(tiny_backbone(), (*LABELS, "grey"), count)
    champion = tiny_head(LABELS).probabilities(features.embedding)
    return compare_heads(LABELS, champion, Shadow(2, labels, tiny_head(labels, sharpness)), features.embedding)


def test_the_same_head_agrees_on_everything_whatever_the_order_of_its_labels() -> None:
    found = judged(40, ("blue", "green", "red"))

    assert (found.images, found.agreed, found.flips) == (160, 160, Counter())
    assert found.confidence_shift == pytest.approx(0, abs=1e-3)


def test_a_head_that_knows_another_class_flips_the_pictures_of_it() -> None:
    found = judged(30, (*LABELS, "grey"))

    assert found.images - found.agreed == found.flips.total() == 30
    assert {shadow for _, shadow in found.flips} == {"grey"}


def test_a_head_that_is_less_sure_shifts_confidence_down() -> None:
    found = judged(20, LABELS, sharpness=2.0)

    assert found.confidence_shift / found.images < -0.05


def test_answers_that_are_no_numbers_are_left_out() -> None:
    embedding = np.full((3, 12), 0.5, np.float32)
    answers = np.array([[0.9, 0.1, 0.0], [np.nan] * 3, [0.8, 0.1, 0.1]], np.float32)
    shadow = Shadow(2, LABELS, tiny_head(LABELS))

    assert compare_heads(LABELS, answers, shadow, embedding).images == 2
    assert compare_heads(LABELS, answers[1:2], shadow, embedding[1:2]) == ShadowComparison()


def test_comparisons_add_up() -> None:
    one, other = judged(10, (*LABELS, "grey")), judged(30, (*LABELS, "grey"))

    both = one.plus(other)

    assert (both.images, both.agreed) == (160, 120)
    assert both.flips == one.flips + other.flips
    assert both.confidence_shift == pytest.approx(one.confidence_shift + other.confidence_shift)


def test_of_very_many_different_flips_the_commonest_are_kept() -> None:
    seen = ShadowComparison(flips=Counter({("a", str(number)): 2 for number in range(900)}))

    both = seen.plus(ShadowComparison(flips=Counter({("b", str(number)): 1 for number in range(900)})))

    assert len(both.flips) == 1000
    assert sum(count == 2 for count in both.flips.values()) == 900


def test_a_shadow_on_the_champions_backbone_is_loaded_with_its_own_labels(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    publish_tiny(store)
    publish_tiny(store, ("blue", "grey", "red"), promote=False)

    shadow = load_shadow(store, 2, champion_of(store))

    assert (shadow.version, shadow.labels) == (2, ("blue", "grey", "red"))
    assert np.array_equal(shadow.head.weight, tiny_head(("blue", "grey", "red")).weight)


def test_a_version_on_another_backbone_cannot_shadow(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    publish_tiny(store)
    publish_tiny(store, scale=2.0, promote=False)

    with pytest.raises(PreconditionError, match=r"version 2 has another backbone .* than the champion, version 1"):
        load_shadow(store, 2, champion_of(store))


def test_a_version_that_is_missing_or_broken_cannot_shadow(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    publish_tiny(store)
    publish_tiny(store, promote=False)
    SPOIL["rubbish"][0](store.folder("colours", 2))

    with pytest.raises(ArtifactError):
        load_shadow(store, 2, champion_of(store))
    with pytest.raises(NotFoundError):
        load_shadow(store, 3, champion_of(store))
