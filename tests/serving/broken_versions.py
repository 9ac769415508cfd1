"""Ways in which a version in the store can be unusable."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from regraft.model.artifact import PROBABILITIES
from regraft.stores.models import MODEL_FILE

CARD_KEY = "regraft.card"


def _cut_short(folder: Path) -> None:
    path = folder / MODEL_FILE
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _card(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        model = onnx.load_model(folder / MODEL_FILE)
        (card,) = (prop for prop in model.metadata_props if prop.key == CARD_KEY)
        fields = json.loads(card.value)
        change(fields)
        card.value = json.dumps(fields)
        onnx.save_model(model, folder / MODEL_FILE)

    return spoil


def _no_card(folder: Path) -> None:
    model = onnx.load_model(folder / MODEL_FILE)
    del model.metadata_props[:]
    onnx.save_model(model, folder / MODEL_FILE)


def _no_softmax(folder: Path) -> None:
    model = onnx.load_model(folder / MODEL_FILE)
    (softmax,) = (node for node in model.graph.node if PROBABILITIES in node.output)
    softmax.op_type = "Sigmoid"
    del softmax.attribute[:]
    onnx.save_model(model, folder / MODEL_FILE)


SPOIL: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut short": (_cut_short, "not a whole ONNX file"),
    "empty": (lambda folder: (folder / MODEL_FILE).write_bytes(b""), MODEL_FILE),
    "rubbish": (lambda folder: (folder / MODEL_FILE).write_bytes(b"rubbish" * 1000), "not a whole ONNX file"),
    "half a folder": (lambda folder: (folder / MODEL_FILE).unlink(), "there is no such file"),
    "no folder": (shutil.rmtree, "has no version"),
    "no card": (_no_card, "no model card"),
    "a card without a field": (_card(lambda card: card.pop("novelty_threshold")), "novelty_threshold"),
    "a card of a newer schema": (_card(lambda card: card.update(schema_version=99)), "schema 99"),
    "a card of another head": (_card(lambda card: card.update(head_digest="0" * 64)), "head_digest"),
    "other nodes in the head": (_no_softmax, "nodes of the head"),
    "a card of another model": (_card(lambda card: card.update(name="other")), "it is model 'other'"),
}
"""By what is wrong with a version's folder: how to make it so, and what the reason must mention."""


def too_large_to_read(file: Path) -> None:
    """Make a file, which takes no room on the disk, for which no machine has the memory."""
    file.unlink()
    with file.open("wb") as sparse:
        sparse.truncate(8 * 2**40)
