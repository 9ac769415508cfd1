"""Ranges and means of a backbone's activations on real pictures."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from regraft.image.spec import Crop
from regraft.model.artifact import IMAGE
from regraft.model.session import open_session

Array: TypeAlias = npt.NDArray[np.float64]

_DEVIATIONS: Final = 2.0
CLIPPING: Final = frozenset({"Clip", "Relu"})


@dataclass(frozen=True)
class Activations:
    """Ranges and means of float tensors.

    Attributes:
        ranges: by tensor, for each of n crops its least and largest value, [n, 2].
        means: by tensor that goes into a convolution, the mean of each channel, [C].
    """

    ranges: dict[str, Array]
    means: dict[str, Array]


def watch(model: onnx.ModelProto, crops: Sequence[Crop]) -> Activations:
    """Measure a backbone's float tensors on crops uint8 [P, P, 3]."""
    watched = copy.deepcopy(model)
    graph = watched.graph
    values = [*onnx.shape_inference.infer_shapes(model).graph.value_info, *model.graph.output]
    floats = [value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT]
    inputs = sorted({node.input[0] for node in convolutions(model)})
    graph.initializer.append(numpy_helper.from_array(np.array([0, 2, 3], np.int64), "of a channel"))
    for name in floats:
        graph.node.append(helper.make_node("ReduceMin", [name], [f"least of {name}"], keepdims=0))
        graph.node.append(helper.make_node("ReduceMax", [name], [f"largest of {name}"], keepdims=0))
    for name in inputs:
        graph.node.append(helper.make_node("ReduceMean", [name, "of a channel"], [f"mean of {name}"], keepdims=0))
    wanted = [f"{which} of {name}" for name in floats for which in ("least", "largest")]
    wanted += [f"mean of {name}" for name in inputs]
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in wanted)
    # One thread: several would add up in another order.
    session = open_session(watched.SerializeToString(), provider="cpu", threads=1).session
    each = [session.run(wanted, {IMAGE: crop[None]}) for crop in crops]
    seen = {name: np.array(values, np.float64) for name, values in zip(wanted, zip(*each, strict=True), strict=True)}
    return Activations(
        {name: np.stack([seen[f"least of {name}"], seen[f"largest of {name}"]], axis=1) for name in floats},
        {name: seen[f"mean of {name}"].mean(axis=0) for name in inputs},
    )


def ranges(model: onnx.ModelProto, seen: Activations) -> dict[str, tuple[float, float]]:
    """Return the range that 8 bits shall span, by tensor.

    It contains 0, and is what a crop spans on average and two standard deviations more, at most what was seen: one
    outlier does not widen it, and pictures of several kinds do.
    """
    spans = {}
    for name, extremes in seen.ranges.items():
        mean, more = extremes.mean(axis=0), _DEVIATIONS * extremes.std(axis=0)
        low, high = max(extremes[:, 0].min(), mean[0] - more[0]), min(extremes[:, 1].max(), mean[1] + more[1])
        spans[name] = (min(float(low), 0.0), max(float(high), 0.0))
    for node in model.graph.node:
        if node.op_type in CLIPPING and node.input[0] in spans:
            spans[node.input[0]] = spans[node.output[0]]  # what is cut off needs no room ahead of it
    return spans


def convolutions(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the convolutions whose weights are constants."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in constants]
