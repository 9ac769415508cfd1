"""Training loop of a backbone with its head. Imports torch.

The head comes from a probe (LP-FT: Kumar et al., "Fine-Tuning can Distort Pretrained Features", 2022), learns ten times
faster than the backbone, and each stage of the backbone slower than the one after it. What is kept is a running average
of the weights, from the epoch with the lowest loss on the images that were set aside for tuning. What a run begins with
is measured on these images like every epoch: it is epoch 0, and `training.strategies.auto` may well prefer it.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import torch

from regraft.errors import StorageError, TrainingError
from regraft.label_rules import listed
from regraft.model.artifact import FloatArray
from regraft.progress import Progress, silent
from training.backbones.build import PretrainedBackbone
from training.backbones.onnx_export import Normalised
from training.data.samples import Sample
from training.evaluation.findings import Epoch
from training.head.logistic import log_loss
from training.strategies.finetuning.batches import AugmentedPictures, PlainPictures, Schedule, loader, seed_of
from training.strategies.finetuning.checkpoint import Checkpoint, load_checkpoint
from training.strategies.finetuning.distributed import Processes
from training.strategies.finetuning.learner import Classifier, Learner
from training.strategies.finetuning.recipe import Recipe, rate_factor
from training.strategies.finetuning.signals import TrainingStopped, wish_to_stop

OnEpoch: TypeAlias = Callable[[Epoch, int], None]
"""Told each epoch's figures, and how many epochs there will be at most."""

_NAMED_FILES: Final = 5


@dataclass(frozen=True)
class Job:
    """A fine-tuning to run, the same in every process.

    Attributes:
        classes: K.
        head: weight float32 [K, D] and bias [K] to start from; random where it is None.
        learn: the pictures to learn from.
        tune: pictures to stop by; the last epoch is kept where there are none.
        settings: whatever else must be the same for a checkpoint to be of this run.
        checkpoint: where to write one after every epoch, or None.
        resume: whether to go on from there.
        stop_after: epochs after which it ends, of those that the recipe plans its rates for; None for all of them.
        is_followed: whether another run follows, so that a wish to stop counts at the very end too.
    """

    classes: int
    head: tuple[FloatArray, FloatArray] | None
    learn: tuple[Sample, ...]
    tune: tuple[Sample, ...]
    recipe: Recipe
    seed: int
    settings: Mapping[str, str]
    checkpoint: Path | None = None
    resume: bool = False
    stop_after: int | None = None
    is_followed: bool = False

    def fingerprint(self) -> dict[str, str]:
        """Return everything that decides the run's result, as text."""
        pictures = hashlib.sha256()
        for sample in (*self.learn, *self.tune):
            pictures.update(f"{sample.sha256} {sample.label_index} {sample.weight}\n".encode())
        head = hashlib.sha256(b"".join(part.tobytes() for part in self.head or ()))
        recipe = {name: str(value) for name, value in asdict(self.recipe).items()}
        if self.recipe.optimizer == "adamw":
            del recipe["optimizer"]  # checkpoints from before there was a choice do not say it
        data = {"pictures": pictures.hexdigest()[:12], "head": head.hexdigest()[:12], "seed": str(self.seed)}
        data["stop_after"] = str(self.stop_after or 0)
        return {**self.settings, **recipe, **data}


@dataclass(frozen=True)
class TrainedClassifier:
    """A fine-tuned classifier: ``network`` inside ``backbone`` has the new weights.

    Attributes:
        start: epoch 0, what the run began with; None of random weights, or without tuning pictures.
        start_logits: float32 [m, K] of it; likewise.
        recipe: by which it was made.
        tune_logits: float32 [epochs, m, K] of the averaged model on the tuning pictures, after each epoch.
        first_rate: peak learning rate of the first stage that learned, None where only the head did.
        device: that it ran on.
    """

    backbone: PretrainedBackbone
    weight: FloatArray
    bias: FloatArray
    epochs: tuple[Epoch, ...]
    start: Epoch | None
    start_logits: FloatArray | None
    best_epoch: int
    frozen: tuple[str, ...]
    recipe: Recipe
    tune_logits: FloatArray
    first_rate: float | None
    device: str

    @property
    def every_epoch(self) -> tuple[Epoch, ...]:
        """Epoch 0 too, where it was measured."""
        return self.epochs if self.start is None else (self.start, *self.epochs)


