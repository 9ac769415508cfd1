import hashlib
from functools import cache
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from regraft.errors import ArtifactError
from regraft.image.spec import Crop
from regraft.model.artifact import EMBEDDING, IMAGE, FloatArray, backbone_digest, check_backbone, graft, ungraft
from regraft.model.card import BackboneCard
from regraft.model.session import open_session
from tests.tiny import tiny_backbone, tiny_card, tiny_head
from tests.training.conftest import in_a_child
from tests.training.convolutions import WIDTH, Array, backbone_of, colour_crops, conv_backbone
from training.quantisation.quantise import Cpu, quantise, this_cpu

CROPS = colour_crops(4)
LABELS = ("red", "green")

HASH = """
import hashlib
from tests.training.convolutions import colour_crops, conv_backbone
from training.quantisation.quantise import quantise
quantised = quantise(conv_backbone().SerializeToString(), colour_crops(4), cpu="x86-vnni")
print(hashlib.sha256(quantised).hexdigest())
"""


@cache
def small(seed: int = 0, *, cpu: Cpu = "x86-vnni") -> bytes:
    return quantise(conv_backbone(seed).SerializeToString(), CROPS, cpu=cpu)


def embeddings(backbone: bytes, crops: list[Crop]) -> FloatArray:
    session = open_session(backbone, provider="cpu", threads=1).session
    return np.asarray(session.run([EMBEDDING], {IMAGE: np.stack(crops)})[0])


def distance(first: FloatArray, second: FloatArray) -> float:
    """Return how far embeddings are apart, as a share of the spread of the first."""
    return float(np.linalg.norm(first - second) / np.linalg.norm(first - first.mean(axis=0)))


def weights_of(backbone: bytes) -> list[tuple[Array, Array]]:
    """Return int8 weights with the scales of their channels."""
    graph = onnx.load_model_from_string(backbone).graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in tensors]
    return [
        (tensors[node.input[0]], tensors[node.input[1]]) for node in nodes if tensors[node.input[0]].dtype == np.int8
    ]


def test_a_quantised_backbone_keeps_the_contract_and_can_be_grafted() -> None:
    backbone, head = onnx.load_model_from_string(small()), tiny_head(LABELS)
    card = tiny_card(tiny_backbone(), head, LABELS)
    origin = BackboneCard(name="tiny", weights="none", digest=backbone_digest(backbone), precision="int8")

    model = graft(backbone, head, card.model_copy(update={"backbone": origin}))

    check_backbone(backbone)
    assert ungraft(model).graph == backbone.graph  # whose IR version is lowered
    assert backbone_digest(ungraft(model)) != backbone_digest(conv_backbone())


def test_it_answers_like_the_float_one_on_pictures_that_it_was_not_calibrated_on() -> None:
    unseen = colour_crops(4, first=100)

    expected, found = embeddings(conv_backbone().SerializeToString(), unseen), embeddings(small(), unseen)

    assert found.shape == (len(unseen), WIDTH)
    assert distance(expected, found) < 0.05


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1), cpu=st.sampled_from(get_args(Cpu)))
def test_no_weight_is_further_than_half_a_step_from_what_it_was(seed: int, cpu: Cpu) -> None:
    exact = {t.name: numpy_helper.to_array(t) for t in conv_backbone(seed).graph.initializer}
    originals = [array for name, array in exact.items() if name.startswith("weight")]

    found = weights_of(small(seed, cpu=cpu))

    assert len(found) == len(originals) == 3
    for original, (weight, scale) in zip(originals, found, strict=True):
        assert scale.shape == original.shape[:1]
        assert np.abs(weight.astype(np.int32)).max() <= (64 if cpu == "x86" else 127)
        steps = scale.reshape(-1, 1, 1, 1)
        assert (np.abs(weight * steps - original) <= 0.5001 * steps).all()


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_a_picture_is_embedded_the_same_alone_and_in_company(seed: int, count: int) -> None:
    crops = list(np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), np.uint8))

    together = embeddings(small(), crops)

    assert (together == np.concatenate([embeddings(small(), [crop]) for crop in crops])).all()


def test_the_same_backbone_and_crops_give_the_same_bytes_in_any_process() -> None:
    child = in_a_child(["-c", HASH])

    assert child.stdout.strip() == hashlib.sha256(small()).hexdigest(), child.stderr


def test_what_rounding_adds_to_the_mean_is_taken_out_again() -> None:
    many = np.full((64, 3, 1, 1), 1 / 3, np.float32)
    # The first weight sets the scale; the others are rounded to 0 although together they weigh a quarter of it.
    uneven = np.full((2, 64, 1, 1), 0.49 / 127, np.float32)
    uneven[:, 0] = 1
    exact = backbone_of([("Conv", many), ("Relu", None), ("Conv", uneven)]).SerializeToString()

    rounded = quantise(exact, CROPS, cpu="x86-vnni")

    expected, found = embeddings(exact, CROPS).mean(axis=0), embeddings(rounded, CROPS).mean(axis=0)
    assert found == pytest.approx(expected, rel=0.01)


