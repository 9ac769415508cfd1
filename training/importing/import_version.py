"""Import of a finished classifier as a version, as ``regraft import`` does.

It is published only if it answers as it did by itself. Nothing is fitted on its pictures but novelty, and the
temperature where that is asked for: the head is the one that came. What it knows of its classes are rows of numbers; a
retrain fits on pictures, and wants some of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from threadpoolctl import threadpool_limits

from regraft.errors import DatasetError, InvalidRequestError, MissingPackageError, PreconditionError
from regraft.files import cache_folder, text_of
from regraft.image.spec import Crop
from regraft.label_rules import listed, nfc
from regraft.model.artifact import FloatArray, Head
from regraft.model.card import IMPORTED, RecipeValue
from regraft.stores.models import GateMode, ModelStore
from training.data.crops import readable_crops
from training.data.dataset import Dataset, scan
from training.data.split import split_by_likeness
from training.evaluation.findings import Findings
from training.head.features import Features, assemble
from training.head.fit import FittedHead, Unseen, fit_temperature
from training.head.novelty import fit_novelty, novelty_threshold
from training.importing.classifier import ImageRule, ImportedClassifier, Proof, prove_imported
from training.importing.onnx_file import import_onnx
from training.retrain.classes import in_order_of
from training.settings import TrainSettings
from training.strategies.context import Candidate, Context, Listener, SilentListener, embed_dataset
from training.train import RUNS_FOLDER, TrainResult, current_champion, judge_candidate, publish_candidate
from training.versions.pictures import ExamplesPlace
from training.versions.read import StoredVersion

_MOST_PROVEN: Final = 32
_NEVER: Final = 2.0
"""A threshold that no novelty exceeds."""
_FEWEST: Final = 2
_NAMED: Final = 10
_NO_PICTURES: Final = (
    "No pictures were given: the proof rests on generated ones, nothing says how good its answers are, and nothing is "
    "novel to it. A retrain wants pictures of each of its classes first."
)
_SEEN: Final = (
    "Nobody can tell here whether the classifier learned from these pictures; if it did, on new ones it is right less "
    "often than this report says."
)


@dataclass(frozen=True)
class ImportSettings:
    """Settings of an import; every field is a flag of ``regraft import``.

    Attributes:
        file: a state dict or an ONNX file; None for the ImageNet classifier of a network.
        name: of the model in the store.
        store: the model store.
        backbone: the network, see `training.backbones.build`.
        weights: of the network, where there is no file.
        labels: in the order of the answers; none where the weights say them.
        data: labelled pictures to prove it by, see `training.data.dataset`; None for generated ones.
        calibrate: whether the temperature is fitted on those of them that a training would learn from, which the
            classifier must not have learned from.
        rule: how its pictures are prepared.
        keep_state: see `training.settings.TrainSettings`.
    """

    file: Path | None
    name: str
    store: Path = Path("models")
    backbone: str = ""
    weights: str = "default"
    labels: tuple[str, ...] = ()
    data: Path | None = None
    calibrate: bool = False
    rule: ImageRule = field(default_factory=ImageRule)
    keep_state: bool = True

    def __post_init__(self) -> None:
        """Refuse contradictions, by the name of the flag."""
        if self.file is None and not self.backbone:
            raise InvalidRequestError("--head source: the classifier of which network? Add --backbone")
        if self.file is not None and self.weights != "default":
            raise InvalidRequestError("--weights: the file has them: drop one of the two")
        if self.file is not None and self.file.suffix.lower() != ".onnx" and not self.backbone:
            raise InvalidRequestError(
                f"{self.file}: a state dict does not say of which network it is: add --backbone, such as resnet18"
            )
        if self.calibrate and self.data is None:
            raise InvalidRequestError("--calibrate: by which pictures? Add --data")


def import_version(
    settings: ImportSettings,
    listener: Listener | None = None,
    *,
    cache: Path | None = None,
    gate: GateMode = GateMode.AUTO,
    examples: ExamplesPlace | None = None,
    keep: bool = False,
) -> TrainResult:
    """Publish a classifier, through the gate unless it is the first.

    Args:
        settings: what to import.
        listener: hears how far it is.
        cache: of embeddings; the machine's own if None.
        gate: see `training.train.train`.
        examples: likewise.
        keep: likewise.

    Raises:
        InvalidRequestError: the file is none that can be taken, the labels do not fit it, or a flag makes no sense.
        DatasetError: the pictures are of other classes, or none can be read.
        ArtifactError: the version would answer otherwise than the classifier does by itself.
        MissingPackageError: a state dict needs torch, which is not installed.
        PreconditionError: there is a champion, and nothing to judge by.
        StorageError: the store could not be written.
    """
    store = ModelStore(settings.store)
    examples = examples or ExamplesPlace(settings.store)
    champion = current_champion(store, settings.name, gate)
    if settings.data is None and champion is not None and gate is not GateMode.OFF:
        raise PreconditionError(
            f"model {settings.name!r} has a champion, and without pictures nothing says that this one is as good: add "
            "--data, take another --name, or let it go live anyhow with --gate off"
        )
    as_run = TrainSettings(settings.data or settings.file or Path(settings.backbone), settings.name, settings.store)
    context = Context(
        as_run, cache or cache_folder(), settings.store / RUNS_FOLDER / settings.name, listener or SilentListener()
    )
    with context.watch.stage("read"):
        imported = _read(settings)
    with context.watch.stage("prove"):
        dataset = _dataset(settings.data, imported.labels, context)
        proof = prove_imported(imported, _crops(dataset, imported))
    if champion is not None:
        imported = _in_order_of(champion, imported)
        dataset = replace(dataset, labels=imported.labels)
    candidate = _made(settings, imported, dataset, proof, context)
    findings = candidate.findings
    if dataset.images:
        findings = judge_candidate(champion, candidate, store, settings.name, examples, context)
    keep_in = examples if keep and dataset.images else None
    return publish_candidate(candidate, findings, champion, store, settings.name, gate, context, IMPORTED, keep_in)


def _read(settings: ImportSettings) -> ImportedClassifier:
    file = settings.file
    if file is not None and file.suffix.lower() == ".onnx":
        return import_onnx(file, settings.backbone, settings.rule, settings.labels)
    try:
        from training.importing.torch_file import import_source, import_torch  # noqa: PLC0415 - torch
    except ImportError as error:
        raise MissingPackageError(f"a state dict needs torch: pip install 'regraft[train]' ({error})") from error
    if file is None:
        return import_source(settings.backbone, settings.weights, settings.rule, settings.labels)
    return import_torch(file, settings.backbone, settings.rule, settings.labels, keep=settings.keep_state)


def _dataset(data: Path | None, labels: tuple[str, ...], context: Context) -> Dataset:
    """Return the pictures, under the classifier's labels.

    Raises:
        DatasetError: a class is none of these.
    """
    if data is None:
        return Dataset(labels, (), (), "no pictures")
    dataset = scan(data, context.progress)
    named = tuple(replace(image, label=nfc(image.label)) for image in dataset.images)
    strangers = sorted({image.label for image in named} - set(labels))
    if strangers:
        raise DatasetError(f"{data}: class {strangers[0]!r} is none of the classifier's: {listed(labels, _NAMED)}")
    if not named:
        raise DatasetError(f"{data}: has no picture")
    return replace(dataset, images=named, labels=labels)


def _in_order_of(champion: StoredVersion, imported: ImportedClassifier) -> ImportedClassifier:
    """Reorder the classifier's answers as the champion's, new ones last."""
    labels = in_order_of(champion.features.labels, imported.labels)
    rows = [imported.labels.index(label) for label in labels]
    return replace(imported, labels=labels, weight=imported.weight[rows], bias=imported.bias[rows])


def _crops(dataset: Dataset, imported: ImportedClassifier) -> list[Crop]:
    """Crop some of the pictures, held out ones first."""
    pictures = sorted(dataset.images, key=lambda image: (not image.is_holdout, image.sha256))
    files = ((image.sha256, image.path) for image in pictures)
    return [crop for _, crop in islice(readable_crops(files, imported.backbone.spec), _MOST_PROVEN)]


def _made(
    settings: ImportSettings, imported: ImportedClassifier, dataset: Dataset, proof: Proof, context: Context
) -> Candidate:
    nothing = np.empty((0, imported.weight.shape[1]), np.float32)
    features, notes = replace(assemble(imported.labels, [], {}), embedding=nothing), [_said_of(proof)]
    if dataset.images:
        with context.watch.stage("embed"):
            dataset, features, _ = embed_dataset(dataset, imported.backbone, context)
            dataset, features = split_by_likeness(dataset, features)
    fitted = _fitted(imported.weight, imported.bias, features, calibrate=settings.calibrate)
    notes += [_right_of(fitted.head, features), _SEEN] if dataset.images else [_NO_PICTURES]
    facts: dict[str, RecipeValue] = {
        "file": text_of(Path(settings.file.name)) if settings.file else None,
        "proof_pictures": proof.given,
        "proof_generated": proof.asked - proof.given,
        "proof_difference": proof.difference,
        "calibrated": settings.calibrate,
    }
    findings = Findings(notes=(*imported.backbone.notes, *notes))
    return Candidate(IMPORTED, dataset, imported.backbone, features, fitted, findings, imported=facts)


def _said_of(proof: Proof) -> str:
    kind = "pictures" if proof.given else "generated pictures"
    return (
        f"It answers as the classifier does by itself: on {proof.asked} {kind} no answer is off by more than "
        f"{proof.difference:.2g} of their spread."
    )


def _right_of(head: Head, features: Features) -> str:
    train = features.train()
    right = head.probabilities(train.embedding).argmax(axis=1) == train.label_index
    return f"Of the {len(right)} pictures that are not held out it answers {int(right.sum())} rightly."


def _fitted(weight: FloatArray, bias: FloatArray, features: Features, *, calibrate: bool) -> FittedHead:
    """Fit novelty, and the temperature on request, to the head that came."""
    train = features.train()
    counts = np.bincount(train.label_index, minlength=len(features.labels))
    rows = np.flatnonzero(counts[train.label_index] >= _FEWEST)
    temperature = 1.0
    if calibrate and len(train.sha256):
        logits = (train.embedding @ weight.T + bias).astype(np.float64)
        temperature = fit_temperature(logits, train.label_index, train.weight)
    weight, bias = (np.asarray(part / np.float32(temperature), np.float32) for part in (weight, bias))
    prototypes, whitening = np.zeros_like(weight), np.zeros((1, weight.shape[1]), np.float32)
    if len(np.unique(train.label_index[rows])) < _FEWEST:
        head = Head(weight, bias, prototypes, whitening)
        return FittedHead(head, temperature, "none", _NEVER, {}, Unseen.nothing(len(bias)))
    classes, index = np.unique(train.label_index[rows], return_inverse=True)
    with threadpool_limits(limits=1):
        novelty = fit_novelty(train.embedding[rows], index.astype(np.int64), group=train.group[rows])
    prototypes[classes] = novelty.prototypes
    head = Head(weight, bias, prototypes, novelty.whitening)
    unseen = Unseen.nothing(len(bias))
    if calibrate:
        unseen = Unseen(rows, head.probabilities(train.embedding[rows]), novelty.out_of_fold)
    threshold = novelty_threshold(novelty.out_of_fold)
    return FittedHead(head, temperature, novelty.method, threshold, {}, unseen, novelty.left_out)


def read_labels(text: str) -> tuple[str, ...]:
    """Return labels of a file, one a line, or with commas between.

    Raises:
        InvalidRequestError: the file cannot be read.
    """
    path = Path(text)
    if text and path.is_file():
        try:
            lines: Sequence[str] = path.read_text("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequestError(f"--labels: {text_of(path)} cannot be read: {error}") from error
    else:
        lines = text.split(",")
    return tuple(line.strip() for line in lines if line.strip())
