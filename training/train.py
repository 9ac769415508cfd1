"""Training run: folder, backbone, embeddings, head, file, version."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from regraft.datasets.manifest import is_manifest
from regraft.errors import ArtifactError, InvalidRequestError, MissingPackageError
from regraft.files import cache_folder, text_of, utc_now
from regraft.gate_limits import GateLimits
from regraft.label_rules import nfc
from regraft.machine import return_large_blocks, user_name
from regraft.model.card import ModelCard
from regraft.model_names import derive_name
from regraft.stores.models import MODEL_FILE, REPORT_FILE, GateMode, ModelStore
from training.data.dataset import Dataset, check_trainable, scan
from training.data.file_listing import SkippedFile, shown_path
from training.data.samples import samples_of
from training.evaluation.cross_validation import outer_folds
from training.evaluation.curve.curve import learning_curve
from training.evaluation.diagnose import diagnose, thumbnails
from training.evaluation.findings import Findings, LearningCurve
from training.evaluation.novelty_check import check_novelty
from training.evaluation.report.occlusion import occlusion_maps
from training.gate.verdict import Verdict
from training.head.abstention import selective
from training.head.features import Embedder
from training.head.remarks import remarks, remarks_on_transfer
from training.quantisation.precision import in_precision
from training.retrain.classes import in_order_of
from training.retrain.outcome import goes_live, reason_of
from training.retrain.training_run import judge_training_run
from training.settings import TrainSettings
from training.strategies.context import (
    CHECKPOINT_FILE,
    WHOLE_CHECKPOINT_FILE,
    Candidate,
    Context,
    Listener,
    SilentListener,
    Stopwatch,
)
from training.strategies.extra_data import check_extra
from training.strategies.probe import probe
from training.strategies.provenance import provenance_of
from training.strategies.tracking import Tracked, tracking
from training.versions.kept_backbones import keep_backbone
from training.versions.pictures import ExamplesPlace, KeptPictures, keep_pictures
from training.versions.publish import Challenger, build, promote, prove_on_files, publish
from training.versions.read import StoredVersion, read_champion
from training.versions.source import settle_source, source_of

if TYPE_CHECKING:  # torch: a probe whose backbone is in the cache needs none
    from training.strategies.finetuning.coordinator import Coordinator

_UNMEASURED: Final = "Nothing was held out, so nothing says how good it is on new pictures: add some, or a val folder."
_FIRST: Final = {"train": "trained from a folder", "import": "imported"}
"""Why a version without a champion before it goes live."""
RUNS_FOLDER: Final = ".runs"
"""Inside the model store: checkpoints and events of runs, by the model's name."""


