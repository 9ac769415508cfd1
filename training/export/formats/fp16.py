"""Backbones in half precision."""

import copy
from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from regraft.errors import ArtifactError, first_line
from regraft.image.spec import Crop
from regraft.model.artifact import EMBEDDING, FloatArray
from regraft.model.session import require_onnxruntime
from training.quantisation.sensitivity import embeddings

_ROUNDED: Final = "embedding of rounded weights"
_SHIFT: Final = "what rounding adds"


def to_fp16(backbone: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a backbone to float16 arithmetic; its embedding stays float32.

    Raises:
        ArtifactError: it cannot be converted.
    """
    require_onnxruntime()
    from onnxruntime.transformers import float16  # noqa: PLC0415 - optional: the line above has asked for the package

    try:
        converted: onnx.ModelProto = float16.convert_float_to_float16(backbone, keep_io_types=True)
        onnx.checker.check_model(converted)
    except Exception as error:
        raise ArtifactError(f"this backbone cannot be converted to fp16: {first_line(error)}") from error
    return converted


def with_fp16_weights(backbone: onnx.ModelProto, crops: Sequence[Crop]) -> onnx.ModelProto:
    """Return the backbone with its weights in float16, calculating in float32.

    What rounding them adds to the embedding on average is taken off again (after Nagel et al., "Data-Free Quantization
    Through Weight Equalization and Bias Correction", 2019).

    Args:
        backbone: in float32.
        crops: uint8 [P, P, 3] each, to see that average on.

    Raises:
        ArtifactError: a weight is too large for float16.
    """
    model = copy.deepcopy(backbone)
    graph, casts = model.graph, []
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1:
            rounded = _rounded(tensor)
            casts.append(helper.make_node("Cast", [rounded.name], [tensor.name], to=TensorProto.FLOAT))
            tensor.CopyFrom(rounded)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    shift = (embeddings(model, crops) - embeddings(backbone, crops)).mean(axis=0)
    _take_off(graph, shift.astype(np.float32))
    return model


def _rounded(tensor: TensorProto) -> TensorProto:
    values = numpy_helper.to_array(tensor)
    if np.abs(values).max(initial=0) > np.finfo(np.float16).max:
        raise ArtifactError(f"this backbone cannot be converted to fp16: {tensor.name} has weights beyond 65504")
    return numpy_helper.from_array(values.astype(np.float16), f"{tensor.name} in half")


def _take_off(graph: onnx.GraphProto, shift: FloatArray) -> None:
    """Subtract a vector [D] from the embedding."""
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == EMBEDDING:
                    names[place] = _ROUNDED
    graph.initializer.append(numpy_helper.from_array(shift, _SHIFT))
    graph.node.append(helper.make_node("Sub", [_ROUNDED, _SHIFT], [EMBEDDING]))
