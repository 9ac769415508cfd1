"""A real model that is small: 8 x 8 px pictures of one colour, and a backbone that averages colours. No torch."""

import copy
import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from regraft.image.decode import decode_crop
from regraft.image.encode import encode_png
from regraft.image.spec import Crop, ImageSpec
from regraft.label_rules import LabelPolicy, image_hash, is_holdout
from regraft.model.artifact import EMBEDDING, IMAGE, OPSET, FloatArray, Head, backbone_digest, graft
from regraft.model.card import SCHEMA_VERSION, Abstention, BackboneCard, ModelCard
from regraft.model.drift import reference_of
from regraft.model.session import open_session
from regraft.stores.backbones import BackboneStore, StoredBackbone, describe
from regraft.stores.lifecycle.history import Beginning
from regraft.stores.models import FEATURES_FILE, MODEL_FILE, ModelStore
from training.head.features import Features, assemble

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200), "grey": (120, 120, 120)}
SPEC = ImageSpec(resize="squash", resize_px=8, crop_px=8, interpolation="bilinear")
EMBEDDING_SIZE = 12


def picture(label: str, number: int = 0, side_px: int = 16) -> bytes:
    """Return PNG number ``number`` of a colour: always the same bytes, different from every other number's."""
    seed = int.from_bytes(hashlib.sha256(f"{label}/{number}".encode()).digest()[:4], "big")
    noise = np.random.default_rng(seed).integers(-40, 41, (side_px, side_px, 3))
    return encode_png(np.clip(np.array(COLOURS[label]) + noise, 0, 255).astype(np.uint8))


def tiny_backbone(scale: float = 1.0) -> onnx.ModelProto:
    """Return a backbone whose embedding [N, 12] is the mean colour of each quarter; ``scale`` makes another one."""
    nodes = [
        helper.make_node("Cast", [IMAGE], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["nchw"], ["quarters"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["quarters"], ["flat"]),
        helper.make_node("Mul", ["flat", "scale"], [EMBEDDING]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, ["N", 8, 8, 3])],
        [helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, ["N", EMBEDDING_SIZE])],
        [numpy_helper.from_array(np.array(scale / 255, np.float32), "scale")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def tiny_head(labels: tuple[str, ...], sharpness: float = 20.0) -> Head:
    """Return the head that finds the nearest colour."""
    means = np.array([np.repeat(COLOURS[label], 4) for label in labels], np.float32) / 255  # [K, 12], NCHW order
    weight: FloatArray = np.asarray(sharpness * means, np.float32)
    bias: FloatArray = np.asarray(-0.5 * sharpness * (means**2).sum(axis=1), np.float32)
    prototypes: FloatArray = np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), np.float32)
    return Head(weight, bias, prototypes, np.zeros((1, EMBEDDING_SIZE), np.float32))


def as_written_before(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with the nodes that heads once had.

    They computed the embedding's direction by LpNormalization.
    """
    older = copy.deepcopy(model)
    place = [node.name for node in older.graph.node].index("head.norm")
    del older.graph.node[place : place + 3]
    direction = helper.make_node("LpNormalization", [EMBEDDING], ["head.direction"], "head.normalise", axis=1, p=2)
    older.graph.node.insert(place, direction)
    (least,) = (tensor for tensor in older.graph.initializer if tensor.name == "head.least")
    older.graph.initializer.remove(least)
    return older


def tiny_card(backbone: onnx.ModelProto, head: Head, labels: tuple[str, ...], name: str = "colours") -> ModelCard:
    """Return a card that fits the backbone and the head."""
    return ModelCard(
        schema_version=SCHEMA_VERSION,
        name=name,
        labels=labels,
        image=SPEC,
        backbone=BackboneCard(name="tiny", weights="none", digest=backbone_digest(backbone)),
        embedding_size=EMBEDDING_SIZE,
        head_digest=head.digest(),
        temperature=1.0,
        novelty_method="class means",
        novelty_threshold=0.05,
        strategy="probe",
        settings={},
        seed=0,
        data_digest="0" * 64,
        train_images=0,
        parent_version=None,
        metrics=None,
        libraries={},
        created_at="2026-01-01T00:00:00+00:00",
    )


@cache
def tiny_crops(label: str, pictures: int) -> dict[str, Crop]:
    """Return the crops of the first pictures of a colour by the hash of their bytes; made once for all tests."""
    encoded = [picture(label, number) for number in range(pictures)]
    return {image_hash(data): decode_crop(data, SPEC) for data in encoded}


def tiny_features(backbone: onnx.ModelProto, labels: tuple[str, ...], pictures: int = 30) -> Features:
    """Return the features of ``pictures`` pictures of each colour, split by their hashes."""
    session = open_session(backbone.SerializeToString(), provider="cpu", threads=1).session
    crops = {sha256: crop for label in labels for sha256, crop in tiny_crops(label, pictures).items()}
    (embedding,) = session.run([EMBEDDING], {IMAGE: np.stack([*crops.values()])})
    rows = [(sha256, label, is_holdout(sha256)) for label in labels for sha256 in tiny_crops(label, pictures)]
    return assemble(labels, rows, dict(zip(crops, embedding, strict=True)))


def add_tiny_backbone(store: ModelStore, scale: float = 1.0) -> StoredBackbone:
    """Store a backbone that models can begin with, named tiny."""
    graph = tiny_backbone(scale)
    card = BackboneCard(name="tiny", weights="none", digest=backbone_digest(graph))
    return BackboneStore(store.root).add(graph, describe(graph, "tiny", card, SPEC))


def begin_tiny(
    store: ModelStore, name: str = "colours", labels: tuple[str, ...] = (), policy: LabelPolicy = "open"
) -> None:
    """Begin a model without a version, on a stored backbone."""
    beginning = Beginning(add_tiny_backbone(store).digest, "tiny", labels, policy)
    store.folders.create(name, beginning, who="test", why="tiny")


def publish_tiny(
    store: ModelStore,
    labels: tuple[str, ...] = ("red", "green", "blue"),
    *,
    name: str = "colours",
    scale: float = 1.0,
    sharpness: float = 20.0,
    promote: bool = True,
    referenced: bool = True,
    abstention: Abstention | None = None,
    spec: ImageSpec = SPEC,
) -> int:
    """Publish a version as training does, features and all, and return its number.

    Another ``sharpness`` makes another head on the same backbone; another ``scale`` makes another backbone. A card
    that is not ``referenced`` is one from before there was drift.
    """
    backbone, head = tiny_backbone(scale), tiny_head(labels, sharpness)
    features = tiny_features(backbone, labels)
    answers = head.probabilities(features.embedding), head.novelty(features.embedding)
    reference = reference_of(*answers, labels, "holdout") if referenced and np.isfinite(scale) else None
    told = {"reference": reference, "abstention": abstention, "image": spec}
    card = tiny_card(backbone, head, labels, name).model_copy(update=told)
    model = graft(backbone, head, card)

    def write(folder: Path) -> None:
        onnx.save_model(model, folder / MODEL_FILE)
        features.save(folder / FEATURES_FILE)

    version = store.publish(name, write, who="test", why="tiny")
    if promote:
        store.move(name, version, who="test", why="tiny")
    return version
