"""An ONNX file is split at its last layer; graphs of a few nodes, no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from regraft.errors import ArtifactError, InvalidRequestError
from regraft.image.decode import decode_crop
from regraft.model import artifact
from regraft.model.session import open_session
from regraft.stores.models import ModelStore
from tests.tiny import COLOURS, picture
from tests.training.classifiers import BIAS, BODY, GEMM, LABELS, SIDE, WEIGHT, WIDTH, ask_classifier, save_classifier
from training.importing.classifier import ImageRule, ImportedClassifier, prove_imported
from training.importing.import_version import ImportSettings, import_version
from training.importing.onnx_file import import_onnx

TURNED = helper.make_node("Transpose", ["w"], ["turned"], perm=[1, 0])
HEADS = {
    "Gemm": (GEMM,),
    "Gemm with factors": (helper.make_node("Gemm", ["flat", "w", "b"], ["answer"], transB=1, alpha=0.5, beta=2.0),),
    "Gemm of a constant that is turned": (TURNED, helper.make_node("Gemm", ["flat", "turned", "b"], ["answer"])),
    "MatMul": (TURNED, helper.make_node("MatMul", ["flat", "turned"], ["answer"])),
    "MatMul and Add": (
        TURNED,
        helper.make_node("MatMul", ["flat", "turned"], ["product"]),
        helper.make_node("Add", ["b", "product"], ["answer"]),
    ),
    "constants as nodes": (
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(WEIGHT)),
        helper.make_node("Gemm", ["flat", "c", "b"], ["answer"], transB=1),
    ),
    "Softmax": (
        helper.make_node("Gemm", ["flat", "w", "b"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["answer"], axis=1),
    ),
    "LogSoftmax": (
        helper.make_node("Gemm", ["flat", "w", "b"], ["logits"], transB=1),
        helper.make_node("LogSoftmax", ["logits"], ["answer"]),
    ),
}


@pytest.mark.parametrize("head", HEADS)
def test_backbone_and_head_answer_as_the_file_does(head: str, tmp_path: Path) -> None:
    path = save_classifier(tmp_path / "net.onnx", HEADS[head])
    imported = import_onnx(path, "", ImageRule(), LABELS)

    crops = np.random.default_rng(1).integers(0, 256, (9, SIDE, SIDE, 3), dtype=np.uint8)
    session = open_session(imported.backbone.model.SerializeToString(), provider="cpu", threads=1).session
    logits = np.asarray(session.run(["embedding"], {"image": crops})[0]) @ imported.weight.T + imported.bias
    exponentials = np.exp(logits)
    softmax = exponentials / exponentials.sum(axis=1, keepdims=True)

    said = {"logits": logits, "probabilities": softmax, "log probabilities": np.log(softmax)}[imported.tail]
    np.testing.assert_allclose(said, ask_classifier(path, crops), rtol=1e-4, atol=1e-5)
    assert prove_imported(imported, list(crops)).difference <= 1e-3


def test_the_whole_way_into_the_store(tmp_path: Path) -> None:
    settings = ImportSettings(save_classifier(tmp_path / "net.onnx"), "crayons", tmp_path / "models", labels=LABELS)

    made = import_version(settings, cache=tmp_path / "cache")

    found = artifact.read(made.path)
    crops = np.stack([decode_crop(picture(label, 1, side_px=40), found.card.image) for label in LABELS])
    [served] = open_session(made.path, provider="cpu", threads=1).session.run(["probabilities"], {"image": crops})
    logits = ask_classifier(tmp_path / "net.onnx", crops)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(served, expected, atol=1e-5)
    assert ModelStore(tmp_path / "models").champion("crayons") == 1
    assert (found.card.backbone.name, found.card.backbone.state) == ("onnx", None)
    assert (found.card.image.resize, found.card.image.crop_px, found.card.image.resize_px) == ("crop", 8, 9)


def test_flags_say_how_pictures_are_prepared(tmp_path: Path) -> None:
    rule = ImageRule((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), resize="squash", resize_px=SIDE, interpolation="lanczos")

    imported = import_onnx(save_classifier(tmp_path / "net.onnx"), "resnet18", rule, LABELS)

    spec = imported.backbone.spec
    assert (spec.resize, spec.resize_px, spec.interpolation) == ("squash", SIDE, "lanczos")
    assert imported.backbone.name == "resnet18"
    grey = np.full((1, SIDE, SIDE, 3), 191, np.uint8)  # 0.749: about one standard deviation above the mean
    session = open_session(imported.backbone.model.SerializeToString(), provider="cpu", threads=1).session
    np.testing.assert_allclose(session.run(["embedding"], {"image": grey})[0], (191 / 255 - 0.5) / 0.25, rtol=1e-5)


def test_channels_may_come_last_and_pictures_as_bytes(tmp_path: Path) -> None:
    body = (
        helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["nchw"], ["quarters"], kernel_shape=[4, 4], strides=[4, 4]),
        BODY[1],
    )
    path = save_classifier(tmp_path / "net.onnx", body=body, shape=("N", SIDE, SIDE, 3), kind=TensorProto.UINT8)

    imported = import_onnx(path, "", ImageRule(), LABELS)

    crop = np.full((1, SIDE, SIDE, 3), COLOURS["red"], np.uint8)
    np.testing.assert_allclose(
        imported.answers(crop), np.repeat(COLOURS["red"], 4)[None].astype(np.float32) @ WEIGHT.T + BIAS, rtol=1e-4
    )
    with pytest.raises(InvalidRequestError, match="--mean and --std have no effect"):
        import_onnx(path, "", ImageRule(mean=(0, 0, 0)), LABELS)


def test_an_older_opset_and_numbers_in_another_file_are_read(tmp_path: Path) -> None:
    path = save_classifier(tmp_path / "net.onnx", opset=11, external=True)

    assert len(list(tmp_path.iterdir())) == 2
    assert prove_imported(import_onnx(path, "", ImageRule(), LABELS), []).asked == 10


def test_names_that_are_ours_do_not_matter(tmp_path: Path) -> None:
    body = (
        helper.make_node("AveragePool", ["pixels"], ["image"], kernel_shape=[4, 4], strides=[4, 4], name="head.pool"),
        helper.make_node("Flatten", ["image"], ["embedding"]),
    )
    head = (helper.make_node("Gemm", ["embedding", "head.weight", "b"], ["answer"], transB=1),)

    path = save_classifier(tmp_path / "net.onnx", head, body=body, numbers={"head.weight": WEIGHT})

    assert prove_imported(import_onnx(path, "", ImageRule(), LABELS), []).difference <= 1e-3


RESHAPE = (BODY[0], helper.make_node("Reshape", ["quarters", "shape"], ["flat"]))


@pytest.mark.parametrize("shape", [[1, WIDTH], [1, -1], [0, -1]])
def test_a_file_that_exporters_wrote_for_one_picture_takes_any_number(shape: list[int], tmp_path: Path) -> None:
    numbers = {"shape": np.array(shape, np.int64)}
    path = save_classifier(tmp_path / "net.onnx", body=RESHAPE, numbers=numbers, shape=(1, 3, SIDE, SIDE))

    assert prove_imported(import_onnx(path, "", ImageRule(), LABELS), []).asked == 10


def relu(name: str) -> tuple[NodeProto, ...]:
    return helper.make_node("Gemm", ["flat", "w", "b"], ["logits"], transB=1), helper.make_node(
        name, ["logits"], ["answer"]
    )


ONE_AT_A_TIME = (
    *RESHAPE[:1],
    helper.make_node("Flatten", ["quarters"], ["one"]),
    helper.make_node("Concat", ["one", "token"], ["two"], axis=1),
    helper.make_node("Slice", ["two", "from", "to", "axis"], ["flat"]),
)
"""A token for one picture, as transformers have them."""
TOKEN = {
    "token": np.zeros((1, 1), np.float32),
    "from": np.array([0], np.int64),
    "to": np.array([WIDTH], np.int64),
    "axis": np.array([1], np.int64),
}


@pytest.mark.parametrize(
    ("head", "others", "said"),
    [
        (relu("Relu"), {}, "its last layer is Relu, not a linear one"),
        (relu("Sigmoid"), {}, "its last layer is Sigmoid, not a linear one"),
        (
            (helper.make_node("MatMul", ["flat", "flat"], ["answer"]),),
            {},
            "its last layer is MatMul, not a linear one .* with numbers that the file has",
        ),
        (
            (relu("Relu")[0], helper.make_node("Softmax", ["logits"], ["answer"], axis=0)),
            {},
            "its Softmax is over axis 0, not over the labels",
        ),
        ((GEMM,), {"shape": ("N", 1, SIDE, SIDE)}, r"is \[N, 1, 8, 8\], not \[N, 3, P, P\]"),
        ((GEMM,), {"shape": ("N", 3, SIDE, 2 * SIDE)}, r"is \[N, 3, 8, 16\]: pictures are squares here"),
        ((GEMM,), {"kind": TensorProto.INT32}, "is of type TensorProto.INT32, not float or uint8"),
        (
            (GEMM,),
            {"body": ONE_AT_A_TIME, "numbers": TOKEN, "shape": (1, 3, SIDE, SIDE)},
            "it takes pictures one at a time .*: export it with a batch axis of any size",
        ),
        ((GEMM,), {"numbers": {"w": WEIGHT[:, :7]}}, "ONNX Runtime refuses the model"),
    ],
)
def test_files_that_cannot_be_split_are_refused_in_plain_words(
    head: Sequence[NodeProto], others: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        import_onnx(save_classifier(tmp_path / "net.onnx", head, **others), "", ImageRule(), LABELS)


def test_no_onnx_file_at_all_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "torn.onnx").write_bytes(b"torn")

    with pytest.raises(InvalidRequestError, match=r"torn\.onnx: not a whole ONNX file"):
        import_onnx(tmp_path / "torn.onnx", "", ImageRule(), LABELS)
    with pytest.raises(InvalidRequestError, match=r"gone\.onnx: there is no such file"):
        import_onnx(tmp_path / "gone.onnx", "", ImageRule(), LABELS)


def test_another_answer_than_the_files_own_is_never_published(tmp_path: Path) -> None:
    imported = import_onnx(save_classifier(tmp_path / "net.onnx"), "", ImageRule(), LABELS)
    harmed = ImportedClassifier(**{**vars(imported), "bias": imported.bias + np.float32(0.1)})

    with pytest.raises(
        ArtifactError, match=r"answer otherwise than it does by itself: by [\d.]+ of the answers' spread"
    ):
        prove_imported(harmed, [])