class _Run:
    """The state of a run between two steps."""

    def __init__(self, backbone: PretrainedBackbone, job: Job, group: Processes) -> None:
        recipe = job.recipe
        self.job, self.group = job, group
        torch.manual_seed(job.seed)
        self.classifier = Classifier(backbone, job.classes, job.head)
        self.schedule = Schedule(len(job.learn), recipe.batch, job.seed, group.rank, group.count)
        self.batches = len(self.schedule)
        self.steps = recipe.epochs * self.batches
        self.epochs_at_most = recipe.epochs if job.stop_after is None else job.stop_after
        self.end = self.epochs_at_most * self.batches
        self.learner = Learner(self.classifier, recipe, self.steps, group)
        self.step = 0
        self.loss_sum, self.right = 0.0, 0
        self.tune_logits: list[torch.Tensor] = []
        self.epochs: list[Epoch] = []
        self.start: Epoch | None = None
        self.start_logits: torch.Tensor | None = None
        self.best_loss, self.best_epoch = float("inf"), 0
        self.best = self.learner.averaged()

    def save(self) -> None:
        """Write a checkpoint; where that fails, it fails in every process alike."""
        problem = ""
        if self.job.checkpoint is not None and self.group.is_first:
            try:
                Checkpoint(self.job.fingerprint(), self._state()).save(self.job.checkpoint)
            except StorageError as error:
                problem = str(error)
        if problem := self.group.from_first(problem):
            raise StorageError(problem)

    def _state(self) -> dict[str, Any]:
        return {
            "learner": self.learner.state(),
            "step": self.step,
            "loss_sum": self.loss_sum,
            "right": self.right,
            "tune_logits": self.tune_logits,
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "best": self.best,
            "best_loss": self.best_loss,
            "best_epoch": self.best_epoch,
        }

    def restore(self) -> None:
        assert self.job.checkpoint is not None
        state = load_checkpoint(self.job.checkpoint, self.job.fingerprint()).state
        self.learner.restore(state["learner"])
        self.step, self.loss_sum, self.right = state["step"], state["loss_sum"], state["right"]
        self.tune_logits = list(state["tune_logits"])
        self.epochs = [Epoch(**fields) for fields in state["epochs"]]
        self.best, self.best_loss, self.best_epoch = state["best"], state["best_loss"], state["best_epoch"]


def run_job(
    backbone: PretrainedBackbone,
    job: Job,
    group: Processes,
    progress: Progress = silent,
    on_epoch: OnEpoch = lambda _epoch, _epochs: None,
) -> TrainedClassifier:
    """Fine-tune a backbone and a head.

    Args:
        backbone: its network is changed.
        job: the same in every process.
        group: the processes of the run.
        progress: told the stage ``finetune``, in steps.
        on_epoch: see `OnEpoch`.

    Raises:
        TrainingError: the loss is no number any more; the text names the pictures of that batch.
        TrainingStopped: on request; a checkpoint was written.
        InvalidRequestError: no such stage to freeze, or the checkpoint is of another run.
        StorageError: a checkpoint could not be written.
    """
    if len(job.learn) < 2 * group.count:
        raise TrainingError(f"{len(job.learn)} images are too few for {group.count} processes: use fewer")
    smallest = min(len(keys) for keys in Schedule(len(job.learn), job.recipe.batch, None))
    if smallest < group.count:  # a process without pictures would leave the others waiting
        raise TrainingError(
            f"batches of {smallest} images are too small for {group.count} processes: use a larger --batch"
        )
    job = replace(job, recipe=_feasible(job.recipe, backbone))
    run = _Run(backbone, job, group)
    learn = loader(AugmentedPictures(job.learn, backbone.spec, job.recipe, job.seed), run.schedule)
    tune_schedule = Schedule(len(job.tune), job.recipe.batch, None, group.rank, group.count)
    tune = loader(PlainPictures(job.tune, backbone.spec), tune_schedule) if job.tune else None
    if tune is not None and job.head is not None:
        _measure_start(run, tune)
    if job.resume:
        run.restore()
    elif run.start is not None and group.is_first:
        on_epoch(run.start, run.epochs_at_most)
    with wish_to_stop() as stop_is_wished:
        while not _is_over(run):
            started = time.perf_counter()
            learned = _epoch(run, learn, progress, stop_is_wished)
            _close_epoch(run, tune, started, learned / (time.perf_counter() - started))
            run.save()
            if group.is_first:
                on_epoch(run.epochs[-1], run.epochs_at_most)
            if group.any(stop_is_wished()) and (job.is_followed or not _is_over(run)):
                raise _stopped(run)
    return _tuned(run, backbone)


