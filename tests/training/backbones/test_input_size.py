"""Transformers at another size than their own, from the network to two heads in one session. Random weights.

The families are timm's own classes, as their published members build them, but narrow and shallow.
"""

from typing import Any

import numpy as np
import onnx
import pytest
from timm.models import eva, register_model, swin_transformer, vision_transformer

from regraft.image.decode import decode_crop
from regraft.image.spec import Crop, ImageSpec
from regraft.model import artifact
from regraft.model.artifact import EMBEDDING, IMAGE, FloatArray, graft
from regraft.model.session import open_session
from serving.inference.engine import Engine
from serving.inference.execution_plan import ExecutionPlan
from tests.tiny import COLOURS, picture, tiny_card
from training.backbones.build import build_backbone
from training.backbones.onnx_export import export_backbone
from training.quantisation.quantise import quantise, this_cpu

pytestmark = pytest.mark.usefixtures("one_torch_thread")

PLAN = ExecutionPlan(lanes=1, threads=1, max_batch=4)
# Untrained, DINO's layers would add next to nothing, of which 8 bits leave nothing.
NARROW = {"embed_dim": 48, "depth": 2, "num_heads": 3, "init_values": 1.0}
NARROW_SWIN = {"embed_dim": 24, "depths": (1, 1), "num_heads": (2, 4)}


@register_model
def narrow_swin(**options: Any) -> Any:  # noqa: ANN401 - whatever timm.create_model passes on, and gets
    return swin_transformer.swin_tiny_patch4_window7_224(**{**options, **NARROW_SWIN})


@register_model
def narrow_dinov2(**options: Any) -> Any:  # noqa: ANN401 - likewise
    return vision_transformer.vit_small_patch14_reg4_dinov2(**{**options, **NARROW, "global_pool": "avg"})


@register_model
def narrow_dinov3(**options: Any) -> Any:  # noqa: ANN401 - likewise
    return eva.vit_small_patch16_dinov3(**{**options, **NARROW})


FAMILIES = {
    "timm/test_vit": 96,
    "timm/narrow_swin": 96,
    "timm/narrow_dinov2": 70,
    "timm/narrow_dinov3": 80,
}


def crops_of(spec: ImageSpec) -> list[Crop]:
    return [decode_crop(picture(colour, number, side_px=64), spec) for colour in COLOURS for number in range(2)]


def head_on(embedding: FloatArray, labels: int) -> artifact.Head:
    """Return a head of random weights whose logits are of order 1."""
    size = embedding.shape[1]
    weight = np.random.default_rng(labels).normal(size=(labels, size)) / np.abs(embedding).max()
    prototypes = np.full((labels, size), size**-0.5, np.float32)
    return artifact.Head(
        weight.astype(np.float32), np.zeros(labels, np.float32), prototypes, np.zeros((1, size), np.float32)
    )


def embeddings_of(backbone: onnx.ModelProto, crops: list[Crop]) -> FloatArray:
    session = open_session(backbone.SerializeToString(), provider="cpu", threads=1).session
    return np.concatenate([session.run([EMBEDDING], {IMAGE: crop[None]})[0] for crop in crops])


@pytest.mark.parametrize(("name", "image_px"), FAMILIES.items())
def test_a_transformer_of_another_size_exports_quantises_and_serves_two_heads(name: str, image_px: int) -> None:
    network = build_backbone(name, "none", 0, image_px)
    assert network.spec.crop_px == image_px < build_backbone(name, "none", 0).spec.crop_px

    exported = export_backbone(network)  # compared with torch at batches of 1, 2 and 7
    crops = crops_of(network.spec)
    rounded = onnx.load_model_from_string(quantise(exported.SerializeToString(), crops, cpu=this_cpu()))
    embedding, of_int8 = embeddings_of(exported, crops), embeddings_of(rounded, crops)

    assert np.abs(embedding - embedding.mean(axis=0)).max() > 1e-4 * np.abs(embedding).max()
    assert np.isfinite(of_int8).all()
    assert np.abs(of_int8).max() > 0

    for backbone, seen in ((exported, embedding), (rounded, of_int8)):
        labels = tuple(f"label {number}" for number in range(3))
        heads = [head_on(seen, count) for count in (3, 5)]
        card = tiny_card(backbone, heads[0], labels).model_copy(
            update={"embedding_size": seen.shape[1], "image": network.spec}
        )
        model = graft(backbone, heads[0], card).SerializeToString()
        engine = Engine(open_session(model, provider="cpu", threads=1), PLAN)
        for head in heads:  # the second has other labels: it is swapped into the same session
            answers = engine.run(crops[:3], [head] * 3)
            expected = head.probabilities(seen[:3])
            np.testing.assert_allclose([answer.probabilities for answer in answers], expected, atol=1e-3)
