"""Refresh of a model, a training run on all its pictures.

A retrain changes the head alone; a refresh may bring another backbone, or a fine-tuned one.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from regraft.errors import DatasetError, InvalidRequestError, PreconditionError
from regraft.files import storage_errors
from regraft.gate_limits import GateLimits
from regraft.image.spec import ResizeRule
from regraft.label_rules import nfc
from regraft.machine import user_name
from regraft.model.card import BackboneCard, ModelCard
from regraft.stores.examples import ExamplesStore
from regraft.stores.labelling.present_names import LabelChange, called_now
from regraft.stores.models import GateMode, ModelStore
from regraft.stores.originals import pictures_missing
from regraft.stores.recovery import job_lock
from training.backbones.cache import weights_origin
from training.backbones.catalogue import STORE_PREFIX, own_weights
from training.data.dataset import Dataset, LabelledImage, scan
from training.data.file_listing import SkippedFile, shown_path
from training.evaluation.diagnose import thumbnails
from training.evaluation.findings import Findings
from training.gate.verdict import SuspectLabel, Verdict
from training.retrain.data import (
    RetrainData,
    Row,
    embed_missing,
    fit_on,
    gather,
    labels_in_force,
    learned_from,
    new_rows,
    settle_rows,
    sources_of,
)
from training.retrain.evidence import Terms, anchor_of, answered_rightly
from training.retrain.outcome import goes_live, reason_of
from training.retrain.quarantine import Quarantined, quarantine
from training.retrain.training_run import candidate_embeddings, holdout_rows, judge_across_backbones
from training.settings import TrainSettings
from training.strategies.context import Candidate, Context, Listener, SilentListener
from training.train import (
    RUNS_FOLDER,
    build_challenger,
    collect_findings,
    coordinator_for,
    draw_occlusion_maps,
    keep_backbone_of,
    make_candidate,
    with_judgement,
)
from training.versions.pictures import ExamplesPlace, KeptPictures, keep_pictures
from training.versions.publish import Challenger, promote, publish
from training.versions.read import StoredVersion, first_labels, read_champion
from training.versions.source import IMPORTED, settle_source

if TYPE_CHECKING:  # torch: a probe whose backbone is in the cache needs none
    from training.strategies.finetuning.coordinator import Coordinator

_PICTURES: Final = "pictures"
_NO_DATA: Final = Dataset((), (), (), "")


@dataclass(frozen=True)
class Network:
    """A network to train, as in `training.settings.TrainSettings`."""

    backbone: str
    weights: str
    precision: str
    image_px: int | None
    resize: ResizeRule | None


def network_of(
    store: ModelStore,
    name: str,
    *,
    backbone: str = "",
    weights: str = "",
    precision: str = "",
    image_px: int | None = None,
    resize: ResizeRule | None = None,
) -> Network:
    """Return the network asked for, the champion's by default.

    Its weights are those of the original network, also where it was fine-tuned; another backbone takes its own default,
    and its own size of pictures. One that went on from a version goes on from there again. What shows all of a picture
    goes on doing so by any backbone.

    Raises:
        PreconditionError: there is no champion.
        InvalidRequestError: the champion's weights come from a file that is not at hand, or a version that is gone.
    """
    version = read_champion(store, name)
    champion, card = version.artifact.card, version.artifact.card.backbone
    if not backbone and not weights and (card.sources or card.weights.startswith(IMPORTED)):
        backbone = f"{STORE_PREFIX}{_source(store, name, version)}"
    is_the_same = backbone in ("", card.name)
    if not weights:
        weights = weights_of(card) if is_the_same else "default"
    if not image_px and is_the_same:
        image_px = champion.image.crop_px
    if resize is None and (is_the_same or champion.image.resize != "crop"):
        resize = champion.image.resize
    return Network(backbone or card.name, weights, precision or card.precision, image_px, resize)


def _source(store: ModelStore, name: str, champion: StoredVersion) -> str:
    """Return the version, NAME:VERSION, that the champion's run began with.

    That is the champion itself, unless it was fine-tuned: its own file has the backbone, whatever became of others.

    Raises:
        InvalidRequestError: it was fine-tuned from a version that is gone.
    """
    card = champion.artifact.card.backbone
    source = card.sources[0] if card.sources else None
    if source is None or source.digest == card.digest or card.precision == "int8":
        return f"{name}:{champion.version}"
    label = f"{source.name}:{source.version}"
    if source.version not in store.versions(source.name):
        raise InvalidRequestError(
            f"--backbone: the champion was fine-tuned from {label}, which is gone: {STORE_PREFIX}{name} goes on from "
            f"the champion, {card.name} from the original weights"
        )
    return label


def weights_of(card: BackboneCard) -> str:
    """Return the origin of a card's weights, see `training.backbones.cache.weights_origin`.

    Raises:
        InvalidRequestError: they come from a file that is not at hand.
    """
    if card.weights.startswith("random,"):
        return "none"
    if card.weights.startswith("file "):
        file = own_weights(card.name)
        content = weights_origin(card.name, str(file), seed=0).rpartition(" ")[2] if file else None
        if content is None or content not in card.weights:
            raise InvalidRequestError(
                f"--weights: the champion's come from {card.weights}, which REGRAFT_WEIGHTS lacks: name the file"
            )
    return "default"


@dataclass(frozen=True)
class Refreshed:
    """A refreshed version, champion if ``promoted``.

    Attributes:
        pictures: what became of them; None where they were not to be kept.
    """

    name: str
    version: int
    parent_version: int
    strategy: str
    verdict: Verdict
    promoted: bool
    pictures: KeptPictures | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        pictures = self.pictures.to_dict() if self.pictures else None
        return {**vars(self), "verdict": self.verdict.to_dict(), "pictures": pictures}


def refresh(
    settings: TrainSettings,
    examples: ExamplesStore,
    *,
    cache: Path,
    gate: GateMode = GateMode.AUTO,
    limits: GateLimits = GateLimits(),  # noqa: B008 - frozen
    listener: Listener | None = None,
    keep_in: ExamplesPlace | None = None,
) -> Refreshed:
    """Train on the original pictures and the examples, and judge.

    Args:
        settings: as for `training.train`; ``name`` is that of the model, ``data`` has the pictures that its versions
            were trained on and, where there are more in it, those too.
        examples: that people labelled since.
        cache: of exported backbones and embeddings.
        gate: whether a blessed version goes live.
        limits: of the gate.
        listener: hears how far the run is.
        keep_in: where the run's pictures are kept as examples; None for nowhere.

    Raises:
        PreconditionError: there is no champion to replace, or it is being retrained.
        DatasetError: a picture of the champion is missing, or there is too little to train on.
        StorageError: a store refused.
    """
    settings = settle_source(settings)
    settings = replace(settings, name=nfc(settings.name))
    store, name = ModelStore(settings.store), settings.name
    context = Context(settings, cache, settings.store / RUNS_FOLDER / name, listener or SilentListener())
    with job_lock(examples, name), coordinator_for(settings) as coordinator:
        trained = train_anew(store, examples, context, coordinator, limits, settings.data)
        verdict, champion = trained.verdict, trained.champion.version
        why = "; ".join([reason_of("refresh", verdict, gate), *trained.remarks])
        version = publish_trained(store, trained, context, who=user_name(), why=why)
        promoted = goes_live(verdict, gate)
        pictures = None
        if keep_in:
            pictures = keep_pictures(keep_in, trained.challenger, trained.candidate, context, is_live=promoted)
        if promoted:
            promote(store, name, version, who=user_name(), why=why, expected=champion)
        keep_backbone_of(trained.candidate, context, f"{name}:{version}")
    return Refreshed(name, version, champion, trained.challenger.card.strategy, verdict, promoted, pictures)


@dataclass(frozen=True)
class Trained:
    """A full run that was judged, and is not published yet.

    Attributes:
        champion: that it was judged against.
        findings: with the verdict.
        remarks: as in `RetrainData`.
    """

    champion: StoredVersion
    candidate: Candidate
    challenger: Challenger
    findings: Findings
    remarks: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """The gate's verdict."""
        assert self.findings.verdict is not None  # it was judged
        return self.findings.verdict


