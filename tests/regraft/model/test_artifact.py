import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from regraft.errors import ArtifactError
from regraft.image.decode import decode_crop
from regraft.model.artifact import (
    ABSTAIN_KEY,
    EMBEDDING,
    IMAGE,
    NOVELTY,
    PROBABILITIES,
    Artifact,
    FloatArray,
    Head,
    backbone_digest,
    check_backbone,
    embedding_size,
    graft,
    read,
    rehead,
    ungraft,
)
from regraft.model.card import Abstention
from regraft.model.session import OpenSession, open_session
from tests.tiny import (
    COLOURS,
    EMBEDDING_SIZE,
    SPEC,
    as_written_before,
    picture,
    tiny_backbone,
    tiny_card,
    tiny_head,
)

LABELS = ("red", "green", "blue")
PARTS = ("weight", "bias", "prototypes", "whitening")
OUTPUTS = [PROBABILITIES, EMBEDDING, NOVELTY]


def tiny_model(labels: tuple[str, ...] = LABELS, backbone: onnx.ModelProto | None = None) -> onnx.ModelProto:
    backbone = backbone or tiny_backbone()
    head = tiny_head(labels)
    return graft(backbone, head, tiny_card(backbone, head, labels))


def opened(model: onnx.ModelProto) -> OpenSession:
    return open_session(model.SerializeToString(), provider="cpu", threads=1)


def answers(session: OpenSession, images: npt.NDArray[np.uint8], head: Head | None = None) -> list[FloatArray]:
    """Return probabilities, embedding and novelty, with the file's own head or another."""
    feed = {IMAGE: images} | (head.feed() if head else {})
    outputs: list[FloatArray] = session.session.run(OUTPUTS, feed)
    return outputs


def some_images(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), np.uint8)


