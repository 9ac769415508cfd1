"""Sweep of every backbone and strategy on the same pictures.

Each combination learns from all training pictures first, with nothing in any cache, so that the seconds are comparable;
this model is published in the comparison's store. Then come smaller shares and further seeds, which are measured only.
The holdout is the same for all.
"""

import hashlib
import json
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from regraft.errors import InvalidRequestError, MissingPackageError, TrainingError
from regraft.files import storage_errors, utc_now, write_durably
from regraft.machine import cpu_budget
from regraft.model.session import require_onnxruntime
from regraft.stores.models import FEATURES_FILE
from training.compare.chart import require_matplotlib
from training.compare.page import draw_charts, render
from training.compare.results import (
    DataSet,
    FailedRun,
    FinishedRun,
    Published,
    Run,
    SweepResult,
    by_share,
    mark_pareto,
    read_row,
    winner,
)
from training.compare.run import attempt_run, cache_for, train_settings
from training.compare.settings import CompareSettings
from training.data.dataset import Dataset, check_trainable, scan
from training.data.subsets import take_share
from training.evaluation.latency import ms_per_image
from training.head.features import Features, load_features
from training.strategies.context import Listener
from training.train import train
from training.versions.pictures import ExamplesPlace

COMPARISON_FILE: Final = "comparison.json"
PAGE_FILE: Final = "comparison.html"
CHART_FOLDER: Final = "charts"

Listen = Callable[[str], AbstractContextManager[Listener]]
"""Given the title of a part of the work, says who hears how far it is."""

_Datasets = dict[str, Dataset]


def compare(settings: CompareSettings, listen: Listen) -> SweepResult:
    """Train and measure every combination, whichever fail.

    Args:
        settings: what to do.
        listen: hears how far it is.

    Raises:
        InvalidRequestError: the folder to write to holds something else, or a share does not fit the data.
        DatasetError: the data cannot be trained on.
        MissingPackageError: matplotlib or torch is not installed.
        TrainingError: every combination failed.
        StorageError: the folder cannot be written to.
    """
    require_matplotlib()  # now, not after hours of training
    _import_torch()
    _claim(settings.folder)
    datasets = _scanned(settings, listen)
    comparison = _begin(settings, datasets)
    _save(settings.folder, comparison)  # so that the folder of an interrupted comparison is known as one
    with tempfile.TemporaryDirectory(prefix=".cache-", dir=settings.folder) as caches:
        comparison = _run_all(settings, comparison, datasets, Path(caches), listen)
        if not comparison.rows:
            first = comparison.failures[0]
            raise TrainingError(f"nothing could be compared; {first.backbone}, {first.strategy}: {first.error}")
        outcomes = _timed(settings.folder, comparison, datasets, listen)
        comparison = replace(comparison, outcomes=mark_pareto(outcomes))
        _save_page(settings.folder, comparison)
        if settings.publish:
            published = _publish(settings, comparison, datasets, Path(caches), listen)
            comparison = replace(comparison, published=tuple(published))
            _save_page(settings.folder, comparison)
    return comparison


def _import_torch() -> None:
    """Load it before the first run, which would pay for it alone."""
    try:
        import training.backbones.onnx_export  # noqa: PLC0415 - torch
        import training.strategies.finetuning.coordinator  # noqa: F401, PLC0415 - likewise
    except ImportError as error:
        raise MissingPackageError(f"a comparison needs torch: pip install 'regraft[train]' ({error})") from error


def _claim(folder: Path) -> None:
    """Create the folder, or refuse one with anything but a comparison."""
    with storage_errors("cannot write the comparison"):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / COMPARISON_FILE).is_file():
            raise InvalidRequestError(f"--out: {folder} holds something else than a comparison: name another folder")


def _scanned(settings: CompareSettings, listen: Listen) -> _Datasets:
    """Scan all data before the first run, so that errors come early."""
    datasets = {}
    for name, data in zip(settings.names, settings.data, strict=True):
        with listen(name) as listener:
            dataset = scan(data, listener.progress)
        check_trainable(dataset, data)
        for share in settings.all_shares:
            take_share(dataset, share, settings.seed)
        datasets[name] = dataset
    return datasets


