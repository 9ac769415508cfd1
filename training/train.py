"""The story of a training run: folder, backbone, embeddings, head, file, version."""

import getpass
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from regraft.card import ModelCard
from regraft.errors import DatasetError, InvalidRequestError
from regraft.image import decode_crop
from regraft.store import MODEL_FILE, ModelStore
from training.catalogue import DEFAULT_BACKBONE
from training.dataset import Dataset, LeftOut, check_trainable, scan, text_of
from training.features import Embedder, Features, assemble
from training.head import fit
from training.pretrained import ExportedBackbone, cache_folder, embedding_cache, load_backbone
from training.progress import Progress, silent
from training.version import build, prove, publish

_PROOF_IMAGES = 8


@dataclass(frozen=True)
class TrainSettings:
    """What a run is asked to do.

    Attributes:
        data: the folder of labelled photos, see `training.dataset`.
        name: of the model in the store; the folder's name if empty.
        store: the model store.
        backbone: see `training.backbones`.
        weights: likewise.
        strategy: ``probe`` trains the head on a frozen backbone.
        seed: of everything that is random.
    """

    data: Path
    name: str = ""
    store: Path = Path("models")
    backbone: str = DEFAULT_BACKBONE
    weights: str = "default"
    strategy: Literal["probe"] = "probe"
    seed: int = 0


@dataclass(frozen=True)
class TrainResult:
    """What a run made; the version is the champion now."""

    name: str
    version: int
    path: Path
    card: ModelCard
    left_out: tuple[LeftOut, ...]
    split: str
    stage_seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the result for ``--json``."""
        metrics = self.card.metrics
        return {
            "name": self.name,
            "version": self.version,
            "path": str(self.path),
            "accuracy": metrics.accuracy if metrics else None,
            "accuracy_interval": list(metrics.accuracy_interval) if metrics else None,
            "macro_f1": metrics.macro_f1 if metrics else None,
            "images": self.card.train_images + (metrics.images if metrics else 0),
            "train_images": self.card.train_images,
            "holdout_images": metrics.images if metrics else 0,
            "seconds": round(sum(self.stage_seconds.values()), 3),
            "stage_seconds": self.stage_seconds,
            "labels": list(self.card.labels),
            "per_class": [entry.model_dump() for entry in metrics.per_class] if metrics else [],
            "head_digest": self.card.head_digest,
            "backbone_digest": self.card.backbone.digest,
            "split": self.split,
            "left_out": [{"file": entry.name, "reason": entry.reason} for entry in self.left_out],
        }


@dataclass
class _Stopwatch:
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 3)


def train(settings: TrainSettings, progress: Progress = silent) -> TrainResult:
    """Train a head on a frozen backbone, publish it, and make it the champion.

    Args:
        settings: what to do.
        progress: told the stages ``scan``, ``export``, ``embed`` and ``fit``.

    Raises:
        DatasetError: the folder cannot be trained on.
        InvalidRequestError: no such backbone or weights.
        StorageError: the store could not be written.
    """
    watch, cache = _Stopwatch(), cache_folder()
    name = settings.name or _name_after(settings.data)
    store = ModelStore(settings.store)
    store.versions(name)  # a bad name is refused before any work
    with watch.stage("scan"):
        dataset = scan(settings.data, progress)
        check_trainable(dataset, settings.data)
    with watch.stage("export"):
        backbone = load_backbone(settings.backbone, settings.weights, settings.seed, cache, progress)
    with watch.stage("embed"):
        dataset, features = _embed(dataset, backbone, settings.data, cache, progress)
    with watch.stage("fit"):
        fitted = fit(features, progress)
    with watch.stage("publish"):
        challenger = build(
            backbone.model,
            fitted,
            features,
            name=name,
            origin=(backbone.name, backbone.weights),
            spec=backbone.spec,
            strategy=settings.strategy,
            settings={"data": text_of(Path(settings.data.resolve().name)), "split": dataset.split},
            seed=settings.seed,
        )
        sample = features.holdout() if features.is_holdout.any() else features
        files = {image.sha256: image.path for image in dataset.images}
        shown = sample.sha256[:_PROOF_IMAGES]
        crops = [decode_crop(files[sha256].read_bytes(), backbone.spec) for sha256 in shown]
        prove(challenger, fitted.head, crops, list(sample.embedding[:_PROOF_IMAGES]))
        left_out = [(entry.name, entry.reason) for entry in dataset.left_out]
        who = getpass.getuser()
        version = publish(store, challenger, left_out=left_out, who=who, why="regraft train")
        store.promote(name, version, who=who, why="trained from a folder")
    path = store.folder(name, version) / MODEL_FILE
    return TrainResult(name, version, path, challenger.card, dataset.left_out, dataset.split, watch.seconds)


def _name_after(folder: Path) -> str:
    """Return a model's name after its folder: 'my photos' gives my-photos."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._")[:64]
    if not name:
        raise InvalidRequestError(f"--name: no model can be called after {text_of(folder)!r}: say a name")
    return name


def _embed(
    dataset: Dataset, backbone: ExportedBackbone, root: Path, cache: Path, progress: Progress
) -> tuple[Dataset, Features]:
    """Embed every picture; those that cannot be decoded leave the dataset, with the reason."""
    embedder = Embedder.open(backbone.model.SerializeToString(), backbone.spec, backbone.key)
    files = {image.sha256: image.path for image in dataset.images}
    with embedding_cache(cache) as known:
        embeddings, failures = embedder.embed(files, known, progress)
    dataset = dataset.without(failures)
    if not dataset.images:
        raise DatasetError(f"{root}: no file can be read as an image; the first one: {next(iter(failures.values()))}")
    check_trainable(dataset, root)
    rows = [(image.sha256, image.label, image.is_holdout) for image in dataset.images]
    return dataset, assemble(dataset.labels, rows, embeddings)