def written(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def session() -> OpenSession:
    return opened(tiny_model())


@st.composite
def heads(draw: st.DrawFn, largest: float = 1.0) -> Head:
    """Heads of 1 to 6 classes, whitened by 1 to 4 rows, with prototypes of length 1 in what that makes of space."""
    count = draw(st.integers(1, 6))
    numbers = st.floats(-largest, largest, width=32)
    weight = draw(hnp.arrays(np.float32, (count, EMBEDDING_SIZE), elements=numbers))
    bias = draw(hnp.arrays(np.float32, (count,), elements=numbers))
    directions = draw(hnp.arrays(np.float32, (count, EMBEDDING_SIZE), elements=st.floats(-1, 1, width=32)))
    directions[:, 0] += np.where(np.linalg.norm(directions, axis=1) < 0.1, np.float32(2), np.float32(0))
    whitening = draw(
        hnp.arrays(np.float32, (draw(st.integers(1, 4)), EMBEDDING_SIZE), elements=st.floats(-3, 3, width=32))
    )
    return Head(weight, bias, prototypes_of(directions, whitening), whitening)


def prototypes_of(directions: FloatArray, whitening: FloatArray) -> FloatArray:
    image = directions + (directions @ whitening.T) @ whitening
    return np.asarray(image / np.sqrt((directions * image).sum(axis=1, keepdims=True)), np.float32)


def twice(head: Head) -> Head:
    return Head(*(np.concatenate([array, array]) for array in head.feed().values()))


images = st.integers(1, 5).flatmap(lambda count: hnp.arrays(np.uint8, (count, 8, 8, 3), elements=st.integers(0, 255)))


def test_onnx_runtime_runs_the_written_file_as_it_is(tmp_path: Path) -> None:
    path = written(tiny_model(), tmp_path)
    crops = np.stack([decode_crop(picture(label, number), SPEC) for label in LABELS for number in range(5)])

    probabilities, embedding, novelty = answers(open_session(path, provider="cpu", threads=1), crops)

    assert probabilities.shape == (15, 3)
    assert embedding.shape == (15, EMBEDDING_SIZE)
    assert novelty.shape == (15,)
    assert [LABELS[best] for best in probabilities.argmax(axis=1)] == [label for label in LABELS for _ in range(5)]


def test_novelty_is_small_for_a_known_colour_and_larger_for_another(session: OpenSession) -> None:
    crops = np.stack([decode_crop(picture(label, 1), SPEC) for label in ("red", "grey")])

    _, _, (known, unknown) = answers(session, crops)

    assert known < 0.05 < unknown


def test_another_head_with_another_number_of_classes_is_fed_into_the_same_session(session: OpenSession) -> None:
    crops = np.stack([decode_crop(picture(label, 1), SPEC) for label in COLOURS])
    four, two = tiny_head(tuple(COLOURS)), tiny_head(("grey", "blue"))

    with_four = answers(session, crops, four)[0]
    with_two = answers(session, crops, two)[0]
    own = answers(session, crops)[0]

    assert with_four.argmax(axis=1).tolist() == [0, 1, 2, 3]
    assert with_two.shape == (4, 2)
    assert with_two.argmax(axis=1).tolist()[2:] == [1, 0]
    assert own.shape == (4, 3)  # the built-in head is still there


def test_heads_whitened_by_other_numbers_of_rows_are_fed_into_the_same_session(session: OpenSession) -> None:
    crops, plain = some_images(4), tiny_head(LABELS)
    own = answers(session, crops)[2]

    for rows in (1, 5, 40):
        whitening = np.random.default_rng(rows).normal(size=(rows, EMBEDDING_SIZE)).astype(np.float32)
        head = replace(plain, prototypes=prototypes_of(plain.prototypes, whitening), whitening=whitening)
        _, embedding, novelty = answers(session, crops, head)
        np.testing.assert_allclose(novelty, head.novelty(embedding), atol=1e-5)
        assert np.abs(novelty - own).max() > 0.01


def test_what_the_whitening_stretches_counts_more() -> None:
    plain = tiny_head(("red",))
    unit = np.eye(EMBEDDING_SIZE, dtype=np.float32)
    greener = np.stack([unit[4] - unit[8], unit[5] - unit[9]])  # as far from red as each other
    whitening = 5 * greener[:1]
    whitened = replace(plain, prototypes=prototypes_of(plain.prototypes, whitening), whitening=whitening)
    off: FloatArray = np.asarray(plain.prototypes + 0.1 * greener, np.float32)

    here, elsewhere = whitened.novelty(off)

    assert here > 2 * elsewhere
    np.testing.assert_allclose(whitened.novelty(plain.prototypes * np.float32(7)), 0, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_answer_for_an_image_does_not_depend_on_its_batch_mates(session: OpenSession, count: int) -> None:
    crops = some_images(7)

    together = answers(session, crops[:count])
    alone = [answers(session, crops[index : index + 1]) for index in range(count)]

    for output, batched in enumerate(together):
        np.testing.assert_allclose(batched, np.concatenate([one[output] for one in alone]), atol=1e-5)


@settings(max_examples=60)
@given(head=heads(), crops=images)
def test_the_numpy_twins_are_the_graph_within_1e_5(head: Head, crops: npt.NDArray[np.uint8]) -> None:
    probabilities, embedding, novelty = answers(SESSION, crops, head)

    np.testing.assert_allclose(head.probabilities(embedding), probabilities, atol=1e-5, rtol=0)
    np.testing.assert_allclose(head.novelty(embedding), novelty, atol=1e-5, rtol=0)
    assert head.probabilities(embedding).dtype == np.float32
    assert head.novelty(embedding).dtype == np.float32


SESSION = opened(tiny_model())


@settings(max_examples=60)
@given(
    bias=hnp.arrays(np.float32, st.integers(1, 6), elements=st.floats(-1e4, 1e4, width=32)),
    crops=images,
)
def test_the_numpy_twin_is_the_graph_where_logits_are_huge(bias: FloatArray, crops: npt.NDArray[np.uint8]) -> None:
    zeros = np.zeros((len(bias), EMBEDDING_SIZE), np.float32)
    head = Head(
        zeros, bias, zeros, zeros
    )  # logits are exactly the bias, so no rounding of the product hides a difference

    probabilities, embedding, _ = answers(SESSION, crops, head)

    np.testing.assert_allclose(head.probabilities(embedding), probabilities, atol=1e-5, rtol=0)


@settings(max_examples=60)
@given(head=heads(largest=1e4), crops=images)
def test_huge_logits_still_give_probabilities(head: Head, crops: npt.NDArray[np.uint8]) -> None:
    of_the_graph, embedding, _ = answers(SESSION, crops, head)

    for probabilities in (of_the_graph, head.probabilities(embedding)):
        assert np.isfinite(probabilities).all()
        assert (probabilities >= 0).all()
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


@settings(max_examples=60)
@given(head=heads(), crops=images)
def test_novelty_lies_between_0_and_2(head: Head, crops: npt.NDArray[np.uint8]) -> None:
    _, embedding, of_the_graph = answers(SESSION, crops, head)

    for novelty in (of_the_graph, head.novelty(embedding)):
        assert (novelty >= -1e-5).all()
        assert (novelty <= 2 + 1e-5).all()


def test_a_black_image_has_no_direction_and_the_twins_agree_on_its_novelty(session: OpenSession) -> None:
    head = tiny_head(LABELS)

    _, embedding, novelty = answers(session, np.zeros((1, 8, 8, 3), np.uint8), head)

    assert not embedding.any()
    np.testing.assert_allclose(novelty, [1.0], atol=1e-6)
    np.testing.assert_allclose(head.novelty(embedding), [1.0], atol=1e-6)


@pytest.mark.parametrize("scale", [1e6, 1.0, 1e-6, 1e-13])
def test_novelty_looks_at_the_direction_only_in_both_twins(scale: float) -> None:
    crops = some_images(3)
    expected = answers(SESSION, crops)[2]

    _, embedding, novelty = answers(opened(tiny_model(backbone=tiny_backbone(scale))), crops)

    np.testing.assert_allclose(novelty, expected, atol=1e-5)
    np.testing.assert_allclose(tiny_head(LABELS).novelty(embedding), expected, atol=1e-5)


def test_the_twin_leaves_the_embeddings_that_it_is_given_as_they_are() -> None:
    embedding = np.random.default_rng(0).random((4, EMBEDDING_SIZE), np.float32)
    before = embedding.copy()
    head = tiny_head(LABELS)

    head.probabilities(embedding)
    head.novelty(embedding)

    np.testing.assert_array_equal(embedding, before)


@settings(max_examples=40)
@given(head=heads(), scale=st.floats(0.1, 10))
def test_ungraft_is_the_inverse_of_graft(head: Head, scale: float) -> None:
    backbone = tiny_backbone(scale)
    labels = tuple(f"label {number}" for number in range(max(2, len(head.bias))))
    if len(head.bias) < 2:  # a card has two labels at least
        head = twice(head)

    model = graft(backbone, head, tiny_card(backbone, head, labels))

    assert backbone_digest(ungraft(model)) == backbone_digest(backbone)
    assert ungraft(model) == backbone


@settings(max_examples=30)
@given(head=heads())
def test_a_file_that_was_written_is_read_as_the_same_head_and_card(
    head: Head, tmp_path_factory: pytest.TempPathFactory
) -> None:
    head = twice(head)
    labels = tuple(f"label {number}" for number in range(len(head.bias)))
    backbone = tiny_backbone()
    card = tiny_card(backbone, head, labels)
    path = written(graft(backbone, head, card), tmp_path_factory.mktemp("model"))

    artifact = read(path)

    assert artifact.card == card
    for name, array in head.feed().items():
        np.testing.assert_array_equal(artifact.head.feed()[name], array)


def test_grafting_and_ungrafting_leave_what_they_are_given_as_it_is() -> None:
    backbone = tiny_backbone()
    model = tiny_model(backbone=backbone)
    before = model.SerializeToString()

    ungraft(model)

    assert backbone == tiny_backbone()
    assert model.SerializeToString() == before


def test_the_digest_of_a_backbone_tells_backbones_apart() -> None:
    assert backbone_digest(tiny_backbone()) == backbone_digest(tiny_backbone())
    assert backbone_digest(tiny_backbone()) != backbone_digest(tiny_backbone(scale=2))


@pytest.mark.parametrize(("opset", "lowest"), [(18, 8), (19, 9), (21, 10)])
def test_a_file_has_the_lowest_ir_version_that_its_opset_allows(opset: int, lowest: int) -> None:
    backbone = tiny_backbone()
    backbone.ir_version = 10
    backbone.opset_import[0].version = opset

    assert tiny_model(backbone=backbone).ir_version == lowest


def test_a_file_from_before_the_ir_version_was_lowered_is_read_and_shares_its_backbone(tmp_path: Path) -> None:
    older = tiny_model()
    older.ir_version = 10

    artifact = read(written(older, tmp_path))

    assert artifact.card.backbone.digest == backbone_digest(ungraft(older)) == backbone_digest(tiny_backbone())
    # As it was hashed then: versions that are out there have this in their cards.
    assert backbone_digest(tiny_backbone()) == "59acb95ef3dd890dea19bca4ce134bb33998a7df3c0486c0a12f248b116ca138"
    assert rehead(artifact, artifact.head, artifact.card).ir_version == 8


def test_a_file_with_lp_normalization_is_read_has_the_same_digests_and_is_written_anew_without(tmp_path: Path) -> None:
    older = as_written_before(tiny_model())
    assert "LpNormalization" in {node.op_type for node in older.graph.node}

    artifact = read(written(older, tmp_path))

    assert artifact.card == read(written(tiny_model(), tmp_path)).card
    assert backbone_digest(older) == backbone_digest(tiny_model()) == artifact.card.backbone.digest
    assert ungraft(older) == ungraft(tiny_model())
    assert rehead(artifact, artifact.head, artifact.card) == tiny_model()


@settings(max_examples=40)
@given(head=heads(), crops=images)
def test_a_file_with_lp_normalization_answers_like_a_new_one(head: Head, crops: npt.NDArray[np.uint8]) -> None:
    crops[0] = 0  # an embedding of length 0

    for before, now in zip(answers(OLDER_SESSION, crops, head), answers(SESSION, crops, head), strict=True):
        np.testing.assert_allclose(now, before, rtol=0, atol=1e-6)


OLDER_SESSION = opened(as_written_before(tiny_model()))


@pytest.mark.parametrize("spoil", ["LpNormalization of another axis", "both ways at once"])
def test_a_head_that_is_neither_of_the_known_ones_is_refused(spoil: str, tmp_path: Path) -> None:
    older, new = as_written_before(tiny_model()), tiny_model()
    if spoil == "both ways at once":
        older.graph.initializer.append(initializer(new, "head.least"))
    else:
        (axis,) = (entry for entry in head_node(older, "LpNormalization").attribute if entry.name == "axis")
        axis.i = 0

    with pytest.raises(ArtifactError, match="nodes of the head"):
        read(written(older, tmp_path))


def test_the_nodes_of_a_head_all_have_kernels_for_cuda() -> None:
    """By ONNX Runtime's table of kernels (docs/OperatorKernels.md), where LpNormalization has none."""
    operators = {node.op_type for node in tiny_model().graph.node if node.name.startswith("head.")}

    assert operators == {
        "Add", "Div", "Gemm", "Max", "ReduceL2", "ReduceMax", "ReduceSumSquare", "Softmax", "Sqrt", "Sub",
    }  # fmt: skip


def test_the_digest_of_a_head_depends_on_every_number_and_on_nothing_else() -> None:
    head = tiny_head(LABELS)
    bigger = np.float32(1.5)

    assert tiny_head(LABELS).digest() == head.digest()
    assert replace(head, weight=np.asfortranarray(head.weight)).digest() == head.digest()
    digests = {
        head.digest(),
        replace(head, weight=head.weight * bigger).digest(),
        replace(head, bias=head.bias * bigger).digest(),
        replace(head, prototypes=head.prototypes * bigger).digest(),
        replace(head, whitening=head.whitening + np.float32(1)).digest(),
        replace(head, whitening=np.concatenate([head.whitening, head.whitening])).digest(),
        replace(head, weight=head.prototypes, prototypes=head.weight).digest(),
        tiny_head(LABELS[::-1]).digest(),
        tiny_head(LABELS[:2]).digest(),
    }
    assert len(digests) == 9


def test_a_new_head_keeps_the_backbone_and_its_digest(tmp_path: Path) -> None:
    artifact = read(written(tiny_model(("red", "green")), tmp_path))
    labels = ("red", "green", "blue", "grey")
    head = tiny_head(labels)

    again = rehead(artifact, head, tiny_card(ungraft(artifact.model), head, labels))
    reread = read(written(again, tmp_path))

    assert reread.card.backbone.digest == artifact.card.backbone.digest
    assert backbone_digest(ungraft(again)) == artifact.card.backbone.digest
    assert reread.card.labels == labels
    crops = np.stack([decode_crop(picture(label), SPEC) for label in labels])
    assert answers(opened(again), crops)[0].argmax(axis=1).tolist() == [0, 1, 2, 3]


def test_embedding_size_is_the_width_of_the_backbone() -> None:
    assert embedding_size(tiny_backbone()) == EMBEDDING_SIZE


@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 3), (3,), (2, 3), (1, 3)),
        ((2, 3), (2,), (2, 4), (1, 3)),
        ((2, 3), (2,), (3, 3), (1, 3)),
        ((6,), (6,), (6,), (6,)),
        ((2, 3), (2, 1), (2, 3), (1, 3)),
        ((2, 3), (2,), (2, 3), (1, 4)),
        ((2, 3), (2,), (2, 3), (0, 3)),
        ((2, 3), (2,), (2, 3), (3,)),
    ],
    ids=str,
)
def test_a_head_whose_parts_do_not_fit_each_other_is_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    parts = [np.zeros(shape, np.float32) for shape in shapes]

    with pytest.raises(ArtifactError, match="do not fit"):
        Head(*parts)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("part", PARTS)
