"""Import of ONNX classifiers, split into backbone and linear head. No torch.

The last layer is a Gemm, or a MatMul and perhaps an Add, with numbers that the file has; Softmax or LogSoftmax may
follow. The backbone gets what prepares the pictures into its graph, as every backbone here has it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, compose, helper, numpy_helper, version_converter

from regraft.errors import InvalidRequestError, RegraftError, first_line
from regraft.image.spec import ImageSpec
from regraft.model.artifact import EMBEDDING, IMAGE, OPSET, FloatArray, backbone_digest, check_backbone, embedding_size
from regraft.model.session import open_session, require_onnxruntime
from training.backbones.cache import ExportedBackbone
from training.importing.classifier import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Channels,
    ImageRule,
    ImportedClassifier,
    Tail,
    labels_for,
    origin_of,
)

ANY_NETWORK: Final = "onnx"
"""What the backbone is called where nobody says which network it is."""
_PREFIX: Final = "net."
_CROP_PX: Final = 224
_FATAL: Final = 4
_RESIZE_SHARE: Final = 0.875
_TAILS: Final[Mapping[str, Tail]] = {"Softmax": "probabilities", "LogSoftmax": "log probabilities"}
_LOGITS: Tail = "logits"
_FLOATS: Final = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16, TensorProto.DOUBLE: np.float64}


@dataclass(frozen=True)
class _Head:
    """The last layer: the value that it is given, and its numbers."""

    embedding: str
    weight: FloatArray
    bias: FloatArray
    tail: Tail


@dataclass(frozen=True)
class _Input:
    """Input of a classifier: float or uint8, any layout; batch 0 is any."""

    name: str
    type: int
    channels_first: bool
    side: int
    batch: int


def import_onnx(path: Path, name: str, rule: ImageRule, labels: tuple[str, ...]) -> ImportedClassifier:
    """Read a classifier from an ONNX file.

    Args:
        path: of the file; numbers that it keeps in others beside it are read too.
        name: of its network, for the card; `ANY_NETWORK` if empty.
        rule: of the pictures; what it does not say is ImageNet's usual.
        labels: of its answers.

    Raises:
        InvalidRequestError: the file is none, or no classifier that can be split; the text says where.
    """
    model = _read(path)
    try:
        image = _input_of(model, rule)
        spec, mean, std = rule.applied(_spec(image.side), IMAGENET_MEAN, IMAGENET_STD)
        if image.type == TensorProto.UINT8 and (rule.mean or rule.std):
            raise InvalidRequestError("it takes pictures as they are (uint8), so --mean and --std have no effect")
        whole = _prepared(model, image, (mean, std))
        head = _head_of(whole)
        bare = _backbone(whole, head)
        check_backbone(bare)
        answers = _answers(whole, image.side)
        _check_batches(bare, image.side)
    except RegraftError as error:
        raise InvalidRequestError(f"{path}: {error}") from error
    named = labels_for(labels, len(head.weight), path.name)
    origin = origin_of(path)
    exported = ExportedBackbone(bare, name or ANY_NETWORK, origin, spec, backbone_digest(bare))
    return ImportedClassifier(exported, head.weight, head.bias, named, head.tail, answers, path.name)


def _read(path: Path) -> onnx.ModelProto:
    """Read a file, and bring it to our opset."""
    try:
        model = onnx.load_model(path)
    except FileNotFoundError as error:
        raise InvalidRequestError(f"{path}: there is no such file") from error
    except (DecodeError, OSError, ValueError, TypeError, onnx.checker.ValidationError) as error:
        raise InvalidRequestError(f"{path}: not a whole ONNX file ({first_line(error)[:200]})") from error
    opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
    if not opset:
        raise InvalidRequestError(f"{path}: not a whole ONNX file (it names no opset)")
    if opset == OPSET:
        return model
    try:
        return version_converter.convert_version(model, OPSET)
    except Exception as error:
        raise InvalidRequestError(
            f"{path}: written in opset {opset}, which cannot be brought to {OPSET} ({first_line(error)[:200]}): "
            f"export it with opset_version={OPSET}"
        ) from error


def _input_of(model: onnx.ModelProto, rule: ImageRule) -> _Input:
    graph = model.graph
    numbers = {tensor.name for tensor in graph.initializer}
    inputs = [each for each in graph.input if each.name not in numbers]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise InvalidRequestError(
            f"it has {len(inputs)} inputs and {len(graph.output)} outputs, where a classifier has one of each"
        )
    tensor = inputs[0].type.tensor_type
    sides = [dim.dim_value for dim in tensor.shape.dim]
    first = len(sides) == 4 and sides[1] == 3
    if len(sides) != 4 or not (first or sides[3] == 3):
        raise InvalidRequestError(f"its input {inputs[0].name!r} is {_shape(tensor)}, not [N, 3, P, P] or [N, P, P, 3]")
    if tensor.elem_type not in {*_FLOATS, TensorProto.UINT8}:
        kind = helper.tensor_dtype_to_string(tensor.elem_type)
        raise InvalidRequestError(f"its input {inputs[0].name!r} is of type {kind}, not float or uint8")
    height, width = sides[2:] if first else sides[1:3]
    image_px = rule.image_px
    side = height or image_px or _CROP_PX
    if (height or side) != (width or side) or (image_px is not None and side != image_px):
        raise InvalidRequestError(
            f"its input {inputs[0].name!r} is {_shape(tensor)}: pictures are squares here"
            + (f", and not of --image-px {image_px}" if image_px else "")
        )
    return _Input(inputs[0].name, tensor.elem_type, first, side, sides[0])


def _shape(tensor: Any) -> str:  # noqa: ANN401 - protobuf's own types are not public
    return "[" + ", ".join(str(dim.dim_value or dim.dim_param or "?") for dim in tensor.shape.dim) + "]"


def _spec(side: int) -> ImageSpec:
    """Return ImageNet's usual preprocessing: the middle 224 of 256 px."""
    return ImageSpec(resize_px=round(side / _RESIZE_SHARE), crop_px=side, interpolation="bilinear")