def train_anew(
    store: ModelStore,
    examples: ExamplesStore,
    context: Context,
    coordinator: "Coordinator | None",
    limits: GateLimits,
    data: Path | None,
) -> Trained:
    """Train on every picture that a model knows, and judge the run.

    Args:
        store: has the model.
        examples: that people labelled since, and the pictures that training runs kept.
        context: of the run; its settings name the model.
        coordinator: see `training.train.coordinator_for`.
        limits: of the gate.
        data: has the champion's pictures, and perhaps more; None where all are among the examples.

    Raises:
        PreconditionError: there is no champion to replace.
        DatasetError: a picture of the champion is missing, or there is too little to train on.
    """
    name = context.settings.name
    champion = read_champion(store, name, examples.label_changes)
    context, settings = _with_target_error(context, champion.artifact.card)
    quarantined = _quarantined(champion, store, examples, name, context)
    collected = collect(champion, data, examples, name, context)
    candidate = make_candidate(collected.dataset, context, coordinator)
    challenger = build_challenger(candidate, name, settings, champion.version, champion.labels_as_of)
    anchor = anchor_of(champion, store, examples, name, candidate.features)
    terms = Terms(limits, quarantined=quarantined, anchor=anchor)
    findings = _judge(champion, candidate, collected, examples, store, context, terms)
    right = answered_rightly(anchor, candidate.features, candidate.fitted.head)
    challenger = replace(challenger, anchor=anchor.updated(right))
    return Trained(champion, candidate, challenger, findings, collected.remarks)