def test_a_head_with_values_that_are_no_numbers_is_refused(part: str, value: float) -> None:
    head = tiny_head(LABELS)
    arrays = {name: getattr(head, name).copy() for name in PARTS}
    arrays[part].flat[-1] = value

    with pytest.raises(ArtifactError, match=rf"head\.{part}: has values that are not finite"):
        Head(**arrays)


@pytest.mark.parametrize("part", PARTS)
def test_a_head_of_another_precision_is_refused(part: str) -> None:
    head = tiny_head(LABELS)
    arrays: dict[str, Any] = {name: getattr(head, name) for name in PARTS}
    arrays[part] = arrays[part].astype(np.float64)

    with pytest.raises(ArtifactError, match=rf"head\.{part}: dtype float64, need float32"):
        Head(**arrays)


def dims(model: onnx.ModelProto, tensor: str) -> Any:  # noqa: ANN401 - protobuf's repeated fields have no public type
    value = next(info for info in [*model.graph.input, *model.graph.output] if info.name == tensor)
    return value.type.tensor_type.shape.dim


def set_dim(tensor: str, axis: int, size: int) -> Callable[[onnx.ModelProto], object]:
    def change(model: onnx.ModelProto) -> None:
        dims(model, tensor)[axis].Clear()
        if size:
            dims(model, tensor)[axis].dim_value = size

    return change


