"""Steps of fine-tuning and training from scratch. Imports torch."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from regraft.errors import ArtifactError, InvalidImageError
from regraft.image.decode import decode_crop
from regraft.machine import cpu_budget
from regraft.model.artifact import FloatArray, backbone_digest
from regraft.progress import Progress, silent
from training.backbones.cache import ExportedBackbone, load_backbone
from training.backbones.onnx_export import export_backbone
from training.backbones.trained_state import keep_state
from training.data.dataset import Dataset, check_trainable
from training.data.mirroring import sample_each_class
from training.data.samples import Sample, samples_of
from training.evaluation.cross_validation import outer_folds, summarise
from training.evaluation.findings import Agreement, CrossValidation, Findings, Tuning
from training.evaluation.paired_comparison import PairedComparison, compare
from training.head.calibrate import HeldBack, calibrate_head, cross_fitted
from training.head.features import Features
from training.strategies.context import (
    WHOLE_CHECKPOINT_FILE,
    Candidate,
    Context,
    SilentListener,
    Stopwatch,
    embed_dataset,
)
from training.strategies.finetuning.agreement import agreement
from training.strategies.finetuning.coordinator import Coordinator, Origin
from training.strategies.finetuning.loop import TrainedClassifier, embed_samples, predict
from training.strategies.finetuning.plan import Plan, fit_probe, plan_finetune, plan_scratch
from training.strategies.probe import may_mirror
from training.strategies.provenance import finetuning_record

_PARITY: Final = 1e-2
"""Of the export against torch on noise; the network is proven on real pictures after that."""
_NO_PROBE: Final = "From scratch there is no probe to begin with, nor to compare with."
_OPTIMIZERS: Final = {"adamw": "AdamW", "sgd": "SGD with momentum 0.9"}


def scratch(dataset: Dataset, context: Context, coordinator: Coordinator) -> Candidate:
    """Train a network of random weights."""
    with context.watch.stage("check"):
        dataset = _readable(dataset, context)  # in the other strategies embedding finds the bad pictures
        mirror, notes = _may_mirror(dataset, context)
    plan = plan_scratch(dataset, context, mirror=mirror)
    findings = Findings(notes=(*notes, _NO_PROBE))
    return complete(plan, try_out(plan, context, coordinator), context, coordinator, findings)


@dataclass(frozen=True)
class Trial:
    """A fine-tuning, with its answers on held back pictures.

    Attributes:
        held: None where no picture could be held back.
    """

    tuned: TrainedClassifier
    held: HeldBack | None


def try_out(plan: Plan, context: Context, coordinator: Coordinator) -> Trial:
    """Fine-tune without the pictures set aside, and stop by them."""
    job = plan.job
    if job.checkpoint is not None and not job.resume:  # or a later --resume would find that of another run
        job.checkpoint.with_name(WHOLE_CHECKPOINT_FILE).unlink(missing_ok=True)
    with context.watch.stage("finetune"):
        tuned = coordinator.run_job(plan.origin, job, context.progress, context.listener.epoch)
    if not job.tune:
        return Trial(tuned, None)
    learned = _held_back(plan, tuned.tune_logits, tuned.best_epoch - 1)
    if plan.start is None or tuned.start_logits is None or context.settings.publish == "finetuned":
        return Trial(tuned, learned)
    # A head of the source classifier's rows is no probe, which is compared with elsewhere: it is a result of its own.
    start = _held_back(plan, tuned.start_logits[None], 0)
    labels = np.array([sample.label_index for sample in job.tune])
    if compare(start.probabilities, learned.probabilities, labels, plan.tune_weight).is_better:
        return Trial(tuned, learned)
    nothing = replace(job, stop_after=0, checkpoint=None, resume=False)
    untouched = coordinator.run_job(plan.origin, nothing, silent, SilentListener().epoch)
    return Trial(replace(tuned, **_network_of(untouched), best_epoch=0), start)


def _held_back(plan: Plan, logits: FloatArray, best: int) -> HeldBack:
    """Return a run's answers on the pictures set aside.

    ``logits`` [epochs, m, K] are those after each epoch.
    """
    labels = np.array([sample.label_index for sample in plan.job.tune])
    stopping = np.array([sample.weight for sample in plan.job.tune])
    group = np.array([sample.group for sample in plan.job.tune])
    answers = cross_fitted(logits, labels, stopping, plan.tune_weight, plan.job.seed, group)
    return HeldBack(plan.tune, logits[best], answers, plan.tune_weight, None)


def _network_of(tuned: TrainedClassifier) -> dict[str, Any]:
    return {"backbone": tuned.backbone, "weight": tuned.weight, "bias": tuned.bias}


def compare_with_probe(plan: Plan, trial: Trial) -> PairedComparison:
    """Compare the fine-tuning with its probe, like with like.

    Both learned from the same pictures, and are asked for others that chose nothing.

    The probe was fitted, its strength and temperature chosen, without them. Of the fine-tuning each was asked by the
    epoch and the temperature that others chose.
    """
    assert plan.probe is not None  # only a scratch training has none
    assert trial.held is not None  # checked before
    labels = np.array([sample.label_index for sample in plan.job.tune])
    return compare(plan.probe, trial.held.probabilities, labels, trial.held.weight)


def _learn_from_all(
    plan: Plan, trial: Trial, context: Context, coordinator: Coordinator, stage: str
) -> TrainedClassifier:
    """Fine-tune once more on all pictures, for the best number of epochs."""
    if plan.whole is None:
        return trial.tuned
    job = replace(plan.whole, stop_after=trial.tuned.best_epoch)
    return coordinator.run_job(plan.origin, job, _named(context, stage), SilentListener().epoch)


def complete(plan: Plan, trial: Trial, context: Context, coordinator: Coordinator, findings: Findings) -> Candidate:
    """Learn from all pictures, export, and calibrate the head.

    Raises:
        ArtifactError: the exported file answers otherwise than the network that was trained.
    """
    held_back = trial.held
    with context.watch.stage("finetune"):
        tuned = _learn_from_all(plan, trial, context, coordinator, "finetune on all")
        if held_back is not None and plan.whole is not None:
            samples = samples_of(plan.dataset, holdout=False)
            held_back = replace(held_back, embedding=embed_samples(trial.tuned.backbone, samples))
    with _trained_network_kept(plan):
        with context.watch.stage("export"):
            backbone = _exported(tuned, plan, context)
        with context.watch.stage("embed"):
            dataset, features, _ = embed_dataset(plan.dataset, backbone, context)
        with context.watch.stage("fit"):
            fitted = calibrate_head(tuned.weight, tuned.bias, features, held_back)
            agreed = _agreement(tuned, features, dataset)
    all_findings = replace(
        findings,
        notes=(*findings.notes, *_notes(tuned, trial, plan), *backbone.notes),
        epochs=trial.tuned.every_epoch,
        tuning=_tuning(tuned, trial, plan, features),
        start=plan.start,
        agreement=agreed,
    )
    return Candidate(
        plan.kind,
        dataset,
        backbone,
        features,
        fitted,
        all_findings,
        mirror=plan.job.recipe.mirror,
        finetuning_record=finetuning_record(plan, trial.tuned, trial.tuned.best_epoch),
    )


@contextmanager
def _trained_network_kept(plan: Plan) -> Iterator[None]:
    """Name the checkpoint of the trained network, should what follows fail.

    It is there until a version is.
    """
    try:
        yield
    except ArtifactError as error:
        checkpoint = (plan.whole or plan.job).checkpoint
        if checkpoint is None or not checkpoint.exists():
            raise
        raise ArtifactError(
            f"{error}. The trained network is kept at {checkpoint}: the same command with --resume goes on from there, "
            "without training again"
        ) from error


def cross_validate_finetuning(
    candidate: Candidate, probed: Candidate | None, context: Context, coordinator: Coordinator
) -> CrossValidation:
    """Cross-validate the whole strategy on folds of the training images.

    It is repeated without each fold in turn, and asked for that fold.

    Args:
        candidate: what the strategy made of all training images.
        probed: what a fine-tuning began with; None from scratch.
        context: of the run.
        coordinator: who fine-tunes.
    """
    settings, samples = context.settings, samples_of(candidate.dataset, holdout=False)
    labels = np.array([sample.label_index for sample in samples])
    train = candidate.features.train()
    folds = outer_folds(labels, train.labels, settings.cv, settings.seed, train.group)
    right = np.zeros(len(samples), np.bool_)
    for fold in range(settings.cv):
        in_fold = folds == fold
        samples_held = tuple(sample for sample, wanted in zip(samples, in_fold, strict=True) if wanted)
        inner = replace(context, listener=_Fold(context.progress, fold + 1), watch=Stopwatch())
        with context.watch.stage("cv"):
            if probed is None:
                plan = plan_scratch(candidate.dataset, inner, ~in_fold, mirror=candidate.mirror)
                answers = _answers(plan, try_out(plan, inner, coordinator), inner, coordinator, samples_held)
            else:
                answers = _tuned_or_probed(probed, ~in_fold, inner, coordinator, samples_held)
        right[in_fold] = answers.argmax(axis=1) == labels[in_fold]
    return summarise(folds, right, train.group)


class _Fold(SilentListener):
    """Hears of a fold's progress under the fold's own name."""

    def __init__(self, progress: Progress, number: int) -> None:
        self._progress, self._name = progress, f"fold {number}"

    def progress(self, stage: str, done: int, total: int) -> None:
        self._progress(stage.replace("finetune", self._name), done, total)


def _tuned_or_probed(
    probed: Candidate,
    rows: npt.NDArray[np.bool_],
    context: Context,
    coordinator: Coordinator,
    samples: tuple[Sample, ...],
) -> FloatArray:
    """Return a fine-tuning's answers on pictures, or its probe's.

    The probe answers where it is what would be published.
    """
    plan = plan_finetune(probed, context, rows)
    insists = context.settings.publish == "finetuned"
    if plan.job.tune or insists:
        trial = try_out(plan, context, coordinator)
        if insists or compare_with_probe(plan, trial).is_better:
            return _answers(plan, trial, context, coordinator, samples)
    return fit_probe(probed, context, rows).probabilities(probed.features.train().embedding[~rows])


def _answers(
    plan: Plan, trial: Trial, context: Context, coordinator: Coordinator, samples: tuple[Sample, ...]
) -> FloatArray:
    tuned = _learn_from_all(plan, trial, context, coordinator, "finetune on all")
    return predict(tuned.backbone, tuned.weight, tuned.bias, samples)


def _may_mirror(dataset: Dataset, context: Context) -> tuple[bool, tuple[str, ...]]:
    """Test mirroring by the embeddings of the random network."""
    settings = context.settings
    samples = samples_of(dataset, holdout=False)
    chosen = sample_each_class(np.array([sample.label_index for sample in samples]), settings.seed)
    names = {samples[row].sha256 for row in chosen}
    few = replace(dataset, images=tuple(image for image in dataset.images if image.sha256 in names))
    backbone = load_backbone(
        settings.backbone, "none", settings.seed, context.cache, image_px=settings.image_px, resize=settings.resize
    )
    return may_mirror(*embed_dataset(few, backbone, context), context)


def _readable(dataset: Dataset, context: Context) -> Dataset:
    settings, images = context.settings, dataset.images
    spec = Origin.of(settings, "none").build().spec

    def complaint(number: int) -> str:
        try:
            decode_crop(images[number].path.read_bytes(), spec)
        except (InvalidImageError, OSError) as error:
            return str(error)
        return ""

    failures = {}
    context.progress("check", 0, len(images))
    with ThreadPoolExecutor(cpu_budget()) as pool:
        for number, reason in enumerate(pool.map(complaint, range(len(images)))):
            context.progress("check", number + 1, len(images))
            if reason:
                failures[images[number].sha256] = reason
    dataset = dataset.without_unreadable(failures, settings.data)
    check_trainable(dataset, settings.data)
    return dataset


def _exported(tuned: TrainedClassifier, plan: Plan, context: Context) -> ExportedBackbone:
    """Export the network, and keep its weights to go on from.

    A note of the backbone tells of them.
    """
    model, origin = export_backbone(tuned.backbone, _PARITY), plan.origin
    done = ", trained from there" if plan.kind == "scratch" else ", fine-tuned"
    state, note = keep_state(tuned.backbone, origin.name) if context.settings.keep_state else (None, "")
    return ExportedBackbone(
        model,
        origin.name,
        f"{origin.provenance.removesuffix(done)}{done}" if tuned.best_epoch else origin.provenance,
        tuned.backbone.spec,
        backbone_digest(model),
        (note,) if note else (),
        sources=origin.lineage,
        state=state,
    )


def _agreement(tuned: TrainedClassifier, features: Features, dataset: Dataset) -> Agreement:
    """Compare the exported file with torch on holdout or training pictures.

    Raises:
        ArtifactError: they differ by more than rounding.
    """
    holdout = bool(features.is_holdout.any())
    rows = features.holdout() if holdout else features.train()
    expected = predict(tuned.backbone, tuned.weight, tuned.bias, samples_of(dataset, holdout=holdout))
    return agreement(expected, rows.embedding @ tuned.weight.T + tuned.bias)


def _tuning(tuned: TrainedClassifier, trial: Trial, plan: Plan, features: Features) -> Tuning:
    """Describe the fine-tuning, with training and holdout accuracy."""
    job = plan.whole or plan.job
    recipe, learned = tuned.recipe, features.train()
    if plan.whole is None:
        learned = learned.select(~plan.tune)

    def accuracy(rows: Features) -> float:
        answers = (rows.embedding @ tuned.weight.T + tuned.bias).argmax(axis=1)
        return float((answers == rows.label_index).mean())

    holdout = features.holdout()
    return Tuning(
        images=len(job.learn),
        set_aside=len(plan.job.tune),
        epochs=tuned.best_epoch,
        train_accuracy=accuracy(learned),
        holdout_accuracy=accuracy(holdout) if holdout.sha256 else None,
        head_rate=recipe.head_lr,
        backbone_rate=recipe.backbone_lr,
        first_rate=tuned.first_rate,
        frozen=len(tuned.frozen),
        optimizer=f"{_OPTIMIZERS[recipe.optimizer]}, weight decay {recipe.weight_decay:g}, label smoothing "
        f"{recipe.label_smoothing:g}",
        schedule=recipe.schedule,
        batch=recipe.batch,
        augmentation=f"{recipe.augment}, {'mirrored' if recipe.mirror else 'not mirrored'}",
        images_per_s=float(np.median([epoch.images_per_s for epoch in tuned.epochs or trial.tuned.epochs])),
        device=tuned.device,
    )


def _notes(tuned: TrainedClassifier, trial: Trial, plan: Plan) -> list[str]:
    job, tried = plan.job, trial.tuned
    done = "Trained" if plan.kind == "scratch" else "Fine-tuned"
    if plan.whole is not None:
        notes = [
            f"{done} on {len(plan.whole.learn)} images. {len(job.tune)} of them were set aside at first, to find the "
            "number of epochs and to calibrate with."
        ]
    else:
        notes = [f"{done} on {len(job.learn)} images; {len(job.tune)} were set aside to stop by and to calibrate with."]
    if tuned.frozen:
        notes.append(f"Frozen up to {tuned.frozen[-1]} ({len(tuned.frozen)} stages).")
    epochs = len(tried.epochs)
    ended = "" if epochs == job.recipe.epochs else f", after which {epochs - tried.best_epoch} brought nothing better"
    notes.append(f"Epoch {tried.best_epoch} of at most {job.recipe.epochs} was kept{ended}.")
    return notes


def _named(context: Context, stage: str) -> Progress:
    return lambda _stage, done, total: context.progress(stage, done, total)
