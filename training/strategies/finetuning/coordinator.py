"""Coordination of a run's processes: one leads, the others follow. Imports torch."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from regraft.errors import RegraftError
from regraft.image.spec import ResizeRule
from regraft.model.card import SourceVersion
from regraft.progress import Progress
from training.backbones.build import PretrainedBackbone, build_backbone
from training.backbones.cache import weights_origin
from training.backbones.trained_state import restore
from training.settings import TrainSettings
from training.strategies.finetuning.batches import seed_of
from training.strategies.finetuning.distributed import Processes, processes
from training.strategies.finetuning.learner import Classifier, Learner
from training.strategies.finetuning.loop import Job, OnEpoch, TrainedClassifier, run_job
from training.strategies.finetuning.signals import TrainingStopped
from training.versions.source import Source, source_of

log = logging.getLogger("regraft.train")


@dataclass(frozen=True)
class Origin:
    """The network to fine-tune, as `training.backbones.build.build_backbone` takes it.

    Attributes:
        source: the version of the store that it goes on from, whose weights ``weights`` then tells of.
    """

    name: str
    weights: str
    seed: int
    image_px: int | None
    source: Source | None = None
    resize: ResizeRule | None = None

    @staticmethod
    def of(settings: TrainSettings, weights: str) -> "Origin":
        """Return the run's network with weights, unless it goes on from a version."""
        if source := source_of(settings):
            facts = source.card.backbone
            return Origin(facts.name, facts.weights, settings.seed, None, source, settings.resize)
        return Origin(settings.backbone, weights, settings.seed, settings.image_px, resize=settings.resize)

    def build(self) -> PretrainedBackbone:
        """Build it anew; fine-tuning changes it."""
        if self.source is not None:
            built = restore(self.source.state(), self.source.artifact)
        else:
            built = build_backbone(self.name, self.weights, self.seed, self.image_px)
        return replace(built, spec=built.spec.resized_by(self.resize))

    @property
    def provenance(self) -> str:
        """The origin of its weights, for cards and people."""
        return self.weights if self.source else weights_origin(self.name, self.weights, self.seed)

    @property
    def lineage(self) -> tuple[SourceVersion, ...]:
        """The versions that it goes on from, the nearest first."""
        return self.source.lineage if self.source else ()


class Coordinator:
    """Fine-tunes with all processes of the run; lives in the first one."""

    def __init__(self, group: Processes) -> None:
        """Lead the others, who are in `follow`."""
        self._group = group

    def run_job(self, origin: Origin, job: Job, progress: Progress, on_epoch: OnEpoch) -> TrainedClassifier:
        """Fine-tune, see `training.strategies.finetuning.loop.run_job`."""
        self._group.from_first((origin, job))
        return run_job(origin.build(), job, self._group, progress, on_epoch)

    def estimate_s(self, origin: Origin, job: Job, images: int) -> float:
        """Estimate the seconds of so many images an epoch, from one step here."""
        backbone = origin.build()
        classifier = Classifier(backbone, job.classes, job.head)
        # Alone: the others take no part in this.
        learner = Learner(classifier, job.recipe, 2, Processes(0, 1, self._group.device))
        side, count = backbone.spec.crop_px, min(16, job.recipe.batch)
        image = torch.zeros(count, side, side, 3, dtype=torch.uint8)
        label, weight = torch.zeros(count, dtype=torch.int64), torch.ones(count)
        learner.start_epoch()
        torch.manual_seed(seed_of(job.seed))
        seconds = 0.0
        for step in range(2):  # the first one warms up
            started = time.perf_counter()
            learner.learn(image, label, weight, step, move=True)
            seconds = time.perf_counter() - started
        return seconds / count * job.recipe.epochs * images / self._group.count


@contextmanager
def lead() -> Iterator[Coordinator]:
    """Yield the coordinator in the first process; others must `follow`."""
    with processes() as group:
        try:
            yield Coordinator(group)
        except (RegraftError, TrainingStopped):
            group.from_first(None)
            raise
        # Any other error is a bug, after which the others may be anywhere: torchrun ends them with this process.
        group.from_first(None)


def follow() -> None:
    """Work for the first process until its run has ended."""
    with processes() as group:
        while (task := group.from_first(None)) is not None:
            origin, job = task
            try:
                run_job(origin.build(), job, group)
            except (RegraftError, TrainingStopped) as error:
                log.info("process %d: %s", group.rank, error)  # the first process tells the user