def _with_target_error(context: Context, card: ModelCard) -> tuple[Context, TrainSettings]:
    """Take the champion's target error where none was asked for."""
    settings = context.settings
    if settings.target_error is None:
        settings = replace(settings, target_error=card.settings.get("target_error"))
    return replace(context, settings=settings), settings


def publish_trained(store: ModelStore, trained: Trained, context: Context, *, who: str, why: str, job: str = "") -> int:
    """Write a version, not yet promoted, and return its number."""
    data, candidate = context.settings.data, trained.candidate
    findings = with_judgement(collect_findings(candidate, context.settings), trained.findings)
    return publish(
        store,
        trained.challenger,
        left_out=[(shown_path(entry.file, data), entry.reason) for entry in candidate.dataset.left_out],
        who=who,
        why=why,
        job=job,
        findings=findings,
        looked=draw_occlusion_maps(candidate, findings, context),
        thumbnails=thumbnails(findings, {image.sha256: image.path for image in candidate.dataset.images}),
    )


@dataclass(frozen=True)
class Collected:
    """Every picture that a model knows by now.

    Attributes:
        dataset: to train on.
        lost: holdout pictures of classes that the champion knows and the dataset does not.
        remarks: as in `RetrainData`.
    """

    dataset: Dataset
    lost: tuple[LabelledImage, ...]
    remarks: tuple[str, ...]


def _quarantined(
    champion: StoredVersion, store: ModelStore, examples: ExamplesStore, name: str, context: Context
) -> Quarantined:
    """Quarantine the wrong labels that a retrain of the champion would find."""
    wrong: list[SuspectLabel] = []
    if any(not example.quarantine for example in examples.labels.sent(name)):
        with suppress(PreconditionError):  # where a retrain has too little to learn from, a refresh may have enough
            data = gather(champion, examples, name, context.progress)
            fitted = fit_on(champion, data, context.progress)
            wrong = quarantine(
                champion, data, fitted, examples, name, first_labels(store, name, examples.label_changes)
            )
    return Quarantined(wrong, len(examples.labels.in_force(name, quarantined=True)))


