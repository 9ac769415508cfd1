"""Plan of a fine-tuning: its start and its pictures. Imports torch."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from regraft.errors import InvalidRequestError
from regraft.model.artifact import FloatArray, Head
from training.data.dataset import Dataset
from training.data.samples import Sample, samples_of, set_aside
from training.evaluation.findings import StartFinding
from training.head.balance import class_weights
from training.head.features import Features
from training.head.fit import fit
from training.head.source_head import SourceHead, head_from_source
from training.settings import TrainSettings
from training.strategies.context import CHECKPOINT_FILE, WHOLE_CHECKPOINT_FILE, Candidate, Context
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
    start: StartFinding | None = None
    probe: FloatArray | None = None


def plan_finetune(probed: Candidate, context: Context, rows: _Rows | None = None) -> Plan:
    """Plan the fine-tuning of a probe, on some or all training rows.

    The head to start from is fitted without the rows that are set aside, or they could not tell when to stop.
    """
    settings, train = context.settings, probed.features.train()
    origin = Origin.of(settings, settings.weights)
    plan = _plan("finetune", origin, probed.dataset, context, rows, probed.extra, mirror=probed.mirror)
    learned, tune = train.select(plan.learn), train.select(plan.tune)
    probe = fit_probe(probed, context, plan.learn)
    head, start = (probe.weight, probe.bias), None
    if settings.init == "source":
        head, start = _from_source(origin, learned, tune, probe)
    whole = plan.whole
    if whole is not None:
        selected = plan.learn | plan.tune
        if settings.init == "source":
            all_head, _ = _from_source(origin, train.select(selected), tune, probe)
        else:
            fitted = probed.fitted.head if selected.all() else fit_probe(probed, context, selected)
            all_head = fitted.weight, fitted.bias
        whole = replace(whole, head=all_head)
    answers = probe.probabilities(tune.embedding)
    return replace(plan, job=replace(plan.job, head=head), whole=whole, start=start, probe=answers)


def fit_probe(probed: Candidate, context: Context, rows: _Rows) -> Head:
    """Fit a probe's head on some of its training rows."""
    settings = context.settings
    return fit(
        probed.features.train().select(rows),
        seed=settings.seed,
        balance=settings.balance,
        additional=probed.additional and probed.additional.without_views_of(~rows),
    ).head


def plan_scratch(dataset: Dataset, context: Context, rows: _Rows | None = None, *, mirror: bool) -> Plan:
    """Plan a training from random weights, on the same images."""
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
    selected = np.ones(len(samples), np.bool_) if rows is None else rows
    changes = {**settings.changes, "augment": settings.augment, "mirror": mirror}
    recipe = recipe_for(kind, int(selected.sum()), changes)
    labels = np.array([sample.label_index for sample in samples])
    tune = np.zeros(len(samples), np.bool_)
    group = np.array([sample.group for sample in samples], np.int64)
    given = np.array([sample.is_tuning for sample in samples], np.bool_) & selected
    tune[selected] = given[selected]
    if not given.any():
        tune[selected] = set_aside(labels[selected], recipe.tune_share, settings.seed, group[selected])
    learn = selected & ~tune
    shares, _ = class_weights(labels[selected], settings.balance)
    # What int8 costs is judged by pictures that the network did not learn from.
    # So it is where the data say what to tune by.
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
            learn=_weighed(samples, selected, extra, shares),
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
    """Select pictures, with all extra ones, weighted by class."""
    chosen = (*(sample for sample, wanted in zip(samples, rows, strict=True) if wanted), *extra)
    return tuple(replace(sample, weight=sample.weight * float(shares[sample.label_index])) for sample in chosen)


def _identity(kind: Kind, origin: Origin, settings: TrainSettings) -> dict[str, str]:
    """Return what a checkpoint must share with the run, by flag."""
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
) -> tuple[tuple[FloatArray, FloatArray], StartFinding | None]:
    """Build a head of source rows, and measure it on pictures set aside."""
    source = origin.build().source
    if source is None:
        raise InvalidRequestError(
            f"--init source: the weights of {origin.name} ({origin.weights}) come without an ImageNet classifier"
        )
    head = head_from_source(SourceHead(source.weight.numpy(), source.bias.numpy(), source.labels), learned)
    if not tune.sha256:
        return (head.weight, head.bias), None

    def accuracy(weight: FloatArray, bias: FloatArray) -> float:
        return float(((tune.embedding @ weight.T + bias).argmax(axis=1) == tune.label_index).mean())

    chance = np.bincount(tune.label_index).max() / len(tune.label_index)
    before, instead = accuracy(head.weight, head.bias), accuracy(replaced.weight, replaced.bias)
    return (head.weight, head.bias), StartFinding(head.matched, before, float(chance), instead)
