"""A real model that is small: 8 x 8 px pictures of one colour, and a backbone that averages colours. No torch."""

import hashlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from regraft.artifact import EMBEDDING, IMAGE, OPSET, FloatArray, Head, backbone_digest
from regraft.card import SCHEMA_VERSION, BackboneCard, ModelCard
from regraft.image import ImageSpec, encode_png

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200), "grey": (120, 120, 120)}
SPEC = ImageSpec(resize="squash", resize_px=8, crop_px=8, interpolation="bilinear")
EMBEDDING_SIZE = 12


def picture(label: str, number: int = 0, side_px: int = 16) -> bytes:
    """Return PNG number ``number`` of a colour: always the same bytes, different from every other number's."""
    seed = int.from_bytes(hashlib.sha256(f"{label}/{number}".encode()).digest()[:4], "big")
    noise = np.random.default_rng(seed).integers(-40, 41, (side_px, side_px, 3))
    return encode_png(np.clip(np.array(COLOURS[label]) + noise, 0, 255).astype(np.uint8))


def tiny_backbone(scale: float = 1.0) -> onnx.ModelProto:
    """Return a backbone whose embedding [N, 12] is the mean colour of each quarter; ``scale`` makes another backbone."""
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
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def tiny_head(labels: tuple[str, ...], sharpness: float = 20.0) -> Head:
    """Return the head that finds the nearest colour."""
    means = np.array([np.repeat(COLOURS[label], 4) for label in labels], np.float32) / 255  # [K, 12], NCHW order
    weight: FloatArray = np.asarray(sharpness * means, np.float32)
    bias: FloatArray = np.asarray(-0.5 * sharpness * (means**2).sum(axis=1), np.float32)
    prototypes: FloatArray = np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), np.float32)
    return Head(weight, bias, prototypes)


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