def _prepared(model: onnx.ModelProto, image: _Input, normal: tuple[Channels, Channels]) -> onnx.ModelProto:
    """Put normalisation before the classifier, for uint8 crops."""
    named = compose.add_prefix(model, _PREFIX)
    graph = named.graph
    if image.batch:
        _free_batch(graph, image.batch)
    nodes, numbers = _preparing(image, normal)
    nodes_after = [*nodes, *graph.node]
    del graph.node[:], graph.input[:], graph.value_info[:]
    graph.node.extend(nodes_after)
    graph.initializer.extend(numbers)
    graph.input.append(helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, ["N", image.side, image.side, 3]))
    output = graph.output[0]
    result = helper.make_tensor_value_info(output.name, output.type.tensor_type.elem_type, None)
    del graph.output[:]
    graph.output.append(result)
    graph.name = "backbone"
    del named.metadata_props[:]
    return named


def _free_batch(graph: onnx.GraphProto, batch: int) -> None:
    """Free the batch axis of shapes that an exporter fixed; proven later."""
    numbers = {tensor.name: tensor for tensor in graph.initializer}
    numbers |= {
        node.output[0]: attribute.t
        for node in graph.node
        for attribute in node.attribute
        if node.op_type == "Constant" and attribute.name == "value"
    }
    for node in graph.node:
        if node.op_type != "Reshape" or node.input[1] not in numbers:
            continue
        shape = np.array(numpy_helper.to_array(numbers[node.input[1]]), np.int64)
        if len(shape) > 1 and shape[0] == batch:
            shape[0] = 0 if -1 in shape else -1  # 0 is the size that comes in
            name = f"{node.output[0]}.shape"
            graph.initializer.append(numpy_helper.from_array(shape, name))
            node.input[1] = name


def _preparing(image: _Input, normal: tuple[Channels, Channels]) -> tuple[list[onnx.NodeProto], list[TensorProto]]:
    node, given = helper.make_node, _PREFIX + image.name
    last = given if not image.channels_first else "pixels"
    turn = [node("Transpose", [last], [given], perm=[0, 3, 1, 2])] if image.channels_first else []
    if image.type == TensorProto.UINT8:
        return [node("Identity", [IMAGE], [last]), *turn], []
    mean, std = (255 * np.array(each, np.float32) for each in normal)
    nodes = [
        node("Cast", [IMAGE], ["bytes"], to=TensorProto.FLOAT),
        node("Sub", ["bytes", "mean"], ["centred"]),
        node("Div", ["centred", "std"], ["normalised"]),
        node("Cast", ["normalised"], [last], to=image.type),
        *turn,
    ]
    return nodes, [numpy_helper.from_array(mean, "mean"), numpy_helper.from_array(std, "std")]


def _head_of(model: onnx.ModelProto) -> _Head:
    """Find the last layer, from the output back.

    Raises:
        InvalidRequestError: what is there is not linear.
    """
    graph, tail = _Graph(model), _LOGITS
    node = graph.maker(model.graph.output[0].name)
    if node.op_type in _TAILS:
        axis = next((helper.get_attribute_value(each) for each in node.attribute if each.name == "axis"), -1)
        if axis not in {-1, 1}:
            raise InvalidRequestError(f"its {node.op_type} is over axis {axis}, not over the labels")
        tail, node = _TAILS[node.op_type], graph.maker(node.input[0])
    if node.op_type == "Gemm":
        return _gemm(node, graph, tail)
    bias: FloatArray | None = None
    if node.op_type == "Add":
        for number, value in ((0, 1), (1, 0)):
            if (added := graph.number(node.input[number])) is not None:
                bias, node = added, graph.maker(node.input[value])
                break
    weight = graph.number(node.input[1]) if node.op_type == "MatMul" else None
    if weight is None or weight.ndim != 2:
        raise InvalidRequestError(
            f"its last layer is {node.op_type}, not a linear one (Gemm, or MatMul and Add, with numbers that the file "
            "has; then Softmax at most): cut the file after that layer, or import the state dict"
        )
    return _numbers(node.input[0], weight.T, bias, tail)