def _begin(settings: CompareSettings, datasets: _Datasets) -> SweepResult:
    """Begin a comparison, with the runs of an interrupted one.

    Raises:
        InvalidRequestError: that one was of other pictures, or by another recipe.
    """
    comparison = SweepResult(
        datasets=tuple(_facts(name, dataset, _digest(dataset)) for name, dataset in datasets.items()),
        seeds=settings.all_seeds,
        recipe={"weights": settings.weights, "init": settings.init, **settings.changes},
        machine=f"{platform.machine()}, {cpu_budget()} CPUs, ONNX Runtime {require_onnxruntime().__version__}",
        created_at=utc_now(),
    )
    if not settings.resume:
        return comparison
    before = _read(settings.folder)
    digests = {each["name"]: each["digest"] for each in before.get("datasets", ())}
    if digests and digests != {each.name: each.digest for each in comparison.datasets}:
        raise InvalidRequestError(f"--resume: the pictures are others than those of {settings.folder}: drop the flag")
    if digests and before["recipe"] != comparison.recipe:
        raise InvalidRequestError(f"--resume: {settings.folder} was made by {before['recipe']}: drop the flag")
    wanted = set(_runs(settings))
    rows = [read_row(entry) for entry in before.get("rows", ()) if not entry["error"]]
    rows = [row for row in rows if _run_of(row) in wanted and (settings.folder / row.model).exists()]
    for row in rows:
        if row.model and not datasets[row.data].is_settled:
            features = load_features((settings.folder / row.model).with_name(FEATURES_FILE))
            datasets[row.data] = _settled_as(datasets[row.data], features)
    return replace(_with_facts(comparison, datasets), outcomes=tuple(rows))


def _run_all(
    settings: CompareSettings, comparison: SweepResult, datasets: _Datasets, caches: Path, listen: Listen
) -> SweepResult:
    """Run what is missing, but no combination that failed on all pictures."""
    runs = list(_runs(settings))
    for number, run in enumerate(runs, start=1):
        if any(_run_of(row) == run for row in comparison.rows):
            continue
        if any(failure.combination == run.combination for failure in comparison.failures):
            continue
        title = f"{number} of {len(runs)}: {run.data}, {run.title}"
        with listen(title + _left(runs[number - 1 :], comparison.rows)) as listener:
            outcome, settled = attempt_run(run, settings, datasets[run.data], caches, listener)
        if isinstance(outcome, FinishedRun) and not datasets[run.data].is_settled:
            # the first that succeeds decides for all what is held out
            datasets[run.data] = replace(settled, is_settled=True)
            comparison = _with_facts(comparison, datasets)
        comparison = replace(comparison, outcomes=(*comparison.outcomes, outcome))
        _save(settings.folder, comparison)
    return comparison


def _runs(settings: CompareSettings) -> Iterator[Run]:
    """Yield the runs: all pictures, then shares, then further seeds."""
    for seed, share, data, backbone, strategy in product(
        settings.all_seeds, settings.all_shares, settings.names, settings.backbones, settings.strategies
    ):
        yield Run(data=data, backbone=backbone, strategy=strategy, share=share, seed=seed)


def _run_of(row: FinishedRun) -> Run:
    return Run(data=row.data, backbone=row.backbone, strategy=row.strategy, share=row.share, seed=row.seed)


def _left(runs: Sequence[Run], rows: Sequence[FinishedRun]) -> str:
    """Estimate the time left, once every run has one of another seed."""
    groups = by_share(rows)
    times = [[row.seconds for row in groups.get((run.combination, run.share), ())] for run in runs]
    return f"; about {sum(map(fmean, times)) / 60:.0f} min to go" if all(times) else ""


def _facts(name: str, dataset: Dataset, digest: str) -> DataSet:
    holdout_images = sum(image.is_holdout for image in dataset.images)
    return DataSet(
        name, len(dataset.labels), len(dataset.images) - holdout_images, holdout_images, dataset.how_split, digest
    )


