"""Learning classifier: network, optimizer and averaged weights. Imports torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.transforms import v2

from regraft.model.artifact import FloatArray
from training.backbones.build import PretrainedBackbone
from training.backbones.onnx_export import Normalised
from training.strategies.finetuning.distributed import Processes
from training.strategies.finetuning.freezing import Frozen, parameter_groups
from training.strategies.finetuning.recipe import Recipe, rate_factor

_MOMENTUM: Final = 0.9


class Classifier(nn.Module):
    """Normalisation, backbone and head: [N, P, P, 3] to logits [N, K]."""

    def __init__(
        self, backbone: PretrainedBackbone, classes: int, head: tuple[FloatArray, FloatArray] | None = None
    ) -> None:
        """Graft a head of K classes, [K, D] and [K], or random."""
        super().__init__()
        self.body = Normalised(backbone)
        self.head = nn.Linear(_width(self.body, backbone.spec.crop_px), classes)
        if head is not None:
            with torch.no_grad():
                self.head.weight.copy_(torch.from_numpy(head[0]))
                self.head.bias.copy_(torch.from_numpy(head[1]))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits [N, K]."""
        logits: torch.Tensor = self.head(self.body(image))
        return logits


@dataclass(frozen=True)
class Step:
    """Mean loss and right answers of this process's part of a batch."""

    loss: float
    right: int


class Learner:
    """One process's part in a run; all call `learn` alike."""

    def __init__(self, classifier: Classifier, recipe: Recipe, steps: int, group: Processes) -> None:
        """Prepare a classifier for so many steps, on the group's device."""
        self._recipe, self._steps, self._group = recipe, steps, group
        # Convolutions over interleaved channels are more than twice as fast on CPUs, and faster on GPUs.
        self._model = classifier.to(group.device).to(memory_format=torch.channels_last)
        network = self._model.body.network
        self._frozen = Frozen(network, recipe.freeze, train_norms=recipe.train_norms)
        groups = parameter_groups(
            network,
            self._model.head,
            head_lr=recipe.head_lr,
            backbone_lr=recipe.backbone_lr,
            layer_decay=recipe.layer_decay,
            weight_decay=recipe.weight_decay,
        )
        sgd = recipe.optimizer == "sgd"
        self._optimizer = torch.optim.SGD(groups, momentum=_MOMENTUM) if sgd else torch.optim.AdamW(groups)
        average = get_ema_multi_avg_fn(recipe.ema_decay)  # type: ignore[no-untyped-call]  # torch declares no types for it
        self._averaged = AveragedModel(self._model, multi_avg_fn=average, use_buffers=True)
        self._shared = group.share(self._model, with_buffers=recipe.train_norms)
        on_gpu = group.device.type == "cuda"
        self._half = half_precision() if on_gpu else torch.float16
        self._autocast = on_gpu
        self._scaler = torch.amp.GradScaler(group.device.type, enabled=on_gpu and self._half is torch.float16)
        classes = self._model.head.out_features
        mixes = [v2.MixUp(alpha=recipe.mixup, num_classes=classes)] if recipe.mixup else []
        mixes += [v2.CutMix(alpha=recipe.cutmix, num_classes=classes)] if recipe.cutmix else []
        self._mix = v2.RandomChoice(mixes) if mixes else None

    @property
    def frozen(self) -> tuple[str, ...]:
        """The names of the frozen stages."""
        return self._frozen.names

    @property
    def first_rate(self) -> float | None:
        """The peak learning rate of the first stage that learns, if any."""
        of_head = {id(parameter) for parameter in self._model.head.parameters()}
        groups = [group for group in self._optimizer.param_groups if id(group["params"][0]) not in of_head]
        return min((float(group["peak"]) for group in groups), default=None)

    def start_epoch(self) -> None:
        """Put everything that learns into training mode."""
        self._model.train()
        self._frozen.train()

    def learn(self, image: torch.Tensor, label: torch.Tensor, weight: torch.Tensor, step: int, *, move: bool) -> Step:
        """Learn from a batch.

        Args:
            image: uint8 [N, P, P, 3].
            label: int64 [N].
            weight: float32 [N], of each picture's loss.
            step: the number of the batch in the run, from 0, for the schedule.
            move: whether the weights move now; else the gradients are kept and added to the next ones.

        Returns:
            Loss and right answers; where the loss is not finite, nothing was changed.
        """
        pictures, target = self._mixed(image.to(self._group.device, non_blocking=True), label.to(self._group.device))
        with torch.autocast(self._group.device.type, self._half, enabled=self._autocast):
            logits = self._shared(pictures)
        losses = functional.cross_entropy(
            logits.float(), target, reduction="none", label_smoothing=self._recipe.label_smoothing
        )
        summed = (losses * weight.to(self._group.device)).sum()
        value = float(summed.item())
        right = int((logits.argmax(1) == (target if target.ndim == 1 else target.argmax(1))).sum())
        pictures_in_all = self._group.total(len(label))
        if self._group.any(not torch.isfinite(summed).item()):
            return Step(float("nan"), right)
        # The mean over the whole batch: processes' gradients are averaged, whatever the size of their shares.
        loss = summed * self._group.count / pictures_in_all / self._recipe.accumulate
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # as above
        if move:
            self._move(step)
        return Step(value / len(label), right)

    def predict(self, image: torch.Tensor) -> torch.Tensor:
        """Predict logits float32 [N, K] by the averaged model."""
        self._averaged.eval()
        with torch.inference_mode():
            logits: torch.Tensor = self._averaged(image.to(self._group.device, non_blocking=True))
        return logits.float().cpu()

    def averaged(self) -> dict[str, torch.Tensor]:
        """Return a copy of the averaged classifier's state."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self._averaged.module.state_dict().items()}

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs."""
        return {
            "model": self._model.state_dict(),
            "averaged": self._averaged.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self._model.load_state_dict(state["model"])
        self._averaged.load_state_dict(state["averaged"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])

    def _mixed(self, image: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self._mix is None or len(image) < 2:
            return image, label
        planes, target = self._mix(image.permute(0, 3, 1, 2).float(), label)
        return planes.permute(0, 2, 3, 1), target

    def _move(self, step: int) -> None:
        factor = rate_factor(step, self._steps, self._recipe.warmup)
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        self._averaged.update_parameters(self._model)


def half_precision(is_bf16_supported: Callable[..., bool] = torch.cuda.is_bf16_supported) -> torch.dtype:
    """Choose a GPU's fast half precision: bfloat16 unless it is emulated."""
    return torch.bfloat16 if is_bf16_supported(including_emulation=False) else torch.float16


def _width(body: nn.Module, side_px: int) -> int:
    with torch.inference_mode():
        embedding: torch.Tensor = body.eval()(torch.zeros(1, side_px, side_px, 3, dtype=torch.uint8))
    return embedding.shape[1]
