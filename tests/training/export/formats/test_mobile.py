"""The graph that decodes and crops, beside the function that it must agree with."""

import io
from functools import cache
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image

from regraft.image.decode import decode_crop
from regraft.image.encode import encode_png
from regraft.image.spec import Crop, ImageSpec, Interpolation, ResizeRule
from regraft.model.artifact import IMAGE, OPSET
from regraft.model.session import OpenSession, open_session
from training.export.formats.mobile import PICTURE, custom_operators, with_decoding

SIDE = 24


@cache
def decoder(spec: ImageSpec) -> OpenSession:
    """Return a session that answers with the crop itself."""
    shape = [1, spec.crop_px, spec.crop_px, 3]
    graph = helper.make_graph(
        [helper.make_node("Identity", [IMAGE], ["seen"])],
        "nothing else",
        [helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("seen", TensorProto.UINT8, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    whole = with_decoding(model, spec).SerializeToString()
    return open_session(whole, provider="cpu", threads=1, operators=custom_operators())


def seen(data: bytes, spec: ImageSpec) -> Crop:
    answer = decoder(spec).session.run(None, {PICTURE: np.frombuffer(data, np.uint8)})
    return np.asarray(answer[0][0], np.uint8)


def smooth(width: int, height: int, seed: int) -> Crop:
    """Return a picture of middling levels: Pillow rounds and clips between its two passes, the graph does not."""
    rough = np.random.default_rng(seed).integers(64, 192, (5, 5, 3), np.uint8)
    return np.asarray(Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC))


@settings(max_examples=40)
@given(
    width=st.integers(8, 200),
    height=st.integers(8, 200),
    seed=st.integers(0, 2**32 - 1),
    resize=st.sampled_from(get_args(ResizeRule)),
    interpolation=st.sampled_from(get_args(Interpolation)),
    larger=st.sampled_from([0, 4, 5]),
)
def test_it_cuts_what_the_server_cuts(
    width: int, height: int, seed: int, resize: ResizeRule, interpolation: Interpolation, larger: int
) -> None:
    spec = ImageSpec(resize, SIDE + larger, SIDE, interpolation)
    png = encode_png(smooth(width, height, seed))

    difference = np.abs(seen(png, spec).astype(int) - decode_crop(png, spec))

    assert difference.mean() < 0.5
    assert difference.max() <= 4


def test_a_jpeg_is_decoded_a_little_otherwise() -> None:
    spec = ImageSpec("crop", 256, 224)
    buffer = io.BytesIO()
    Image.fromarray(smooth(500, 375, 1)).save(buffer, "JPEG", quality=90)

    difference = np.abs(seen(buffer.getvalue(), spec).astype(int) - decode_crop(buffer.getvalue(), spec))

    assert difference.mean() < 1.5


@pytest.mark.parametrize("data", [b"", b"\xff", b"no picture", b"BM" + bytes(100), b"GIF89a"], ids=repr)
def test_what_is_neither_jpeg_nor_png_is_refused_before_the_decoder_would_end_the_process(data: bytes) -> None:
    with pytest.raises(Exception, match="out of data bounds"):
        seen(data, ImageSpec("crop", SIDE, SIDE))


def test_a_jpeg_that_was_cut_off_does_not_wait_for_the_rest() -> None:
    buffer = io.BytesIO()
    Image.fromarray(smooth(300, 300, 2)).save(buffer, "JPEG")

    crop = seen(buffer.getvalue()[: len(buffer.getvalue()) // 2], ImageSpec("squash", SIDE, SIDE))

    assert crop.shape == (SIDE, SIDE, 3)