def _tuned(run: _Run, backbone: PretrainedBackbone) -> TrainedClassifier:
    run.classifier.load_state_dict(run.best)
    classifier = run.classifier.eval().to("cpu")
    weight, bias = (tensor.detach().numpy() for tensor in (classifier.head.weight, classifier.head.bias))
    nothing = torch.empty(0, 0, run.job.classes)
    return TrainedClassifier(
        backbone,
        weight,
        bias,
        tuple(run.epochs),
        run.start,
        None if run.start_logits is None else run.start_logits.numpy(),
        run.best_epoch,
        run.learner.frozen,
        run.job.recipe,
        (torch.stack(run.tune_logits) if run.tune_logits else nothing).numpy(),
        run.learner.first_rate,
        _name_of(run.group),
    )


def _name_of(group: Processes) -> str:
    each = (
        torch.cuda.get_device_name(group.device)
        if group.device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads"
    )
    return each if group.count == 1 else f"{group.count} x {each}"


def embed_samples(backbone: PretrainedBackbone, samples: Sequence[Sample]) -> FloatArray:
    """Embed pictures [n, D] by a network, in their order."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    body = Normalised(backbone).eval().to(device)
    rows = []
    with torch.inference_mode():
        for images, _ in loader(PlainPictures(samples, backbone.spec), Schedule(len(samples), 16, None)):
            rows.append(body(images.to(device)).cpu().numpy())
    body.to("cpu")
    return np.concatenate(rows)


def predict(
    backbone: PretrainedBackbone, weight: FloatArray, bias: FloatArray, samples: Sequence[Sample]
) -> FloatArray:
    """Predict torch's logits [n, K] of pictures, in their order."""
    classifier = Classifier(backbone, len(bias), (weight, bias)).eval()
    rows = []
    with torch.inference_mode():
        for images, _ in loader(PlainPictures(samples, backbone.spec), Schedule(len(samples), 16, None)):
            rows.append(classifier(images).numpy())
    return np.concatenate(rows)


def _feasible(recipe: Recipe, backbone: PretrainedBackbone) -> Recipe:
    """Drop small crops from the recipe where the network cannot take them."""
    if not recipe.small_epochs:
        return recipe
    side = backbone.spec.crop_px // 2
    try:
        with torch.no_grad():
            backbone.network.eval()(torch.zeros(2, 3, side, side))
    except Exception:  # noqa: BLE001 - whatever the network's own code raises
        return replace(recipe, small_epochs=0)
    return recipe


def _is_exhausted(run: _Run) -> bool:
    recipe, done = run.job.recipe, len(run.epochs)
    # Small crops say little of what the full size will bring, so patience begins after them.
    return done - max(run.best_epoch, recipe.small_epochs) >= recipe.patience and bool(run.job.tune)


def _is_over(run: _Run) -> bool:
    return run.step >= run.end or _is_exhausted(run)


