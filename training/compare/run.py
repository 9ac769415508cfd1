"""One run of a comparison, trained as ``regraft train`` would."""

import logging
import math
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from math import prod
from pathlib import Path
from statistics import median
from typing import Any, Final

from onnx import TensorProto

from regraft.errors import RegraftError
from regraft.model import artifact
from regraft.model.artifact import Head
from regraft.model_names import MAX_NAME_LENGTH, derive_name
from regraft.stores.models import FEATURES_FILE, MODEL_FILE, REPORT_FILE, GateMode
from training.compare.results import EpochPoint, FailedRun, FinishedRun, Run
from training.compare.settings import CompareSettings
from training.data.dataset import Dataset
from training.data.subsets import ALL, take_share
from training.evaluation.findings import Epoch
from training.evaluation.metrics import measure
from training.head.features import Features, load_features
from training.settings import TrainSettings
from training.strategies.context import Context, Listener, Stopwatch
from training.train import coordinator_for, make_candidate, train

STORE_FOLDER: Final = "models"
_HASH_DIGITS: Final = 12

log = logging.getLogger("regraft.compare")


def attempt_run(
    run: Run, settings: CompareSettings, dataset: Dataset, caches: Path, listener: Listener
) -> tuple[FinishedRun | FailedRun, Dataset]:
    """Train one combination; a failure is an outcome too.

    Args:
        run: what to train.
        settings: of the comparison.
        dataset: all of its pictures.
        caches: folder of the caches that runs of this comparison share.
        listener: hears how far it is.

    Returns:
        The outcome, and the dataset with the split that the run found to be right.
    """
    try:
        if run.share == ALL and run.seed == settings.seed:
            return _train_model(run, settings, dataset, caches, listener)
        return _measure_run(run, settings, take_share(dataset, run.share, run.seed), caches, listener), dataset
    except RegraftError as error:
        reason = str(error)
    except Exception as error:  # a bug or a machine too small costs this run, not the hours of the others
        log.exception("%s", run.title)
        reason = f"{type(error).__name__}: {error}"
    listener.note(f"{run.title}: {reason}")
    return FailedRun(**vars(run), error=reason), dataset


@contextmanager
def cache_for(run: Run, caches: Path, *, begin_empty: bool = False) -> Iterator[Path]:
    """Yield a run's own cache, with embeddings by pretrained backbones."""
    shared = caches / sha256(f"{run.data}\n{run.backbone}".encode()).hexdigest()[:_HASH_DIGITS]
    with tempfile.TemporaryDirectory(dir=caches) as own:
        cache = Path(own) / "cache"
        if begin_empty or run.strategy == "scratch" or not shared.is_dir():
            cache.mkdir()
        else:
            shutil.copytree(shared, cache)
        yield cache
        if run.strategy == "probe" or (run.strategy != "scratch" and not shared.is_dir()):
            shutil.rmtree(shared, ignore_errors=True)
            cache.rename(shared)


def train_settings(run: Run, settings: CompareSettings) -> TrainSettings:
    """Return what ``regraft train`` would be asked for a run."""
    data = dict(zip(settings.names, settings.data, strict=True))[run.data]
    changes = {} if run.strategy == "probe" else dict(settings.changes)
    if run.strategy == "scratch":
        changes.pop("freeze", None)  # what is frozen at random would make no fair control
    return TrainSettings(
        data,
        name=model_name(run, prefixed=len(settings.data) > 1),
        store=settings.folder / STORE_FOLDER,
        backbone=run.backbone,
        weights=settings.weights,
        strategy=run.strategy,  # type: ignore[arg-type]  # was checked, as is the next
        init=settings.init if run.strategy in {"finetune", "auto"} else "head",  # type: ignore[arg-type]
        seed=run.seed,
        changes=changes,
        tensorboard=False,
        keep_state=False,
    )


def model_name(run: Run, *, prefixed: bool = False) -> str:
    """Name a combination's model in the store: 'timm/x' probed is timm-x-probe."""
    full = f"{run.data}-{run.backbone}" if prefixed else run.backbone
    name = derive_name(f"{full}-{run.strategy}")
    if name.endswith(f"-{run.strategy}"):
        return name
    ending = f"-{sha256(full.encode()).hexdigest()[:6]}-{run.strategy}"
    return name[: MAX_NAME_LENGTH - len(ending)] + ending


