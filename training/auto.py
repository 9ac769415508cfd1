"""The strategy ``auto``: probe, fine-tune if that can pay, and keep what proved better. Imports torch."""

import math
from dataclasses import replace
from typing import Final

import numpy as np

from training.paired import Comparison, compare
from training.plan import Plan, plan_finetune
from training.strategy import Context, Made
from training.tuned import Trial, complete, try_out
from training.tuner import Tuner

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
    if not plan.job.tune:
        return _with_note(
            probed, context, f"{found}. No images could be set aside to compare by, so the probe is kept."
        )
    trial = try_out(plan, context, tuner)
    compared = _on_set_aside(plan, trial)
    verdict = (
        f"On the {compared.images} images set aside fine-tuning on the others changes the log loss of a probe on the "
        f"others by {-compared.gain:+.3f} (standard error {compared.error:.3f}) and the accuracy from "
        f"{compared.accuracy[0]:.1%} to {compared.accuracy[1]:.1%}"
    )
    if not compared.is_better:
        return _with_note(probed, context, f"{verdict}: not surely better, so the probe is kept.")
    tuned = complete(plan, trial, context, tuner, probed.findings)
    return _with_note(tuned, context, f"{verdict}: it is kept.")


def _on_set_aside(plan: Plan, trial: Trial) -> Comparison:
    """Compare like with like: both learned from the same pictures, and are asked for others that chose nothing.

    The probe was fitted, its strength and temperature chosen, without them. Of the fine-tuning each was asked by the
    epoch and the temperature that others chose.
    """
    assert plan.probe is not None  # only a scratch training has none
    assert trial.held is not None  # checked before
    labels = np.array([sample.label_index for sample in plan.job.tune])
    return compare(plan.probe, trial.held.probabilities, labels, trial.held.weight)


def _with_note(made: Made, context: Context, note: str) -> Made:
    context.listener.note(note)
    return replace(made, findings=replace(made.findings, notes=(*made.findings.notes, note)))