def rename(field: str, name: str) -> Callable[[onnx.ModelProto], object]:
    return lambda model: setattr(getattr(model.graph, field)[0], "name", name)


def initializer(model: onnx.ModelProto, name: str) -> TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def move_to_another_file(name: str) -> Callable[[onnx.ModelProto], object]:
    def change(model: onnx.ModelProto) -> None:
        tensor = initializer(model, name)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "weights.bin"

    return change


def in_another_file() -> onnx.TensorProto:
    tensor = onnx.TensorProto(name="hidden", data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    return tensor


def hide_in_a_constant(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["unused"], value=in_another_file()))


def hide_in_a_branch(model: onnx.ModelProto) -> None:
    branch = helper.make_graph([], "branch", [], [], initializer=[in_another_file()])
    model.graph.node.append(helper.make_node("If", ["unused"], [], then_branch=branch, else_branch=branch))


def hide_in_a_function(model: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["y"], value=in_another_file())
    model.functions.append(helper.make_function("own", "f", [], ["y"], [node], [helper.make_opsetid("", 18)]))


def hide_in_a_sparse_tensor(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add().values.CopyFrom(in_another_file())


HIDING_PLACES = [hide_in_a_constant, hide_in_a_branch, hide_in_a_function, hide_in_a_sparse_tensor]


@pytest.mark.parametrize("hide", HIDING_PLACES, ids=lambda hide: hide.__name__)
def test_a_tensor_in_another_file_is_found_wherever_it_hides(
    hide: Callable[[onnx.ModelProto], None], tmp_path: Path
) -> None:
    model = tiny_model()
    hide(model)
    onnx.save_model(model, tmp_path / "model.onnx")

    with pytest.raises(ArtifactError, match="hidden is kept in another file"):
        read(tmp_path / "model.onnx")


# Columns: what is done to the tiny backbone, and what the complaint must say.
BAD_BACKBONES: dict[str, tuple[Callable[[onnx.ModelProto], object], str]] = {
    "the batch axis of the image is fixed": (set_dim(IMAGE, 0, 1), "batch axis is not symbolic"),
    "the batch axis of the image has no name": (set_dim(IMAGE, 0, 0), "batch axis is not symbolic"),
    "the batch axis of the embedding is fixed": (set_dim(EMBEDDING, 0, 1), "batch axis is not symbolic"),
    "the image is not square": (set_dim(IMAGE, 1, 9), r"uint8 \[N, P, P, 3\]"),
    "the image has four channels": (set_dim(IMAGE, 3, 4), r"uint8 \[N, P, P, 3\]"),
    "the width of the embedding is unknown": (set_dim(EMBEDDING, 1, 0), "with D known"),
    "the image has another name": (rename("input", "pixels"), "one input 'image'"),
    "the embedding has another name": (rename("output", "features"), "one output 'embedding'"),
    "there is a second output": (
        lambda model: model.graph.output.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["N", 12])),
        "one input 'image' and one output 'embedding'",
    ),
    "the image is of floats": (
        lambda model: setattr(model.graph.input[0].type.tensor_type, "elem_type", TensorProto.FLOAT),
        "uint8",
    ),
    "the embedding is of doubles": (
        lambda model: setattr(model.graph.output[0].type.tensor_type, "elem_type", TensorProto.DOUBLE),
        "float32",
    ),
    "the weights are in another file": (move_to_another_file("scale"), "external data"),
}


