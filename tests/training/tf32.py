"""What a GPU since Ampere makes of a network unless told not to, on a CPU: every factor is rounded to TF32."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.training.convolutions import Array, backbone_of

_MULTIPLIES = ("Conv", "Gemm", "MatMul")
_SPLIT = np.array(2**13 + 1, np.float32)
"""Leaves 11 of the 24 bits of a significand (Dekker, 1971): TF32 keeps 10, and the one that is implied."""


def in_tf32(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with both factors of every product rounded to TF32 first."""
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    nodes, done = [], set()
    for node in model.graph.node:
        new = onnx.NodeProto()
        new.CopyFrom(node)
        if node.op_type in _MULTIPLIES:
            for place in (0, 1):
                name = node.input[place]
                new.input[place] = f"{name} in TF32"
                if name not in done:
                    nodes += _rounding(name)
                    done.add(name)
        nodes.append(new)
    del rounded.graph.node[:]
    rounded.graph.node.extend(nodes)
    rounded.graph.initializer.append(numpy_helper.from_array(_SPLIT, "split"))
    return rounded


def _rounding(name: str) -> list[onnx.NodeProto]:
    """Return what rounds x to the upper half of its digits: c - (c - x), where c = split * x."""
    return [
        helper.make_node("Mul", [name, "split"], [f"{name} scaled"]),
        helper.make_node("Sub", [f"{name} scaled", name], [f"{name} lower"]),
        helper.make_node("Sub", [f"{name} scaled", f"{name} lower"], [f"{name} in TF32"]),
    ]


def deep_backbone(depth: int = 80, channels: int = 12) -> onnx.ModelProto:
    """Return a network on 8 x 8 px pictures that is as deep as those in use, and small."""
    random = np.random.default_rng(0)
    layers: list[tuple[str, Array | None]] = []
    for width in (3, *(depth - 1) * (channels,)):
        kernel = random.normal(scale=np.sqrt(4 / (9 * width)), size=(channels, width, 3, 3))
        layers += [("Conv", kernel.astype(np.float32)), ("Relu", None)]
    return backbone_of(layers)
