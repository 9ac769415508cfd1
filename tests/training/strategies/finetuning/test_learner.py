import io
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.networks import WIDTH, random_pictures, tiny_torch_backbone
from training.backbones.build import build_backbone
from training.strategies.finetuning.distributed import Processes
from training.strategies.finetuning.learner import Classifier, Learner, half_precision
from training.strategies.finetuning.recipe import Kind, Recipe, rate_factor, recipe_for

pytestmark = pytest.mark.usefixtures("one_torch_thread")

CLASSES = 3
STEPS = 6
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
ONES = torch.ones(8)
ALONE = Processes(0, 1, torch.device("cpu"))

State = dict[str, torch.Tensor]


@pytest.mark.parametrize(("emulates", "dtype"), [(True, torch.float16), (False, torch.bfloat16)])
def test_a_gpu_that_only_emulates_bfloat16_learns_in_float16(emulates: bool, dtype: torch.dtype) -> None:
    def is_bf16_supported(including_emulation: bool = True) -> bool:
        return including_emulation or not emulates

    assert half_precision(is_bf16_supported) == dtype


def recipe(kind: Kind = "finetune", **changes: Any) -> Recipe:  # noqa: ANN401 - fields of a recipe
    return recipe_for(kind, 50, changes)


def classifier_of(*, norms: bool = True, seed: int = 0) -> Classifier:
    backbone = tiny_torch_backbone(norms=norms, seed=seed)
    return Classifier(backbone, CLASSES)


def learner_of(classifier: Classifier, own_recipe: Recipe) -> Learner:
    return Learner(classifier, own_recipe, STEPS, ALONE)


def steps(learner: Learner, numbers: range, weight: torch.Tensor = ONES) -> list[float]:
    """Learn from a batch for each number, as a run does."""
    losses = []
    for step in numbers:
        learner.start_epoch()
        torch.manual_seed(step)
        losses.append(learner.learn(random_pictures(8, seed=step), LABELS, weight, step, move=True).loss)
    return losses


