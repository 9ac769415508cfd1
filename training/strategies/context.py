"""Context of a run and the candidate that a strategy makes."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol

from regraft.model.card import Choice, RecipeValue
from regraft.progress import Progress
from training.backbones.cache import ExportedBackbone, embedding_cache
from training.data.crops import over_limits
from training.data.dataset import Dataset
from training.data.samples import Sample
from training.evaluation.findings import Epoch, Findings
from training.head.additional import Additional
from training.head.features import Embedder, Features, assemble
from training.head.fit import FittedHead
from training.settings import TrainSettings

CHECKPOINT_FILE: Final = "checkpoint.pt"
WHOLE_CHECKPOINT_FILE: Final = "checkpoint-whole.pt"
"""Of the second run of a fine-tuning, which learns from the pictures set aside too."""


@dataclass
class Stopwatch:
    """Seconds spent in each stage, in the order in which they began."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        started = time.perf_counter()
        self.seconds.setdefault(name, 0.0)
        yield
        self.seconds[name] = round(self.seconds[name] + time.perf_counter() - started, 3)


class Listener(Protocol):
    """Listener to the progress of a run."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """Hear of a step of a stage, see `regraft.progress`."""

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        """Hear an epoch's figures, and how many epochs there are at most."""

    def note(self, text: str) -> None:
        """Hear what was decided, and why."""


class SilentListener:
    """Listener that ignores all."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """Hear of a step."""

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        """Hear of an epoch."""

    def note(self, text: str) -> None:
        """Hear of a decision."""


@dataclass(frozen=True)
class Context:
    """A run's settings, and where its parts put what they do.

    Attributes:
        cache: of exported backbones and embeddings.
        runs: the folder of this model's checkpoint and events.
    """

    settings: TrainSettings
    cache: Path
    runs: Path
    listener: Listener
    watch: Stopwatch = field(default_factory=Stopwatch)

    @property
    def progress(self) -> Progress:
        """Progress of the stages."""
        return self.listener.progress


@dataclass(frozen=True)
class Candidate:
    """A backbone with a fitted head, ready to become a version.

    Attributes:
        strategy: what was done in the end: ``probe``, ``finetune``, ``scratch`` or ``import``.
        dataset: without the pictures that could not be read.
        extra: pictures of a second set that were learned from too.
        additional: rows beside the features that the head was fitted on.
        mirror: whether pictures were mirrored to learn from, or may be.
        choice: why this and not another way, where there were two.
        imported: what an import rests on, for the card; empty of all that was trained here.
        finetuning_record: numbers of a fine-tuning or training from scratch, for the card; empty where there was none.
    """

    strategy: str
    dataset: Dataset
    backbone: ExportedBackbone
    features: Features
    fitted: FittedHead
    findings: Findings
    extra: tuple[Sample, ...] = ()
    additional: Additional | None = None
    mirror: bool = True
    choice: Choice | None = None
    finetuning_record: Mapping[str, RecipeValue] = field(default_factory=dict)
    imported: Mapping[str, RecipeValue] = field(default_factory=dict)


def embed_dataset(dataset: Dataset, backbone: ExportedBackbone, context: Context) -> tuple[Dataset, Features, Embedder]:
    """Embed every picture; unreadable ones leave the dataset.

    Raises:
        DatasetError: none is left.
    """
    embedder = Embedder.of(backbone)
    files = {image.sha256: image.path for image in dataset.images}
    with embedding_cache(context.cache) as stored:
        embeddings, failures = embedder.embed(files, stored, context.progress)
    failures |= over_limits({sha256: file for sha256, file in files.items() if sha256 not in failures})
    dataset = dataset.without_unreadable(failures, context.settings.data)
    rows = [(image.sha256, image.label, image.is_holdout) for image in dataset.images]
    groups = {image.sha256: image.group for image in dataset.images if image.group >= 0}
    weights = {image.sha256: image.weight for image in dataset.images}
    sources = {image.sha256: image.source for image in dataset.images if image.source}
    features = assemble(dataset.labels, rows, embeddings, groups=groups, weights=weights, sources=sources)
    return dataset, features, embedder


def with_note(candidate: Candidate, context: Context, note: str) -> Candidate:
    """Tell of a decision, and return the candidate with the note."""
    context.listener.note(note)
    return replace(candidate, findings=replace(candidate.findings, notes=(*candidate.findings.notes, note)))