@pytest.mark.parametrize(("damage", "complaint"), BAD_BACKBONES.values(), ids=BAD_BACKBONES.keys())
def test_a_backbone_that_breaks_the_contract_is_refused(
    damage: Callable[[onnx.ModelProto], object], complaint: str
) -> None:
    backbone = tiny_backbone()
    check_backbone(backbone)
    damage(backbone)

    with pytest.raises(ArtifactError, match=complaint):
        check_backbone(backbone)
    with pytest.raises(ArtifactError, match=complaint):
        tiny_model(backbone=backbone)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"labels": ("red", "green")}, "2 labels"),
        ({"labels": ("red", "green", "blue", "grey")}, "4 labels"),
        ({"embedding_size": 13}, "embeddings of 13"),
        ({"head_digest": "0" * 64}, "head_digest"),
        ({"image": replace(SPEC, resize_px=9, crop_px=9)}, "takes 8 px, the card crops 9 px"),
    ],
)
def test_a_card_that_does_not_fit_is_refused_before_anything_is_written(
    changes: dict[str, Any], complaint: str
) -> None:
    backbone, head = tiny_backbone(), tiny_head(LABELS)
    card = tiny_card(backbone, head, LABELS).model_copy(update=changes)

    with pytest.raises(ArtifactError, match=complaint):
        graft(backbone, head, card)


