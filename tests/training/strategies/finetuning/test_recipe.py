import math
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.strategies.finetuning.recipe import Kind, rate_factor, recipe_for

KINDS: st.SearchStrategy[Kind] = st.sampled_from(["finetune", "scratch"])
IMAGES = st.integers(2, 10**6)
CHANGES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "epochs": st.integers(1, 500),
        "batch": st.integers(1, 1024),
        "accumulate": st.integers(1, 16),
        "optimizer": st.sampled_from(["adamw", "sgd"]),
        "head_lr": st.floats(0, 1),
        "backbone_lr": st.floats(0, 1),
        "layer_decay": st.floats(0, 1),
        "weight_decay": st.floats(0, 1),
        "label_smoothing": st.floats(0, 1),
        "mixup": st.floats(0, 2),
        "cutmix": st.floats(0, 2),
        "augment": st.sampled_from(["none", "light", "full"]),
        "mirror": st.booleans(),
        "patience": st.integers(1, 100),
        "freeze": st.sampled_from(["0", "0.5", "1", "layer2"]),
    },
)


@given(KINDS, IMAGES)
def test_every_number_of_a_recipe_is_sane_for_sets_of_any_size(kind: Kind, images: int) -> None:
    recipe = recipe_for(kind, images)

    assert 5 <= recipe.epochs <= 90
    assert 8 <= recipe.batch <= 64
    assert recipe.accumulate == 1
    assert 0 < recipe.backbone_lr <= recipe.head_lr <= 0.01
    assert 0.5 <= recipe.layer_decay <= 1
    assert 0 < recipe.weight_decay <= 0.1
    assert 0 < recipe.warmup <= 0.2
    assert 0 <= recipe.label_smoothing <= 0.2
    assert 0 <= recipe.mixup <= 1
    assert 0 <= recipe.cutmix <= 1
    assert 0 < recipe.min_scale < 1
    assert 0 <= recipe.small_epochs < recipe.epochs
    assert recipe.ema_decay == 0 if kind == "scratch" else 0.9 <= recipe.ema_decay <= 0.9998
    assert 5 <= recipe.patience <= recipe.epochs
    assert 0 <= float(recipe.freeze) < 1
    assert 0 < recipe.tune_share <= 0.2


@given(KINDS, IMAGES)
def test_the_average_of_the_weights_forgets_within_the_run(kind: Kind, images: int) -> None:
    recipe = recipe_for(kind, images)

    steps = recipe.epochs * math.ceil(images / recipe.batch)
    assert recipe.ema_decay**steps < 0.05


@given(KINDS, IMAGES, CHANGES)
def test_what_a_person_asked_for_wins_and_all_the_rest_stays(kind: Kind, images: int, changes: dict[str, Any]) -> None:
    # The average and the patience follow the epochs, the rates the optimizer, the head's that of the backbone.
    led: dict[str, Any] = {name: changes[name] for name in ("epochs", "optimizer", "backbone_lr") if name in changes}

    assert asdict(recipe_for(kind, images, changes)) == {**asdict(recipe_for(kind, images, led)), **changes}


@given(KINDS, IMAGES)
def test_a_shorter_run_averages_fewer_steps_and_waits_no_longer(kind: Kind, images: int) -> None:
    one, rule = recipe_for(kind, images, {"epochs": 1}), recipe_for(kind, images)

    assert one.ema_decay <= rule.ema_decay
    assert one.patience <= rule.patience


@given(IMAGES)
def test_a_network_from_scratch_learns_everywhere_at_the_same_rate_and_for_longer(images: int) -> None:
    scratch, finetune = recipe_for("scratch", images), recipe_for("finetune", images)

    assert scratch.freeze == "0"
    assert scratch.layer_decay == 1
    assert scratch.backbone_lr == scratch.head_lr
    assert scratch.train_norms
    assert scratch.epochs > finetune.epochs
    assert scratch.small_epochs > 0