def copy_of(module: nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same(one: State, other: State) -> None:
    assert one.keys() == other.keys()
    assert not [name for name in one if not torch.equal(one[name], other[name])]


def gradients(classifier: Classifier) -> State:
    return {name: p.grad.clone() for name, p in classifier.named_parameters() if p.grad is not None}


def test_a_classifier_is_the_backbone_with_the_head_that_it_is_given() -> None:
    backbone = tiny_torch_backbone()
    random = np.random.default_rng(0)
    weight, bias = random.normal(size=(CLASSES, WIDTH)).astype(np.float32), np.array([1, 2, 3], np.float32)
    pictures = random_pictures(4)

    logits = Classifier(backbone, CLASSES, (weight, bias)).eval()(pictures)

    scaled = (pictures.permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    expected = backbone.network(scaled) @ torch.from_numpy(weight).T + torch.from_numpy(bias)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_learning_lowers_the_loss() -> None:
    classifier = classifier_of()
    learner = Learner(classifier, recipe("scratch", head_lr=0.02, backbone_lr=0.02, label_smoothing=0.0), 40, ALONE)
    pictures = random_pictures(8)

    learner.start_epoch()
    losses = [learner.learn(pictures, LABELS, ONES, step, move=True).loss for step in range(40)]

    assert losses[-1] < 0.5 * losses[0]


def test_sgd_moves_against_the_gradient_by_the_rate_and_keeps_its_momentum() -> None:
    classifier = classifier_of(norms=False)
    own = recipe(optimizer="sgd", head_lr=0.1, weight_decay=0.0, warmup=0.0, freeze="1")
    learner, pictures = learner_of(classifier, own), random_pictures(8)
    moves, found = [], []
    for step in range(2):
        before = classifier.head.weight.detach().clone()
        learner.learn(pictures, LABELS, ONES, step, move=False)
        found.append(classifier.head.weight.grad.clone() if classifier.head.weight.grad is not None else None)
        learner.learn(pictures, LABELS, torch.zeros(8), step, move=True)  # adds no gradient, and moves
        moves.append(classifier.head.weight.detach() - before)

    first, second = found
    assert first is not None
    assert second is not None
    torch.testing.assert_close(moves[0], -0.1 * first, rtol=1e-4, atol=1e-7)
    rate = 0.1 * rate_factor(1, STEPS, 0.0)
    torch.testing.assert_close(moves[1], -rate * (second + 0.9 * first), rtol=1e-4, atol=1e-7)


def test_the_loss_is_the_mean_cross_entropy_with_smoothed_labels() -> None:
    classifier = classifier_of(norms=False)
    pictures = random_pictures(8)
    expected = nn.functional.cross_entropy(classifier(pictures), LABELS, label_smoothing=0.1)

    loss = learner_of(classifier, recipe(label_smoothing=0.1)).learn(pictures, LABELS, ONES, 0, move=True).loss

    assert loss == pytest.approx(expected.item(), rel=1e-5)


def test_a_picture_of_no_weight_teaches_nothing() -> None:
    pictures, halves = random_pictures(8), torch.tensor([1.0] * 4 + [0.0] * 4)
    other = torch.cat([pictures[:4], random_pictures(4, seed=99)])
    found = []
    for images in (pictures, other):
        classifier = classifier_of(norms=False)
        learner_of(classifier, recipe(freeze="0")).learn(images, LABELS, halves, 0, move=False)
        found.append(gradients(classifier))

    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-6)


def test_frozen_stages_stay_and_the_rest_moves() -> None:
    classifier = classifier_of()
    learner = learner_of(classifier, recipe(freeze="body.first"))
    before = copy_of(classifier)

    steps(learner, range(STEPS))

    after = copy_of(classifier)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert learner.frozen == ("stem", "norm", "body.first")
    assert {name.removeprefix("body.network.").rpartition(".")[0] for name in moved} == {
        "body.second",
        "body.third",
        "last",
        "last_norm",
        "head",
    }
    assert not {name for name in moved if "running" in name}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_changes_nothing(bad: float) -> None:
    classifier = classifier_of()
    learner = learner_of(classifier, recipe())
    steps(learner, range(2))
    before, averaged = copy_of(classifier), learner.averaged()

    (loss,) = steps(learner, range(2, 3), torch.tensor([1.0] * 7 + [bad]))

    assert np.isnan(loss)
    assert_same(copy_of(classifier), before)
    assert_same(learner.averaged(), averaged)
    assert not gradients(classifier)


@pytest.mark.parametrize("kind", ["finetune", "scratch"])
def test_two_halves_add_up_to_the_whole_batch(kind: Kind) -> None:
    pictures = random_pictures(8)
    whole, halved = classifier_of(norms=False), classifier_of(norms=False)

    learner_of(whole, recipe(kind)).learn(pictures, LABELS, ONES, 0, move=False)
    learner = learner_of(halved, recipe(kind, accumulate=2))
    for half in (slice(0, 4), slice(4, 8)):
        learner.learn(pictures[half], LABELS[half], ONES[half], 0, move=False)

    expected, found = gradients(whole), gradients(halved)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_nothing_moves_until_it_is_told_to() -> None:
    classifier = classifier_of()
    learner = learner_of(classifier, recipe(accumulate=2))
    before = copy_of(classifier)

    learner.start_epoch()
    learner.learn(random_pictures(8), LABELS, ONES, 0, move=False)
    waited = copy_of(classifier)
    learner.learn(random_pictures(8), LABELS, ONES, 1, move=True)

    assert_same(waited, before)
    assert not torch.equal(classifier.head.weight, before["head.weight"])
    assert not gradients(classifier)


def test_no_step_is_larger_than_the_schedule_allows() -> None:
    """The first step of AdamW moves every weight by just about its rate."""
    classifier = classifier_of(norms=False)
    learner = Learner(classifier, recipe(head_lr=0.1, weight_decay=0.0, warmup=0.5), 20, ALONE)
    before = classifier.head.weight.detach().clone()

    learner.learn(random_pictures(8), LABELS, ONES, 0, move=True)

    moved = (classifier.head.weight.detach() - before).abs()
    assert float(moved.max()) == pytest.approx(0.1 / 10, rel=0.01)


def test_the_average_follows_the_weights() -> None:
    classifier = classifier_of()
    learner = learner_of(classifier, recipe("scratch", ema_decay=0.75))
    snapshots = []
    for step in range(3):
        steps(learner, range(step, step + 1))
        snapshots.append(copy_of(classifier))

    averaged = learner.averaged()

    for name in ("head.weight", "body.network.stem.weight", "body.network.norm.running_mean"):
        first, second, third = (snapshot[name] for snapshot in snapshots)
        expected = 0.75 * (0.75 * first + 0.25 * second) + 0.25 * third
        torch.testing.assert_close(averaged[name], expected)
        assert not torch.equal(averaged[name], third)


def test_predictions_are_those_of_the_averaged_model() -> None:
    classifier = classifier_of()
    learner = learner_of(classifier, recipe("scratch", ema_decay=0.5))
    steps(learner, range(3))
    pictures = random_pictures(5, seed=50)

    logits = learner.predict(pictures)

    same = classifier_of(seed=9)
    same.load_state_dict(learner.averaged())
    with torch.inference_mode():
        torch.testing.assert_close(logits, same.eval()(pictures), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(logits, classifier.eval()(pictures), rtol=1e-4, atol=1e-5)
    assert logits.dtype == torch.float32


def test_before_the_first_step_the_average_is_the_start() -> None:
    classifier = classifier_of()
    learner = learner_of(classifier, recipe())

    assert_same(learner.averaged(), copy_of(classifier))


def test_predicting_changes_nothing() -> None:
    classifier = classifier_of()
    learner = learner_of(classifier, recipe("scratch"))
    steps(learner, range(2))
    before, averaged = copy_of(classifier), learner.averaged()

    learner.predict(random_pictures(5))

    assert_same(copy_of(classifier), before)
    assert_same(learner.averaged(), averaged)


def test_a_copy_of_the_average_is_nobody_elses() -> None:
    learner = learner_of(classifier_of(), recipe("scratch"))
    kept = learner.averaged()
    before = {name: tensor.clone() for name, tensor in kept.items()}

    steps(learner, range(2))

    assert_same(kept, before)


RECIPES: dict[str, Recipe] = {
    "fine-tuning": recipe(),
    "scratch": recipe("scratch"),
    "SGD": recipe(optimizer="sgd"),
    "mixup": recipe(mixup=0.5),
    "both mixes": recipe("scratch", mixup=0.5, cutmix=1.0),
}


@pytest.mark.parametrize("which", RECIPES)
def test_a_run_that_was_restored_goes_on_to_the_last_bit(which: str) -> None:
    straight, interrupted = classifier_of(), classifier_of()
    uninterrupted = learner_of(straight, RECIPES[which])
    expected = steps(uninterrupted, range(STEPS))
    learner = learner_of(interrupted, RECIPES[which])
    losses = steps(learner, range(3))
    file = io.BytesIO()
    torch.save(learner.state(), file)

    resumed = classifier_of(seed=1)
    again = learner_of(resumed, RECIPES[which])
    again.restore(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    losses += steps(again, range(3, STEPS))

    assert losses == expected
    assert_same(copy_of(resumed), copy_of(straight))
    assert_same(again.averaged(), uninterrupted.averaged())


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.5, 0.0), (0.0, 1.0), (0.5, 1.0)])
def test_mixed_pictures_teach_something_else(mixup: float, cutmix: float) -> None:
    plain, mixed = (
        steps(learner_of(classifier_of(), r), range(2)) for r in (recipe(), recipe(mixup=mixup, cutmix=cutmix))
    )

    assert np.isfinite(mixed).all()
    assert mixed[0] != plain[0]


