"""Imported classifiers, with their own answers to compare. No torch."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from regraft.errors import ArtifactError, InvalidRequestError
from regraft.image.spec import Crop, ImageSpec
from regraft.label_rules import check_label, nfc
from regraft.model.artifact import FloatArray
from training.backbones.cache import ExportedBackbone, named_file
from training.head.features import Embedder
from training.head.logistic import log_softmax
from training.versions.source import IMPORTED

Channels: TypeAlias = tuple[float, float, float]
Tail = Literal["logits", "probabilities", "log probabilities"]
"""What a classifier's answers are."""

IMAGENET_MEAN: Final[Channels] = (0.485, 0.456, 0.406)
IMAGENET_STD: Final[Channels] = (0.229, 0.224, 0.225)
"""What nearly every network of torchvision and timm is given its pictures by."""

PROOF_BATCHES: Final = (1, 2, 7)
PROOF_TOLERANCE: Final = 1e-3
"""The most that an answer may differ, as a share of the answers' spread, which is their standard deviation."""
_GENERATED: Final = 5
"""Pictures of each kind that stand in where none are given."""
_PATCHES: Final = 4
_FEWEST: Final = 2
_ROUNDING: Final = 1e-5
"""Of the largest answer: what float32 cannot tell."""


@dataclass(frozen=True)
class ImageRule:
    """Preprocessing as a person states it; None is the network's, or ImageNet's.

    Attributes:
        mean: of each channel, of values in 0 to 1.
        std: likewise.
        image_px: side of the crop that the network is given.
        resize: see `regraft.image.spec.ImageSpec`, as the next two.
    """

    mean: Channels | None = None
    std: Channels | None = None
    image_px: int | None = None
    resize: str | None = None
    resize_px: int | None = None
    interpolation: str | None = None

    def applied(self, spec: ImageSpec, mean: Channels, std: Channels) -> tuple[ImageSpec, Channels, Channels]:
        """Apply the rule to a network's own preprocessing.

        Raises:
            InvalidRequestError: no picture could be prepared so.
        """
        changes: dict[str, Any] = {"resize_px": self.resize_px, "interpolation": self.interpolation}
        try:
            spec = spec.resized_by(self.resize)  # type: ignore[arg-type]  # refused there
            spec = replace(spec, **{name: value for name, value in changes.items() if value is not None})
        except ArtifactError as error:
            raise InvalidRequestError(f"--resize, --resize-px, --interpolation: {error}") from error
        if self.std is not None and not min(self.std) > 0:
            raise InvalidRequestError(f"--std: {','.join(f'{value:g}' for value in self.std)}; need more than 0 each")
        return spec, self.mean or mean, self.std or std


@dataclass(frozen=True)
class ImportedClassifier:
    """An imported classifier.

    Attributes:
        backbone: up to the embedding.
        weight: float32 [K, D] of its last layer.
        bias: float32 [K].
        labels: the K names.
        tail: what ``answers`` are.
        answers: gives what the classifier says by itself of crops [N, P, P, 3], float32 [N, K].
        origin: of the file or the weights, for people.
    """

    backbone: ExportedBackbone
    weight: FloatArray
    bias: FloatArray
    labels: tuple[str, ...]
    tail: Tail
    answers: Callable[[npt.NDArray[np.uint8]], FloatArray]
    origin: str


def origin_of(path: Path) -> str:
    """Return the card's origin of weights from a file."""
    return f"{IMPORTED}from {named_file(path)}"


def labels_for(given: Sequence[str], count: int, origin: str, of_weights: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return the labels of the answers: those given, else those known.

    Args:
        given: by ``--labels``; none where nothing was said.
        count: K.
        origin: of the classifier, for the text of errors.
        of_weights: those of its weights.

    Raises:
        InvalidRequestError: they are not as many, twice the same, or what cannot be a label.
    """
    labels = tuple(map(nfc, given)) or of_weights
    if not labels:
        raise InvalidRequestError(f"--labels: {origin} has {count} answers: name them, in its order")
    if len(labels) != count:
        raise InvalidRequestError(f"--labels: {len(labels)} labels, but {origin} has {count} answers")
    if count < _FEWEST:
        raise InvalidRequestError(f"{origin} has one answer, and a head has a row for each label: two at least")
    if twice := [label for label, times in Counter(labels).items() if times > 1]:
        raise InvalidRequestError(f"--labels: {twice[0]!r} is there twice")
    for label in labels:
        check_label(label)
    return labels


@dataclass(frozen=True)
class Proof:
    """Agreement of backbone and head with the classifier that they came from.

    Attributes:
        given: pictures that were asked about; 0 where generated ones stood in.
        asked: all of them.
        difference: the largest, as a share of the answers' spread.
    """

    given: int
    asked: int
    difference: float


def prove_imported(imported: ImportedClassifier, crops: Sequence[Crop]) -> Proof:
    """Compare the answers of both on pictures, or generated ones, in batches.

    Raises:
        ArtifactError: they answer differently.
    """
    backbone = imported.backbone
    pictures = list(crops) or generated_crops(backbone.spec.crop_px)
    expected = imported.answers(np.stack(pictures)).astype(np.float64)
    embedder = Embedder.of(backbone)
    answers = np.concatenate([_tail(imported, embedder.run(part)) for part in _batches(pictures)])
    if answers.shape != expected.shape:
        raise ArtifactError(
            f"{imported.origin}: answers {expected.shape[1:]}, its backbone and head {answers.shape[1:]}"
        )
    size = max(float(expected.std()), _ROUNDING * float(np.abs(expected).max()), 1e-12)
    difference = float(np.abs(answers - expected).max() / size)
    if not difference <= PROOF_TOLERANCE:
        raise ArtifactError(
            f"{imported.origin}: its backbone and a linear head answer otherwise than it does by itself: "
            f"by {difference:.2g} of the answers' spread on {len(pictures)} pictures, where {PROOF_TOLERANCE:g} is "
            "allowed. Something that is not linear follows its last layer, as in SqueezeNet: train a head on its "
            "backbone"
        )
    return Proof(len(crops), len(pictures), difference)


def generated_crops(side: int) -> list[Crop]:
    """Generate pictures of noise and of patches of colour."""
    generator = np.random.default_rng(0)
    fine = generator.integers(0, 256, (_GENERATED, side, side, 3), dtype=np.uint8)
    coarse = generator.integers(0, 256, (_GENERATED, _PATCHES, _PATCHES, 3), dtype=np.uint8)
    at = np.arange(side) * _PATCHES // side
    return [*fine, *coarse[:, at][:, :, at]]


def _batches(crops: list[Crop]) -> list[list[Crop]]:
    """Deal crops to batches of 1, then 2, then of 7."""
    batches, start = [], 0
    for size in (*PROOF_BATCHES, *[PROOF_BATCHES[-1]] * len(crops)):
        batches.append(crops[start : start + size])
        start += size
    return [batch for batch in batches if batch]


def _tail(imported: ImportedClassifier, embedding: FloatArray) -> npt.NDArray[np.float64]:
    logits = (embedding @ imported.weight.T + imported.bias).astype(np.float64)
    if imported.tail == "logits":
        return logits
    log_probabilities = log_softmax(logits)
    return np.exp(log_probabilities) if imported.tail == "probabilities" else log_probabilities
