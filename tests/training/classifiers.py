"""ONNX classifiers of a few nodes, as somebody could bring them: 8 x 8 px pictures in, the nearest colour out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from regraft.model.session import open_session
from tests.tiny import tiny_head
from training.importing.classifier import IMAGENET_MEAN, IMAGENET_STD

SIDE, WIDTH = 8, 12
LABELS = ("red", "green", "blue")
_MEAN, _STD = (np.repeat(np.array(each, np.float32), 4) for each in (IMAGENET_MEAN, IMAGENET_STD))
_HEAD = tiny_head(LABELS)
WEIGHT = _HEAD.weight * _STD  # of normalised colours
BIAS = _HEAD.bias + _HEAD.weight @ _MEAN
BODY = (
    helper.make_node("AveragePool", ["pixels"], ["quarters"], kernel_shape=[4, 4], strides=[4, 4]),
    helper.make_node("Flatten", ["quarters"], ["flat"]),
)
NO_NUMBERS: Mapping[str, np.ndarray] = MappingProxyType({})
GEMM = helper.make_node("Gemm", ["flat", "w", "b"], ["answer"], transB=1)


def save_classifier(
    path: Path,
    head: Sequence[NodeProto] = (GEMM,),
    *,
    body: Sequence[NodeProto] = BODY,
    shape: Sequence[Any] = ("batch", 3, SIDE, SIDE),
    kind: int = TensorProto.FLOAT,
    opset: int = 18,
    external: bool = False,
    numbers: Mapping[str, np.ndarray] = NO_NUMBERS,
) -> Path:
    """Write a classifier that takes ``pixels`` and makes ``answer``, with the numbers ``w``, ``b`` and those given."""
    arrays = {"w": WEIGHT, "b": BIAS, **numbers}
    graph = helper.make_graph(
        [*body, *head],
        "a classifier",
        [helper.make_tensor_value_info("pixels", kind, shape)],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, [shape[0], len(LABELS)])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save_model(model, path, save_as_external_data=external, size_threshold=0)
    return path


def ask_classifier(path: Path, crops: np.ndarray) -> np.ndarray:
    """Return what a plain script gets from such a file for crops [N, P, P, 3]."""
    pixels = (crops / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    session = open_session(path, provider="cpu", threads=1).session
    return np.asarray(session.run(["answer"], {"pixels": pixels.transpose(0, 3, 1, 2).astype(np.float32)})[0])
