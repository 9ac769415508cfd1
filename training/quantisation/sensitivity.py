"""Sensitivity of the embedding to each layer in int8 alone."""

import copy
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from regraft.image.spec import Crop
from regraft.model.artifact import EMBEDDING, IMAGE, FloatArray
from regraft.model.session import open_session
from regraft.progress import Progress, silent
from training.quantisation.quantise import LAYERS

CROPS: Final = 16
"""Enough to put the layers in order."""


def errors_of_layers(
    backbone: bytes, quantised: bytes, crops: Sequence[Crop], progress: Progress = silent
) -> dict[str, float]:
    """Measure the error of each layer in int8 alone, the worst first.

    Args:
        backbone: in float.
        quantised: the same one, by `training.quantisation.quantise.quantise`.
        crops: uint8 [P, P, 3] each; the first `CROPS` are used.
        progress: told the stage ``layers``.

    Returns:
        By the name of the node, the root mean square error as a share of the spread of the embedding.
    """
    exact, rounded = (onnx.load_model_from_string(each) for each in (backbone, quantised))
    shown = list(crops[:CROPS])
    expected = embeddings(exact, shown)
    spread = max(float(np.sqrt(np.square(expected - expected.mean(axis=0)).mean())), 1e-12)
    producers = {output: node for node in rounded.graph.node for output in node.output}
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in rounded.graph.initializer}
    layers = [node for node in rounded.graph.node if node.op_type in LAYERS and node.input[0] in producers]
    errors = {}
    progress("layers", 0, len(layers))
    for done, layer in enumerate(layers, start=1):
        given, weight = (producers.get(name) for name in layer.input[:2])
        if given and weight and given.op_type == weight.op_type == "DequantizeLinear":
            error = embeddings(_alone(exact, layer.name, given, weight, tensors), shown) - expected
            errors[layer.name] = float(np.sqrt(np.square(error).mean())) / spread
        progress("layers", done, len(layers))
    return dict(sorted(errors.items(), key=lambda entry: -entry[1]))


def _alone(
    exact: onnx.ModelProto, name: str, given: onnx.NodeProto, weight: onnx.NodeProto, tensors: dict[str, Any]
) -> onnx.ModelProto:
    """Round the input and weights of one layer of a float backbone."""
    model = copy.deepcopy(exact)
    graph = model.graph
    place, layer = next((place, node) for place, node in enumerate(graph.node) if node.name == name)
    values, scale, zero = (tensors[each] for each in weight.input)
    axis = next((attribute.i for attribute in weight.attribute if attribute.name == "axis"), 0)
    across = [-1 if dim == axis else 1 for dim in range(values.ndim)] if scale.ndim else []
    rounded = (values.astype(np.float32) - zero.reshape(across)) * scale.reshape(across)
    constants = {"rounded weights": rounded.astype(np.float32)}
    constants |= {"scale of the input": tensors[given.input[1]], "zero of the input": tensors[given.input[2]]}
    graph.initializer.extend(numpy_helper.from_array(array, key) for key, array in constants.items())
    step = ["scale of the input", "zero of the input"]
    graph.node.insert(place, helper.make_node("QuantizeLinear", [layer.input[0], *step], ["input in steps"]))
    graph.node.insert(place + 1, helper.make_node("DequantizeLinear", ["input in steps", *step], ["rounded input"]))
    layer.input[0], layer.input[1] = "rounded input", "rounded weights"
    return model


def embeddings(model: onnx.ModelProto, crops: Sequence[Crop]) -> FloatArray:
    """Embed n crops uint8 [P, P, 3] one by one, as [n, D]."""
    session = open_session(model.SerializeToString(), provider="cpu", threads=1).session
    return np.concatenate([np.asarray(session.run([EMBEDDING], {IMAGE: crop[None]})[0]) for crop in crops])
