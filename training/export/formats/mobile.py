"""Models that decode, resize and crop a JPEG or PNG themselves.

The resize is that of `regraft.image.resize`, as two matrix products: a row of weights for each row, then for each
column, of the crop. ONNX's own ``Resize`` cannot cut a window between pixels, and would be off by up to half of one.

ONNX Runtime's extensions decode with libjpeg, whose errors end the process, and which waits for ever for the end of a
file that was cut off. So the graph looks at the first two bytes (an index out of bounds is its refusal), and appends an
end.
"""

from pathlib import Path
from typing import Final

import onnx
from onnx import compose, parser

from regraft.errors import MissingPackageError
from regraft.image.spec import ImageSpec
from regraft.model.artifact import IMAGE, OPSET

PICTURE: Final = "picture"

_REACH: Final = {
    "crop": "reach = ReduceMin <keepdims = 0> (kept)",
    "squash": "reach = Identity (kept)",
    "pad": "reach = ReduceMax <keepdims = 0> (kept)",
}
"""The side of the square that a crop shows, in pixels of the picture."""

_KERNELS: Final = {
    "bilinear": """
        {0}_slope = Sub (one, {0}_x)
        {0}_raw = Max ({0}_slope, zero)""",
    "bicubic": """
        {0}_square = Mul ({0}_x, {0}_x)
        {0}_cube = Mul ({0}_square, {0}_x)
        {0}_near_3 = Mul ({0}_cube, three_halves)
        {0}_near_2 = Mul ({0}_square, five_halves)
        {0}_near_0 = Sub ({0}_near_3, {0}_near_2)
        {0}_near = Add ({0}_near_0, one)
        {0}_far_3 = Mul ({0}_cube, half)
        {0}_far_2 = Sub ({0}_near_2, {0}_far_3)
        {0}_far_1 = Mul ({0}_x, four)
        {0}_far_0 = Sub ({0}_far_2, {0}_far_1)
        {0}_far = Add ({0}_far_0, two)
        {0}_is_near = Less ({0}_x, one)
        {0}_both = Where ({0}_is_near, {0}_near, {0}_far)
        {0}_is_seen = Less ({0}_x, two)
        {0}_raw = Where ({0}_is_seen, {0}_both, zero)""",
    "lanczos": """
        {0}_positive = Max ({0}_x, tiny)
        {0}_angle = Mul ({0}_positive, pi)
        {0}_third = Div ({0}_angle, three)
        {0}_sine = Sin ({0}_angle)
        {0}_sine_of_third = Sin ({0}_third)
        {0}_sines = Mul ({0}_sine, {0}_sine_of_third)
        {0}_angles = Mul ({0}_angle, {0}_third)
        {0}_both = Div ({0}_sines, {0}_angles)
        {0}_is_seen = Less ({0}_x, three)
        {0}_raw = Where ({0}_is_seen, {0}_both, zero)""",
}
"""What a pixel at the distance x from the centre weighs."""

_WEIGHTS: Final = """
        {0}_start = Gather (starts, axis_{0})
        {0}_scale = Gather (scales, axis_{0})
        {0}_out = Gather (outs, axis_{0})
        {0}_in = Gather (size, axis_{0})
        {0}_places = Range (zero, {0}_out, one)
        {0}_places_middle = Add ({0}_places, half)
        {0}_shares = Mul ({0}_places_middle, {0}_scale)
        {0}_centres = Add ({0}_shares, {0}_start)
        {0}_column = Unsqueeze ({0}_centres, last)
        {0}_pixels = Range (zero, {0}_in, one)
        {0}_middles = Add ({0}_pixels, half)
        {0}_distance = Sub ({0}_middles, {0}_column)
        {0}_stretch = Max ({0}_scale, one)
        {0}_away = Div ({0}_distance, {0}_stretch)
        {0}_x = Abs ({0}_away){kernel}
        {0}_sum = ReduceSum ({0}_raw, last)
        {0}_weights = Div ({0}_raw, {0}_sum)
"""
"""Weights [pixels of the crop, pixels of the picture] of the axis ``y`` or ``x``; the kernel is stretched to reduce."""