def collect(
    champion: StoredVersion, data: Path | None, examples: ExamplesStore, name: str, context: Context
) -> Collected:
    """Collect every picture of a model, with label in force and split.

    Pictures of ``data`` that are new join, those that were removed as examples do not. The label of an example holds;
    of any other picture that of ``data``, and the champion's only where the picture is not in there any more. Without
    ``data`` all of them have to be among the examples.

    Raises:
        DatasetError: a picture of the champion is neither in ``data`` nor among the examples.
        PreconditionError: likewise, without ``data``; or fewer than two classes are left.
    """
    dataset = scan(data, context.progress, context.settings.group_by) if data else _NO_DATA
    folder_files = {image.sha256: image.path for image in dataset.images}
    learned_examples, excluded = learned_from(examples, name, champion)
    in_folder = _labels_now(dataset, examples.label_changes.since(name), excluded)
    sent = {example.sha256: example for example in learned_examples}
    in_force = {sha256: example.label for sha256, example in sent.items()}
    labels = labels_in_force(champion.features, in_folder | in_force, excluded)
    paths = {sha256: folder_files.get(sha256) or _fetched(examples, sha256, context) for sha256 in labels}
    if missing := sorted(sha256 for sha256, path in paths.items() if not path.is_file()):
        if data is None:
            raise PreconditionError(pictures_missing(name, missing, len(paths)))
        raise DatasetError(
            f"{len(missing)} of {len(paths)} pictures are neither in {data} nor among the examples: all of them have "
            f"to be embedded anew; the first is {missing[0]}"
        )
    embeddings, unreadable = embed_missing(champion, paths, examples, context.progress)
    stored = examples.split.sides(name)
    named = {image.sha256: set(image.group_names) for image in dataset.images}
    for sha256, example in sent.items():
        named.setdefault(sha256, set()).update({example.group} - {""})
    settled = settle_rows(champion, name, embeddings, labels, stored, named)
    weights = dict(zip(champion.features.sha256, champion.features.weight.tolist(), strict=True))
    weights |= {image.sha256: image.weight for image in dataset.images}

    def images(rows: list[Row]) -> tuple[LabelledImage, ...]:
        groups = settled.sides.group
        return tuple(
            LabelledImage(paths[each], label, side, sha256=each, group=groups[each], weight=weights.get(each, 1.0))
            for each, label, side in rows
        )

    new = {sha256: side for sha256, _, side in settled.learned if sha256 not in stored}
    examples.split.keep_sides(name, new)
    reasons = (*unreadable.items(), *settled.left_out)
    return Collected(
        Dataset(
            settled.classes.labels,
            images(settled.learned),
            (*dataset.left_out, *(SkippedFile(paths[sha256], reason) for sha256, reason in reasons)),
            f"as in version {champion.version}, new ones by their groups",
            is_settled=True,
        ),
        images(settled.lost),
        (*champion.remarks, *settled.remarks, *_label_conflicts(in_folder, in_force)),
    )


def _labels_now(dataset: Dataset, changes: Sequence[LabelChange], excluded: Collection[str]) -> dict[str, str]:
    """Return what the labels of a folder are called now, by hash.

    A folder says the same for years, so it follows every change that there ever was.
    """
    called = {label: called_now(label, changes) for label in {image.label for image in dataset.images}}
    labels = ((image.sha256, called[image.label]) for image in dataset.images if image.sha256 not in excluded)
    return {sha256: label for sha256, label in labels if label is not None}


def _label_conflicts(in_folder: Mapping[str, str], sent: Mapping[str, str]) -> Iterator[str]:
    """Yield the remark on pictures whose folder and example differ."""
    differ = sorted(sha256 for sha256, label in sent.items() if in_folder.get(sha256, label) != label)
    if differ:
        yield (
            f"{len(differ)} pictures lie in another folder than their label as an example says, which holds: "
            f"`regraft examples relabel` changes it; the first is {differ[0]}"
        )


def _judge(
    champion: StoredVersion,
    candidate: Candidate,
    collected: Collected,
    examples: ExamplesStore,
    store: ModelStore,
    context: Context,
    terms: Terms,
) -> Findings:
    features, name = candidate.features, context.settings.name
    lost = {image.sha256: image for image in collected.lost}
    paths = {sha256: image.path for sha256, image in lost.items()}
    embeddings = candidate_embeddings(champion, candidate, paths, context)
    rows = [(sha256, image.label, True) for sha256, image in lost.items()]
    data = RetrainData(
        features,
        None,
        sources_of(features, [example for example in examples.labels.sent(name) if not example.quarantine]),
        new_rows(champion.features, features),
        (),
        holdout_rows(champion.features.labels, rows, embeddings, features),
        collected.remarks,
    )
    files = paths | {image.sha256: image.path for image in candidate.dataset.images}
    golden = store.golden(name)
    return judge_across_backbones(champion, candidate, data, files, examples.embeddings, golden, context, terms)


def _fetched(examples: ExamplesStore, sha256: str, context: Context) -> Path:
    """Return an example's file; one in an object store is copied."""
    file = examples.image_file(sha256)
    if isinstance(file, Path):
        return file
    path = context.runs / _PICTURES / sha256
    if not path.exists():
        with suppress(OSError), storage_errors(f"cannot copy example {sha256}"):
            data = file.read_bytes()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return path
