"""Settings of a training run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from regraft.errors import InvalidRequestError
from regraft.image.spec import ResizeRule
from training.backbones.catalogue import DEFAULT_BACKBONE, STORE_PREFIX
from training.data.random_crop import Strength
from training.head.fit import Balance
from training.strategies.finetuning.recipe import Optimizer

Strategy = Literal["probe", "finetune", "scratch", "auto"]
Init = Literal["head", "source"]
RequestedPrecision = Literal["fp32", "int8", "auto"]
Publish = Literal["better", "finetuned"]

_FLAGS: Final = {"backbone_lr": "lr"}
"""Fields of the recipe whose flag has another name."""


@dataclass(frozen=True)
class TrainSettings:
    """Settings of a training run; every field is a flag of ``regraft train``.

    Attributes:
        data: the folder of labelled photos, or a list of them, see `training.data.dataset`.
        name: of the model in the store; the folder's name if empty.
        store: the model store.
        backbone: see `training.backbones.build`; or a version of the store, see `training.versions.source`.
        weights: see `training.backbones.build`.
        strategy: ``probe`` trains a head on the frozen backbone, ``finetune`` then the backbone too, ``scratch`` a
            network of random weights; ``auto`` probes, and fine-tunes if that pays.
        seed: of everything that is random.
        image_px: side of the network's input, None for its own.
        resize: the rule by which pictures become crops, see `regraft.image.spec.ImageSpec`; None for the network's own.
        cv: folds of a cross-validation of the whole strategy beside the holdout, 0 for none.
        init: what fine-tuning starts its head from: the probe's head, or the source classifier's rows.
        balance: whether every class weighs the same however many images it has; ``auto`` goes half that way where
            counts differ much.
        views: further views of each training image that the probe learns from.
        extra: a second folder of labelled photos that joins the training images.
        extra_classes: what classes of it are called in the first, where they are called otherwise.
        extra_weighting: whether its images count as much as the probe finds them like the first.
        augment: how far pictures are changed before they are learned from, by fine-tuning and in views.
        mirror: whether they are mirrored too; None where that does not change their answers.
        changes: fields of `training.strategies.finetuning.recipe.Recipe` that a person decided.
        resume: whether to go on from the checkpoint of an interrupted run.
        publish: of a fine-tuning and the probe that it began with the better, or the fine-tuning however it fared.
        max_minutes: the longest fine-tuning that ``auto`` starts.
        tensorboard: whether to write events where TensorBoard is installed.
        mlflow: URI of an MLflow server or folder, empty for none.
        group_by: the name that pictures of a group share, see `training.data.file_listing.name_groups`; empty for none.
        precision: of the backbone's arithmetic; ``auto`` takes int8 where it is faster here and nothing is lost.
        target_error: the share of the answers given that may be wrong, see `training.head.abstention`; None answers
            all.
        keep_state: whether the weights that were trained are kept beside the version, for a run that goes on from
            it.
    """

    data: Path
    name: str = ""
    store: Path = Path("models")
    backbone: str = DEFAULT_BACKBONE
    weights: str = "default"
    strategy: Strategy = "probe"
    seed: int = 0
    image_px: int | None = None
    resize: ResizeRule | None = None
    cv: int = 0
    init: Init = "head"
    balance: Balance = "auto"
    views: int = 0
    extra: Path | None = None
    extra_classes: Mapping[str, str] = field(default_factory=dict)
    extra_weighting: bool = False
    augment: Strength = "full"
    mirror: bool | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False
    publish: Publish = "better"
    max_minutes: float = 30.0
    tensorboard: bool = True
    mlflow: str = ""
    precision: RequestedPrecision = "fp32"
    target_error: float | None = None
    group_by: str = ""
    keep_state: bool = True

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
                flag = _FLAGS.get(idle[0], idle[0]).replace("_", "-")
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
