"""Settings of a version's recipe, as another run's defaults.

What a person types goes before it.
"""

from collections.abc import Collection
from dataclasses import fields, replace
from typing import Any, Final

from regraft.errors import PreconditionError
from regraft.model.card import IMPORTED, ModelCard
from training.backbones.catalogue import STORE_PREFIX
from training.retrain.refresh import weights_of
from training.settings import TrainSettings
from training.strategies.finetuning.recipe import FLAG_NAMES, Recipe

_SETTINGS: Final = (
    "strategy",
    "publish",
    "backbone",
    "precision",
    "balance",
    "views",
    "augment",
    "mirror",
    "target_error",
    "seed",
)
_FOLLOW: Final = {
    "backbone_lr": ("head_lr",),
    "optimizer": ("backbone_lr", "head_lr", "weight_decay"),
    "epochs": ("small_epochs", "ema_decay", "patience"),
}
"""Numbers that the rule derives from one that may be typed."""


def settings_like(card: ModelCard, given: TrainSettings, typed: Collection[str]) -> TrainSettings:
    """Complete settings by a version's recipe.

    Args:
        card: of the version.
        given: what was typed, with the usual defaults for all else.
        typed: the names of the flags that were typed.

    Raises:
        PreconditionError: the version does not say how it was made, or was made elsewhere.
        InvalidRequestError: its weights come from a file that is not at hand.
    """
    recipe = card.recipe
    if not recipe or recipe["strategy"] == IMPORTED:
        raise PreconditionError(
            f"--like: {card.name} does not say how it was trained: it was imported, or made before cards said it"
        )
    repeated: dict[str, Any] = {name: recipe[name] for name in _SETTINGS if name in recipe and name not in typed}
    strategy = repeated.get("strategy", given.strategy)
    for name, own in (("image_px", "own_image_px"), ("resize", "own_resize")):
        if not recipe.get(own, True) and not {name, "backbone"} & set(typed):
            repeated[name] = recipe[name]
    if not {"weights", "backbone"} & set(typed) and not str(recipe["backbone"]).startswith(STORE_PREFIX):
        repeated["weights"] = weights_of(card.backbone)
    if strategy == recipe["strategy"] and strategy != "probe":
        repeated["changes"] = {**_numbers(card, given), **given.changes}
        if "init" not in typed and recipe.get("init") == "source":
            repeated["init"] = "source"
    elif strategy == "probe" and not repeated.get("views", given.views):
        repeated = {name: value for name, value in repeated.items() if name not in ("augment", "mirror")}
    if strategy != "finetune":
        repeated.pop("publish", None)
    return replace(given, **repeated)


def _numbers(card: ModelCard, given: TrainSettings) -> dict[str, Any]:
    """Return the recipe's numbers, except those that typed ones decide."""
    follow = {name for led in given.changes for name in _FOLLOW.get(led, ())}
    called = {field.name: FLAG_NAMES.get(field.name, field.name) for field in fields(Recipe)}
    return {
        name: card.recipe[key]
        for name, key in called.items()
        if key in card.recipe and name not in (*follow, "augment", "mirror")
    }
