"""A published version in int8, with the very same head.

Refitting the head was measured beside keeping it: on photographs neither was better, and keeping it is right for every
strategy, also where the backbone has learned from the pictures.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from regraft.errors import PreconditionError, TrainingError
from regraft.files import text_of
from regraft.gate_limits import MAX_CLASS_DROP, MAX_DROP, MAX_SLICE_DROP, GateLimits
from regraft.machine import user_name
from regraft.model.artifact import FloatArray
from regraft.model.card import ModelCard
from regraft.progress import Progress, silent
from regraft.stores.images import ImageFile
from regraft.stores.models import MODEL_FILE, ModelStore
from training.backbones.cache import ExportedBackbone, backbone_of
from training.data.find_images import find_images
from training.evaluation.latency import ms_per_image
from training.evaluation.report.page import LeftOutFile
from training.gate.judge import Answers, judge
from training.head.features import Embedder, Features
from training.head.fit import FittedHead, Unseen
from training.quantisation.precision import NONSENSE_DROP, calibration_crops, quantised
from training.versions.publish import Challenger, Provenance, build, promote, prove_on_files, publish
from training.versions.read import StoredVersion, embed_anew, read_version

_BUDGET: Final = GateLimits(MAX_DROP, MAX_CLASS_DROP, MAX_SLICE_DROP)
"""Rounding brings nothing that would make up for a loss, so these are limits and no margins of a test."""


@dataclass(frozen=True)
class PrecisionSide:
    """Figures of one precision.

    Attributes:
        accuracy: on the holdout, None where there is none.
        ms: an image on one thread.
    """

    precision: str
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    mb: float
    ms: float


@dataclass(frozen=True)
class Quantised:
    """A version in int8, beside its parent.

    Attributes:
        agreement: share of holdout images that both versions answer alike; None where there are none.
        objections: of the gate against the new version; empty where it has none.
        promoted: whether it is the champion now.
    """

    name: str
    version: int
    parent_version: int
    path: Path
    holdout_images: int
    agreement: float | None
    fp32: PrecisionSide
    int8: PrecisionSide
    objections: tuple[str, ...]
    promoted: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {**asdict(self), "path": str(self.path), "speed_up": round(self.fp32.ms / self.int8.ms, 3)}


def quantise_version(
    store: ModelStore,
    wanted: str,
    data: Path,
    *,
    examples: str,
    cache: Path,
    promote: bool = False,
    progress: Progress = silent,
) -> Quantised:
    """Publish a version in int8.

    Args:
        store: the model store.
        wanted: ``NAME:VERSION``, or ``NAME`` for its champion.
        data: a folder with the pictures that the version was trained on, however they lie in it.
        examples: the examples store's folder or URL, for pictures that came over gRPC.
        cache: of embeddings.
        promote: whether to make it the champion, where the gate has no objection.
        progress: told the stages ``scan``, ``quantise``, ``embed`` and ``measure``.

    Raises:
        NotFoundError: no such version.
        InvalidRequestError: ``wanted`` is no name and version.
        PreconditionError: the version is int8 already or has no pictures, or there is no champion.
        DatasetError: a picture is missing, or none can be read any more; single ones are left out.
        ArtifactError: the backbone cannot be quantised, or the file was made with another image rule.
        TrainingError: what int8 gives is nonsense.
        StorageError: the store could not be written.
    """
    name, version = store.find(wanted)
    champion, parent = store.champion(name), read_version(store, name, version)
    if parent.artifact.card.backbone.precision == "int8":
        raise PreconditionError(f"{name}:{version} is int8 already")
    if not (~parent.features.is_holdout).any():
        raise PreconditionError(
            f"{name}:{version} has no pictures to calibrate with: import it with --data, or label some and retrain"
        )
    files = find_images(parent.features.sha256, data, examples, progress)
    train = [(sha256, files[sha256]) for sha256 in parent.features.train().sha256]
    backbone = quantised(backbone_of(parent.artifact), calibration_crops(train, parent.artifact.card.image), progress)
    features, left_out = embed_anew(parent.features, Embedder.of(backbone), files, cache, progress)
    old = parent.features.select(np.isin(parent.features.sha256, features.sha256))
    before, after = (parent.artifact.head.probabilities(each.embedding) for each in (old, features))
    _check_sense(before, after, features)
    challenger = _build(parent, backbone, features, data)
    prove_on_files(challenger, parent.artifact.head, files.__getitem__)
    expected = (champion or 0) if promote else None
    return _conclude(store, parent, challenger, (before, after), left_out, list(files.values()), expected, progress)


def _check_sense(before: FloatArray, after: FloatArray, features: Features) -> None:
    """Refuse a backbone that fails on the training images."""
    train = ~features.is_holdout
    right = [float((each[train].argmax(axis=1) == features.label_index[train]).mean()) for each in (before, after)]
    if 100 * (right[0] - right[1]) > NONSENSE_DROP:
        raise TrainingError(
            f"int8 is right on {right[1]:.1%} of the training images, fp32 on {right[0]:.1%}: more than "
            f"{NONSENSE_DROP:g} points are lost. Nothing was published; keep fp32, or train with another backbone"
        )


def _build(parent: StoredVersion, backbone: ExportedBackbone, features: Features, data: Path) -> Challenger:
    card = parent.artifact.card
    none = Unseen.nothing(len(card.labels))
    fitted = FittedHead(parent.artifact.head, card.temperature, card.novelty_method, card.novelty_threshold, {}, none)
    folder = {"data": text_of(Path(data.resolve().name))}
    provenance = Provenance.of_refit(card.name, "quantise", card, parent.version, folder)
    provenance = replace(provenance, recipe=card.recipe and {**card.recipe, "precision": "int8"})
    return build(backbone, fitted, features, provenance, threshold=card.abstention)


def _conclude(
    store: ModelStore,
    parent: StoredVersion,
    challenger: Challenger,
    answers: tuple[FloatArray, FloatArray],
    left_out: list[LeftOutFile],
    pictures: list[ImageFile],
    expected: int | None,
    progress: Progress,
) -> Quantised:
    """Publish the version, and promote it from the ``expected`` champion, if any."""
    is_holdout, labels = challenger.features.is_holdout, challenger.card.labels
    before, after = (each[is_holdout] for each in answers)
    verdict = judge(Answers(before, after, challenger.features.label_index[is_holdout], labels), _BUDGET)
    name, who = challenger.card.name, user_name()
    why = f"int8 of version {parent.version}{f': {verdict.gain}' if verdict.holdout_images else ''}"
    version = publish(store, challenger, left_out=left_out, who=who, why=why)
    if promoted := expected is not None and verdict.blessed:
        promote(store, name, version, who=who, why=why, expected=expected)
    before_folder, folder = store.folder(name, parent.version), store.folder(name, version)
    times = ms_per_image([before_folder / MODEL_FILE, folder / MODEL_FILE], pictures, progress)
    return Quantised(
        name,
        version,
        parent.version,
        folder / MODEL_FILE,
        verdict.holdout_images,
        float((before.argmax(axis=1) == after.argmax(axis=1)).mean()) if len(before) else None,
        _side_of(parent.artifact.card, before_folder, times[0]),
        _side_of(challenger.card, folder, times[1]),
        verdict.reasons,
        promoted,
    )


def _side_of(card: ModelCard, folder: Path, ms: float) -> PrecisionSide:
    """Return the figures of a version."""
    metrics, mb = card.metrics, round((folder / MODEL_FILE).stat().st_size / 1e6, 3)
    if metrics is None:
        return PrecisionSide(card.backbone.precision, None, None, mb, ms)
    return PrecisionSide(card.backbone.precision, metrics.accuracy, metrics.accuracy_interval, mb, ms)