def test_two_convolutions_may_share_a_bias() -> None:
    model = conv_backbone()
    model.graph.node[6].input[2] = model.graph.node[4].input[2]
    exact = model.SerializeToString()

    assert distance(embeddings(exact, CROPS), embeddings(quantise(exact, CROPS, cpu="x86-vnni"), CROPS)) < 0.05


def test_constants_of_three_channels_behind_the_first_layer_are_left_alone() -> None:
    random = np.random.default_rng(1)
    narrow = random.normal(size=(3, 3, 1, 1)).astype(np.float32)
    only = random.normal(size=(1, 3, 1, 1)).astype(np.float32)  # of the shape of the normalisation's constants
    exact = backbone_of([("Conv", narrow), ("Conv", only)]).SerializeToString()

    assert distance(embeddings(exact, CROPS), embeddings(quantise(exact, CROPS, cpu="x86-vnni"), CROPS)) < 0.05


def test_without_crops_nothing_is_quantised() -> None:
    with pytest.raises(ArtifactError, match="int8 needs training images to calibrate with, and there are none"):
        quantise(conv_backbone().SerializeToString(), [], cpu="x86-vnni")


def test_a_backbone_without_convolutions_or_matrix_products_is_refused() -> None:
    with pytest.raises(ArtifactError, match="neither convolutions nor matrix products"):
        quantise(tiny_backbone().SerializeToString(), CROPS, cpu="x86-vnni")


def test_what_onnx_runtime_cannot_quantise_is_refused_with_its_reason() -> None:
    model = conv_backbone()
    model.graph.node.insert(4, helper.make_node("Magic", ["value 0"], ["value 00"], "magic"))
    model.graph.node[5].input[0] = "value 00"

    with pytest.raises(ArtifactError, match=r"cannot be quantised, keep it in fp32 or take another: .*Magic"):
        quantise(model.SerializeToString(), CROPS, cpu="x86-vnni")


@pytest.mark.parametrize(
    ("cpu", "kind"), [("x86-vnni", TensorProto.UINT8), ("x86", TensorProto.UINT8), ("arm", TensorProto.INT8)]
)
def test_activations_have_a_sign_only_for_arm(cpu: Cpu, kind: int) -> None:
    graph = onnx.load_model_from_string(small(cpu=cpu)).graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}

    assert {kinds[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"} == {kind}


def test_layers_may_stay_in_float() -> None:
    backbone = conv_backbone().SerializeToString()

    found = quantise(backbone, CROPS, cpu="x86-vnni", in_float=["layer 0", "layer 4"])

    exact = {t.name: numpy_helper.to_array(t) for t in conv_backbone().graph.initializer}
    kept = {t.name: numpy_helper.to_array(t) for t in onnx.load_model_from_string(found).graph.initializer}
    assert len(weights_of(found)) == 1
    for name in ("weight 0", "weight 4"):
        np.testing.assert_array_equal(kept[name], exact[name])


def test_a_layer_in_float_is_given_what_was_not_rounded() -> None:
    loud = conv_backbone(loud=1e5).SerializeToString()
    exact = embeddings(loud, CROPS)

    spoilt, rescued = (
        embeddings(quantise(loud, CROPS, cpu="x86-vnni", in_float=names), CROPS)
        for names in ((), ("layer 2", "layer 4"))
    )

    assert distance(exact, spoilt) > 0.5
    assert distance(exact, rescued) < 0.05


@pytest.mark.parametrize(
    ("text", "machine", "cpu"),
    [
        ("processor: 0\nflags\t\t: fpu avx2 avx512f avx512_vnni\n", "x86_64", "x86-vnni"),
        ("flags\t\t: fpu avx2 avx_vnni sse\n", "x86_64", "x86-vnni"),
        ("flags\t\t: fpu avx2 fma\n", "x86_64", "x86"),
        ("model name: avx512_vnni\nflags: avx2\n", "x86_64", "x86"),
        ("Features: asimd asimddp\n", "aarch64", "arm"),
        ("", "arm64", "arm"),
        ("", "x86_64", "x86"),
    ],
)
def test_a_machine_knows_which_kind_of_int8_it_wants(text: str, machine: str, cpu: Cpu, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(text)

    assert this_cpu(tmp_path / "cpuinfo", machine) == cpu


def test_a_machine_that_does_not_list_its_cpus_is_taken_for_one_without_vnni(tmp_path: Path) -> None:
    assert this_cpu(tmp_path / "nothing", "AMD64") == "x86"
