"""Triton's model repository: ``config.pbtxt``, labels, model."""

from pathlib import Path
from typing import Final

import onnx

from regraft.model.artifact import EMBEDDING, IMAGE, NOVELTY, PROBABILITIES
from regraft.model.card import ModelCard
from training.export.formats.constant_head import without_labels

MAX_BATCH: Final = 32

_CONFIG: Final = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: {max_batch}
input [ {{ name: "{image}" data_type: TYPE_UINT8 dims: [ {side}, {side}, 3 ] }} ]
output [
  {{ name: "{probabilities}" data_type: TYPE_FP32 dims: [ {labels} ] label_filename: "labels.txt" }},
  {{ name: "{embedding}" data_type: TYPE_FP32 dims: [ {width} ] }},
  {{ name: "{novelty}" data_type: TYPE_FP32 dims: [ 1 ] reshape: {{ shape: [ ] }} }}
]
dynamic_batching {{ }}
"""


def config(card: ModelCard) -> str:
    """Return the text of a ``config.pbtxt``, an ``inference.ModelConfig``."""
    return _CONFIG.format(
        name=card.name,
        max_batch=MAX_BATCH,
        image=IMAGE,
        side=card.image.crop_px,
        probabilities=PROBABILITIES,
        labels=len(card.labels),
        embedding=EMBEDDING,
        width=card.embedding_size,
        novelty=NOVELTY,
    )


def write_repository(model: onnx.ModelProto, path: Path, card: ModelCard) -> None:
    """Write ``path``, which is ``<name>/1/model.onnx``, and what belongs beside it.

    The labels are in a file, where Triton looks for them: an output without a batch axis cannot be batched.
    """
    path.parent.mkdir(parents=True)
    onnx.save_model(without_labels(model), path)
    (path.parent.parent / "config.pbtxt").write_text(config(card), encoding="utf-8")
    (path.parent.parent / "labels.txt").write_text("".join(f"{label}\n" for label in card.labels), encoding="utf-8")