_GRAPH: Final = """
<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft.extensions" : 1]>
decode_and_crop (uint8[bytes] picture) => (uint8[1, {crop}, {crop}, 3] crop)
<
    float share = {{{share}}}, float side = {{{crop}}}, float zero = {{0}}, float half = {{0.5}}, float one = {{1}},
    float two = {{2}}, float three = {{3}}, float four = {{4}}, float three_halves = {{1.5}},
    float five_halves = {{2.5}},
    float pi = {{3.14159265}}, float tiny = {{0.000001}}, float white = {{255}}, float grey = {{128}},
    int64 axis_y = {{0}}, int64 axis_x = {{1}}, int64[1] last = {{-1}}, int64[3] rows = {{0, -1, 3}},
    int64[2] flat = {{0, -1}},
    int64[3] rgb = {{2, 1, 0}}, int64[1] first = {{0}}, int64[2] spatial = {{0, 1}}, int64[1] all = {{2147483647}},
    int64[2] two_places = {{0, 1}}, uint8[2] jpeg = {{255, 216}}, uint8[2] png = {{137, 80}},
    uint8[2] end = {{255, 217}}, int64[4] whole = {{1, {crop}, {crop}, 3}}
>
{{
    first_two = Gather <axis = 0> (picture, two_places)
    like_jpeg = Equal (first_two, jpeg)
    like_png = Equal (first_two, png)
    jpeg_bytes = Cast <to = 1> (like_jpeg)
    png_bytes = Cast <to = 1> (like_png)
    is_jpeg = ReduceMin <keepdims = 0> (jpeg_bytes)
    is_png = ReduceMin <keepdims = 0> (png_bytes)
    is_known = Max (is_jpeg, is_png)
    unknown = Sub (one, is_known)
    refused = Cast <to = 7> (unknown)
    start = Gather <axis = 0> (first, refused)
    starts_here = Unsqueeze (start, first)
    known = Slice (picture, starts_here, all)
    closed = Concat <axis = 0> (known, end)
    bgr = com.microsoft.extensions.DecodeImage (closed)
    shape = Shape <start = 0, end = 2> (bgr)
    size = Cast <to = 1> (shape)
    kept = Mul (size, share)
    {reach}
    seen = Min (size, reach)
    left_over = Sub (size, seen)
    starts = Mul (left_over, half)
    enlarged = Mul (seen, side)
    wanted = Div (enlarged, reach)
    rounded_out = Round (wanted)
    outs = Max (rounded_out, one)
    scales = Div (seen, outs)
{weights}
    pixels = Cast <to = 1> (bgr)
    lines = Reshape (pixels, flat)
    reduced = MatMul (y_weights, lines)
    reduced_rows = Reshape (reduced, rows)
    by_channel = Transpose <perm = [0, 2, 1]> (reduced_rows)
    x_turned = Transpose <perm = [1, 0]> (x_weights)
    resized_by_channel = MatMul (by_channel, x_turned)
    resized = Transpose <perm = [0, 2, 1]> (resized_by_channel)
    levels = Round (resized)
    clipped = Clip (levels, zero, white)
    margins = Sub (side, outs)
    halved = Mul (margins, half)
    before = Floor (halved)
    after = Sub (margins, before)
    pads_float = Concat <axis = 0> (before, after)
    pads = Cast <to = 7> (pads_float)
    squared = Pad (clipped, pads, grey, spatial)
    bytes_bgr = Cast <to = 2> (squared)
    bytes_rgb = Gather <axis = 2> (bytes_bgr, rgb)
    crop = Reshape (bytes_rgb, whole)
}}
"""


def with_decoding(model: onnx.ModelProto, spec: ImageSpec) -> onnx.ModelProto:
    """Put decoding ahead of a model: input ``picture``, uint8 [bytes], one picture."""
    weights = "".join(_WEIGHTS.format(axis, kernel=_KERNELS[spec.interpolation].format(axis)) for axis in "yx")
    text = _GRAPH.format(
        opset=OPSET, crop=spec.crop_px, share=spec.crop_px / spec.resize_px, reach=_REACH[spec.resize], weights=weights
    )
    ahead = compose.add_prefix(parser.parse_model(text), "cut.", rename_inputs=False)  # the model has names of its own
    ahead.ir_version = model.ir_version
    del model.graph.value_info[:]
    merged = compose.merge_models(ahead, model, [("cut.crop", IMAGE)])
    merged.graph.name = model.graph.name
    del merged.metadata_props[:]
    merged.metadata_props.extend(model.metadata_props)
    return merged


def custom_operators() -> Path:
    """Return the library of operators for ONNX Runtime to load.

    Raises:
        MissingPackageError: the package that brings it is not installed.
    """
    try:
        import onnxruntime_extensions  # noqa: PLC0415 - optional: the caller must hear what to install
    except ImportError as error:
        raise MissingPackageError(
            "--to mobile needs onnxruntime-extensions, which is not installed: pip install 'regraft[mobile]'"
        ) from error
    return Path(onnxruntime_extensions.get_library_path())