@dataclass(frozen=True)
class TrainResult:
    """Result of a training run.

    Attributes:
        promoted: whether the version is the champion now.
        verdict: what the gate said; None where there was no champion to compete with.
        dataset: as it was in the end, to train another on.
        pictures: what became of them; None where they were not to be kept.
    """

    name: str
    version: int
    promoted: bool
    verdict: Verdict | None
    path: Path
    card: ModelCard
    findings: Findings
    left_out: tuple[SkippedFile, ...]
    split: str
    stage_seconds: dict[str, float]
    dataset: Dataset
    pictures: KeptPictures | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the result for ``--json``."""
        metrics, findings = self.card.metrics, self.findings
        return {
            "name": self.name,
            "version": self.version,
            "promoted": self.promoted,
            "verdict": self.verdict.to_dict() if self.verdict else None,
            "path": str(self.path),
            "report": str(self.path.with_name(REPORT_FILE)),
            "strategy": self.card.strategy,
            "precision": self.card.backbone.precision,
            "accuracy": metrics.accuracy if metrics else None,
            "accuracy_interval": list(metrics.accuracy_interval) if metrics else None,
            "macro_f1": metrics.macro_f1 if metrics else None,
            "cross_validation": asdict(findings.cross_validation) if findings.cross_validation else None,
            "ece": findings.calibration.after.ece if findings.calibration else None,
            "abstention": self.card.abstention.model_dump() if self.card.abstention else None,
            "calibration_error": findings.calibration.after.unbiased if findings.calibration else None,
            "extra": asdict(findings.extra) if findings.extra else None,
            "choice": self.card.choice.model_dump() if self.card.choice else None,
            "notes": list(findings.notes),
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
            "pictures": self.pictures.to_dict() if self.pictures else None,
        }


def train(
    settings: TrainSettings,
    listener: Listener | None = None,
    *,
    cache: Path | None = None,
    gate: GateMode = GateMode.AUTO,
    examples: ExamplesPlace | None = None,
    keep: bool = False,
    dataset: Dataset | None = None,
    watch: Stopwatch | None = None,
) -> TrainResult:
    """Train a classifier and publish it through the gate.

    A first version goes live at once.

    Args:
        settings: what to do.
        listener: hears how far the run is.
        cache: of exported backbones and embeddings; the machine's own if None.
        gate: whether a version that the gate blessed goes live, where the model has a champion.
        examples: labelled ones, of which the gate looks at those of the champion's holdout; the store's own if None.
        keep: whether the run's pictures join them, before a version goes live; see
            `training.versions.pictures.keep_pictures`.
        dataset: what an earlier run made of the data, so that both are judged by the same pictures; None to look.
        watch: times the stages; one that measures more than time may be given.

    Raises:
        DatasetError: the folder cannot be trained on.
        InvalidRequestError: no such backbone or weights, or a flag that makes no sense.
        TrainingError: the training came to nothing.
        TrainingStopped: on request; it can be resumed.
        PreconditionError: the champion is no longer the one that it was judged against.
        ArtifactError: the champion is damaged, and the gate is not off.
        StorageError: the store could not be written.
    """
    name = nfc(settings.name) or _name_after(settings.data)
    store = ModelStore(settings.store)
    settings = settle_source(settings)
    examples = examples or ExamplesPlace(settings.store)
    champion = current_champion(store, name, gate)  # a bad name is refused before any work
    runs = settings.store / RUNS_FOLDER / name
    context = Context(settings, cache or cache_folder(), runs, listener or SilentListener(), watch or Stopwatch())
    facts = {key: str(value) for key, value in asdict(settings).items()}
    events = context.runs / "events"
    with (
        coordinator_for(settings) as coordinator,
        tracking(events, settings.mlflow, name, facts, tensorboard=settings.tensorboard) as trackers,
    ):
        context = replace(context, listener=Tracked(context.listener, trackers))
        with context.watch.stage("scan"):
            dataset = dataset or scan(settings.data, context.progress, settings.group_by)
            check_trainable(dataset, settings.data)
            _check_folds(dataset, settings)
            if settings.extra is not None:
                check_extra(settings.extra, settings.extra_classes, dataset.labels)
            if champion:
                dataset = _in_order_of(champion, dataset)
        candidate = make_candidate(dataset, context, coordinator)
        findings = judge_candidate(champion, candidate, store, name, examples, context)
        keep_in = examples if keep else None
        result = publish_candidate(candidate, findings, champion, store, name, gate, context, keep_in=keep_in)
        trackers.result(_figures(result), store.folder(name, result.version) / REPORT_FILE)
    return result


def current_champion(store: ModelStore, name: str, gate: GateMode) -> StoredVersion | None:
    """Read the champion; None without one, or damaged with the gate off.

    Raises:
        ExistsError: a model of this name is in the trash.
        ArtifactError: it is damaged, and the gate is not off.
    """
    store.folders.check_not_deleted(nfc(name))
    try:
        return None if store.champion(name) is None else read_champion(store, name)
    except ArtifactError as error:
        if gate is GateMode.OFF:
            return None
        raise ArtifactError(f"{error}; --gate off trains without a look at the champion") from error


def _in_order_of(champion: StoredVersion, dataset: Dataset) -> Dataset:
    """Reorder labels as the champion's, new ones last."""
    images = tuple(replace(image, label=nfc(image.label)) for image in dataset.images)
    labels = in_order_of(champion.features.labels, map(nfc, dataset.labels))
    return replace(dataset, images=images, labels=labels)


def _check_folds(dataset: Dataset, settings: TrainSettings) -> None:
    """Refuse a cross-validation of too small classes, before the work."""
    if not settings.cv:
        return
    samples = samples_of(dataset, holdout=False)
    labels, group = np.array([(sample.label_index, sample.group) for sample in samples]).T
    outer_folds(labels, dataset.labels, settings.cv, settings.seed, group)


def ran_as_follower(settings: TrainSettings) -> bool:
    """Follow the first process of ``torchrun``; true if this was a follower."""
    if int(os.environ.get("RANK", "0")) == 0:
        return False
    if settings.strategy != "probe":  # one process is enough for that
        from training.strategies.finetuning.coordinator import follow  # noqa: PLC0415 - torch

        follow()
    return True


