"""The story of a comparison: every backbone with every strategy on the same pictures, then all on the same clock.

Each combination is a training run of its own, whose version is published in the comparison's model store. It starts
with an empty cache, so that the seconds are comparable; the holdout is the same for all.
"""

import hashlib
import json
import logging
import platform
import re
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Final

from onnx import TensorProto

from regraft import artifact
from regraft.errors import InvalidRequestError, MissingPackageError, RegraftError, TrainingError
from regraft.files import storage_errors, write_durably
from regraft.picture_folders import text_of
from regraft.runtime import cpu_budget, require_onnxruntime
from regraft.store import MODEL_FILE, REPORT_FILE, GateMode
from training.compare_settings import CompareSettings
from training.comparison import Comparison, Failure, Row, mark_pareto
from training.comparison_chart import draw, require_matplotlib
from training.comparison_page import render
from training.dataset import Dataset, check_trainable, scan
from training.settings import TrainSettings
from training.speed import ms_per_image
from training.strategy import Listener
from training.train import TrainResult, train

COMPARISON_FILE: Final = "comparison.json"
PAGE_FILE: Final = "comparison.html"
CHART_FILE: Final = "comparison.svg"
STORE_FOLDER: Final = "models"
_LONGEST_NAME: Final = 64

Listen = Callable[[str], AbstractContextManager[Listener]]
"""Given the title of a part of the work, says who hears how far it is."""

log = logging.getLogger("regraft.compare")


def compare(settings: CompareSettings, listen: Listen) -> Comparison:
    """Train and measure every combination; one that fails does not stop the others.

    Args:
        settings: what to do.
        listen: hears how far it is.

    Raises:
        InvalidRequestError: the folder to write to holds something else.
        DatasetError: the data cannot be trained on.
        MissingPackageError: matplotlib or torch is not installed.
        TrainingError: every combination failed.
        StorageError: the folder cannot be written to.
    """
    require_matplotlib()  # now, not after hours of training
    _import_torch()
    _claim(settings.folder)
    with listen(text_of(settings.data)) as listener:
        dataset = scan(settings.data, listener.progress)
    check_trainable(dataset, settings.data)
    comparison = _empty(settings, dataset)
    _save(settings.folder, comparison)  # so that the folder of an interrupted comparison is known as one
    combinations = list(product(settings.backbones, settings.strategies))
    for number, (backbone, strategy) in enumerate(combinations, start=1):
        with listen(f"{number} of {len(combinations)}: {backbone}, {strategy}") as listener:
            outcome, settled = _try(settings, backbone, strategy, dataset, listener)
        if settled and not comparison.rows:  # the first that succeeds decides for all what is held out
            dataset = replace(settled, is_settled=True)
            comparison = replace(_empty(settings, dataset), outcomes=comparison.outcomes)
        comparison = replace(comparison, outcomes=(*comparison.outcomes, outcome))
        _save(settings.folder, comparison)
    if not comparison.rows:
        first = comparison.failures[0]
        raise TrainingError(f"nothing could be compared; {first.backbone}, {first.strategy}: {first.error}")
    with listen("time for a picture") as listener:
        timed = iter(_timed(settings.folder, comparison.rows, dataset, listener))
    outcomes = [next(timed) if isinstance(outcome, Row) else outcome for outcome in comparison.outcomes]
    comparison = replace(comparison, outcomes=mark_pareto(outcomes))
    _save(settings.folder, comparison)
    _save_page(settings.folder, comparison)
    return comparison


