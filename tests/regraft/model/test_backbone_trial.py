from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from regraft.errors import ArtifactError
from regraft.model.artifact import EMBEDDING, graft
from regraft.model.backbone_trial import examine, try_backbone
from tests.tiny import tiny_backbone, tiny_card, tiny_head

Edit = Callable[[onnx.GraphProto], None]
LABELS = ("red", "green")


def edited(edit: Edit) -> bytes:
    """Return the tiny backbone, whose last node an edit has replaced."""
    model = tiny_backbone()
    del model.graph.node[-1]
    edit(model.graph)
    return model.SerializeToString()


def add(graph: onnx.GraphProto, *nodes: onnx.NodeProto, **constants: list[int] | list[float]) -> None:
    graph.node.extend(nodes)
    for name, values in constants.items():
        kind = np.float32 if isinstance(values[0], float) else np.int64
        graph.initializer.append(numpy_helper.from_array(np.array(values, kind), name))


def by_the_others_beside_it(graph: onnx.GraphProto) -> None:
    node = helper.make_node
    add(
        graph,
        node("ReduceMean", ["flat", "axis"], ["mean"], keepdims=1),
        node("Sub", ["flat", "mean"], [EMBEDDING]),
        axis=[0],
    )


def the_same_for_all(graph: onnx.GraphProto) -> None:
    add(graph, helper.make_node("Mul", ["flat", "zero"], [EMBEDDING]), zero=[0.0])


def not_finite(graph: onnx.GraphProto) -> None:
    add(graph, helper.make_node("Div", ["flat", "zero"], [EMBEDDING]), zero=[0.0])


def of_another_width(graph: onnx.GraphProto) -> None:
    add(graph, helper.make_node("Concat", ["flat", "flat"], [EMBEDDING], axis=1))


def of_unknown_operators(graph: onnx.GraphProto) -> None:
    add(graph, helper.make_node("Sesame", ["flat"], [EMBEDDING], domain="evil"))


def of_terabytes(graph: onnx.GraphProto) -> None:
    node = helper.make_node
    add(
        graph,
        node("ConstantOfShape", ["huge"], ["zeros"]),
        node("ReduceSum", ["zeros", "axes"], ["sum"], keepdims=0),
        node("Add", ["flat", "sum"], [EMBEDDING]),
        huge=[1_000_000, 1_000_000],
        axes=[0, 1],
    )


def of_an_endless_loop(graph: onnx.GraphProto) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["go on"]), helper.make_node("Add", ["x", "x"], ["y"])],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        ],
    )
    graph.initializer.append(numpy_helper.from_array(np.array(True), "true"))
    add(graph, helper.make_node("Loop", ["", "true", "flat"], [EMBEDDING], body=body))


def test_a_sound_backbone_passes() -> None:
    examine(tiny_backbone().SerializeToString())


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "one input 'image'"),
        (b"\xff" * 50, "not a whole ONNX file"),
        (tiny_backbone().SerializeToString()[:-9], "not a whole ONNX file"),
        (edited(by_the_others_beside_it), "depends on the pictures beside it"),
        (edited(the_same_for_all), "two pictures have the same embedding"),
        (edited(not_finite), "no finite embedding"),
        (edited(of_another_width), "no finite embedding"),
        (edited(of_unknown_operators), "ONNX Runtime refuses the model"),
    ],
)
def test_what_is_no_backbone_is_refused_with_the_reason(data: bytes, complaint: str) -> None:
    with pytest.raises(ArtifactError, match=complaint):
        examine(data)


def test_a_whole_model_is_refused_with_the_command_that_takes_its_backbone() -> None:
    backbone, head = tiny_backbone(), tiny_head(LABELS)
    model = graft(backbone, head, tiny_card(backbone, head, LABELS))

    with pytest.raises(ArtifactError, match="`regraft backbones add store:NAME`"):
        examine(model.SerializeToString())


def test_a_graph_of_terabytes_ends_its_process_and_not_this_one() -> None:
    with pytest.raises(ArtifactError, match=r"wants more than any backbone|it does not run|refuses the model"):
        try_backbone(edited(of_terabytes))


def test_a_graph_that_never_ends_is_ended() -> None:
    with pytest.raises(ArtifactError, match=r"wants more than any backbone: it was ended .* within 1 s of a CPU"):
        try_backbone(edited(of_an_endless_loop), cpu_s=1)


def test_a_refusal_comes_back_from_the_process() -> None:
    with pytest.raises(ArtifactError, match="two pictures have the same embedding"):
        try_backbone(edited(the_same_for_all))


def test_the_side_of_a_picture_is_the_graphs_own() -> None:
    huge = tiny_backbone()
    for dim in huge.graph.input[0].type.tensor_type.shape.dim[1:3]:
        dim.dim_value = 2**20

    with pytest.raises(ArtifactError, match="wants more than any backbone"):
        try_backbone(huge.SerializeToString())
