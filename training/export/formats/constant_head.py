"""Models with a constant head, labels and card in the file."""

import copy
from typing import Final

import onnx
from onnx import TensorProto, helper

from regraft.model.artifact import CARD_KEY, Head, backbone_digest, graft
from regraft.model.card import ModelCard, Precision

LABELS: Final = "labels"
"""An output, string [K]: JavaScript cannot read the metadata of a file."""
LABELS_KEY: Final = "regraft.labels"
"""Metadata: the labels, one on a line, for consumers that have no JSON."""


def with_constant_head(backbone: onnx.ModelProto, head: Head, card: ModelCard, precision: Precision) -> onnx.ModelProto:
    """Graft a version's head as a constant onto its backbone, perhaps in another precision.

    The figures in the card are left out where the file calculates otherwise.
    """
    digest = backbone_digest(backbone)
    if digest != card.backbone.digest:
        origin = card.backbone.model_copy(update={"digest": digest, "precision": precision})
        card = without_figures(card.model_copy(update={"backbone": origin}))
    model = graft(backbone, head, card)
    graph = model.graph
    del graph.input[1:]
    for output in graph.output:
        for dim in output.type.tensor_type.shape.dim:
            if dim.dim_param == "K":
                dim.dim_value = len(card.labels)
    graph.node.append(helper.make_node("Constant", [], [LABELS], "head.labels", value_strings=list(card.labels)))
    graph.output.append(helper.make_tensor_value_info(LABELS, TensorProto.STRING, [len(card.labels)]))
    model.metadata_props.add(key=LABELS_KEY, value="\n".join(card.labels))
    return model


def without_figures(card: ModelCard) -> ModelCard:
    """Drop the card's figures, which another arithmetic does not keep."""
    return card.model_copy(update={"metrics": None, "reference": None})


def with_card(model: onnx.ModelProto, card: ModelCard) -> onnx.ModelProto:
    """Return a model with another card in its metadata."""
    changed = copy.copy(model)
    for prop in changed.metadata_props:
        if prop.key == CARD_KEY:
            prop.value = card.to_json()
    return changed


def without_labels(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the output of strings, for runtimes that have none."""
    changed = copy.deepcopy(model)
    for field in (changed.graph.node, changed.graph.output):
        rest = [item for item in field if LABELS not in (item.name, *getattr(item, "output", ()))]
        del field[:]
        field.extend(rest)  # type: ignore[arg-type] # of the very field they came from
    return changed


def of_one_picture(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fix the batch to 1, for compilers that need every shape."""
    changed = copy.deepcopy(model)
    for value in (*changed.graph.input, *changed.graph.output):
        shape = value.type.tensor_type.shape
        if shape.dim and shape.dim[0].dim_param:
            shape.dim[0].dim_value = 1
    del changed.graph.value_info[:]
    return changed
