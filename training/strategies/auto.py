"""The strategies ``finetune`` and ``auto``, which may keep the probe. Imports torch.

Both judge alike. ``auto`` decides first whether to begin: only where enough errors are left, and the time allows.
"""

import math
from dataclasses import replace
from typing import Final

from regraft.model.card import CandidateFigures, Choice
from training.evaluation.paired_comparison import ENOUGH, PairedComparison
from training.strategies.context import Candidate, Context, with_note
from training.strategies.finetuning.coordinator import Coordinator
from training.strategies.finetuning.plan import Plan, plan_finetune
from training.strategies.finetuning.strategy import Trial, compare_with_probe, complete, try_out
from training.strategies.provenance import finetuning_record

_HOPE: Final = 0.5
"""The share of a probe's errors that fine-tuning may hope to remove; published gains are mostly below it."""


def room_for_gain(accuracy: float, images: int) -> bool:
    """Return whether removing half of the errors would show in the noise."""
    errors = images * (1 - accuracy)
    removed = _HOPE * errors
    return removed > 2 * math.sqrt(max(removed, 1.0))


def auto(probed: Candidate, context: Context, coordinator: Coordinator) -> Candidate:
    """Fine-tune a probe where that may pay; return the better, with a note."""
    images, accuracy = len(probed.fitted.unseen.rows), float(probed.fitted.choices["cv_accuracy"])
    summary = f"The probe is right on {accuracy:.1%} of {images} training images in cross-validation"
    if not context.settings.resume and not room_for_gain(accuracy, images):
        return with_note(probed, context, f"{summary}: so few errors are left that fine-tuning could not show a gain.")
    plan = plan_finetune(probed, context)
    images = len(plan.job.learn) + (len(plan.whole.learn) if plan.whole else 0)
    minutes = coordinator.estimate_s(plan.origin, plan.job, images) / 60
    limit = context.settings.max_minutes
    if not context.settings.resume and minutes > limit:
        return with_note(
            probed,
            context,
            f"{summary}. Fine-tuning would take about {minutes:.0f} minutes here, more than --max-minutes {limit:g}; "
            "--strategy finetune does it anyway.",
        )
    context.listener.note(f"{summary}; fine-tuning, for at most about {minutes:.0f} minutes")
    return _better(probed, plan, context, coordinator)


def finetune(probed: Candidate, context: Context, coordinator: Coordinator) -> Candidate:
    """Fine-tune a probe; return the better, with the reason."""
    return _better(probed, plan_finetune(probed, context), context, coordinator)


def _better(probed: Candidate, plan: Plan, context: Context, coordinator: Coordinator) -> Candidate:
    insists = context.settings.publish == "finetuned"
    if not plan.job.tune and not insists:
        return with_note(probed, context, "No images could be set aside to compare by, so the probe is kept.")
    trial = try_out(plan, context, coordinator)
    if not plan.job.tune:
        return complete(plan, trial, context, coordinator, probed.findings)
    compared = compare_with_probe(plan, trial)
    summary = (
        f"On the {compared.images} images set aside fine-tuning on the others changes the log loss of a probe on the "
        f"others by {-compared.gain:+.3f} (standard error {compared.error:.3f}) and the accuracy from "
        f"{compared.accuracy[0]:.1%} to {compared.accuracy[1]:.1%}"
    )
    if compared.is_better or insists:
        candidate = complete(plan, trial, context, coordinator, probed.findings)
        reason = f"{summary}: {'it is kept' if compared.is_better else 'it was asked for, and is published'}."
        candidates = _candidates(compared, probed, candidate)
    else:
        doubt = "not surely better" if compared.is_enough else f"fewer than {ENOUGH} cannot tell a gain from luck"
        candidate, reason = _untouched(probed, plan, trial), f"{summary}: {doubt}, so the probe is kept."
        candidates = _candidates(compared, probed, None)
    context.listener.note(reason)
    choice = Choice(published=candidate.strategy, images=compared.images, candidates=candidates, reason=reason)
    return replace(candidate, choice=choice)


def _untouched(probed: Candidate, plan: Plan, trial: Trial) -> Candidate:
    """Return the probe, with the curves of the fine-tuning it beat."""
    findings = replace(probed.findings, epochs=trial.tuned.every_epoch, start=plan.start)
    return replace(probed, findings=findings, finetuning_record=finetuning_record(plan, trial.tuned, 0))


def _candidates(
    compared: PairedComparison, probed: Candidate, tuned: Candidate | None
) -> tuple[CandidateFigures, CandidateFigures]:
    rows = zip(("probe", "finetune"), (probed, tuned), compared.log_loss, compared.accuracy, strict=True)
    probe, finetune = (
        CandidateFigures(
            strategy=strategy,
            log_loss=loss,
            accuracy=accuracy,
            holdout_accuracy=candidate.fitted.holdout_accuracy(candidate.features) if candidate else None,
        )
        for strategy, candidate, loss, accuracy in rows
    )
    return probe, finetune