@contextmanager
def coordinator_for(settings: TrainSettings) -> Iterator["Coordinator | None"]:
    """Yield the coordinator of fine-tuning, None for a probe.

    Raises:
        MissingPackageError: torch is not installed.
        InvalidRequestError: no stage of the network has the name that ``--freeze`` says.
    """
    if settings.strategy == "probe":
        return_large_blocks()
        yield None
        return
    try:
        from training.backbones.build import build_layers  # noqa: PLC0415 - torch
        from training.strategies.finetuning.coordinator import lead  # noqa: PLC0415 - torch
        from training.strategies.finetuning.freezing import frozen_stages  # noqa: PLC0415 - torch
    except ImportError as error:
        raise MissingPackageError(
            f"--strategy {settings.strategy} needs torch: pip install 'regraft[train]' ({error})"
        ) from error
    with lead() as coordinator:
        if "freeze" in settings.changes:  # a wrong one is refused before any work
            source = source_of(settings)
            network = build_layers(source.card.backbone.name if source else settings.backbone)
            frozen_stages(network, settings.changes["freeze"])
        yield coordinator


def make_candidate(dataset: Dataset, context: Context, coordinator: "Coordinator | None") -> Candidate:
    """Run the strategy and choose the precision; only a probe needs no coordinator."""
    return in_precision(_run_strategy(dataset, context, coordinator), context)


def _run_strategy(dataset: Dataset, context: Context, coordinator: "Coordinator | None") -> Candidate:
    settings = context.settings
    if coordinator is None:
        return probe(dataset, context)
    from training.strategies.auto import auto, finetune  # noqa: PLC0415 - torch
    from training.strategies.finetuning.strategy import cross_validate_finetuning, scratch  # noqa: PLC0415 - torch

    if settings.strategy == "scratch":
        probed, candidate = None, scratch(dataset, context, coordinator)
    else:
        probed = probe(dataset, context)
        candidate = (auto if settings.strategy == "auto" else finetune)(probed, context, coordinator)
    if settings.cv and candidate.finetuning_record:  # a probe has done that itself
        validation = cross_validate_finetuning(candidate, probed, context, coordinator)
        candidate = replace(candidate, findings=replace(candidate.findings, cross_validation=validation))
    return candidate


def build_challenger(
    candidate: Candidate,
    name: str,
    settings: TrainSettings,
    parent_version: int | None = None,
    labels_as_of: str | None = None,
) -> Challenger:
    """Build the model file and its card, and prove it on pictures.

    Without ``labels_as_of`` its labels are as they are called now.
    """
    as_of = utc_now("microseconds") if labels_as_of is None else labels_as_of
    provenance = replace(provenance_of(candidate, name, settings, parent_version), labels_as_of=as_of)
    challenger = build(
        candidate.backbone, candidate.fitted, candidate.features, provenance, additional=candidate.additional
    )
    files = {image.sha256: image.path for image in candidate.dataset.images}
    prove_on_files(challenger, candidate.fitted.head, files.__getitem__)
    return challenger


def judge_candidate(
    champion: StoredVersion | None,
    candidate: Candidate,
    store: ModelStore,
    name: str,
    examples: ExamplesPlace,
    context: Context,
) -> Findings:
    """Collect findings, with the gate's verdict where there is a champion."""
    with context.watch.stage("report"):
        findings = collect_findings(candidate, context.settings)
    if champion is None:
        return findings
    with context.watch.stage("judge"):
        judged = judge_training_run(champion, candidate, str(examples), store.golden(name), context, GateLimits())
    return with_judgement(findings, judged)


def with_judgement(findings: Findings, judged: Findings) -> Findings:
    """Add the gate's findings to the run's."""
    return replace(
        findings,
        verdict=judged.verdict,
        changes=judged.changes,
        doubted=judged.doubted,
        doubted_found=judged.doubted_found,
    )


