"""What a fine-tuning starts from and learns from: decided before it begins. Imports torch."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from regraft.errors import InvalidRequestError
from regraft.model.artifact import FloatArray, Head
from training.data.dataset import Dataset
from training.data.samples import Sample, samples_of, set_aside
from training.evaluation.cross_validation import without
from training.evaluation.findings import Start
from training.head.features import Features
from training.head.fit import class_weights, fit
from training.head.source_head import SourceHead, head_from_source
from training.settings import TrainSettings
from training.strategies.context import CHECKPOINT_FILE, WHOLE_CHECKPOINT_FILE, Context, Made
from training.strategies.finetuning.coordinator import Origin
from training.strategies.finetuning.loop import Job
from training.strategies.finetuning.recipe import Kind, recipe_for

_Rows = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Plan:
    """A fine-tuning that could be run.

    Attributes:
        job: learns from a part of the pictures, and is stopped and calibrated by the others.
        whole: learns from all of them, for as many epochs as the first job finds best; None where it is not to be.
        dataset: whose training pictures the rows count.
        learn: bool [n], those that ``job`` learns from.
        tune: bool [n], those that it is stopped and calibrated by.
        tune_weight: float64 [m], what each of them counts as it comes; to stop by, what its class weighs counts too.
        start: what the source classifier brought, where it was asked to.
        probe: probabilities [m, K] of the pictures set aside, by a probe that learned from the others; None from
            scratch.
    """

    kind: Kind
    origin: Origin
    job: Job
    whole: Job | None
    dataset: Dataset
    learn: _Rows
    tune: _Rows
    tune_weight: npt.NDArray[np.float64]
    start: Start | None = None
    probe: FloatArray | None = None


def plan_finetune(made: Made, context: Context, rows: _Rows | None = None) -> Plan:
    """Plan to fine-tune what a probe made, on some of its training rows or on all.

    The head to start from is fitted without the rows that are set aside, or they could not tell when to stop.
    """
    settings, train = context.settings, made.features.train()
    origin = Origin.of(settings, settings.weights)
    plan = _plan("finetune", origin, made.dataset, context, rows, made.extra, mirror=made.mirror)
    learned, tune = train.select(plan.learn), train.select(plan.tune)
    probe = fit_probe(made, context, plan.learn)
    head, start = (probe.weight, probe.bias), None
    if settings.init == "source":
        head, start = _from_source(origin, learned, tune, probe)
    whole = plan.whole
    if whole is not None:
        taken = plan.learn | plan.tune
        if settings.init == "source":
            all_head, _ = _from_source(origin, train.select(taken), tune, probe)
        else:
            fitted = made.fitted.head if taken.all() else fit_probe(made, context, taken)
            all_head = fitted.weight, fitted.bias
        whole = replace(whole, head=all_head)
    answers = probe.probabilities(tune.embedding)
    return replace(plan, job=replace(plan.job, head=head), whole=whole, start=start, probe=answers)


def fit_probe(made: Made, context: Context, rows: _Rows) -> Head:
    """Fit the head of a probe on some of its training rows, and on what belongs to them."""
    settings = context.settings
    return fit(
        made.features.train().select(rows),
        seed=settings.seed,
        balance=settings.balance,
        additional=without(made.further, ~rows),
    ).head


def plan_scratch(dataset: Dataset, context: Context, rows: _Rows | None = None, *, mirror: bool) -> Plan:
    """Plan to train a network of random weights on the very same images, for comparison."""
    return _plan("scratch", Origin.of(context.settings, "none"), dataset, context, rows, (), mirror=mirror)


def _plan(
    kind: Kind,
    origin: Origin,
    dataset: Dataset,
    context: Context,
    rows: _Rows | None,
    extra: tuple[Sample, ...],
    *,
    mirror: bool,
) -> Plan:
    settings, samples = context.settings, samples_of(dataset, holdout=False)
    taken = np.ones(len(samples), np.bool_) if rows is None else rows
    changes = {**settings.changes, "augment": settings.augment, "mirror": mirror}
    recipe = recipe_for(kind, int(taken.sum()), changes)
    labels = np.array([sample.label_index for sample in samples])
    tune = np.zeros(len(samples), np.bool_)
    group = np.array([sample.group for sample in samples], np.int64)
    given = np.array([sample.is_tuning for sample in samples], np.bool_) & taken
    tune[taken] = (
        given[taken] if given.any() else set_aside(labels[taken], recipe.tune_share, settings.seed, group[taken])
    )
    learn = taken & ~tune
    shares, _ = class_weights(labels[taken], settings.balance)
    # What int8 costs is judged by pictures that the network did not learn from.
    # So it is where somebody said what to tune by.
    to_learn_again = recipe.learn_all and settings.precision == "fp32" and bool(tune.any()) and not given.any()
    job = Job(
        classes=len(dataset.labels),
        head=None,
        learn=_weighed(samples, learn, extra, shares),
        tune=_weighed(samples, tune, (), shares),
        recipe=recipe,
        seed=settings.seed,
        settings=_identity(kind, origin, settings),
        checkpoint=context.runs / CHECKPOINT_FILE if rows is None else None,
        resume=settings.resume and rows is None,
        is_followed=to_learn_again,
    )
    whole = None
    if to_learn_again:
        checkpoint = context.runs / WHOLE_CHECKPOINT_FILE if rows is None else None
        whole = replace(
            job,
            learn=_weighed(samples, taken, extra, shares),
            tune=(),
            checkpoint=checkpoint,
            resume=job.resume and checkpoint is not None and checkpoint.exists(),
            is_followed=False,
        )
    weight = np.array([sample.weight for sample in samples])[tune]
    return Plan(kind, origin, job, whole, dataset, learn, tune, weight)


def _weighed(
    samples: tuple[Sample, ...], rows: _Rows, extra: tuple[Sample, ...], shares: npt.NDArray[np.float64]
) -> tuple[Sample, ...]:
    """Return some of the pictures, and all of the extra ones; each counts what its class does."""
    chosen = (*(sample for sample, wanted in zip(samples, rows, strict=True) if wanted), *extra)
    return tuple(replace(sample, weight=sample.weight * float(shares[sample.label_index])) for sample in chosen)


def _identity(kind: Kind, origin: Origin, settings: TrainSettings) -> dict[str, str]:
    """Return what a checkpoint must have been made with, beside the job's own fields, by the names of the flags."""
    return {
        "strategy": kind,
        "backbone": settings.backbone,
        "weights": ", ".join([origin.provenance, *(each.digest for each in origin.lineage[:1])]),
        "image_px": str(origin.image_px),
        "init": settings.init,
        **({"resize": origin.resize} if origin.resize else {}),
    }


def _from_source(
    origin: Origin, learned: Features, tune: Features, replaced: Head
) -> tuple[tuple[FloatArray, FloatArray], Start | None]:
    """Build a head of the source classifier's rows, and measure its start.

    That is measured on the pictures set aside; None where there are none.
    """
    found = origin.build().source
    if found is None:
        raise InvalidRequestError(
            f"--init source: the weights of {origin.name} ({origin.weights}) come without an ImageNet classifier"
        )
    head = head_from_source(SourceHead(found.weight.numpy(), found.bias.numpy(), found.labels), learned)
    if not tune.sha256:
        return (head.weight, head.bias), None

    def accuracy(weight: FloatArray, bias: FloatArray) -> float:
        return float(((tune.embedding @ weight.T + bias).argmax(axis=1) == tune.label_index).mean())

    chance = np.bincount(tune.label_index).max() / len(tune.label_index)
    before, instead = accuracy(head.weight, head.bias), accuracy(replaced.weight, replaced.bias)
    return (head.weight, head.bias), Start(head.matched, before, float(chance), instead)
