"""What a fine-tuning starts from and learns from: decided before it begins. Imports torch."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from regraft.artifact import FloatArray
from regraft.errors import InvalidRequestError
from training.dataset import Dataset
from training.features import Features
from training.findings import Start
from training.finetune import Job
from training.head import fit
from training.pretrained import weights_origin
from training.recipe import Kind, recipe_for
from training.samples import Sample, samples_of, set_aside
from training.settings import TrainSettings
from training.start import SourceHead, head_from_source
from training.strategy import CHECKPOINT_FILE, Context, Made
from training.tuner import Origin

_Rows = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Plan:
    """A fine-tuning that could be run.

    Attributes:
        dataset: whose training pictures the rows count.
        learn: bool [n], those that it learns from.
        tune: bool [n], those that it is stopped and calibrated by.
        start: what the source classifier brought, where it was asked to.
    """

    kind: Kind
    origin: Origin
    job: Job
    dataset: Dataset
    learn: _Rows
    tune: _Rows
    start: Start | None = None


def plan_finetune(made: Made, context: Context, rows: _Rows | None = None) -> Plan:
    """Plan to fine-tune what a probe made, on some of its training rows or on all.

    The head to start from is fitted without the rows that are set aside, or they could not tell when to stop.
    """
    settings, train = context.settings, made.features.train()
    origin = Origin.of(settings, settings.weights)
    plan = _plan("finetune", origin, made.dataset, context, rows, made.extra, mirror=made.mirror)
    learned = train.select(plan.learn)
    if settings.init == "source":
        head, start = _from_source(origin, learned, train.select(plan.tune))
    else:
        fitted = fit(learned, seed=settings.seed, balance=settings.balance).head
        head, start = (fitted.weight, fitted.bias), None
    return replace(plan, job=replace(plan.job, head=head), start=start)


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
    tune[taken] = set_aside(labels[taken], recipe.tune_share, settings.seed, group[taken])
    learn = taken & ~tune
    job = Job(
        classes=len(dataset.labels),
        head=None,
        learn=tuple(sample for sample, wanted in zip(samples, learn, strict=True) if wanted) + extra,
        tune=tuple(sample for sample, wanted in zip(samples, tune, strict=True) if wanted),
        recipe=recipe,
        seed=settings.seed,
        settings=_identity(kind, origin, settings),
        checkpoint=context.runs / CHECKPOINT_FILE if rows is None else None,
        resume=settings.resume and rows is None,
    )
    return Plan(kind, origin, job, dataset, learn, tune)


def _identity(kind: Kind, origin: Origin, settings: TrainSettings) -> dict[str, str]:
    """Return what a checkpoint must have been made with, beside the job's own fields, by the names of the flags."""
    return {
        "strategy": kind,
        "backbone": origin.name,
        "weights": weights_origin(origin.name, origin.weights, origin.seed),
        "image_px": str(origin.image_px),
        "init": settings.init,
    }


def _from_source(origin: Origin, learned: Features, tune: Features) -> tuple[tuple[FloatArray, FloatArray], Start]:
    found = origin.build().source
    if found is None:
        raise InvalidRequestError(
            f"--init source: the weights of {origin.name} ({origin.weights}) come without an ImageNet classifier"
        )
    head = head_from_source(SourceHead(found.weight.numpy(), found.bias.numpy(), found.labels), learned)
    answers = (tune.embedding @ head.weight.T + head.bias).argmax(axis=1)
    chance = np.bincount(tune.label_index).max() / len(tune.label_index)
    start = Start(head.matched, float((answers == tune.label_index).mean()), float(chance))
    return (head.weight, head.bias), start