def model_name(backbone: str, strategy: str) -> str:
    """Return what the model of a combination is called in the store: 'timm/x' probed gives timm-x-probe."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{backbone}-{strategy}").lstrip("-._")
    if len(name) <= _LONGEST_NAME:
        return name
    ending = f"-{hashlib.sha256(backbone.encode()).hexdigest()[:6]}-{strategy}"
    return name[: _LONGEST_NAME - len(ending)] + ending


def _import_torch() -> None:
    """Load it before the first run, which would pay for it alone."""
    try:
        import training.export  # noqa: PLC0415 - torch
        import training.tuner  # noqa: F401, PLC0415 - likewise
    except ImportError as error:
        raise MissingPackageError(f"a comparison needs torch: pip install 'regraft[train]' ({error})") from error


def _claim(folder: Path) -> None:
    """Make the folder, or refuse one that holds anything but an earlier comparison."""
    with storage_errors("cannot write the comparison"):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / COMPARISON_FILE).is_file():
            raise InvalidRequestError(f"--out: {folder} holds something else than a comparison: name another folder")


def _empty(settings: CompareSettings, dataset: Dataset) -> Comparison:
    held = sum(image.is_holdout for image in dataset.images)
    return Comparison(
        data=text_of(Path(settings.data.resolve().name)),
        labels=len(dataset.labels),
        train_images=len(dataset.images) - held,
        holdout_images=held,
        split=dataset.how_split,
        seed=settings.seed,
        epochs=settings.epochs,
        machine=f"{platform.machine()}, {cpu_budget()} CPUs, ONNX Runtime {require_onnxruntime().__version__}",
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _try(
    settings: CompareSettings, backbone: str, strategy: str, dataset: Dataset, listener: Listener
) -> tuple[Row | Failure, Dataset | None]:
    """Train one combination; return it with the split that it found to be right."""
    try:
        with tempfile.TemporaryDirectory(prefix=".cache-", dir=settings.folder) as cache:
            # its models compete with each other only
            run = _run_of(settings, backbone, strategy)
            result = train(run, listener, cache=Path(cache), gate=GateMode.OFF, dataset=dataset)
        return _row(result, backbone, strategy, settings.folder), result.dataset
    except RegraftError as error:
        reason = str(error)
    except Exception as error:  # a bug or a machine too small costs this row, not the hours of the others
        log.exception("%s, %s", backbone, strategy)
        reason = f"{type(error).__name__}: {error}"
    listener.note(f"{backbone}, {strategy}: {reason}")
    return Failure(backbone, strategy, reason), None


def _run_of(settings: CompareSettings, backbone: str, strategy: str) -> TrainSettings:
    changes = {} if strategy == "probe" or settings.epochs is None else {"epochs": settings.epochs}
    return TrainSettings(
        settings.data,
        name=model_name(backbone, strategy),
        store=settings.folder / STORE_FOLDER,
        backbone=backbone,
        weights=settings.weights,
        strategy=strategy,  # type: ignore[arg-type]  # was checked
        seed=settings.seed,
        changes=changes,
        tensorboard=False,
        keep_state=False,
    )


def _row(result: TrainResult, backbone: str, strategy: str, folder: Path) -> Row:
    card, metrics, place = result.card, result.card.metrics, result.path.parent.relative_to(folder)
    return Row(
        backbone=backbone,
        strategy=strategy,
        carried_out=card.strategy,
        weights=card.backbone.weights,
        name=result.name,
        version=result.version,
        model=(place / MODEL_FILE).as_posix(),
        report=(place / REPORT_FILE).as_posix(),
        accuracy=metrics.accuracy if metrics else None,
        accuracy_interval=metrics.accuracy_interval if metrics else None,
        macro_f1=metrics.macro_f1 if metrics else None,
        model_mb=round(result.path.stat().st_size / 1e6, 3),
        parameters=_parameters(result.path),
        ms=0.0,  # all models are measured together at the end
        seconds=round(sum(result.stage_seconds.values()), 3),
        stage_seconds=result.stage_seconds,
    )


def _parameters(model: Path) -> int:
    tensors: Any = artifact.read(model).model.graph.initializer
    return sum(prod(tensor.dims) for tensor in tensors if tensor.data_type == TensorProto.FLOAT)


def _timed(folder: Path, rows: Sequence[Row], dataset: Dataset, listener: Listener) -> list[Row]:
    held_first = sorted(dataset.images, key=lambda image: (not image.is_holdout, image.sha256))
    models = [folder / row.model for row in rows]
    times = ms_per_image(models, [image.path for image in held_first], listener.progress)
    return [replace(row, ms=ms) for row, ms in zip(rows, times, strict=True)]


def _save(folder: Path, comparison: Comparison) -> None:
    text = json.dumps(comparison.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with storage_errors("cannot write the comparison"):
        write_durably(folder / COMPARISON_FILE, text.encode())


def _save_page(folder: Path, comparison: Comparison) -> None:
    chart = draw(comparison)
    with storage_errors("cannot write the comparison"):
        write_durably(folder / CHART_FILE, chart)
        write_durably(folder / PAGE_FILE, render(comparison, chart).encode())
