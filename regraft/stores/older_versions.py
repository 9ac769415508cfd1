"""Versions of an older Regraft, which this one cannot serve."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from pydantic import ValidationError

from regraft.errors import ArtifactError
from regraft.image.spec import RULE_VERSION, ImageSpec
from regraft.model import artifact
from regraft.model.artifact import Artifact, Head
from regraft.model.card import SCHEMA_VERSION, ModelCard
from regraft.stores.models import MODEL_FILE, ModelStore

_ABSENT: Final[dict[str, Any]] = {
    "temperature": 1.0,
    "novelty_method": "class means",
    "novelty_threshold": 2.0,
    "strategy": "unknown",
    "settings": {},
    "seed": 0,
    "train_images": 0,
    "parent_version": None,
    "metrics": None,
    "libraries": {},
    "created_at": "unknown",
}
"""Fields of a card that lacks them; all are made anew with the head."""


@dataclass(frozen=True)
class OlderVersion:
    """A version that this Regraft cannot serve."""

    name: str
    version: int
    is_champion: bool
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


def find_older(store: ModelStore) -> Iterator[OlderVersion]:
    """Yield the undamaged versions of an older image rule or card."""
    for name in store.names():
        champion = store.champion(name)
        for version in store.versions(name):
            path = store.folder(name, version) / MODEL_FILE
            try:
                artifact.read(path)
            except ArtifactError as error:
                if _can_be_read(path):
                    reason = str(error).removeprefix(f"{path}: ")
                    yield OlderVersion(name, version, version == champion, reason)


def _can_be_read(path: Path) -> bool:
    try:
        read_older(path)
    except ArtifactError:
        return False
    return True


def read_older(path: Path) -> Artifact:
    """Read an older model file under this image rule.

    Its backbone and labels hold, and its head answers as it did on embeddings that were made with it; figures, novelty
    and digests are not what they say, until a head is fitted anew.

    Raises:
        ArtifactError: it is damaged, or of a newer Regraft.
    """
    try:
        model = onnx.load_model(path, load_external_data=False)
        card = next(prop.value for prop in model.metadata_props if prop.key == artifact.CARD_KEY)
        stated = json.loads(card)
        backbone = artifact.ungraft(model)
        artifact.check_backbone(backbone)
        head = _head_of(model)
        return Artifact(_card_of(stated, artifact.backbone_digest(backbone), head), head, model)
    except (OSError, DecodeError, StopIteration, ValueError, TypeError, KeyError, ValidationError) as error:
        raise ArtifactError(f"{path}: not a model that an older Regraft made ({error})") from error


def _card_of(stated: dict[str, Any], digest: str, head: Head) -> ModelCard:
    newer = stated.get("schema_version", 1) > SCHEMA_VERSION or stated["image"].get("rule_version", 1) > RULE_VERSION
    if newer:
        raise ArtifactError("made by a newer Regraft: upgrade this one")
    spec_fields = {field.name for field in fields(ImageSpec)}
    image = {name: value for name, value in stated["image"].items() if name in spec_fields}
    current = {name: value for name, value in stated.items() if name in ModelCard.model_fields and name != "reference"}
    anew = {
        "schema_version": SCHEMA_VERSION,
        "image": image | {"rule_version": RULE_VERSION},
        "backbone": {**stated["backbone"], "digest": digest},
        "embedding_size": head.weight.shape[1],
        "head_digest": head.digest(),
        "data_digest": "0" * 64,
        "metrics": None,
    }
    return ModelCard.model_validate(_ABSENT | current | anew)


def _head_of(model: onnx.ModelProto) -> Head:
    """Return a file's head, without novelty where it has none."""
    tensors = {tensor.name: np.array(numpy_helper.to_array(tensor)) for tensor in model.graph.initializer}
    weight, bias = tensors["head.weight"], tensors["head.bias"]
    prototypes = tensors.get("head.prototypes", np.zeros_like(weight))
    whitening = tensors.get("head.whitening", np.zeros((1, weight.shape[1]), np.float32))
    return Head(weight, bias, prototypes, whitening)
