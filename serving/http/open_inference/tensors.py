"""Tensors of requests to infer: JSON, and bytes after it."""

import json
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import Annotated, Any, Final, TypeAlias

import numpy as np
from google.protobuf.message import Message
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from regraft.errors import InvalidRequestError
from regraft.oip.inference_pb2 import InferParameter, ModelInferRequest, ModelInferResponse
from serving.http.messages import check_parts
from serving.rpc.open_inference.tensors import split

HEADER_LENGTH: Final = "inference-header-content-length"
"""The header with the bytes that the JSON takes where tensors follow it."""

_BINARY_SIZE: Final = "binary_data_size"
_BINARY: Final = "binary_data"
_BINARY_OUTPUT: Final = "binary_data_output"
_MAX_VALUES: Final = 2_000_000
"""Values in JSON: a dozen crops; more go after it, as bytes."""
_MAX_DEPTH: Final = 5

Parameters: TypeAlias = dict[str, bool | int | float | str]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    parameters: Parameters = {}


class _Input(_Part):
    name: str
    shape: list[Annotated[int, Field(ge=-(2**63), lt=2**63)]]
    datatype: str
    data: list[Any] | None = None


class _Output(_Part):
    name: str


class _Request(_Part):
    id: str = ""
    inputs: list[_Input]
    outputs: list[_Output] = []


def read_infer(body: bytes, header_length: str, name: str, version: str) -> tuple[ModelInferRequest, frozenset[str]]:
    """Read the body of a request to infer.

    Args:
        body: JSON, and then the bytes of tensors.
        header_length: the bytes of the JSON, as text; all if empty.
        name: of the model.
        version: likewise, or empty.

    Returns:
        The request, and the names of outputs that are to be bytes after the JSON; an empty name stands for all.

    Raises:
        InvalidRequestError: the text names the field.
    """
    told, rest = _divide(body, header_length)
    request = ModelInferRequest(model_name=name, model_version=version, id=told.id)
    try:
        _set_parameters(request.parameters, told.parameters, but=(_BINARY_OUTPUT,))
        for given in told.inputs:
            tensor = request.inputs.add(name=given.name, shape=given.shape, datatype=given.datatype)
            _set_parameters(tensor.parameters, given.parameters, but=(_BINARY_SIZE,))
            if given.data is not None:
                _set_contents(tensor.contents, given)
        for output in told.outputs:
            added = request.outputs.add(name=output.name)
            _set_parameters(added.parameters, output.parameters, but=(_BINARY,))
    except (ValueError, TypeError) as error:
        raise InvalidRequestError(f"the request holds a value beyond its type: {error}") from error
    request.raw_input_contents.extend(_binary_parts(told.inputs, rest))
    as_bytes = {output.name for output in told.outputs if output.parameters.get(_BINARY) is True}
    if told.parameters.get(_BINARY_OUTPUT) is True:
        as_bytes |= {output.name for output in told.outputs if _BINARY not in output.parameters} or {""}
    return request, frozenset(as_bytes)


def write_infer(response: ModelInferResponse, as_bytes: frozenset[str]) -> tuple[bytes, int | None]:
    """Return an answer as a body, and the size of its JSON.

    The size is None where no tensors follow the JSON.
    """
    outputs, rest = [], []
    for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        told: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if as_bytes & {tensor.name, ""}:
            told["parameters"] = {_BINARY_SIZE: len(raw)}
            rest.append(raw)
        elif tensor.datatype == "BYTES":
            told["data"] = [item.decode() for item in split(raw, prod(tensor.shape))]
        else:
            told["data"] = np.frombuffer(raw, np.float32).tolist()
        outputs.append(told)
    plain = {"model_name": response.model_name, "model_version": response.model_version, "outputs": outputs}
    if response.id:
        plain["id"] = response.id
    head = json.dumps(plain, ensure_ascii=False).encode()
    return b"".join((head, *rest)), len(head) if rest else None


def as_plain(message: Message) -> dict[str, Any]:
    """Return a message as this protocol's JSON.

    Names are as in the proto, and numbers are numbers.
    """

    def value_of(value: Any) -> Any:  # noqa: ANN401 - any field's
        return as_plain(value) if isinstance(value, Message) else value

    plain: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if isinstance(value, Mapping):
            plain[field.name] = {key: value_of(each) for key, each in value.items()}
        elif field.is_repeated:
            plain[field.name] = [value_of(each) for each in value]
        elif field.enum_type:
            plain[field.name] = field.enum_type.values_by_number[value].name
        elif not field.message_type or message.HasField(field.name):
            plain[field.name] = value_of(value)
    return plain


def _divide(body: bytes, header_length: str) -> tuple[_Request, memoryview]:
    if header_length and not (header_length.isascii() and header_length.isdigit() and int(header_length) <= len(body)):
        raise InvalidRequestError(f"{HEADER_LENGTH}: {header_length[:20]!r}; the body has {len(body)} bytes")
    end = int(header_length) if header_length else len(body)
    head = body[:end]
    check_parts(head, _MAX_VALUES)
    try:
        return _Request.model_validate_json(head), memoryview(body)[end:]
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise InvalidRequestError(f"{place}: {first['msg']}") from error


def _set_parameters(target: Any, parameters: Parameters, but: tuple[str, ...]) -> None:  # noqa: ANN401 - protobuf's map has no public type
    for key, value in parameters.items():
        if key in but:
            continue
        if isinstance(value, bool):
            target[key].CopyFrom(InferParameter(bool_param=value))
        elif isinstance(value, int):
            target[key].CopyFrom(InferParameter(int64_param=value))
        elif isinstance(value, str):
            target[key].CopyFrom(InferParameter(string_param=value))


def _set_contents(contents: Any, given: _Input) -> None:  # noqa: ANN401 - a message of the generated module
    values = list(_flat(given.data or [], given.name))
    if given.datatype == "BYTES":
        contents.bytes_contents.extend(_decoded(values, given.name))
    else:
        contents.uint_contents.extend(values)


def _decoded(values: Iterable[Any], name: str) -> Iterator[bytes]:
    for value in values:
        try:
            yield b64decode(value, validate=True)
        except (ValueError, TypeError) as error:
            raise InvalidRequestError(f"{name}: data of BYTES is base64 of the picture") from error


def _flat(values: list[Any], name: str, depth: int = 1) -> Iterator[Any]:
    if depth > _MAX_DEPTH:
        raise InvalidRequestError(f"{name}: data lies deeper than {_MAX_DEPTH} lists")
    for value in values:
        if isinstance(value, list):
            yield from _flat(value, name, depth + 1)
        else:
            yield value


def _binary_parts(inputs: Iterable[_Input], rest: memoryview) -> Iterator[bytes]:
    for given in inputs:
        size = given.parameters.get(_BINARY_SIZE)
        if size is None:
            continue
        if not isinstance(size, int) or not 0 <= size <= len(rest):
            raise InvalidRequestError(f"{given.name}: {_BINARY_SIZE} {size}; {len(rest)} bytes are left")
        yield bytes(rest[:size])
        rest = rest[size:]
    if len(rest):
        raise InvalidRequestError(f"{len(rest)} bytes are left over after the last tensor")