def _with_facts(comparison: SweepResult, datasets: _Datasets) -> SweepResult:
    facts = tuple(_facts(each.name, datasets[each.name], each.digest) for each in comparison.datasets)
    return replace(comparison, datasets=facts)


def _digest(dataset: Dataset) -> str:
    lines = sorted(f"{image.sha256} {image.label} {image.is_holdout}" for image in dataset.images)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _settled_as(dataset: Dataset, features: Features) -> Dataset:
    """Restore the dataset's split and groups from a model's features."""
    side_of = dict(
        zip(features.sha256, zip(features.is_holdout.tolist(), features.group.tolist(), strict=True), strict=True)
    )
    dropped = [image.sha256 for image in dataset.images if image.sha256 not in side_of]
    settled = dataset.without(dict.fromkeys(dropped, "took no part in the comparison that goes on"))
    images = [
        replace(image, is_holdout=side_of[image.sha256][0], group=side_of[image.sha256][1]) for image in settled.images
    ]
    return replace(settled, images=tuple(images), is_settled=True)


def _timed(folder: Path, comparison: SweepResult, datasets: _Datasets, listen: Listen) -> list[FinishedRun | FailedRun]:
    """Measure each model's time for a picture, in turns."""
    times: dict[str, float] = {}
    for name, dataset in datasets.items():
        models = [row.model for row in comparison.of(name).models]
        held_first = sorted(dataset.images, key=lambda image: (not image.is_holdout, image.sha256))
        with listen(f"{name}: time for a picture") as listener:
            paths, pictures = [folder / model for model in models], [image.path for image in held_first]
            times |= dict(zip(models, ms_per_image(paths, pictures, listener.progress), strict=True))
    return [
        replace(outcome, ms=times[outcome.model]) if isinstance(outcome, FinishedRun) and outcome.model else outcome
        for outcome in comparison.outcomes
    ]


def _publish(
    settings: CompareSettings, comparison: SweepResult, datasets: _Datasets, caches: Path, listen: Listen
) -> Iterator[Published]:
    """Train the winner of each data set again, through the store's gate."""
    for name, dataset in datasets.items():
        best = winner(comparison.of(name).rows)
        if best is None:
            continue
        train_as = replace(
            train_settings(_run_of(best), settings), name=settings.name, store=settings.store, keep_state=True
        )
        title = f"{name}: {best.backbone}, {best.strategy} goes before the gate"
        with listen(title) as listener, cache_for(_run_of(best), caches) as cache:
            place = ExamplesPlace(settings.store, settings.examples, settings.database)
            gate, keep = settings.gate, settings.keep_pictures
            result = train(train_as, listener, cache=cache, gate=gate, examples=place, keep=keep, dataset=dataset)
        yield Published(
            data=name,
            backbone=best.backbone,
            strategy=best.strategy,
            why=f"it answers {best.unseen_accuracy:.1%} of training pictures that it had not seen rightly",
            name=result.name,
            version=result.version,
            promoted=result.promoted,
            reasons=result.verdict.reasons if result.verdict else (),
            pictures=result.pictures.to_dict() if result.pictures else None,
        )


def _read(folder: Path) -> Mapping[str, Any]:
    """Read what an interrupted comparison left; nothing of an earlier Regraft."""
    try:
        stored = json.loads((folder / COMPARISON_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) and "datasets" in stored else {}


def _save(folder: Path, comparison: SweepResult) -> None:
    text = json.dumps(comparison.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with storage_errors("cannot write the comparison"):
        write_durably(folder / COMPARISON_FILE, text.encode())


def _save_page(folder: Path, comparison: SweepResult) -> None:
    _save(folder, comparison)
    charts = draw_charts(comparison)
    with storage_errors("cannot write the comparison"):
        (folder / CHART_FOLDER).mkdir(exist_ok=True)
        for name, of_data in charts.items():
            for kind, chart in of_data.items():
                write_durably(folder / CHART_FOLDER / f"{name}-{kind}.svg", chart)
        write_durably(folder / PAGE_FILE, render(comparison, charts).encode())
