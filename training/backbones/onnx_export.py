"""Export of a torch backbone to ONNX, checked against torch. Imports torch."""

import contextlib
import io
import warnings
from typing import Any, Final

import numpy as np
import onnx
import torch
from torch import nn

from regraft.errors import ArtifactError, first_line
from regraft.model.artifact import EMBEDDING, IMAGE, OPSET, check_backbone
from regraft.model.session import open_session
from training.backbones.build import PretrainedBackbone

PARITY_BATCHES: Final = (1, 2, 7)
TOLERANCE: Final = 1e-3
"""The most that an exported embedding may differ from torch's, as a share of the largest value."""


class Normalised(nn.Module):
    """Backbone with casting and normalisation, for uint8 crops."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, backbone: PretrainedBackbone) -> None:
        """Take the network as it is, not a copy."""
        super().__init__()
        self.network = backbone.network
        self.register_buffer("mean", 255 * torch.tensor(backbone.mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(backbone.std).view(1, 3, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return embeddings float32 [N, D] of pictures uint8 [N, P, P, 3]."""
        # Contiguous, or pooling keeps the order of the axes by nodes on shapes, which CUDA leaves to the CPU.
        pixels = image.permute(0, 3, 1, 2).contiguous().to(torch.float32)  # [N, 3, P, P]
        embedding: torch.Tensor = self.network((pixels - self.mean) / self.std)
        return embedding.flatten(1)  # [N, D]


def export_backbone(backbone: PretrainedBackbone, tolerance: float = TOLERANCE) -> onnx.ModelProto:
    """Export a backbone and check it at several batch sizes.

    Args:
        backbone: to export.
        tolerance: the most that an embedding may differ, as a share of the largest value.

    Returns:
        ``image`` uint8 [N, P, P, 3] to ``embedding`` float32 [N, D], in one piece, without traces of this machine.

    Raises:
        ArtifactError: the exporter failed, fixed the batch axis, or its graph computes something else.
    """
    module = Normalised(backbone).eval()
    # Two examples: the exporter takes an axis of size 1 for a constant.
    example = torch.zeros(2, backbone.spec.crop_px, backbone.spec.crop_px, 3, dtype=torch.uint8)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        try:
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                input_names=[IMAGE],
                output_names=[EMBEDDING],
                dynamic_shapes={"image": {0: torch.export.Dim("N")}},
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
        except Exception as error:
            raise ArtifactError(
                f"torch cannot export the backbone for any batch size: {first_line(error.__cause__ or error)}"
            ) from error
    if program is None:
        raise ArtifactError("the exporter returned nothing")
    model = program.model_proto
    _strip(model)
    check_backbone(model)
    _check_parity(module, model, backbone.spec.crop_px, tolerance)
    return model


def _strip(model: onnx.ModelProto) -> None:
    """Remove traces of the machine: the same network, the same bytes."""
    graph = model.graph
    graph.name = "backbone"
    items: list[Any] = [model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output]
    for item in items:
        item.doc_string = ""
        del item.metadata_props[:]
    del graph.value_info[:]


def _check_parity(module: nn.Module, model: onnx.ModelProto, crop_px: int, tolerance: float) -> None:
    session = open_session(model.SerializeToString(), provider="cpu", threads=1).session
    generator = np.random.default_rng(0)
    for batch in PARITY_BATCHES:
        image = generator.integers(0, 256, (batch, crop_px, crop_px, 3), dtype=np.uint8)
        with torch.inference_mode():
            expected = module(torch.from_numpy(image)).numpy()
        exported = np.asarray(session.run([EMBEDDING], {IMAGE: image})[0])
        if exported.shape != expected.shape:
            raise ArtifactError(
                f"the exported backbone gives {exported.shape} at batch {batch}, torch {expected.shape}"
            )
        difference = float(np.abs(exported - expected).max() / max(float(np.abs(expected).max()), 1e-12))
        if not difference <= tolerance:
            raise ArtifactError(f"the exported backbone differs from torch by {difference:.2g} at batch {batch}")