def test_the_card_of_another_backbone_is_refused() -> None:
    head = tiny_head(LABELS)
    card = tiny_card(tiny_backbone(scale=2), head, LABELS)

    with pytest.raises(ArtifactError, match=r"backbone\.digest"):
        graft(tiny_backbone(), head, card)


def name_a_node(model: onnx.ModelProto) -> None:
    model.graph.node[0].name = "head.norm/Cast"


def name_a_weight(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].name = model.graph.node[-1].input[1] = "head.norm.weight"


def name_a_value(model: onnx.ModelProto) -> None:
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "head.logits"


# Exporters name nodes and weights after the modules of the network, and networks of timm have a module `head`.
@pytest.mark.parametrize(
    "oddity",
    [name_a_node, name_a_weight, name_a_value, lambda model: helper.set_model_props(model, {"exporter": "torch"})],
    ids=["a node below head.", "a weight below head.", "a value below head.", "metadata of its own"],
)
def test_what_graft_accepts_can_be_read_again(oddity: Callable[[onnx.ModelProto], object], tmp_path: Path) -> None:
    backbone = tiny_backbone()
    oddity(backbone)

    try:
        model = tiny_model(backbone=backbone)
    except ArtifactError:
        return  # refused when it is made, with the network at hand: fine as well

    assert read(written(model, tmp_path)).card.labels == LABELS


