import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from regraft.errors import ArtifactError
from regraft.image.decode import decode_crop
from regraft.image.spec import Crop
from regraft.model.artifact import check_backbone
from tests.tiny import SPEC, picture
from tests.training.convolutions import conv_backbone
from training.export.formats.fp16 import to_fp16, with_fp16_weights
from training.quantisation.sensitivity import embeddings


@pytest.fixture(scope="module")
def crops() -> list[Crop]:
    return [decode_crop(picture(colour, number), SPEC) for colour in ("red", "green", "blue") for number in range(8)]


def relative_error(found: onnx.ModelProto, exact: onnx.ModelProto, crops: list[Crop]) -> float:
    expected = embeddings(exact, crops)
    return float(np.abs(embeddings(found, crops) - expected).max() / np.abs(expected).max())


def test_either_way_the_embedding_is_that_of_the_backbone_but_for_rounding(crops: list[Crop]) -> None:
    backbone = conv_backbone()

    for found in (to_fp16(backbone), with_fp16_weights(backbone, crops)):
        check_backbone(found)
        assert 0 < relative_error(found, backbone, crops) < 0.01


def test_half_weights_take_half_the_bytes_and_calculate_in_float32(crops: list[Crop]) -> None:
    backbone = conv_backbone(depth=3)

    found = with_fp16_weights(backbone, crops)

    weights = [tensor for tensor in found.graph.initializer if len(tensor.dims) > 1]
    assert {tensor.data_type for tensor in weights} == {TensorProto.FLOAT16}
    casts = [node for node in found.graph.node if node.op_type == "Cast" and node.input[0].endswith(" in half")]
    assert {node.attribute[0].i for node in casts} == {TensorProto.FLOAT}
    assert len(casts) == len(weights)


def test_what_rounding_the_weights_adds_on_average_is_taken_off(crops: list[Crop]) -> None:
    backbone = conv_backbone()

    off = embeddings(with_fp16_weights(backbone, crops), crops) - embeddings(backbone, crops)

    assert np.abs(off.mean(axis=0)).max() < 0.05 * np.abs(off).max()


def test_a_weight_that_float16_cannot_hold_is_refused(crops: list[Crop]) -> None:
    backbone = conv_backbone()
    tensor = next(tensor for tensor in backbone.graph.initializer if len(tensor.dims) > 1)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(1e5), tensor.name))

    with pytest.raises(ArtifactError, match="beyond 65504"):
        with_fp16_weights(backbone, crops)
