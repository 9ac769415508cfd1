import re
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from regraft.errors import ArtifactError
from regraft.image.spec import ImageSpec
from regraft.model.artifact import EMBEDDING, IMAGE, OPSET, FloatArray, backbone_digest, check_backbone, embedding_size
from regraft.model.session import open_session
from tests import REPOSITORY
from training.backbones.build import PretrainedBackbone, build_backbone
from training.backbones.cache import ExportedBackbone
from training.backbones.onnx_export import export_backbone

pytestmark = pytest.mark.usefixtures("one_torch_thread")

Exported = Callable[[str], ExportedBackbone]

NETWORKS = ["squeezenet1_1", "timm/test_efficientnet", "timm/test_resnet", "timm/test_vit"]


def crops(count: int, side_px: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, side_px, side_px, 3), dtype=np.uint8)


def torch_embedding(backbone: PretrainedBackbone, images: npt.NDArray[np.uint8]) -> FloatArray:
    """Return what the network itself makes of crops, normalised by the book."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (backbone.mean, backbone.std))
    with torch.inference_mode():
        embedding = backbone.network((pixels - mean) / std).flatten(1)
    return np.asarray(embedding.numpy(), np.float32)


@pytest.mark.parametrize("name", NETWORKS)
def test_invariant_8_the_exported_graph_computes_what_torch_computes_at_any_batch_size(
    exported: Exported, name: str
) -> None:
    backbone = build_backbone(name, "none", 0)
    model = exported(name).model
    session = open_session(model.SerializeToString(), provider="cpu", threads=2).session

    for batch in (1, 2, 3, 7):
        images = crops(batch, backbone.spec.crop_px)
        expected = torch_embedding(backbone, images)
        (embedding,) = session.run([EMBEDDING], {IMAGE: images})
        assert embedding.shape == (batch, embedding_size(model))
        np.testing.assert_allclose(embedding, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_exported_graph_keeps_the_contract(exported: Exported, name: str) -> None:
    backbone = exported(name)
    graph = backbone.model.graph

    check_backbone(backbone.model)
    onnx.checker.check_model(backbone.model, full_check=True)
    (image,), (embedding,) = graph.input, graph.output
    side = backbone.spec.crop_px
    assert [dim.dim_value for dim in image.type.tensor_type.shape.dim] == [0, side, side, 3]
    assert image.type.tensor_type.shape.dim[0].dim_param
    assert embedding.type.tensor_type.shape.dim[0].dim_param
    assert embedding_size(backbone.model) == embedding.type.tensor_type.shape.dim[1].dim_value > 0
    assert [entry.version for entry in backbone.model.opset_import if not entry.domain] == [OPSET]
    assert backbone.model.ir_version >= 4


@pytest.mark.parametrize("name", NETWORKS[:3])
def test_the_graph_of_a_convolutional_network_has_no_nodes_on_shapes_which_cuda_leaves_to_the_cpu(
    exported: Exported, name: str
) -> None:
    """Transformers have such nodes.

    Their class token is repeated for as many pictures as there are.
    """
    operators = {node.op_type for node in exported(name).model.graph.node}

    assert not operators & {"Shape", "Size", "Range", "Gather", "Squeeze", "Unsqueeze", "ConstantOfShape"}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_exported_graph_is_one_file_without_traces_of_this_machine(exported: Exported, name: str) -> None:
    model = exported(name).model
    data = model.SerializeToString()

    assert all(tensor.data_location != TensorProto.EXTERNAL for tensor in model.graph.initializer)
    for folder in {str(REPOSITORY), str(Path.home()), sys.prefix, sys.base_prefix, "site-packages", gettempdir()}:
        assert folder.encode() not in data
    assert not re.search(rb"[\w/]+\.py\b", data)
    assert not model.doc_string
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert not model.metadata_props


SMALL = ImageSpec("squash", 8, 8, "bilinear")


def small(network: nn.Module) -> PretrainedBackbone:
    return PretrainedBackbone(network.eval(), SMALL, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


class Means(nn.Module):
    """The mean of each channel, an embedding [N, 3]."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean(dim=(2, 3))


class Ageing(Means):
    """Answers something else on each call, which no exported graph can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return super().forward(pixels) * self.calls


class NotNumbers(Means):
    """Divides nothing by nothing."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        nothing = super().forward(pixels) * 0
        return nothing / nothing


class PairsOnly(Means):
    """Works for two pictures and for no other number of them."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return super().forward(pixels).reshape(2, 3)


class PeeksAtNumbers(Means):
    """Decides by the pixels' values what to do, which the exporter cannot express."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        means = super().forward(pixels)
        return means if bool(means.sum() > 0) else -means


class Convolutions(nn.Module):
    """A network with weights of its own, an embedding [N, 5]."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        embedding: torch.Tensor = self.layers(pixels)
        return embedding


def test_the_same_network_exports_to_the_same_bytes_and_another_to_others() -> None:
    one, again, other = Convolutions(), Convolutions(), Convolutions()
    with torch.no_grad():
        next(other.parameters()).add_(1)

    digests = [backbone_digest(export_backbone(small(network))) for network in (one, again, other)]

    assert digests[0] == digests[1] != digests[2]


def test_normalisation_is_part_of_the_graph() -> None:
    model = export_backbone(small(Means()))
    session = open_session(model.SerializeToString(), provider="cpu", threads=1).session
    images = crops(5, 8)

    (embedding,) = session.run([EMBEDDING], {IMAGE: images})

    np.testing.assert_allclose(embedding, (images.mean(axis=(1, 2)) / 255 - 0.5) / 0.25, atol=1e-4)


@pytest.mark.parametrize("network", [Ageing, NotNumbers])
def test_invariant_8_a_graph_that_computes_something_else_is_refused(network: type[nn.Module]) -> None:
    with pytest.raises(ArtifactError, match="differs from torch by"):
        export_backbone(small(network()))


@pytest.mark.parametrize("network", [PairsOnly, PeeksAtNumbers])
def test_a_network_that_cannot_be_exported_for_any_batch_is_refused(network: type[nn.Module]) -> None:
    with pytest.raises(ArtifactError):
        export_backbone(small(network()))
