"""The model file: a backbone and a swappable head in ONNX.

::

    image  uint8 [N, P, P, 3] ─► normalise, backbone ─► embedding [N, D] ─┬─► Gemm ─► softmax ─► probabilities [N, K]
                                                                          └─► likeness to head.prototypes ─► novelty [N]

``head.weight``, ``head.bias``, ``head.prototypes`` and ``head.whitening`` are initializers that are also graph inputs
(overridable, IR at least 4, K and R symbolic): any runtime runs the file as it is, and the server feeds other heads
into the same session.
`graft` and `ungraft` are each other's inverse but for the IR version, so the backbone's digest can be checked on any
file, and files whose heads an older Regraft wrote in other nodes share sessions with new ones.
"""

import copy
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from regraft.errors import ArtifactError, first_line
from regraft.model.card import ModelCard, parse_card

IMAGE: Final = "image"
EMBEDDING: Final = "embedding"
PROBABILITIES: Final = "probabilities"
NOVELTY: Final = "novelty"
OPSET: Final = 18
_EQUAL_IR: Final = (8, 9, 10)
"""IR versions that say the same of our graphs; backbones are hashed as if they had the last."""
_HEAD: Final = "head."
CARD_KEY: Final = "regraft.card"
ABSTAIN_KEY: Final = "regraft.abstain_at_most"
"""Metadata of a model with a target error: up to this probability there is no answer, for readers without a card."""

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Head:
    """The part of a model that a retrain replaces.

    Attributes:
        weight: float32 [K, D].
        bias: float32 [K].
        prototypes: float32 [K, D]. With W the whitening and M = I + W'W, each is M m / sqrt(m'M m) of a class's mean
            direction m.
        whitening: float32 [R, D], R >= 1: the inner product u'M v that novelty is measured with counts less what
            varies within a class anyway. All zeros: the plain one.
    """

    weight: FloatArray
    bias: FloatArray
    prototypes: FloatArray
    whitening: FloatArray

    def __post_init__(self) -> None:
        """Refuse shapes that do not fit, and values not finite."""
        if (
            self.weight.ndim != 2
            or self.prototypes.shape != self.weight.shape
            or self.bias.shape != self.weight.shape[:1]
            or self.whitening.shape != (max(1, len(self.whitening)), self.weight.shape[1])
        ):
            raise ArtifactError(
                f"head: weight {self.weight.shape}, bias {self.bias.shape}, prototypes {self.prototypes.shape} and "
                f"whitening {self.whitening.shape} do not fit: need [K, D], [K], [K, D], [R, D]"
            )
        for name, array in self.feed().items():
            if array.dtype != np.float32:
                raise ArtifactError(f"{name}: dtype {array.dtype}, need float32")
            if not np.isfinite(array).all():
                raise ArtifactError(f"{name}: has values that are not finite")

    def feed(self) -> dict[str, FloatArray]:
        """Return the tensors by the names of their graph inputs."""
        return {_HEAD + field.name: getattr(self, field.name) for field in fields(self)}

    def digest(self) -> str:
        """Return the SHA-256 (hex) of the head's bytes."""
        digest = hashlib.sha256()
        for name, array in self.feed().items():
            digest.update(f"{name}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).astype("<f4").tobytes())
        return digest.hexdigest()

    def probabilities(self, embedding: FloatArray) -> FloatArray:
        """Return the graph's probabilities [N, K] of embeddings, within 1e-5."""
        # Not embedding @ weight.T: for two rows OpenBLAS takes three times as long for that.
        return _softmax((self.weight @ embedding.T).T + self.bias)

    def novelty(self, embedding: FloatArray) -> FloatArray:
        """Return the graph's novelty [N] of embeddings, 0 to 2.

        It is the cosine distance to the nearest class mean; whitened, that under the inner product u'M v, which is a
        Mahalanobis cosine (after Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples",
        2018).
        """
        direction: FloatArray = np.asarray(embedding / _length(embedding), np.float32)
        return _novelty((self.prototypes @ direction.T).T, direction @ self.whitening.T)

    def answers(self, products: FloatArray, embedding: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return probabilities [N, K] and novelty [N] from products made elsewhere.

        Args:
            products: [N, 2 K + R], of the embeddings with ``weight``, ``prototypes`` and ``whitening``, in this order.
            embedding: [N, D].
        """
        logits, similarities, whitened = np.split(products, [len(self.bias), 2 * len(self.bias)], axis=1)
        length = _length(embedding)
        return _softmax(logits + self.bias), _novelty(similarities / length, whitened / length)


@cache
def blank_head(size: int, labels: int = 1) -> Head:
    """Return the one head of zeros on embeddings of ``size`` numbers."""
    rows, row = np.zeros((labels, size), np.float32), np.zeros((1, size), np.float32)
    return Head(rows, np.zeros(labels, np.float32), rows, row)


def _softmax(logits: FloatArray) -> FloatArray:
    logits = logits - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(logits)
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True), np.float32)


def _length(embedding: FloatArray) -> FloatArray:
    """Return lengths [N, 1] to divide by, 1 for 0."""
    length = np.linalg.norm(embedding, axis=1, keepdims=True)
    length[length == 0] = 1
    return np.asarray(length, np.float32)


def _novelty(similarities: FloatArray, whitened: FloatArray) -> FloatArray:
    stretch = np.sqrt(1 + np.square(whitened).sum(axis=1))
    return np.asarray(1 - similarities.max(axis=1) / stretch, np.float32)


@dataclass(frozen=True)
class Artifact:
    """A model file, read and checked."""

    card: ModelCard
    head: Head
    model: onnx.ModelProto


def graft(backbone: onnx.ModelProto, head: Head, card: ModelCard) -> onnx.ModelProto:
    """Put a head and its card onto a backbone.

    Args:
        backbone: ``image`` uint8 [N, crop_px, crop_px, 3] to ``embedding`` float32 [N, D], nothing else.
        head: K x D must fit the card's labels and the backbone.
        card: its digests must be those of ``backbone`` and ``head``.

    Raises:
        ArtifactError: the three do not fit together.
    """
    check_backbone(backbone)
    _check_fit(backbone, backbone_digest(backbone), head, card)
    model = _with_head(backbone, head)
    props = {CARD_KEY: card.to_json()}
    if card.abstention:
        props[ABSTAIN_KEY] = f"{card.abstention.threshold!r}"
    helper.set_model_props(model, props)
    return model


def graft_blank(backbone: onnx.ModelProto) -> onnx.ModelProto:
    """Put a head of zeros onto a backbone, without a card.

    It has one label. A session on it embeds for models that have no head yet, and later takes the heads that it is
    fed, as one on the file of a version with that backbone does.

    Raises:
        ArtifactError: it is no backbone.
    """
    check_backbone(backbone)
    return _with_head(backbone, blank_head(embedding_size(backbone)))


def _with_head(backbone: onnx.ModelProto, head: Head) -> onnx.ModelProto:
    model = copy.deepcopy(backbone)
    # As low as the opset allows: a runtime refuses a file of a higher IR version than it knows, whatever is in it.
    model.ir_version = helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)
    _add_head(model.graph, head, _DIRECTION)
    return model


def _add_head(graph: onnx.GraphProto, head: Head, direction: "_Direction") -> None:
    for name, array in head.feed().items():
        graph.initializer.append(numpy_helper.from_array(array, name))
        rows = "R" if name == _HEAD + "whitening" else "K"
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, *array.shape[1:]]))
    graph.node.extend(_head_nodes(direction.nodes))
    constants: dict[str, npt.NDArray[Any]] = {"axis": np.array([1], np.int64), "one": np.array(1, np.float32)}
    constants |= direction.constants
    graph.initializer.extend(numpy_helper.from_array(array, _HEAD + name) for name, array in constants.items())
    graph.output.insert(0, helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, ["N", "K"]))
    graph.output.append(helper.make_tensor_value_info(NOVELTY, TensorProto.FLOAT, ["N"]))


def ungraft(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the backbone alone, at the IR version of `graft`."""
    backbone = copy.deepcopy(model)
    graph = backbone.graph
    _keep_backbone(graph.node)
    _keep_backbone(graph.initializer)
    _keep_backbone(graph.input)
    _keep_backbone(graph.output)
    del backbone.metadata_props[:]
    return backbone


def backbone_digest(model: onnx.ModelProto) -> str:
    """Return the SHA-256 (hex) of a backbone, with or without a head.

    Equal digests can share a session. One tensor is copied at a time, so that a server that loads a version does not
    hold its other threads up.
    """
    return _digest(ungraft(_outline(model)), model)


def _digest(outline: onnx.ModelProto, model: onnx.ModelProto) -> str:
    """Return a backbone's digest by its outline and its weights."""
    weights = {tensor.name for tensor in outline.graph.initializer}
    if outline.ir_version in _EQUAL_IR:
        outline.ir_version = _EQUAL_IR[-1]
    digest = hashlib.sha256(outline.SerializeToString(deterministic=True))
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            digest.update(tensor.SerializeToString(deterministic=True))
    return digest.hexdigest()


def embedding_size(backbone: onnx.ModelProto) -> int:
    """Return D, the width of the backbone's embedding."""
    return int(backbone.graph.output[0].type.tensor_type.shape.dim[1].dim_value)


def read(path: Path) -> Artifact:
    """Read a model file and check its contract.

    Raises:
        ArtifactError: the text names the file and what is wrong with it.
    """
    try:
        model = onnx.load_model(path, load_external_data=False)
        return _check(model)
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: there is no such file") from error
    except (DecodeError, OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"{path}: not a whole ONNX file ({first_line(error)[:200]})") from error
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error


def rehead(artifact: Artifact, head: Head, card: ModelCard) -> onnx.ModelProto:
    """Return the same backbone with another head and card."""
    return graft(ungraft(artifact.model), head, card)


def check_backbone(backbone: onnx.ModelProto) -> None:
    """Check that a graph is a backbone, in one file.

    It takes ``image`` uint8 [N, P, P, 3] to ``embedding`` float32 [N, D].

    Raises:
        ArtifactError: it is not; the text says where.
    """
    graph = backbone.graph
    if [tensor.name for tensor in graph.input] != [IMAGE] or [tensor.name for tensor in graph.output] != [EMBEDDING]:
        raise ArtifactError(f"backbone: need one input {IMAGE!r} and one output {EMBEDDING!r}")
    image, embedding = graph.input[0].type.tensor_type, graph.output[0].type.tensor_type
    sides = [dim.dim_value for dim in image.shape.dim]
    if image.elem_type != TensorProto.UINT8 or len(sides) != 4 or sides[1] != sides[2] or sides[3] != 3:
        raise ArtifactError(f"backbone: input {IMAGE!r} must be uint8 [N, P, P, 3]")
    if (
        embedding.elem_type != TensorProto.FLOAT
        or len(embedding.shape.dim) != 2
        or embedding.shape.dim[1].dim_value < 1
    ):
        raise ArtifactError(f"backbone: output {EMBEDDING!r} must be float32 [N, D] with D known")
    if not (image.shape.dim[0].dim_param and embedding.shape.dim[0].dim_param):
        raise ArtifactError("backbone: the batch axis is not symbolic, so only one batch size would run")
    values = (name for node in graph.node for name in (node.name, *node.input, *node.output))
    if any(name.startswith(_HEAD) for name in (*values, *(tensor.name for tensor in graph.initializer))):
        raise ArtifactError(f"backbone: names that begin with {_HEAD!r} are kept for the head")
    if backbone.metadata_props:
        raise ArtifactError("backbone: has metadata of its own, where the model card belongs")
    _refuse_external_data(backbone)


def _refuse_external_data(model: onnx.ModelProto) -> None:
    """Refuse a model whose tensors lie in other files."""
    for tensor in _tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            raise ArtifactError(
                f"{tensor.name or 'a tensor'} is kept in another file (external data); a model must be one"
            )


def _tensors(message: Any) -> Iterator[onnx.TensorProto]:  # noqa: ANN401 - any message of ONNX
    """Yield every tensor of a message, however deep."""
    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for child in value if field.is_repeated else (value,):
                yield from _tensors(child)


def _keep_backbone(field: Any) -> None:  # noqa: ANN401 - protobuf's repeated fields have no common public type
    backbone = [item for item in field if not item.name.startswith(_HEAD) and item.name not in {PROBABILITIES, NOVELTY}]
    del field[:]
    field.extend(backbone)


@dataclass(frozen=True)
class _Direction:
    """Nodes that compute ``head.direction``, the embedding at length 1.

    An embedding of length 0 stays as it is.
    """

    nodes: tuple[onnx.NodeProto, ...]
    constants: dict[str, npt.NDArray[Any]]


_DIRECTION: Final = _Direction(
    (
        helper.make_node("ReduceL2", [EMBEDDING, _HEAD + "axis"], [_HEAD + "norm"], _HEAD + "norm"),
        helper.make_node("Max", [_HEAD + "norm", _HEAD + "least"], [_HEAD + "length"], _HEAD + "length"),
        helper.make_node("Div", [EMBEDDING, _HEAD + "length"], [_HEAD + "direction"], _HEAD + "normalise"),
    ),
    {"least": np.array(np.finfo(np.float32).tiny, np.float32)},
)
_OLDER_DIRECTION: Final = _Direction(
    (helper.make_node("LpNormalization", [EMBEDDING], [_HEAD + "direction"], _HEAD + "normalise", axis=1, p=2),), {}
)
"""The older form. ONNX Runtime documents no CUDA kernel for it: each run copies to the host and back."""


def _head_nodes(direction: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    node = helper.make_node
    h = _HEAD
    return [
        node("Gemm", [EMBEDDING, h + "weight", h + "bias"], [h + "logits"], h + "gemm", transB=1),
        node("Softmax", [h + "logits"], [PROBABILITIES], h + "softmax", axis=1),
        *direction,
        node("Gemm", [h + "direction", h + "prototypes"], [h + "products"], h + "similarity", transB=1),
        node("ReduceMax", [h + "products", h + "axis"], [h + "nearest"], h + "nearest", keepdims=0),
        node("Gemm", [h + "direction", h + "whitening"], [h + "whitened"], h + "whiten", transB=1),
        node("ReduceSumSquare", [h + "whitened", h + "axis"], [h + "added"], h + "add", keepdims=0),
        node("Add", [h + "one", h + "added"], [h + "squared"], h + "square"),
        node("Sqrt", [h + "squared"], [h + "stretch"], h + "stretch"),  # at least 1: nothing is divided by zero
        node("Div", [h + "nearest", h + "stretch"], [h + "likeness"], h + "likeness"),
        node("Sub", [h + "one", h + "likeness"], [NOVELTY], h + "novelty"),
    ]


def _check(model: onnx.ModelProto) -> Artifact:
    _refuse_external_data(model)
    cards = [prop.value for prop in model.metadata_props if prop.key == CARD_KEY]
    if not cards:
        raise ArtifactError(f"no model card (metadata {CARD_KEY!r}): not a model that Regraft trained")
    card = parse_card(cards[0])
    outline = _outline(model)
    backbone = ungraft(outline)
    check_backbone(backbone)
    tensors = {t.name: t for t in model.graph.initializer if t.name.startswith(_HEAD)}
    parts = [_HEAD + field.name for field in fields(Head)]
    missing = set(parts) - tensors.keys()
    if missing:
        raise ArtifactError(f"no initializer {sorted(missing)[0]!r}")
    try:
        head = Head(*(np.array(numpy_helper.to_array(tensors[part])) for part in parts))
    except KeyError as error:
        raise ArtifactError(f"an initializer of the head has the unknown type {error}") from error
    _check_fit(backbone, _digest(backbone, model), head, card)
    if not any(_has_head(outline, backbone, head, direction) for direction in (_DIRECTION, _OLDER_DIRECTION)):
        raise ArtifactError("the nodes of the head are not those that Regraft puts there")
    return Artifact(card, head, model)


def _has_head(outline: onnx.ModelProto, backbone: onnx.ModelProto, head: Head, direction: _Direction) -> bool:
    expected = onnx.GraphProto()
    expected.CopyFrom(backbone.graph)
    _add_head(expected, head, direction)
    return expected == outline.graph


def _outline(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model without its backbone's weights, but their shapes."""
    outline = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name != "graph":
            _copy_field(outline, field, value)
    for field, value in model.graph.ListFields():
        if field.name != "initializer":
            _copy_field(outline.graph, field, value)
    for tensor in model.graph.initializer:
        if tensor.name.startswith(_HEAD):
            outline.graph.initializer.append(tensor)
        else:
            outline.graph.initializer.add(
                name=tensor.name, dims=tensor.dims, data_type=tensor.data_type, data_location=tensor.data_location
            )
    return outline


def _copy_field(target: Any, field: Any, value: Any) -> None:  # noqa: ANN401 - protobuf's own types are not public
    if field.is_repeated:
        getattr(target, field.name).extend(value)
    elif field.message_type is not None:
        getattr(target, field.name).CopyFrom(value)
    else:
        setattr(target, field.name, value)


def _check_fit(backbone: onnx.ModelProto, digest: str, head: Head, card: ModelCard) -> None:
    size = embedding_size(backbone)
    if head.weight.shape != (len(card.labels), size) or card.embedding_size != size:
        raise ArtifactError(
            f"head.weight is {head.weight.shape}, but the card has {len(card.labels)} labels and embeddings of "
            f"{card.embedding_size}, the backbone of {size}"
        )
    side = backbone.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    if side != card.image.crop_px:
        raise ArtifactError(f"the graph takes {side} px, the card crops {card.image.crop_px} px")
    if card.head_digest != head.digest():
        raise ArtifactError("the head is not the one that the card describes (head_digest differs)")
    if card.backbone.digest != digest:
        raise ArtifactError("the backbone is not the one that the card describes (backbone.digest differs)")
