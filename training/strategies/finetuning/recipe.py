"""Recipe of a fine-tuning, derived from the data."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from training.data.random_crop import Strength, smallest_window

Kind = Literal["finetune", "scratch"]
Optimizer = Literal["adamw", "sgd"]

FLAG_NAMES: Final = {"backbone_lr": "lr"}
"""Of fields whose flags have other names."""

_PICTURES_SEEN: Final = 15_000
"""About 500 steps of 32, which Big Transfer's rule gives every set below 20,000 images (Kolesnikov et al., 2020)."""
_LARGE_SET: Final = 20_000
_PEAK_RATES: Final[Mapping[tuple[Kind, Optimizer], float]] = {
    ("finetune", "adamw"): 2e-4,
    ("scratch", "adamw"): 2e-3,
    ("finetune", "sgd"): 1e-3,
    ("scratch", "sgd"): 1e-2,
}
"""Of the backbone."""


@dataclass(frozen=True)
class Recipe:
    """Every number of a fine-tuning run; those with a description are flags of ``regraft train``.

    AdamW is that of Loshchilov and Hutter (2019), mixup of Zhang et al. (2018), CutMix of Yun et al. (2019).

    Attributes:
        warmup: share of the steps in which the rate rises from 0; it falls on a half cosine from there.
        augment: see `training.data.random_crop.Augmentation`; TrivialAugment (Müller and Hutter, 2021) follows in
            ``full``.
        mirror: whether every other picture, on average, is mirrored.
        small_epochs: the first so many epochs see crops half as wide, at a quarter of the work or less (progressive
            resizing: Howard, 2018; Tan and Le, 2021); none after a probe, whose features know the full size.
        ema_decay: of the running average of the weights, which is what is kept in the end; 0 keeps the weights as they
            are. From scratch they move so far that the average of BatchNorm's statistics is not that of the average.
        train_norms: whether BatchNorm learns its statistics anew; not in fine-tuning (Kumar et al., 2022).
        tune_share: of the training images, set aside for early stopping and the temperature.
        learn_all: whether, once these have told how many epochs are best, a second run of so many learns from all.
    """

    epochs: Annotated[int, Field(description="Epochs at most.", ge=1)]
    batch: Annotated[int, Field(description="Pictures a step, over all processes.", ge=1)]
    accumulate: Annotated[int, Field(description="Steps whose gradients are added up before the weights move.", ge=1)]
    optimizer: Annotated[Optimizer, Field(description="adamw, or sgd with a momentum of 0.9.")]
    head_lr: Annotated[float, Field(description="Peak learning rate of the head.", ge=0)]
    backbone_lr: Annotated[
        float,
        Field(description="Peak rate of the backbone; the head's is ten times that, from scratch the same.", ge=0),
    ]
    layer_decay: Annotated[
        float, Field(description="Factor of the rate from each stage to the one before.", ge=0, le=1)
    ]
    weight_decay: Annotated[float, Field(description="Of matrices and kernels; none on biases and norms.", ge=0)]
    warmup: float
    label_smoothing: Annotated[float, Field(description="Share of the label spread over all classes.", ge=0, le=1)]
    mixup: Annotated[float, Field(description="Alpha of mixup; 0 for none.", ge=0)]
    cutmix: Annotated[float, Field(description="Alpha of CutMix; 0 for none. With both, a batch draws one.", ge=0)]
    augment: Strength
    mirror: bool
    small_epochs: int
    ema_decay: float
    patience: Annotated[int, Field(description="Epochs without a better loss before the run ends.", ge=1)]
    freeze: Annotated[str, Field(description="The last stage that is not trained, or the share of stages, 0 to 1.")]
    train_norms: bool
    tune_share: float
    learn_all: bool

    @property
    def schedule(self) -> str:
        """The schedule of the learning rates, for people; see `rate_factor`."""
        return f"linear warm-up over {self.warmup:.0%} of {self.epochs} epochs, then a half cosine to 0"

    @property
    def min_scale(self) -> float:
        """The smallest share of a picture's area that a random crop keeps."""
        return smallest_window(self.augment)

    def by_flag(self) -> dict[str, Any]:
        """Return all numbers by the names of their flags.

        First are those that the fields call otherwise.
        """
        numbers = asdict(self)
        return {**{flag: numbers.pop(field) for field, flag in FLAG_NAMES.items()}, **numbers}


def recipe_for(kind: Kind, images: int, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Derive the recipe of so many training images, with changes.

    Small sets see about as many pictures in all as larger ones, so they get more epochs; they keep more of the
    backbone frozen, for there is little to change it by; mixing pictures starts to pay only in large sets. Where the
    head comes from a probe it learns ten times as fast as the backbone; from scratch all layers learn alike.
    """
    scratch = kind == "scratch"
    batch = 16 if images < 200 else 32
    typed = changes or {}  # what hangs on a number must follow what a person asked for
    optimizer: Optimizer = typed.get("optimizer", "adamw")
    backbone_lr = typed.get("backbone_lr", _PEAK_RATES[kind, optimizer])
    epochs = typed.get("epochs") or _clip(round(_PICTURES_SEEN / images), 5, 30) * (3 if scratch else 1)
    large = images >= _LARGE_SET
    steps = epochs * math.ceil(images / batch)
    recipe = Recipe(
        epochs=epochs,
        batch=batch,
        accumulate=1,
        optimizer=optimizer,
        head_lr=backbone_lr * (1 if scratch else 10),
        backbone_lr=backbone_lr,
        layer_decay=1.0 if scratch else 0.8,
        weight_decay=1e-4 if optimizer == "sgd" else 0.05 if scratch else 0.02,
        warmup=0.1,
        label_smoothing=0.1,
        mixup=0.2 if large else 0.0,
        cutmix=1.0 if large else 0.0,
        augment="full",
        mirror=True,
        small_epochs=epochs * 9 // 10 if scratch else 0,
        ema_decay=0.0 if scratch else min(0.9998, max(0.9, 1 - 10 / steps)),
        patience=max(5, epochs // 3),
        freeze="0" if scratch else "0.4",
        train_norms=scratch,
        tune_share=0.2 if images < 1000 else 0.05 if large else 0.1,
        learn_all=not large,
    )
    return replace(recipe, **typed)


def rate_factor(step: int, steps: int, warmup: float) -> float:
    """Return the share of the peak rate: linear rise, half cosine fall."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def _clip(value: int, low: int, high: int) -> int:
    return max(low, min(high, value))