@given(IMAGES)
def test_fine_tuning_spares_what_the_backbone_knows(images: int) -> None:
    recipe = recipe_for("finetune", images)

    assert recipe.backbone_lr == pytest.approx(recipe.head_lr / 10)
    assert not recipe.train_norms
    assert recipe.small_epochs == 0
    assert float(recipe.freeze) > 0


@given(KINDS, st.tuples(IMAGES, IMAGES).map(sorted))
def test_a_larger_set_never_gets_more_epochs_nor_larger_shares_to_tune_by(kind: Kind, sizes: list[int]) -> None:
    small, large = (recipe_for(kind, images) for images in sizes)

    assert large.epochs <= small.epochs
    assert large.tune_share <= small.tune_share
    assert large.batch >= small.batch


@pytest.mark.parametrize(("images", "all_of_them"), [(2, True), (300, True), (19_999, True), (20_000, False)])
def test_small_sets_are_learned_from_as_a_whole_in_the_end(images: int, all_of_them: bool) -> None:
    recipe = recipe_for("finetune", images)

    assert recipe.learn_all == all_of_them
    assert recipe.learn_all or recipe.tune_share <= 0.05


@pytest.mark.parametrize(("images", "mixes"), [(2, False), (19_999, False), (20_000, True), (10**6, True)])
def test_only_large_sets_are_mixed(images: int, mixes: bool) -> None:
    recipe = recipe_for("finetune", images)

    assert (recipe.mixup > 0) == (recipe.cutmix > 0) == mixes


@given(st.integers(1, 5000), st.floats(0, 1))
def test_the_rate_rises_to_its_peak_and_then_only_falls(steps: int, warmup: float) -> None:
    factors = [rate_factor(step, steps, warmup) for step in range(steps)]

    peak = factors.index(max(factors))
    assert max(factors) == 1
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[0] > 0
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert peak + 1 == max(1, round(warmup * steps))


@given(st.integers(100, 100_000), st.floats(0, 0.5))
def test_the_rate_ends_near_nothing(steps: int, warmup: float) -> None:
    assert rate_factor(steps - 1, steps, warmup) < 0.002


@given(st.integers(100, 100_000), st.floats(0, 0.5))
def test_the_rate_never_jumps_after_the_warmup(steps: int, warmup: float) -> None:
    rising = max(1, round(warmup * steps))

    assert rate_factor(rising - 1, steps, warmup) == rate_factor(rising, steps, warmup) == 1


@given(IMAGES, st.floats(1e-6, 1))
def test_a_rate_that_was_asked_for_is_that_of_all_layers_from_scratch_and_a_tenth_of_the_heads_after_a_probe(
    images: int, rate: float
) -> None:
    scratch, tuned = (recipe_for(kind, images, {"backbone_lr": rate}) for kind in ("scratch", "finetune"))

    assert (scratch.backbone_lr, scratch.head_lr, scratch.layer_decay) == (rate, rate, 1)
    assert (tuned.backbone_lr, tuned.head_lr) == (rate, 10 * rate)


@given(KINDS, IMAGES, st.floats(0, 1))
def test_the_head_has_a_rate_of_its_own_where_one_was_asked_for(kind: Kind, images: int, rate: float) -> None:
    rule, asked = recipe_for(kind, images), recipe_for(kind, images, {"head_lr": rate})

    assert (asked.head_lr, asked.backbone_lr) == (rate, rule.backbone_lr)


@given(KINDS, IMAGES)
def test_sgd_has_larger_rates_and_a_weight_decay_of_its_kind(kind: Kind, images: int) -> None:
    adamw, sgd = recipe_for(kind, images), recipe_for(kind, images, {"optimizer": "sgd"})

    assert adamw.optimizer == "adamw"
    assert sgd.backbone_lr > adamw.backbone_lr
    assert sgd.weight_decay < adamw.weight_decay  # it is coupled to the gradient there