def flip_a_weight(model: onnx.ModelProto) -> None:
    tensor = initializer(model, "head.weight")
    weight = numpy_helper.to_array(tensor).copy()
    weight[1, 2] += 0.25
    tensor.CopyFrom(numpy_helper.from_array(weight, "head.weight"))


def poison_a_weight(model: onnx.ModelProto) -> None:
    tensor = initializer(model, "head.weight")
    weight = numpy_helper.to_array(tensor).copy()
    weight[1, 2] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(weight, "head.weight"))


def remove_a_weight(model: onnx.ModelProto) -> None:
    model.graph.initializer.remove(initializer(model, "head.prototypes"))


def alter_the_backbone(model: onnx.ModelProto) -> None:
    initializer(model, "scale").CopyFrom(numpy_helper.from_array(np.array(0.5, np.float32), "scale"))


def one_more_label(model: onnx.ModelProto) -> None:
    text = model.metadata_props[0].value
    model.metadata_props[0].value = text.replace('"labels": ["red"', '"labels": ["grey", "red"')


def rewrite_the_card(old: str, new: str) -> Callable[[onnx.ModelProto], object]:
    def change(model: onnx.ModelProto) -> None:
        text = model.metadata_props[0].value
        assert old in text, "the case does not test what its name says"
        model.metadata_props[0].value = text.replace(old, new)

    return change


def remove_the_card(model: onnx.ModelProto) -> None:
    del model.metadata_props[:]


def head_node(model: onnx.ModelProto, operator: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == operator and node.name.startswith("head."))


def softmax_over_the_batch(model: onnx.ModelProto) -> None:
    head_node(model, "Softmax").attribute[0].i = 0


def no_softmax(model: onnx.ModelProto) -> None:
    softmax = head_node(model, "Softmax")
    softmax.op_type = "Identity"
    del softmax.attribute[:]


def without_whitening(model: onnx.ModelProto) -> None:
    model.graph.initializer.remove(initializer(model, "head.whitening"))


def unwhitened(model: onnx.ModelProto) -> None:
    head_node(model, "Div").op_type = "Mul"


def novelty_from_5(model: onnx.ModelProto) -> None:
    initializer(model, "head.one").CopyFrom(numpy_helper.from_array(np.array(5, np.float32), "head.one"))


def head_that_cannot_be_replaced(model: onnx.ModelProto) -> None:
    model.graph.input.remove(next(info for info in model.graph.input if info.name == "head.weight"))


def fixed_number_of_classes(model: onnx.ModelProto) -> None:
    dims(model, "head.weight")[0].dim_value = len(LABELS)


# Columns: what is done to a good model, and what the complaint must say, beside the name of the file.
BAD_FILES: dict[str, tuple[Callable[[onnx.ModelProto], object], str | None]] = {
    "the card is missing": (remove_the_card, "no model card"),
    "the card is not JSON": (rewrite_the_card("{", "<"), "not JSON"),
    "a field of the card is missing": (rewrite_the_card('"seed": 0, ', ""), "'seed': Field required"),
    "the card is of a newer schema": (rewrite_the_card('"schema_version": 1', '"schema_version": 2'), "schema 2"),
    "a label too many": (one_more_label, r"head\.weight is \(3, 12\), but the card has 4 labels"),
    "another crop than the graph's": (rewrite_the_card('"crop_px": 8', '"crop_px": 7'), "crops 7 px"),
    "a weight of the head was changed": (flip_a_weight, "head_digest differs"),
    "a weight of the head is not a number": (poison_a_weight, r"head\.weight: has values that are not finite"),
    "a tensor of the head is missing": (remove_a_weight, r"head\.prototypes"),
    "the backbone was changed": (alter_the_backbone, r"backbone\.digest differs"),
    "the backbone's weights are in another file": (move_to_another_file("scale"), "external data"),
    "the head's weights are in another file": (move_to_another_file("head.weight"), r"head\.weight"),
    "the batch axis is fixed": (set_dim(IMAGE, 0, 1), "batch axis"),
    "an operator that does not exist": (
        lambda model: setattr(model.graph.node[0], "op_type", "Magic"),
        "backbone.digest differs",
    ),
    "softmax over the batch": (softmax_over_the_batch, None),
    "no softmax": (no_softmax, None),
    "the whitening is missing": (without_whitening, r"head\.whitening"),
    "novelty that is stretched, not shrunk": (unwhitened, None),
    "novelty counted from 5": (novelty_from_5, None),
    "a head that cannot be replaced": (head_that_cannot_be_replaced, None),
    "a head of a fixed number of classes": (fixed_number_of_classes, None),
}


