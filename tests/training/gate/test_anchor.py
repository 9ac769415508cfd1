from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.errors import ArtifactError
from regraft.gate_limits import GateLimits
from tests.training.conftest import blobs
from training.gate.anchor import Anchor, load_anchor
from training.gate.checks import LEVEL
from training.gate.judge import Answers, judge

COUNTS = (100, 100)


def anchor(right: npt.NDArray[np.bool_] | None = None) -> Anchor:
    """Return an anchor of two classes of a hundred pictures, all answered rightly."""
    rights = np.ones(sum(COUNTS), np.bool_) if right is None else right
    names = tuple(f"{row:03}" for row in range(sum(COUNTS)))
    return Anchor(names, ("ant",) * COUNTS[0] + ("bee",) * COUNTS[1], rights, rights)


def rights(ants_lost: int, bees_lost: int = 0) -> npt.NDArray[np.bool_]:
    right = np.ones(sum(COUNTS), np.bool_)
    right[:ants_lost] = False
    right[COUNTS[0] : COUNTS[0] + bees_lost] = False
    return right


def reasons(held: Anchor, right: npt.NDArray[np.bool_]) -> tuple[str, ...]:
    """Judge a challenger as good as its champion, and so far off the anchor."""
    same = np.asarray(np.eye(2, dtype=np.float32)[np.zeros(9, np.int64)])
    answers = Answers(same, same, np.zeros(9, np.int64), ("ant", "bee"))
    return judge(answers, GateLimits(), anchor=held.compare(right)).reasons


def test_small_losses_step_by_step_are_refused_when_together_they_are_shown_to_be_too_many() -> None:
    held, refused = anchor(), []
    for step in range(1, 16):
        right = rights(2 * step)
        refused.append(bool(reasons(held, right)))
        held = held.updated(right)

    assert not any(refused[:3])
    assert all(refused[9:])
    assert refused == sorted(refused)


def test_the_reason_names_the_class_and_both_figures() -> None:
    (of_all, of_class) = reasons(anchor(), rights(30))

    assert "step by step accuracy fell by 15.0 points, from 1.000 of the best version so far to 0.850, on 200" in of_all
    assert "step by step recall of class 'ant' fell by 30.0 points, from 1.000 of the best version so far" in of_class


def test_a_class_that_falls_while_another_rises_is_seen() -> None:
    before = rights(0, bees_lost=40)
    after = rights(30, bees_lost=5)
    held = anchor(before).updated(after)

    (reason,) = reasons(anchor(before), after)

    assert "recall of class 'ant' fell by 30.0 points" in reason
    assert held.right.sum() == after.sum(), "of all, the later version is the better one"
    assert held.right_of_class[: COUNTS[0]].all(), "of ants, the earlier one stays the best"
    assert held.right_of_class[COUNTS[0] :].sum() == 95


def test_a_better_version_raises_the_anchor_and_a_worse_one_does_not_lower_it() -> None:
    held = anchor(rights(50))

    assert held.updated(rights(20)).right.sum() == 180
    assert held.updated(rights(60)).right.sum() == 150


@given(st.integers(0, 100), st.integers(0, 100))
def test_what_is_as_good_as_the_best_is_never_refused(ants: int, bees: int) -> None:
    held = anchor(rights(ants, bees))

    assert held.compare(rights(ants, bees)).loss_p_value >= LEVEL
    assert reasons(held, rights(ants, bees)) == ()


def test_it_begins_with_the_holdout_of_the_first_training_alone() -> None:
    features = blobs((4, 4), 3, holdout=5)
    first = np.arange(len(features.sha256)) % 2 == 0

    held = Anchor.begin(features, np.ones(len(first), np.bool_), first)

    expected = [name for row, name in enumerate(features.sha256) if features.is_holdout[row] and first[row]]
    assert list(held.sha256) == expected


def test_pictures_that_were_removed_or_relabelled_are_nobodys_evidence() -> None:
    features = blobs((4, 4), 3, holdout=5)
    held = Anchor.begin(features, np.ones(18, np.bool_), np.ones(18, np.bool_))
    changed = features.label_index.copy()
    relabelled = features.sha256.index(held.sha256[0])
    changed[relabelled] = 1 - changed[relabelled]
    now = features.select(np.array([name != held.sha256[1] for name in features.sha256]))

    assert held.restricted_to(now).sha256 == (held.sha256[0], *held.sha256[2:])
    relabelled_features = type(features)(
        features.labels,
        features.embedding,
        changed,
        features.is_holdout,
        features.sha256,
        features.group,
        features.weight,
    )
    assert held.restricted_to(relabelled_features).sha256 == held.sha256[1:]


def test_it_is_kept_beside_the_features_and_read_again(tmp_path: Path) -> None:
    features, held = blobs((4, 4), 3), anchor(rights(3))
    features.save(tmp_path / "features.npz", held.arrays())

    read = load_anchor(tmp_path / "features.npz")

    assert read is not None
    assert (read.sha256, read.label) == (held.sha256, held.label)
    assert (read.right == held.right).all()


def test_versions_of_earlier_states_have_none_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    blobs((4, 4), 3).save(tmp_path / "features.npz")
    (tmp_path / "broken.npz").write_bytes(b"no archive")

    assert load_anchor(tmp_path / "features.npz") is None
    with pytest.raises(ArtifactError, match=r"broken\.npz"):
        load_anchor(tmp_path / "broken.npz")


def test_a_wider_limit_that_a_person_typed_holds_for_all_steps_too() -> None:
    same = np.asarray(np.eye(2, dtype=np.float32)[np.zeros(9, np.int64)])
    answers = Answers(same, same, np.zeros(9, np.int64), ("ant", "bee"))
    drift = anchor().compare(rights(30))

    assert not judge(answers, GateLimits(max_drop=1, max_class_drop=1), anchor=drift).blessed
    assert judge(answers, GateLimits(max_drop=20, max_class_drop=40), anchor=drift).blessed
