"""Tensors of the Open Inference Protocol: read pictures, write arrays."""

import struct
from collections.abc import Iterable, Sequence
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from regraft.errors import InvalidRequestError
from regraft.image.spec import Crop
from regraft.oip import inference_pb2 as pb

IMAGE: Final = "image"
MAX_PICTURES: Final = 128
"""In one request."""

_LENGTH: Final = struct.Struct("<I")
_CROP_AXES: Final = 4
_MAX_NAMES: Final = 3


def pictures_of(request: pb.ModelInferRequest) -> list[bytes | Crop]:
    """Return the pictures of a request: bytes, or crops uint8 [H, W, 3].

    Raises:
        InvalidRequestError: tensor, type, shape and contents do not fit together; the text names the field.
    """
    if len(request.inputs) != 1 or request.inputs[0].name != IMAGE:
        names = ", ".join(repr(tensor.name) for tensor in request.inputs[:_MAX_NAMES]) or "none"
        raise InvalidRequestError(f"inputs: {names}; there must be just one, 'image'")
    (tensor,) = request.inputs
    if len(request.raw_input_contents) > 1:
        raise InvalidRequestError(f"raw_input_contents: {len(request.raw_input_contents)} for one input")
    if request.raw_input_contents and tensor.HasField("contents"):
        raise InvalidRequestError("raw_input_contents: the input has typed contents as well; send one of them")
    shape = list(tensor.shape)
    if not shape or min(shape) < 1 or shape[0] > MAX_PICTURES:
        raise InvalidRequestError(f"image: shape {shape}; a request holds 1 to {MAX_PICTURES} pictures")
    raw = request.raw_input_contents[0] if request.raw_input_contents else None
    if tensor.datatype == "BYTES":
        return list(_encoded(shape, raw, tensor.contents))
    if tensor.datatype == "UINT8":
        return list(_crops(shape, raw, tensor.contents))
    raise InvalidRequestError(
        f"image: datatype {tensor.datatype!r}; it takes BYTES (encoded pictures) or UINT8 (crops)"
    )


def split(raw: bytes, most: int = MAX_PICTURES) -> list[bytes]:
    """Split a BYTES tensor: each element follows its length, 4 bytes, little-endian.

    Raises:
        InvalidRequestError: a length reaches beyond the end.
    """
    items: list[bytes] = []
    position = 0
    while position < len(raw):
        if len(items) == most:
            raise InvalidRequestError(f"image: more than {most} elements")
        if position + _LENGTH.size > len(raw):
            raise InvalidRequestError(f"image: {len(raw) - position} bytes are left over after {len(items)} elements")
        (length,) = _LENGTH.unpack_from(raw, position)
        position += _LENGTH.size
        if position + length > len(raw):
            raise InvalidRequestError(
                f"image: element {len(items)} says that it has {length} bytes; {len(raw) - position} are left"
            )
        items.append(raw[position : position + length])
        position += length
    return items


def join(items: Iterable[bytes]) -> bytes:
    """Join elements as `split` takes them."""
    return b"".join(_LENGTH.pack(len(item)) + item for item in items)


def add_floats(response: pb.ModelInferResponse, name: str, rows: Sequence[Any]) -> None:
    """Add an FP32 output [N, ...] in raw form."""
    values = np.ascontiguousarray(rows, np.float32)
    response.outputs.add(name=name, datatype="FP32", shape=values.shape)
    response.raw_output_contents.append(values.tobytes())


def add_texts(response: pb.ModelInferResponse, name: str, shape: Sequence[int], texts: Iterable[str]) -> None:
    """Add a BYTES output of UTF-8 texts, likewise."""
    response.outputs.add(name=name, datatype="BYTES", shape=shape)
    response.raw_output_contents.append(join(text.encode() for text in texts))


def _encoded(shape: list[int], raw: bytes | None, contents: pb.InferTensorContents) -> list[bytes]:
    if shape[1:] not in ([], [1]):
        raise InvalidRequestError(f"image: shape {shape}; BYTES take [N] or [N, 1]")
    items = contents.bytes_contents if raw is None else split(raw, shape[0])
    if len(items) != shape[0]:
        raise InvalidRequestError(f"image: shape {shape} and {len(items)} elements")
    return list(items)


def _crops(shape: list[int], raw: bytes | None, contents: pb.InferTensorContents) -> npt.NDArray[np.uint8]:
    if len(shape) != _CROP_AXES or shape[-1] != 3:
        raise InvalidRequestError(f"image: shape {shape}; UINT8 take [N, H, W, 3]")
    size = len(contents.uint_contents) if raw is None else len(raw)
    if size != prod(shape):
        raise InvalidRequestError(f"image: shape {shape} and {size} values")
    if raw is None:
        wide = np.array(contents.uint_contents, np.uint32)
        if wide.size and wide.max() > np.iinfo(np.uint8).max:
            raise InvalidRequestError(f"image: {wide.max()} is no UINT8")
        values = wide.astype(np.uint8)
    else:
        values = np.frombuffer(raw, np.uint8)
    return values.reshape(shape)
