"""Convolutional backbones of 8 x 8 px pictures, without torch, that are quantised in a few hundredths of a second."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from regraft.image.decode import decode_crop
from regraft.image.spec import Crop
from regraft.model.artifact import EMBEDDING, IMAGE, OPSET
from tests.tiny import COLOURS, SPEC, picture

WIDTH = 12

Array = npt.NDArray[np.float32]


def conv_backbone(seed: int = 0, *, loud: float = 1.0, offset: float = 0.1, depth: int = 1) -> onnx.ModelProto:
    """Return a backbone like those that are exported: normalise, a convolution, one by channel, one of 1 x 1, the mean.

    Args:
        seed: of the weights.
        loud: how many times as large as the others one channel is; the embedding does not depend on it, but 8 bits that
            must span it have nothing left for the others.
        offset: of the embedding; beyond 65,504, which float16 ends at, the converter cuts it.
        depth: how many convolutions by channel there are.
    """
    random = np.random.default_rng(seed)
    first, by_channel, last = (
        random.normal(size=s).astype(np.float32) for s in ((8, 3, 3, 3), (8, 1, 3, 3), (12, 8, 1, 1))
    )
    first[0] *= loud
    last[:, 0] = 0
    middle: list[tuple[str, Array | None]] = [("Conv", by_channel), ("Relu", None)]
    layers = [("Conv", first), ("Relu", None), *(depth * middle), ("Conv", last)]
    backbone = backbone_of(layers)
    bias = next(tensor for tensor in backbone.graph.initializer if tensor.name == f"bias {len(layers) - 1}")
    bias.CopyFrom(numpy_helper.from_array(np.full(WIDTH, offset, np.float32), bias.name))
    return backbone


def backbone_of(layers: list[tuple[str, Array | None]]) -> onnx.ModelProto:
    """Return a backbone of convolutions (weights [out, in of a group, k, k]) and other operators, in this order."""
    node = helper.make_node
    constants: dict[str, npt.NDArray[Any]] = {
        "mean": np.array([120, 110, 100], np.float32).reshape(1, 3, 1, 1),
        "std": np.array([60, 55, 50], np.float32).reshape(1, 3, 1, 1),
        "axes": np.array([2, 3], np.int64),
    }
    nodes = [
        node("Cast", [IMAGE], ["pixels"], "cast", to=TensorProto.FLOAT),
        node("Transpose", ["pixels"], ["planes"], "transpose", perm=[0, 3, 1, 2]),
        node("Sub", ["planes", "mean"], ["centred"], "centre"),
        node("Div", ["centred", "std"], ["value 0"], "scale"),
    ]
    channels = 3
    for number, (operator, weight) in enumerate(layers):
        inputs, attributes = [f"value {number}"], {}
        if weight is not None:
            side, group = weight.shape[2], channels // weight.shape[1]
            constants |= {f"weight {number}": weight, f"bias {number}": np.full(len(weight), 0.1, np.float32)}
            inputs += [f"weight {number}", f"bias {number}"]
            attributes = {"kernel_shape": [side, side], "pads": [side // 2] * 4, "group": group}
            channels = len(weight)
        nodes.append(node(operator, inputs, [f"value {number + 1}"], f"layer {number}", **attributes))
    nodes.append(node("ReduceMean", [f"value {len(layers)}", "axes"], [EMBEDDING], "pool", keepdims=0))
    graph = helper.make_graph(
        nodes,
        "backbone",
        [helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, ["N", 8, 8, 3])],
        [helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, ["N", channels])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10
    )  # as torch exports it


def colour_crops(count: int, first: int = 0) -> list[Crop]:
    """Return so many crops of every colour in turn."""
    return [decode_crop(picture(colour, first + number), SPEC) for number in range(count) for colour in COLOURS]
