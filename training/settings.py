"""Settings of a training run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import Field

from regraft.errors import InvalidRequestError
from regraft.image.spec import ResizeRule
from regraft.model.card import RequestedPrecision, Strategy
from regraft.stores.backbones import DEFAULT_BACKBONE
from training.backbones.catalogue import STORE_PREFIX
from training.data.random_crop import Strength
from training.head.balance import Balance
from training.strategies.finetuning.recipe import FLAG_NAMES, Optimizer

Init = Literal["head", "source"]
Publish = Literal["better", "finetuned"]

LOOKING: Final = "Looking closer"
DATA: Final = "More from the data"
CHANGING: Final = "How pictures are changed to learn more from them, by fine-tuning and --views"
TUNING: Final = "Fine-tuning (the default is a rule of the data)"


def _flag(description: str, section: str = "Options", **limits: Any) -> Any:  # noqa: ANN401 - as `Field`
    """Describe a field, which makes it a flag in a section of the help."""
    return Field(description=description, json_schema_extra={"section": section}, **limits)


@dataclass(frozen=True)
class TrainSettings:
    """Settings of a training run, each with a flag of ``regraft train``.

    Attributes:
        extra_classes: classes of ``extra`` by the other name that they have there.
        changes: fields of `training.strategies.finetuning.recipe.Recipe` that a person decided.
    """

    data: Annotated[
        Path,
        _flag(
            "A folder of images for each class, or train/ and val/ of such; or a list, .csv, .jsonl or .parquet, with "
            "columns file and label, and if you like split, group, source and weight."
        ),
    ]
    name: Annotated[str, _flag("Name of the model; the folder's if not given.")] = ""
    store: Path = Path("models")
    backbone: Annotated[
        str, _flag("See `regraft backbones`; store:NAME[:VERSION] goes on from a version of the store.")
    ] = DEFAULT_BACKBONE
    weights: Annotated[str, _flag("default, none, or the file of a state dict.")] = "default"
    strategy: Annotated[
        Strategy,
        _flag(
            "probe: a head on the frozen backbone. finetune: then the backbone too, and the better of both is "
            "published. scratch: random weights. auto: finetune where the probe leaves room for it and --max-minutes "
            "the time."
        ),
    ] = "probe"
    seed: Annotated[int, _flag("Of everything that is random.")] = 0
    image_px: Annotated[int | None, _flag("Side of the input; the network's own if not given.", ge=1)] = None
    resize: Annotated[
        ResizeRule | None,
        _flag(
            "How pictures become square: crop cuts out the middle; squash shows all, out of shape; pad shows all, "
            "between grey bars. Default: the network's own, mostly crop."
        ),
    ] = None
    cv: Annotated[int, _flag("Cross-validate the strategy in so many folds, 0 for none.", LOOKING)] = 0
    init: Annotated[Init, _flag("Start from the probe's head, or from the source classifier.", TUNING)] = "head"
    balance: Annotated[Balance, _flag("on: classes weigh the same; auto: half-way, where counts differ.", DATA)] = (
        "auto"
    )
    views: Annotated[int, _flag("Further views of each training image for the probe.", DATA)] = 0
    extra: Annotated[Path | None, _flag("A second labelled folder that joins.", DATA)] = None
    extra_classes: Mapping[str, str] = field(default_factory=dict)
    extra_weighting: Annotated[bool, _flag("It counts as far as the probe finds it like the first.", DATA)] = False
    augment: Annotated[
        Strength,
        _flag(
            "none: as they are served. light: most of each picture. full: smaller parts too; fine-tuning also changes "
            "colours and angles.",
            CHANGING,
        ),
    ] = "full"
    mirror: Annotated[
        bool | None,
        _flag("Mirror them too. Default: unless mirrored pictures are answered as another class.", CHANGING),
    ] = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    resume: Annotated[bool, _flag("Go on from the checkpoint of an interrupted run.", TUNING)] = False
    publish: Annotated[
        Publish,
        _flag(
            "Of finetune: better, which may be the probe that it began with; or finetuned, however it fared.", TUNING
        ),
    ] = "better"
    max_minutes: Annotated[float, _flag("The longest fine-tuning that `auto` starts.", TUNING, ge=0)] = 30.0
    tensorboard: Annotated[bool, _flag("Write events where TensorBoard is installed.", LOOKING)] = True
    mlflow: Annotated[str, _flag("URI of an MLflow server or folder.", LOOKING)] = ""
    precision: Annotated[
        RequestedPrecision,
        _flag(
            "fp32. int8: faster on most CPUs, calibrated on training images. auto: int8 where it is faster here and "
            "nothing is lost."
        ),
    ] = "fp32"
    target_error: Annotated[
        float | None, _flag("Abstain from unsure answers, so that at most this share of the rest is wrong, such as 2%.")
    ] = None
    group_by: Annotated[
        str,
        _flag(
            "Keeps pictures together in every split: a pattern over their paths whose first group they share, such as "
            "'patient_([0-9]+)', or parent, for those of one folder.",
            DATA,
        ),
    ] = ""
    keep_state: Annotated[bool, _flag("Keep the trained weights, for --backbone store:NAME.", TUNING)] = True

    def __post_init__(self) -> None:
        """Refuse what makes no sense, by the name of the flag."""
        for flag, value, choices in (
            ("strategy", self.strategy, get_args(Strategy)),
            ("init", self.init, get_args(Init)),
            ("balance", self.balance, get_args(Balance)),
            ("augment", self.augment, get_args(Strength)),
            ("precision", self.precision, get_args(RequestedPrecision)),
            ("publish", self.publish, get_args(Publish)),
            ("optimizer", self.changes.get("optimizer", "adamw"), get_args(Optimizer)),
            ("resize", "crop" if self.resize is None else self.resize, get_args(ResizeRule)),
        ):
            if value not in choices:
                raise InvalidRequestError(f"--{flag}: {value!r}; there is: {', '.join(choices)}")
        if self.cv == 1 or self.cv < 0:
            raise InvalidRequestError(f"--cv: {self.cv} folds; need at least 2, or 0 for none")
        if self.target_error is not None and not 0 < self.target_error < 1:
            raise InvalidRequestError(f"--target-error: {self.target_error:g}; need a share between 0 and 1, as 2%")
        if self.seed < 0:
            raise InvalidRequestError(f"--seed: {self.seed}; need 0 or more")
        if self.views < 0:
            raise InvalidRequestError(f"--views: {self.views}; need 0 or more")
        self._check_augmentation()
        self._check_source()
        if self.extra_weighting and self.extra is None:
            raise InvalidRequestError("--extra-weighting: weights the images of --extra, which is not given")
        if self.extra_classes and self.extra is None:
            raise InvalidRequestError("--extra-class: names classes of --extra, which is not given")
        self._check_strategy()

    def _check_strategy(self) -> None:
        if self.strategy == "probe":
            idle = [*self.changes, *(["resume"] if self.resume else []), *(["init"] if self.init == "source" else [])]
            if idle:
                flag = FLAG_NAMES.get(idle[0], idle[0]).replace("_", "-")
                raise InvalidRequestError(f"--{flag}: has no effect on a probe: add --strategy finetune or auto")
        if self.publish == "finetuned" and self.strategy != "finetune":
            raise InvalidRequestError("--publish finetuned: goes with --strategy finetune")
        if self.strategy == "scratch" and (self.init == "source" or self.extra is not None or self.views):
            raise InvalidRequestError(
                "--strategy scratch: takes no --init source, --extra or --views: it knows nothing"
            )

    def _check_source(self) -> None:
        if not self.backbone.startswith(STORE_PREFIX):
            return
        if self.strategy == "scratch":
            raise InvalidRequestError(
                f"--backbone: {self.backbone}: scratch knows nothing, also of a version: name the network"
            )
        if self.weights != "default":
            raise InvalidRequestError(f"--weights: {self.backbone} has its own: drop one of the two")

    def _check_augmentation(self) -> None:
        if self.augment == "none" and self.views:
            raise InvalidRequestError(
                "--views: with --augment none every view would be the picture itself: drop one of the two"
            )
        if self.augment == "none" and self.mirror:
            raise InvalidRequestError("--mirror: --augment none changes nothing: drop one of the two")
        if self.strategy == "probe" and not self.views:
            flags = {"--augment": self.augment != "full", "--mirror": self.mirror, "--no-mirror": self.mirror is False}
            if idle := [flag for flag, given in flags.items() if given]:
                raise InvalidRequestError(
                    f"{idle[0]}: has no effect on a probe of the pictures alone: add --views, or --strategy finetune"
                )