def _epoch(run: _Run, learn: Any, progress: Progress, stop_is_wished: Callable[[], bool]) -> int:  # noqa: ANN401 - torch's loader says nothing of what it yields
    """Learn from the rest of an epoch's batches; return the picture count."""
    job, group = run.job, run.group
    learned = 0
    epoch, first = divmod(run.step, run.batches)
    run.schedule.epoch, run.schedule.first = epoch, first
    if not first:
        run.loss_sum, run.right = 0.0, 0
    labels = torch.tensor([sample.label_index for sample in job.learn])
    weights = torch.tensor([sample.weight for sample in job.learn])
    run.learner.start_epoch()
    if group.is_first:
        progress("finetune", run.step, run.end)
    for batch, (images, indices) in enumerate(learn, start=first):
        torch.manual_seed(seed_of(job.seed, "step", run.step, group.rank))  # dropout and mixing
        move = (batch + 1) % job.recipe.accumulate == 0 or batch + 1 == run.batches
        done = run.learner.learn(images, labels[indices], weights[indices], run.step, move=move)
        if not np.isfinite(done.loss):
            raise TrainingError(_divergence(run, epoch, batch, [job.learn[index] for index in indices]))
        run.step += 1
        run.loss_sum += done.loss
        run.right += int(group.total(done.right))
        learned += int(group.total(len(indices)))
        if group.is_first:
            progress("finetune", run.step, run.end)
        # Not between two steps whose gradients are added up: a checkpoint has no gradients.
        if move and batch + 1 < run.batches and group.any(stop_is_wished()):
            run.save()
            raise _stopped(run)
    return learned


def _stopped(run: _Run) -> TrainingStopped:
    path = run.job.checkpoint
    remedy = f"{path} has all of it; go on with --resume" if path else "nothing was kept"
    return TrainingStopped(f"stopped after {run.step} of {run.end} steps; {remedy}")


def _measure_start(run: _Run, tune: Any) -> None:  # noqa: ANN401 - as above
    """Measure what the run begins with, before anything has moved."""
    started = time.perf_counter()
    run.start_logits = _ask(run, tune)
    loss, accuracy = _measure(run.job.tune, run.start_logits)
    nothing = float("nan")
    seconds = round(time.perf_counter() - started, 2)
    run.start = Epoch(0, nothing, loss, accuracy, 0.0, seconds, nothing, 0.0, nothing)


def _close_epoch(run: _Run, tune: Any, started: float, images_per_s: float) -> None:  # noqa: ANN401 - as above
    """Measure the averaged model, and keep the best so far."""
    loss, accuracy = float("nan"), float("nan")
    if tune is not None:
        run.tune_logits.append(_ask(run, tune))
        loss, accuracy = _measure(run.job.tune, run.tune_logits[-1])
    number = run.step // run.batches
    if tune is None or loss < run.best_loss:
        run.best, run.best_loss, run.best_epoch = run.learner.averaged(), loss, number
    recipe = run.job.recipe
    share = rate_factor(run.step - 1, run.steps, recipe.warmup)
    seconds = time.perf_counter() - started
    run.epochs.append(
        Epoch(
            number,
            run.loss_sum / run.batches,
            loss,
            accuracy,
            recipe.head_lr * share,
            round(seconds, 2),
            run.right / len(run.job.learn),
            recipe.backbone_lr * share,
            round(images_per_s, 2),
        )
    )


def _ask(run: _Run, tune: Any) -> torch.Tensor:  # noqa: ANN401 - as above
    """Gather the averaged model's logits [m, K] of the tuning pictures."""
    own = [(indices.numpy(), run.learner.predict(images).numpy()) for images, indices in tune]
    logits = torch.empty(len(run.job.tune), run.job.classes)
    for share in run.group.gather(own):
        for indices, rows in share:
            logits[torch.from_numpy(indices)] = torch.from_numpy(rows)
    return logits


def _measure(tune: Sequence[Sample], logits: torch.Tensor) -> tuple[float, float]:
    """Measure weighted log loss, and accuracy, on the tuning pictures."""
    answers = logits.numpy().astype(np.float64)
    labels = np.array([sample.label_index for sample in tune])
    weights = np.array([sample.weight for sample in tune])
    return log_loss(answers, labels, weights), float((answers.argmax(axis=1) == labels).mean())


def _divergence(run: _Run, epoch: int, batch: int, samples: Sequence[Sample]) -> str:
    files = listed([str(sample.path) for sample in samples], _NAMED_FILES)
    path = run.job.checkpoint
    remedy = f"; the checkpoint of the epoch before is kept at {path}" if path is not None and path.exists() else ""
    where = f"in epoch {epoch + 1}, batch {batch + 1} ({files})"
    return f"the loss is not a number any more {where}{remedy}: try a smaller --lr"