def publish_candidate(
    candidate: Candidate,
    findings: Findings,
    champion: StoredVersion | None,
    store: ModelStore,
    name: str,
    gate: GateMode,
    context: Context,
    what: str = "train",
    keep_in: ExamplesPlace | None = None,
) -> TrainResult:
    """Publish a candidate, keep its pictures, and perhaps promote it.

    Args:
        candidate: backbone and head.
        findings: see `judge_candidate`.
        champion: that it competes with.
        store: the model store.
        name: of the model.
        gate: who has the last word.
        context: of the run.
        what: the command that made it, for the history.
        keep_in: where its pictures are kept; None for nowhere.
    """
    settings, dataset, verdict = context.settings, candidate.dataset, findings.verdict
    before = champion.version if champion else None
    why = reason_of(what, verdict, gate) if verdict else f"regraft {what}"
    who = user_name()
    with context.watch.stage("occlusion"):
        looked = draw_occlusion_maps(candidate, findings, context)
    with context.watch.stage("publish"):
        challenger = build_challenger(candidate, name, settings, parent_version=before)
        version = publish(
            store,
            challenger,
            left_out=[(shown_path(entry.file, settings.data), entry.reason) for entry in dataset.left_out],
            who=who,
            why=why,
            findings=findings,
            thumbnails=thumbnails(findings, {image.sha256: image.path for image in dataset.images}),
            looked=looked,
        )
    promoted = verdict is None or goes_live(verdict, gate)
    # Before it goes live, so that nobody meets a model without them.
    pictures = keep_pictures(keep_in, challenger, candidate, context, is_live=promoted) if keep_in else None
    with context.watch.stage("publish"):
        if promoted:
            reason = why if verdict else _FIRST.get(what, why)
            unseen = gate is GateMode.OFF and champion is None  # there may be one, which is damaged
            promote(store, name, version, who=who, why=reason, expected=None if unseen else before or 0)
        for file in (CHECKPOINT_FILE, WHOLE_CHECKPOINT_FILE):
            (context.runs / file).unlink(missing_ok=True)
        keep_backbone_of(candidate, context, f"{name}:{version}")
    return TrainResult(
        name,
        version,
        promoted,
        verdict,
        store.folder(name, version) / MODEL_FILE,
        challenger.card,
        findings,
        dataset.left_out,
        dataset.how_split,
        context.watch.seconds,
        dataset,
        pictures,
    )


def keep_backbone_of(candidate: Candidate, context: Context, version: str) -> None:
    """Leave a version's backbone in the store, for models to begin with."""
    strategy, note = candidate.strategy, context.listener.note
    keep_backbone(candidate.backbone, context.settings, strategy, version, context.cache, note)


def draw_occlusion_maps(candidate: Candidate, findings: Findings, context: Context) -> dict[str, bytes]:
    """Draw occlusion maps of the worst mistakes."""
    if not findings.top_losses:
        return {}
    answers = {picture.sha256: candidate.features.labels.index(picture.answer) for picture in findings.top_losses}
    files = {image.sha256: image.path for image in candidate.dataset.images}
    return occlusion_maps(Embedder.of(candidate.backbone), candidate.fitted.head, answers, files, context.progress)


def collect_findings(candidate: Candidate, settings: TrainSettings) -> Findings:
    """Diagnose a candidate, beside what its run found."""
    files = {image.sha256: shown_path(image.path, settings.data) for image in candidate.dataset.images}
    fitted = candidate.fitted
    unmeasured = [] if candidate.features.is_holdout.any() else [_UNMEASURED]
    diagnosis = diagnose(
        candidate.features, fitted.head, fitted.temperature, fitted.unseen.rows, fitted.unseen.probabilities, files
    )
    earlier = candidate.findings
    return replace(
        diagnosis,
        notes=(
            *earlier.notes,
            *candidate.dataset.notes,
            *remarks(fitted, candidate.features, earlier.cross_validation, settings.target_error),
            *remarks_on_transfer(
                candidate.backbone.weights, candidate.strategy, diagnosis.duplicates_found, earlier.start
            ),
            *diagnosis.notes,
            *unmeasured,
        ),
        cross_validation=earlier.cross_validation,
        selective=selective(fitted.unseen.probabilities, candidate.features.train().label_index[fitted.unseen.rows]),
        novelty=check_novelty(candidate.features, fitted),
        extra=earlier.extra,
        start=earlier.start,
        epochs=earlier.epochs,
        tuning=earlier.tuning,
        agreement=earlier.agreement,
        learning_curve=_learning_curve(candidate, settings),
    )


def _learning_curve(candidate: Candidate, settings: TrainSettings) -> LearningCurve | None:
    """Draw the learning curve of a probe.

    A backbone that learned from the pictures knows them.
    """
    if candidate.finetuning_record or "c" not in candidate.fitted.choices:
        return None
    c = candidate.fitted.choices["c"]
    return learning_curve(candidate.features, c, seed=settings.seed, balance=settings.balance)


def _figures(result: TrainResult) -> dict[str, float]:
    fields = result.to_dict()
    names = ("accuracy", "macro_f1", "ece", "seconds")
    return {name: float(fields[name]) for name in names if fields[name] is not None}


def _name_after(folder: Path) -> str:
    """Name a model after its folder or list: 'my photos' gives my-photos."""
    place = folder.resolve()
    name = derive_name(place.stem if is_manifest(folder) else place.name)
    if not name:
        raise InvalidRequestError(f"--name: no model can be called after {text_of(folder)!r}: say a name")
    return name