@pytest.mark.parametrize(("damage", "complaint"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_file_that_breaks_the_contract_is_refused_by_name(
    damage: Callable[[onnx.ModelProto], object], complaint: str | None, tmp_path: Path
) -> None:
    model = copy.deepcopy(tiny_model())
    damage(model)
    path = written(model, tmp_path)

    with pytest.raises(ArtifactError, match=complaint) as caught:
        read(path)

    assert str(path) in str(caught.value)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_off_is_refused_by_name(share: float, tmp_path: Path) -> None:
    path = written(tiny_model(), tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])

    with pytest.raises(ArtifactError, match=r"not a whole ONNX file|no model card") as caught:
        read(path)

    assert str(path) in str(caught.value)


def test_a_file_cut_off_at_any_byte_is_refused(tmp_path: Path) -> None:
    path = written(tiny_model(), tmp_path)
    whole = path.read_bytes()

    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactError):
            read(path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "no model card"),
        (b"this is a text\n" * 20, "not a whole ONNX file"),
        (b"\0" * 1000, "not a whole ONNX file"),
    ],
)
def test_a_file_that_is_no_model_is_refused_by_name(content: bytes, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)

    with pytest.raises(ArtifactError, match=complaint) as caught:
        read(path)

    assert str(path) in str(caught.value)


def test_a_model_of_somebody_else_is_refused_by_name(tmp_path: Path) -> None:
    path = written(tiny_backbone(), tmp_path)

    with pytest.raises(ArtifactError, match="not a model that Regraft trained"):
        read(path)


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nowhere\.onnx: there is no such file"):
        read(tmp_path / "nowhere.onnx")


def test_a_folder_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=str(tmp_path)):
        read(tmp_path)


def test_a_name_that_is_not_utf_8_is_refused_as_damage(tmp_path: Path) -> None:
    path = written(tiny_model(), tmp_path)
    path.write_bytes(path.read_bytes().replace(b"scale", b"sc\xe1le"))

    with pytest.raises(ArtifactError, match=str(path)):
        read(path)


@settings(max_examples=150)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_leaves_the_answers_as_they_are(
    where: float, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = bytearray(tiny_model().SerializeToString())
    data[int(where * len(data))] ^= 1 << bit
    path = tmp_path_factory.mktemp("flipped") / "model.onnx"
    path.write_bytes(data)

    try:
        artifact: Artifact = read(path)
    except ArtifactError:
        return

    crops = some_images(2)
    assert artifact.head.digest() == tiny_head(LABELS).digest()
    for output, expected in zip(answers(opened(artifact.model), crops), answers(SESSION, crops), strict=True):
        np.testing.assert_array_equal(output, expected)


def test_the_threshold_of_abstention_is_in_the_card_and_beside_it() -> None:
    labels, backbone = ("red", "green"), tiny_backbone()
    head = tiny_head(labels)
    kept = Abstention(target_error=0.02, threshold=0.625, answered=0.75, error=0.01, images=400)
    card = tiny_card(backbone, head, labels).model_copy(update={"abstention": kept})

    model = graft(backbone, head, card)

    assert {prop.key: prop.value for prop in model.metadata_props}[ABSTAIN_KEY] == "0.625"
    assert ABSTAIN_KEY not in {
        prop.key for prop in graft(backbone, head, tiny_card(backbone, head, labels)).metadata_props
    }
    assert [kept.abstains(probability) for probability in (0.6, 0.625, 0.63)] == [True, True, False]
