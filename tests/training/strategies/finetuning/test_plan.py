"""What a fine-tuning learns from, and what it is compared with."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from regraft.label_rules import image_hash
from tests.tiny import picture, tiny_backbone
from tests.training.conftest import as_exported, colour_rows, features_of
from training.data.dataset import Dataset, LabelledImage
from training.evaluation.findings import Findings
from training.head.additional import Additional
from training.head.balance import class_weights
from training.head.fit import fit
from training.settings import TrainSettings
from training.strategies.auto import auto
from training.strategies.context import CHECKPOINT_FILE, WHOLE_CHECKPOINT_FILE, Candidate, Context, SilentListener
from training.strategies.finetuning.coordinator import Coordinator, Origin
from training.strategies.finetuning.loop import Job, TrainedClassifier
from training.strategies.finetuning.plan import Plan, plan_finetune, plan_scratch

LABELS = ("blue", "green", "red")
COUNTS = {"blue": 30, "green": 12, "red": 8}
ROWS = [row for label in LABELS for row in colour_rows(label, range(COUNTS[label]), held=False)]
FEATURES = features_of(LABELS, ROWS)
IMAGES = tuple(LabelledImage(Path(f"{label}.png"), label, False, sha256=image_hash(data)) for data, label, _ in ROWS)
DATASET = Dataset(LABELS, IMAGES, (), "a test")
BACKBONE = as_exported(tiny_backbone())
PROBED = Candidate("probe", DATASET, BACKBONE, FEATURES, fit(FEATURES), Findings())


def context(folder: Path, **settings: Any) -> Context:  # noqa: ANN401 - fields of the settings
    given = TrainSettings(folder, strategy="finetune", weights="none", **settings)
    return Context(given, folder, folder, SilentListener())


def shas(job: Job | None) -> set[str]:
    assert job is not None
    return {sample.sha256 for sample in job.learn}


def test_a_small_set_is_learned_from_as_a_whole_in_the_end(tmp_path: Path) -> None:
    plan = plan_finetune(PROBED, context(tmp_path))

    assert shas(plan.job) | {sample.sha256 for sample in plan.job.tune} == set(FEATURES.sha256)
    assert shas(plan.whole) == set(FEATURES.sha256)
    assert plan.whole is not None
    assert plan.whole.tune == ()
    assert plan.job.is_followed
    assert not plan.whole.is_followed
    assert (plan.whole.recipe, plan.whole.seed) == (plan.job.recipe, plan.job.seed)


def test_the_second_run_starts_from_the_probe_of_all_pictures(tmp_path: Path) -> None:
    plan = plan_finetune(PROBED, context(tmp_path))

    assert plan.whole is not None
    assert plan.whole.head is not None
    assert plan.job.head is not None
    np.testing.assert_array_equal(plan.whole.head[0], PROBED.fitted.head.weight)
    assert not np.array_equal(plan.job.head[0], plan.whole.head[0])


def test_rows_of_the_source_are_held_against_the_head_that_they_replace_on_the_pictures_set_aside(
    tmp_path: Path,
) -> None:
    network = timm.create_model("test_resnet")
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    wide = np.pad(FEATURES.embedding, ((0, 0), (0, network.num_features - FEATURES.embedding.shape[1])))
    features = replace(FEATURES, embedding=wide)
    run = context(tmp_path, init="source", backbone="timm/test_resnet")
    run = replace(run, settings=replace(run.settings, weights=str(tmp_path / "weights.pth")))

    plan = plan_finetune(replace(PROBED, features=features, fitted=fit(features)), run)

    assert plan.start is not None
    assert plan.probe is not None
    labels = features.label_index[plan.tune]
    assert plan.start.replaced_accuracy == (plan.probe.argmax(axis=1) == labels).mean()
    assert plan.job.head is not None
    weight, bias = plan.job.head
    assert plan.start.accuracy == ((wide[plan.tune] @ weight.T + bias).argmax(axis=1) == labels).mean()


def test_of_a_fold_only_the_other_folds_are_learned_from(tmp_path: Path) -> None:
    others = np.arange(len(FEATURES.sha256)) % 3 != 0
    wanted = {name for name, taken in zip(FEATURES.sha256, others, strict=True) if taken}

    plan = plan_finetune(PROBED, context(tmp_path), others)

    assert shas(plan.whole) == wanted
    assert plan.whole is not None
    assert plan.whole.head is not None
    np.testing.assert_array_equal(plan.whole.head[0], fit(FEATURES.select(others)).head.weight)
    assert plan.whole.checkpoint is None


def test_a_large_set_keeps_the_few_that_it_is_stopped_by(tmp_path: Path) -> None:
    plan = plan_finetune(PROBED, context(tmp_path, changes={"learn_all": False}))

    assert plan.whole is None
    assert not plan.job.is_followed


def test_pictures_that_int8_is_judged_by_are_not_learned_from(tmp_path: Path) -> None:
    assert plan_finetune(PROBED, context(tmp_path, precision="auto")).whole is None


@pytest.mark.parametrize("balance", ["on", "off", "auto"])
def test_classes_weigh_what_balance_says_in_every_part(tmp_path: Path, balance: str) -> None:
    shares, _ = class_weights(FEATURES.label_index, balance)  # type: ignore[arg-type]  # one of its choices

    plan = plan_scratch(DATASET, context(tmp_path, balance=balance), mirror=True)

    assert plan.whole is not None
    assert (plan.tune_weight == 1).all()  # probabilities are for pictures as they come
    for samples in (plan.job.learn, plan.job.tune, plan.whole.learn):
        assert {(sample.label_index, sample.weight) for sample in samples} == set(enumerate(shares.tolist()))


def test_extra_pictures_weigh_as_their_class_does_and_as_far_as_they_are_like_the_first(tmp_path: Path) -> None:
    shares, _ = class_weights(FEATURES.label_index, "on")
    extra = replace(plan_scratch(DATASET, context(tmp_path, balance="off"), mirror=True).job.learn[0], weight=0.5)
    extra = replace(extra, sha256="e" * 64, label_index=2)

    plan = plan_finetune(replace(PROBED, extra=(extra,)), context(tmp_path, balance="on"))

    for job in (plan.job, plan.whole):
        assert job is not None
        assert [sample.weight for sample in job.learn if sample.sha256 == "e" * 64] == [0.5 * shares[2]]


def test_the_probe_to_compare_with_learned_from_the_same_pictures_and_their_views(tmp_path: Path) -> None:
    parents = np.arange(len(FEATURES.sha256))
    views = Additional(FEATURES.embedding + 0.01, FEATURES.label_index, np.ones(len(parents)), parents)
    probed = replace(PROBED, additional=views)

    plan = plan_finetune(probed, context(tmp_path))

    learn = plan.learn
    own = Additional(views.embedding[learn], views.label_index[learn], np.ones(learn.sum()), np.arange(learn.sum()))
    alone = fit(FEATURES.select(learn), additional=own).head
    assert plan.probe is not None
    np.testing.assert_array_equal(plan.probe, alone.probabilities(FEATURES.embedding[plan.tune]))


def test_the_second_run_goes_on_from_its_own_checkpoint_if_it_has_one(tmp_path: Path) -> None:
    def resumed() -> list[bool]:
        plan = plan_finetune(PROBED, context(tmp_path, resume=True))
        assert plan.whole is not None
        return [plan.job.resume, plan.whole.resume]

    (tmp_path / CHECKPOINT_FILE).touch()
    assert resumed() == [True, False]
    (tmp_path / WHOLE_CHECKPOINT_FILE).touch()
    assert resumed() == [True, True]


class SecondRunError(Exception):
    """Ends a test where the second run would begin."""


class Rehearsed(Coordinator):
    """Coordinator whose first run ends with these logits on the pictures set aside; its second one never begins."""

    def __init__(self, logits: Any) -> None:  # noqa: ANN401 - made from a plan
        self._logits = logits
        self.jobs: list[Job] = []

    def estimate_s(self, _origin: Origin, _job: Job, _images: int) -> float:
        return 1.0

    def run_job(self, _origin: Origin, job: Job, *_others: object) -> TrainedClassifier:
        self.jobs.append(job)
        if not job.tune:
            raise SecondRunError
        logits = self._logits(np.array([sample.label_index for sample in job.tune]))
        nothing: Any = None
        return TrainedClassifier(
            nothing, *(np.zeros(1, np.float32),) * 2, (), None, None, 2, (), job.recipe, logits, None, "here"
        )


def doubtful(folder: Path, coordinator: Coordinator) -> Candidate:
    """Run ``auto`` on a probe that is right in half of all cases; the labels of many pictures are drawn by lot."""
    random = np.random.default_rng(0)
    rows = [(picture("grey", number), LABELS[number % 3], False) for number in range(120)]
    features = features_of(LABELS, rows)
    embedding = features.embedding + random.normal(scale=0.02, size=features.embedding.shape).astype(np.float32)
    features = replace(features, embedding=embedding)
    images = tuple(LabelledImage(Path("p.png"), label, False, sha256=image_hash(data)) for data, label, _ in rows)
    dataset = Dataset(LABELS, images, (), "a test")
    settings = TrainSettings(folder, strategy="auto", weights="none")
    probed = Candidate("probe", dataset, BACKBONE, features, fit(features), Findings())
    return auto(probed, Context(settings, folder, folder, SilentListener()), coordinator)


def test_auto_is_not_taken_in_by_the_luckiest_of_many_epochs(tmp_path: Path) -> None:
    coordinator = Rehearsed(
        lambda labels: np.random.default_rng(1).normal(size=(40, len(labels), 3)).astype(np.float32)
    )

    made = doubtful(tmp_path, coordinator)

    assert made.strategy == "probe"
    assert made.choice is not None
    assert made.choice.published == "probe"
    assert "not surely better, so the probe is kept" in made.choice.reason
    assert len(coordinator.jobs) == 1  # the second run is for what is kept


def test_what_auto_keeps_is_learned_from_all_pictures_for_the_best_number_of_epochs(tmp_path: Path) -> None:
    coordinator = Rehearsed(
        lambda labels: np.stack([np.zeros((len(labels), 3)), 5 * np.eye(3)[labels]]).astype(np.float32)
    )

    with pytest.raises(SecondRunError):
        doubtful(tmp_path, coordinator)

    first, second = coordinator.jobs
    assert (len(first.learn) + len(first.tune), len(second.learn)) == (120, 120)
    assert second.stop_after == 2


def test_a_training_from_scratch_has_no_probe_to_compare_with(tmp_path: Path) -> None:
    plan: Plan = plan_scratch(DATASET, context(tmp_path), mirror=False)

    assert plan.probe is None
    assert not plan.job.recipe.mirror


def test_pictures_of_a_val_beside_a_test_stop_and_tune_and_are_never_learned_from(tmp_path: Path) -> None:
    val = {image.sha256 for image in IMAGES[::5]}
    images = tuple(replace(image, is_tuning=image.sha256 in val) for image in IMAGES)
    made = replace(PROBED, dataset=replace(DATASET, images=images))

    for plan in (
        plan_finetune(made, context(tmp_path)),
        plan_scratch(made.dataset, context(tmp_path), mirror=False),
    ):
        assert {sample.sha256 for sample in plan.job.tune} == val
        assert shas(plan.job) == set(FEATURES.sha256) - val
        assert plan.whole is None