class _Curve:
    """Listener that records epoch times and speeds, and passes all on."""

    def __init__(self, listener: Listener) -> None:
        self.progress, self.note = listener.progress, listener.note
        self._listener, self._started = listener, time.perf_counter()
        self.moments: list[EpochPoint] = []
        self.images_per_s: list[float] = []

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        """Hear the figures of an epoch."""
        if math.isfinite(epoch.tune_accuracy):  # nothing may have been set aside
            seconds = round(time.perf_counter() - self._started, 3)
            self.moments.append(EpochPoint(epoch.number, seconds, epoch.tune_accuracy))
        if epoch.number and math.isfinite(epoch.images_per_s):  # nothing is learned in epoch 0
            self.images_per_s.append(epoch.images_per_s)
        self._listener.epoch(epoch, epochs)


def _train_model(
    run: Run, settings: CompareSettings, dataset: Dataset, caches: Path, listener: Listener
) -> tuple[FinishedRun, Dataset]:
    """Train a model from an empty cache into the comparison's own store."""
    curve = _Curve(listener)
    with cache_for(run, caches, begin_empty=True) as cache:
        # its models compete with each other only
        result = train(train_settings(run, settings), curve, cache=cache, gate=GateMode.OFF, dataset=dataset)
    features, head = load_features(result.path.with_name(FEATURES_FILE)), artifact.read(result.path).head
    unseen, place = result.findings.selective, result.path.parent.relative_to(settings.folder)
    row = _row(
        run,
        head,
        features,
        carried_out=result.card.strategy,
        weights=result.card.backbone.weights,
        unseen_accuracy=unseen.accuracy[-1] if unseen and unseen.accuracy else None,
        stage_seconds=result.stage_seconds,
        curve=curve,
    )
    row = replace(
        row,
        name=result.name,
        version=result.version,
        model=(place / MODEL_FILE).as_posix(),
        report=(place / REPORT_FILE).as_posix(),
        model_mb=round(result.path.stat().st_size / 1e6, 3),
        parameters=_parameters(result.path),
    )
    return row, result.dataset


def _measure_run(
    run: Run, settings: CompareSettings, dataset: Dataset, caches: Path, listener: Listener
) -> FinishedRun:
    """Train only to measure: nothing is published."""
    train_as, curve, watch = train_settings(run, settings), _Curve(listener), Stopwatch()
    with coordinator_for(train_as) as coordinator, cache_for(run, caches) as cache:
        candidate = make_candidate(dataset, Context(train_as, cache, cache / "run", curve, watch), coordinator)
    unseen, labels = candidate.fitted.unseen, candidate.features.train().label_index
    right = unseen.probabilities.argmax(axis=1) == labels[unseen.rows]
    return _row(
        run,
        candidate.fitted.head,
        candidate.features,
        carried_out=candidate.strategy,
        weights=candidate.backbone.weights,
        unseen_accuracy=float(right.mean()) if len(right) else None,
        stage_seconds=watch.seconds,
        curve=curve,
    )


def _row(
    run: Run,
    head: Head,
    features: Features,
    *,
    carried_out: str,
    weights: str,
    unseen_accuracy: float | None,
    stage_seconds: dict[str, float],
    curve: _Curve,
) -> FinishedRun:
    holdout, learned = features.holdout(), features.train()
    answers = head.probabilities(holdout.embedding)
    metrics = measure(answers, holdout.label_index, holdout.labels, holdout.group)
    wrong = answers.argmax(axis=1) != holdout.label_index
    right = head.probabilities(learned.embedding).argmax(axis=1) == learned.label_index
    embedded = len(features.sha256) / max(stage_seconds.get("embed", 0.0), 1e-3)
    return FinishedRun(
        **vars(run),
        carried_out=carried_out,
        weights=weights,
        train_images=len(learned.sha256),
        accuracy=metrics.accuracy if metrics else None,
        accuracy_interval=metrics.accuracy_interval if metrics else None,
        macro_f1=metrics.macro_f1 if metrics else None,
        mistakes=tuple(name[:_HASH_DIGITS] for name in holdout.select(wrong).sha256),
        train_accuracy=float(right.mean()),
        unseen_accuracy=unseen_accuracy,
        images_per_s=round(median(curve.images_per_s) if curve.images_per_s else embedded, 1),
        seconds=round(sum(stage_seconds.values()), 3),
        stage_seconds=stage_seconds,
        curve=tuple(curve.moments),
    )


def _parameters(model: Path) -> int:
    tensors: Any = artifact.read(model).model.graph.initializer
    return sum(prod(tensor.dims) for tensor in tensors if tensor.data_type == TensorProto.FLOAT)
