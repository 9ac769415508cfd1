"""The model card, stored as JSON inside the model file."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from regraft.errors import ArtifactError
from regraft.image.spec import ImageSpec
from regraft.model.session import Arithmetic

SCHEMA_VERSION: Final = 1
_MAX_DENSE_CLASSES: Final = 100
"""Classes whose confusion table is sent whole."""

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Precision = Literal["fp32", "fp16", "int8"]
RequestedPrecision = Literal["fp32", "int8", "auto"]
"""Of a training run, which chooses one."""
Strategy = Literal["probe", "finetune", "scratch", "auto"]
"""Of a training run, as it is asked for."""
Points = Annotated[tuple[float, ...], Field(min_length=1)]
NoveltyMethod = Literal["class means", "Mahalanobis cosine", "none"]
RecipeValue: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True)
class EmbeddingKey:
    """The key of an embedding: digests of backbone and image spec."""

    backbone: str
    image_spec: str

    def computed_in(self, arithmetic: Arithmetic) -> "EmbeddingKey":
        """Name the arithmetic beside the image spec.

        A CPU's goes without a name. A GPU's is named even where it is exact: what earlier versions kept under the bare
        key was computed in TF32 there.
        """
        if arithmetic == "cpu":
            return self
        return replace(self, image_spec=hashlib.sha256(f"{self.image_spec} in {arithmetic}".encode()).hexdigest())


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SourceVersion(_Part):
    """Source version of a backbone; ``digest`` is that of its own."""

    name: str
    version: int = Field(ge=1)
    digest: Digest


class KeptState(_Part):
    """Trained weights in a file beside a version, to fine-tune from.

    Attributes:
        size_bytes: of the file.
        sha256: of its content, by which versions with the same backbone find it.
    """

    size_bytes: int = Field(ge=1)
    sha256: Digest


class BackboneCard(_Part):
    """The backbone's origin; ``digest`` is of its part of the graph.

    Attributes:
        precision: of its arithmetic; cards from before there was a choice do not say it. fp16 is in exports only.
        sources: the versions that it went on from, the nearest first; none where it began with a network's own weights.
        state: None where nothing was kept, or there was nothing to keep.
    """

    name: str
    weights: str
    digest: Digest
    precision: Precision = "fp32"
    sources: tuple[SourceVersion, ...] = ()
    state: KeptState | None = None


class ClassMetrics(_Part):
    """Figures of one class on the holdout, 0 if undefined."""

    label: str
    precision: Share
    recall: Share
    f1: Share
    support: int = Field(ge=0)


class Metrics(_Part):
    """Figures of this very file, on images it never fitted.

    Attributes:
        images: how many holdout images that were.
        accuracy_interval: 95 % Wilson score interval.
        log_loss: mean negative log probability of the true label, in nats.
        confusion: ``confusion[i][j]`` counts images of label i answered with label j.
    """

    images: int = Field(ge=0)
    accuracy: Share
    accuracy_interval: tuple[Share, Share]
    macro_f1: Share
    log_loss: float = Field(ge=0)
    per_class: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]


class Reference(_Part):
    """Distributions of answers on images the head never fitted.

    `regraft.model.drift` compares with it. Each distribution is given by values of equal weight, ascending.

    Attributes:
        source: the holdout, or training images, each judged by a head that was not fitted on it.
        images: how many images that were.
        distance: of embeddings to the training images: the novelty.
        confidence: the probability of the answer.
        probabilities: of each label, whatever the answer; of the commonest labels alone where there are very many.
    """

    source: Literal["holdout", "out of fold"]
    images: int = Field(ge=1)
    distance: Points
    confidence: Points
    probabilities: dict[str, Points]


class Abstention(_Part):
    """Abstention: answers refused so that few others are wrong.

    Attributes:
        target_error: the share of the answers given that may be wrong; `training.head.abstention` says what is
            promised.
        threshold: an answer is given where its probability exceeds this; 1 where none can keep the promise.
        answered: the share of images that the threshold would have answered, of those that it was chosen by.
        error: the share of these answers that were wrong.
        images: how many it was chosen by, each judged by a head that had not seen it.
    """

    target_error: float = Field(gt=0, lt=1)
    threshold: Share
    answered: Share
    error: Share
    images: int = Field(ge=0)

    def abstains(self, probability: float) -> bool:
        """Return whether an answer of this probability is refused."""
        return not probability > self.threshold


IMPORTED: Final = "import"
"""The strategy of a version whose head was fitted elsewhere, on unknown pictures."""


class CandidateFigures(_Part):
    """A strategy that a run could have published, and its figures.

    Measured on the images that were set aside to choose by.

    Attributes:
        log_loss: mean negative log probability of the true label, in nats.
        holdout_accuracy: None where it was not measured, or nothing was held out; it chose nothing.
    """

    strategy: str
    log_loss: float = Field(ge=0)
    accuracy: Share
    holdout_accuracy: Share | None


class Choice(_Part):
    """The choice between a run's two strategies, and its reason.

    Attributes:
        published: the strategy of one of the candidates.
        images: that were set aside: neither candidate learned from them, and each chose its own numbers without the
            image that it was asked for.
    """

    published: str
    images: int = Field(ge=1)
    candidates: tuple[CandidateFigures, CandidateFigures]
    reason: str


class ModelCard(_Part):
    """The card; to serving an absent field is an error.

    Attributes:
        labels: in the order of the probabilities; new classes are appended, never sorted in.
        temperature: already folded into the head (Guo et al., 2017); kept to tell how far the raw head was off.
        novelty_method: how novelty is measured; the one that told left-out classes better. ``none`` where no pictures
            were there to measure by: it is 1 for every picture, and the threshold above all.
        novelty_threshold: images above it are less like the training images than 95 % of held-out ones, range 0-2.
        data_digest: SHA-256 over the (image hash, label) pairs the head was fitted on.
        parent_version: the champion that this head was retrained from, or None.
        metrics: None where there were no holdout images.
        reference: None where there were too few images; cards from before there was one do not have it.
        abstention: None where no error was asked for.
        choice: None where there was one way only.
        recipe: how backbone and head were trained, see `training.strategies.provenance`; what is retrained, quantised
            or upgraded from a version keeps its. Cards from before there was one do not have it.
        labels_as_of: UTC, ISO 8601 with microseconds; renamings and removals of labels up to then are followed, later
            ones are not. Empty: none is.
    """

    schema_version: int
    name: str
    labels: tuple[str, ...] = Field(min_length=2)
    image: ImageSpec
    backbone: BackboneCard
    embedding_size: int = Field(ge=1)
    head_digest: Digest
    temperature: float = Field(gt=0)
    novelty_method: NoveltyMethod
    novelty_threshold: float = Field(ge=0, le=2)
    strategy: str
    settings: dict[str, Any]
    recipe: dict[str, RecipeValue] = Field(default_factory=dict)
    seed: int
    data_digest: Digest
    train_images: int = Field(ge=0)
    parent_version: int | None
    metrics: Metrics | None
    reference: Reference | None = None
    abstention: Abstention | None = None
    choice: Choice | None = None
    libraries: dict[str, str]
    created_at: str
    labels_as_of: str = ""

    @model_validator(mode="after")
    def _labels_are_distinct(self) -> "ModelCard":
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels: the same label twice")
        return self

    @model_validator(mode="after")
    def _reference_is_of_the_labels(self) -> "ModelCard":
        strangers = set(self.reference.probabilities) - set(self.labels) if self.reference else ()
        if strangers:
            raise ValueError(f"reference.probabilities: {min(strangers)!r} is none of the labels")
        return self

    @property
    def embedding_key(self) -> EmbeddingKey:
        """The key of embeddings that were computed on a CPU."""
        return EmbeddingKey(self.backbone.digest, self.image.digest())

    def to_json(self) -> str:
        """Return the card as JSON with sorted keys."""
        return _json(self.model_dump(mode="json"))

    def to_sparse_json(self) -> str:
        """Return the card as JSON, a large confusion table sparse.

        Of more than 100 classes it has the cells that are not 0: a table of all classes against all would outgrow what
        clients of gRPC take.
        """
        if self.metrics is None or len(self.labels) <= _MAX_DENSE_CLASSES:
            return self.to_json()
        rows = self.metrics.confusion
        sparse = self.model_dump(mode="json", exclude={"metrics": {"confusion"}})
        cells = [[true, answer, images] for true, row in enumerate(rows) for answer, images in enumerate(row) if images]
        sparse["metrics"]["confusion"] = {"classes": len(rows), "cells": cells}
        return _json(sparse)


def _json(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, sort_keys=True, ensure_ascii=False, allow_nan=False)


def parse_card(text: str) -> ModelCard:
    """Read a card.

    Raises:
        ArtifactError: not JSON, of a newer schema, or a field is missing or wrong; the text names the field.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"card: not JSON ({error})") from error
    if not isinstance(fields, Mapping):
        raise ArtifactError("card: not a JSON object")
    schema = fields.get("schema_version")
    if "schema_version" in fields and type(schema) is not int:
        raise ArtifactError(f"card: field 'schema_version' is {schema!r}, not a whole number")
    if isinstance(schema, int) and schema > SCHEMA_VERSION:
        raise ArtifactError(
            f"card: written in schema {schema}, this Regraft reads up to {SCHEMA_VERSION}: upgrade Regraft"
        )
    if missing := missing_image_field(fields):
        raise ArtifactError(f"card: field {missing!r} is missing")
    try:
        return ModelCard.model_validate(fields)
    except ValidationError as error:
        raise ArtifactError(f"card: {complaint(error)}") from error


def missing_image_field(fields: Mapping[str, Any]) -> str:
    """Find a field that a card's image spec lacks; empty if none.

    The spec's defaults are for those who make models, not for those who read them.
    """
    image = fields.get("image")
    missing = (name for name in ImageSpec.__dataclass_fields__ if isinstance(image, Mapping) and name not in image)
    return next((f"image.{name}" for name in missing), "")


def complaint(error: ValidationError) -> str:
    """Return what is wrong first, with its field."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or "labels"
    return f"field {field!r}: {first['msg']}"
