"""The strategies ``finetune`` and ``auto``: probe, fine-tune, and keep what proved better. Imports torch.

Both judge alike. ``auto`` decides first whether to begin: only where enough errors are left, and the time allows.
"""

import math
from dataclasses import replace
from typing import Final

from regraft.model.card import Candidate, Choice
from training.evaluation.paired_comparison import ENOUGH, Comparison
from training.strategies.context import Context, Made
from training.strategies.finetuning.coordinator import Tuner
from training.strategies.finetuning.plan import Plan, plan_finetune
from training.strategies.finetuning.strategy import Trial, complete, judge, try_out
from training.strategies.provenance import tuned_by

_HOPE: Final = 0.5
"""The share of a probe's errors that fine-tuning may hope to remove; published gains are mostly below it."""


def room_for_gain(accuracy: float, images: int) -> bool:
    """Return whether removing half of the errors would show: exceed the noise of so many images twice.

    Args:
        accuracy: cross-validated, of the probe.
        images: that it was measured on.
    """
    errors = images * (1 - accuracy)
    removed = _HOPE * errors
    return removed > 2 * math.sqrt(max(removed, 1.0))


def auto(probed: Made, context: Context, tuner: Tuner) -> Made:
    """Return the probe or a fine-tuning that started from it, with a note that says why."""
    images, accuracy = len(probed.fitted.unseen.rows), float(probed.fitted.choices["cv_accuracy"])
    found = f"The probe is right on {accuracy:.1%} of {images} training images in cross-validation"
    if not context.settings.resume and not room_for_gain(accuracy, images):
        return _with_note(probed, context, f"{found}: so few errors are left that fine-tuning could not show a gain.")
    plan = plan_finetune(probed, context)
    images = len(plan.job.learn) + (len(plan.whole.learn) if plan.whole else 0)
    minutes = tuner.estimate_s(plan.origin, plan.job, images) / 60
    limit = context.settings.max_minutes
    if not context.settings.resume and minutes > limit:
        return _with_note(
            probed,
            context,
            f"{found}. Fine-tuning would take about {minutes:.0f} minutes here, more than --max-minutes {limit:g}; "
            "--strategy finetune does it anyway.",
        )
    context.listener.note(f"{found}; fine-tuning, for at most about {minutes:.0f} minutes")
    return _better(probed, plan, context, tuner)


def finetune(probed: Made, context: Context, tuner: Tuner) -> Made:
    """Fine-tune what a probe made, and return that or the probe, with the reason."""
    return _better(probed, plan_finetune(probed, context), context, tuner)


def _better(probed: Made, plan: Plan, context: Context, tuner: Tuner) -> Made:
    insists = context.settings.publish == "finetuned"
    if not plan.job.tune and not insists:
        return _with_note(probed, context, "No images could be set aside to compare by, so the probe is kept.")
    trial = try_out(plan, context, tuner)
    if not plan.job.tune:
        return complete(plan, trial, context, tuner, probed.findings)
    compared = judge(plan, trial)
    found = (
        f"On the {compared.images} images set aside fine-tuning on the others changes the log loss of a probe on the "
        f"others by {-compared.gain:+.3f} (standard error {compared.error:.3f}) and the accuracy from "
        f"{compared.accuracy[0]:.1%} to {compared.accuracy[1]:.1%}"
    )
    if compared.is_better or insists:
        made = complete(plan, trial, context, tuner, probed.findings)
        reason = f"{found}: {'it is kept' if compared.is_better else 'it was asked for, and is published'}."
        candidates = _candidates(compared, probed, made)
    else:
        doubt = "not surely better" if compared.is_enough else f"fewer than {ENOUGH} cannot tell a gain from luck"
        made, reason = _untouched(probed, plan, trial), f"{found}: {doubt}, so the probe is kept."
        candidates = _candidates(compared, probed, None)
    context.listener.note(reason)
    choice = Choice(published=made.strategy, images=compared.images, candidates=candidates, reason=reason)
    return replace(made, choice=choice)


def _untouched(probed: Made, plan: Plan, trial: Trial) -> Made:
    """Return the probe, with the provenance and curves of the fine-tuning it beat."""
    findings = replace(probed.findings, epochs=trial.tuned.every_epoch, start=plan.start)
    return replace(probed, findings=findings, tuned_by=tuned_by(plan, trial.tuned, 0))


def _candidates(compared: Comparison, probed: Made, tuned: Made | None) -> tuple[Candidate, Candidate]:
    rows = zip(("probe", "finetune"), (probed, tuned), compared.log_loss, compared.accuracy, strict=True)
    probe, finetune = (
        Candidate(
            strategy=strategy,
            log_loss=loss,
            accuracy=accuracy,
            holdout_accuracy=made.fitted.holdout_accuracy(made.features) if made else None,
        )
        for strategy, made, loss, accuracy in rows
    )
    return probe, finetune


def _with_note(made: Made, context: Context, note: str) -> Made:
    context.listener.note(note)
    return replace(made, findings=replace(made.findings, notes=(*made.findings.notes, note)))