def _gemm(node: onnx.NodeProto, graph: "_Graph", tail: Tail) -> _Head:
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    weight = graph.number(node.input[1])
    bias = graph.number(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if weight is None or attributes.get("transA", 0) or (len(node.input) > 2 and node.input[2] and bias is None):
        raise InvalidRequestError("its last layer (Gemm) does not have its numbers in the file, or turns its input")
    turned = weight if attributes.get("transB", 0) else weight.T
    added = None if bias is None else bias * np.float32(attributes.get("beta", 1.0))
    return _numbers(node.input[0], turned * np.float32(attributes.get("alpha", 1.0)), added, tail)


def _numbers(embedding: str, weight: FloatArray, bias: FloatArray | None, tail: Tail) -> _Head:
    added = np.zeros(1, np.float32) if bias is None else bias.reshape(-1)
    if added.size not in {1, len(weight)}:
        raise InvalidRequestError(f"its last layer adds {added.size} numbers to {len(weight)} answers")
    full = np.ascontiguousarray(np.broadcast_to(added, len(weight)), np.float32)
    return _Head(embedding, np.ascontiguousarray(weight, np.float32), full, tail)


class _Graph:
    """A graph, by the names of its values."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._makers = {name: node for node in model.graph.node for name in node.output}
        self._numbers = {tensor.name: tensor for tensor in model.graph.initializer}

    def maker(self, name: str) -> onnx.NodeProto:
        """Return the node that computes a value, Identity and Cast passed over."""
        node = self._makers.get(name)
        while node is not None and node.op_type in {"Identity", "Cast"}:
            node = self._makers.get(node.input[0])
        if node is None:
            raise InvalidRequestError("it has no layer that its answers come from")
        return node

    def number(self, name: str) -> FloatArray | None:
        """Return a constant as float32, perhaps transposed; None if computed."""
        if name in self._numbers:
            return np.asarray(numpy_helper.to_array(self._numbers[name]), np.float32)
        node = self._makers.get(name)
        if node is None:
            return None
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        if node.op_type == "Constant" and "value" in attributes:
            return np.asarray(numpy_helper.to_array(attributes["value"]), np.float32)
        if node.op_type not in {"Transpose", "Identity", "Cast"}:
            return None
        inner = self.number(node.input[0])
        if inner is None or node.op_type != "Transpose":
            return inner
        return np.asarray(np.transpose(inner, attributes.get("perm")), np.float32)


def _backbone(model: onnx.ModelProto, head: _Head) -> onnx.ModelProto:
    """Return the part of a prepared classifier that makes the embedding."""
    backbone = onnx.ModelProto()
    backbone.CopyFrom(model)
    graph = backbone.graph
    graph.node.append(helper.make_node("Cast", [head.embedding], [EMBEDDING], to=TensorProto.FLOAT))
    wanted, nodes = {EMBEDDING}, []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            nodes.append(node)
            wanted |= set(_read_by(node))
    numbers = [tensor for tensor in graph.initializer if tensor.name in wanted]
    del graph.node[:], graph.initializer[:], graph.output[:]
    graph.node.extend(reversed(nodes))
    graph.initializer.extend(numbers)
    graph.output.append(helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, ["N", head.weight.shape[1]]))
    return backbone


def _read_by(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the values that a node reads, also inside its branches."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _read_by(inner)


def _answers(model: onnx.ModelProto, side: int) -> Any:  # noqa: ANN401 - see `ImportedClassifier.answers`
    """Return a function that runs the whole classifier by pictures.

    Raises:
        InvalidRequestError: it does not run.
    """
    output = model.graph.output[0].name

    def answers(crops: npt.NDArray[np.uint8]) -> FloatArray:
        session = open_session(model.SerializeToString(), provider="cpu", threads=1).session
        return np.concatenate([np.asarray(session.run([output], {IMAGE: crop[None]})[0], np.float32) for crop in crops])

    try:
        answers(np.zeros((1, side, side, 3), np.uint8))
    except RegraftError:
        raise
    except Exception as error:
        raise InvalidRequestError(f"ONNX Runtime cannot run it: {first_line(error)[:300]}") from error
    return answers


def _check_batches(backbone: onnx.ModelProto, side: int) -> None:
    """Check that a backbone takes several pictures at once.

    Raises:
        InvalidRequestError: it does not, whatever its shapes say.
    """
    session = open_session(backbone.SerializeToString(), provider="cpu", threads=1).session
    quiet = require_onnxruntime().RunOptions()
    quiet.log_severity_level = _FATAL  # what it would write on standard error beside, we say
    try:
        embedding = np.asarray(session.run([EMBEDDING], {IMAGE: np.zeros((2, side, side, 3), np.uint8)}, quiet)[0])
    except Exception as error:
        raise InvalidRequestError(
            f"it takes pictures one at a time ({first_line(error)[:200]}): export it with a batch axis of any size "
            "(dynamic_shapes or dynamic_axes)"
        ) from error
    if embedding.shape != (2, embedding_size(backbone)):
        raise InvalidRequestError(f"its last layer is given {list(embedding.shape)} of two pictures, not [2, D]")
