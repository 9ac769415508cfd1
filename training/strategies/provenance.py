"""Provenance of a training run, for the version's card."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.files import text_of
from regraft.model.card import RecipeValue
from training.backbones.cache import ExportedBackbone
from training.settings import TrainSettings
from training.strategies.context import Candidate
from training.versions.publish import Provenance, library_versions

if TYPE_CHECKING:  # torch
    from training.strategies.finetuning.loop import TrainedClassifier
    from training.strategies.finetuning.plan import Plan


def provenance_of(candidate: Candidate, name: str, settings: TrainSettings, parent_version: int | None) -> Provenance:
    """Return the provenance of a run's version."""
    changed = settings.views or candidate.strategy != "probe"
    asked = {
        "data": text_of(Path(settings.data.resolve().name)),
        "split": candidate.dataset.how_split,
        "balance": settings.balance,
        **({"target_error": settings.target_error} if settings.target_error is not None else {}),
        "views": settings.views,
        **({"augment": settings.augment, "mirror": candidate.mirror} if changed else {}),
        **settings.changes,
    }
    recipe = _recipe(candidate, settings)
    return Provenance(name, candidate.strategy, asked, settings.seed, recipe, parent_version, candidate.choice)


def _recipe(candidate: Candidate, settings: TrainSettings) -> dict[str, RecipeValue]:
    """Return a run's numbers by flag, chosen by person or rule.

    What played no part is absent. No flags are ``published``, the strategy that won (``strategy`` was asked for),
    ``epochs_run``, those learned, and ``epochs_kept``, those in the version, 0 where the probe won.
    """
    if candidate.imported:
        return {
            "strategy": candidate.strategy,
            "published": candidate.strategy,
            **network_recipe(candidate.backbone),
            **candidate.imported,
            **_libraries(),
        }
    changed = bool(settings.views or candidate.finetuning_record)
    network = network_recipe(candidate.backbone)
    if candidate.backbone.sources:  # the version that it went on from: its network alone would not repeat it
        network["backbone"] = settings.backbone
    return {
        "strategy": settings.strategy,
        **({"publish": settings.publish} if settings.strategy == "finetune" else {}),
        "published": candidate.strategy,
        **network,
        "own_image_px": settings.image_px is None,
        "own_resize": settings.resize is None,
        "balance": settings.balance,
        **({"views": settings.views} if settings.strategy != "scratch" else {}),
        **({"augment": settings.augment, "mirror": candidate.mirror} if changed else {}),
        **_extra(settings),
        **({"target_error": settings.target_error} if settings.target_error is not None else {}),
        **candidate.finetuning_record,
        "seed": settings.seed,
        **_libraries(),
    }


def network_recipe(backbone: ExportedBackbone) -> dict[str, RecipeValue]:
    """Return a backbone's part of the recipe."""
    spec = backbone.spec
    return {
        "backbone": backbone.name,
        "weights": backbone.weights,
        "precision": backbone.precision,
        "image_px": spec.crop_px,
        "resize": spec.resize,
        "resize_px": spec.resize_px,
        "interpolation": spec.interpolation,
    }


def _libraries() -> dict[str, RecipeValue]:
    return {f"{name}_version": release for name, release in library_versions().items()}


def finetuning_record(plan: "Plan", tuned: "TrainedClassifier", epochs_kept: int) -> dict[str, RecipeValue]:
    """Return a fine-tuning's numbers, of the run that chose the epochs."""
    return {
        "weights": plan.job.settings["weights"],
        "init": "random" if plan.kind == "scratch" else plan.job.settings["init"],
        **tuned.recipe.by_flag(),
        "schedule": tuned.recipe.schedule,
        "first_lr": tuned.first_rate,
        "frozen_stages": len(tuned.frozen),
        "frozen_up_to": tuned.frozen[-1] if tuned.frozen else None,
        "epochs_run": len(tuned.epochs),
        "epochs_kept": epochs_kept,
        "device": tuned.device,
    }


def _extra(settings: TrainSettings) -> Mapping[str, RecipeValue]:
    if settings.extra is None:
        return {}
    renamed = ", ".join(f"{second}={first}" for second, first in settings.extra_classes.items())
    return {
        "extra": text_of(Path(settings.extra.resolve().name)),
        **({"extra_class": renamed} if renamed else {}),
        "extra_weighting": settings.extra_weighting,
    }