def test_a_picture_alone_is_mixed_with_nothing() -> None:
    learner = learner_of(classifier_of(norms=False), recipe(mixup=0.5, cutmix=1.0))

    loss = learner.learn(random_pictures(1), LABELS[:1], ONES[:1], 0, move=True).loss

    assert np.isfinite(loss)


@pytest.mark.parametrize("name", ["timm/test_vit", "timm/test_resnet", "timm/levit_128s", "squeezenet1_1"])
def test_the_average_of_real_networks_answers_anew_after_every_step(name: str) -> None:
    """Some networks remember in eval mode what they computed from their weights."""
    classifier = Classifier(build_backbone(name, "none", 0), CLASSES)
    own_recipe = recipe("scratch", ema_decay=0.5, head_lr=0.05, backbone_lr=0.05)
    learner = learner_of(classifier, own_recipe)
    side_px = 224 if name in {"timm/levit_128s", "squeezenet1_1"} else 160
    pictures = random_pictures(4, side_px=side_px)
    for step in range(3):
        learner.start_epoch()
        learner.learn(pictures, LABELS[:4], ONES[:4], step, move=True)
        logits = learner.predict(pictures)

    same = Classifier(build_backbone(name, "none", 1), CLASSES)
    same.load_state_dict(learner.averaged())
    with torch.inference_mode():
        torch.testing.assert_close(logits, same.eval()(pictures), rtol=1e-3, atol=1e-3)
