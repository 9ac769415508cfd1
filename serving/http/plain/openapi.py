"""OpenAPI description of an HTTP port, made from the proto."""

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from serving.http.methods import Method, Methods
from serving.http.plain import classify
from serving.http.protocols import connect, grpc_web

_Schema = dict[str, Any]

_OURS: Final = "/regraft.v1."
_TYPES: Final = {
    getattr(FieldDescriptor, name): name.removeprefix("TYPE_").lower()
    for name in dir(FieldDescriptor)
    if name.startswith("TYPE_")
}
_INTEGERS: Final = {"int32", "uint32", "sint32", "fixed32", "sfixed32"}
_WIDE: Final = {"int64", "uint64", "sint64", "fixed64", "sfixed64"}
_WELL_KNOWN: Final[dict[str, _Schema]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?\d+(\.\d+)?s$"},
}
_STATUSES: Final = {
    "400": "The request makes no sense, or the state forbids it.",
    "401": "The caller is not known.",
    "403": "The caller may not.",
    "404": "There is no such thing.",
    "409": "Something else is in the way.",
    "413": "The body is too large.",
    "415": "The content type is none that is taken here.",
    "429": "The server is full; Retry-After says when to try again.",
    "431": "The head is too large.",
    "500": "A bug; the server's log has the details.",
    "501": "The body is compressed.",
    "503": "The server is stopping, or a disk or database is away.",
    "504": "The deadline passed.",
}
_NAME: Final = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
_TEXT: Final = {"text/plain": {"schema": {"type": "string"}}}


def openapi_of(methods: Methods) -> _Schema:
    """Return the description of what answers, as OpenAPI 3.1."""
    schemas = _Schemas()
    paths = _plain_paths(methods, schemas)
    for path, method in sorted(methods.items()):
        if path.startswith(_OURS):
            paths[path] = {"post": _operation(method, schemas)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Regraft", "version": version("regraft"), "license": {"name": "Apache-2.0"}},
        "security": [{"token": []}, {}],
        "paths": paths,
        "components": {
            "schemas": schemas.found | {"Problem": _PROBLEM, "Error": _ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


class _Schemas:
    """Schemas of messages, each with those that it holds."""

    def __init__(self) -> None:
        self.found: dict[str, _Schema] = {}

    def of(self, message: Descriptor) -> _Schema:
        """Return the reference to a message's schema."""
        if message.full_name in _WELL_KNOWN:
            return _WELL_KNOWN[message.full_name]
        if message.full_name not in self.found:
            self.found[message.full_name] = {}  # it may hold itself
            properties = {field.json_name: self._field(field) for field in message.fields}
            self.found[message.full_name] = {"type": "object", "properties": properties}
        return {"$ref": f"#/components/schemas/{message.full_name}"}

    def _field(self, field: FieldDescriptor) -> _Schema:
        if field.message_type and field.message_type.GetOptions().map_entry:
            return {"type": "object", "additionalProperties": self._value(field.message_type.fields_by_name["value"])}
        value = self._value(field)
        return {"type": "array", "items": value} if field.is_repeated else value

    def _value(self, field: FieldDescriptor) -> _Schema:
        if field.message_type:
            return self.of(field.message_type)
        if field.enum_type:
            return _enumeration(field.enum_type)
        name = _TYPES[field.type]
        if name in _INTEGERS:
            lowest = 0 if name.startswith(("u", "fixed")) else -(2**31)
            return {"type": "integer", "minimum": lowest, "maximum": 2**32 - 1 if lowest == 0 else 2**31 - 1}
        if name in _WIDE:
            return {"type": "string", "format": "int64", "pattern": r"^-?\d{1,18}$"}
        if name == "bytes":
            return {"type": "string", "contentEncoding": "base64", "format": "byte"}
        return {"type": {"string": "string", "bool": "boolean"}.get(name, "number")}


def _enumeration(enum: EnumDescriptor) -> _Schema:
    return {"type": "string", "enum": [value.name for value in enum.values]}


def _operation(method: Method, schemas: _Schemas) -> _Schema:
    asked, told = schemas.of(method.descriptor.input_type), schemas.of(method.descriptor.output_type)
    is_stream = method.streams_in or method.streams_out
    types = connect.STREAMS if is_stream else connect.UNARY
    contents: _Schema = (
        {kind: {} for kind in (*types, *grpc_web.TYPES)} if is_stream else {"application/json": {"schema": asked}}
    )
    answers: _Schema = {kind: {} for kind in types} if is_stream else {"application/json": {"schema": told}}
    return {
        "operationId": method.path.strip("/").replace("/", "."),
        "tags": [method.descriptor.containing_service.name],
        "requestBody": {"required": True, "content": contents},
        "responses": {"200": _response("The answer.", answers), **_errors("Error", ("413", "415", "431"))},
    }


def _plain_paths(methods: Methods, schemas: _Schemas) -> _Schema:
    answer = schemas.of(methods[classify.PATH].descriptor.output_type)
    asked = schemas.of(methods[classify.PATH].descriptor.input_type)
    picture: _Schema = {"type": "string", "format": "binary"}
    form: _Schema = {
        "type": "object",
        "required": ["image"],
        "properties": {"image": picture, "top_k": {"type": "integer"}},
    }
    bodies: _Schema = {kind: {"schema": picture} for kind in ("image/jpeg", "image/png", "application/octet-stream")}
    bodies |= {"multipart/form-data": {"schema": form}, "application/json": {"schema": asked}}
    most = {"name": "top_k", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": 100_000}}
    paths: _Schema = {
        "/v1/models/{name}/classify": {
            "post": {
                "operationId": "classify",
                "parameters": [_NAME, most],
                "requestBody": {"required": True, "content": bodies},
                "responses": {
                    "200": _response("The answer.", {"application/json": {"schema": answer}}),
                    **_errors("Problem"),
                },
            }
        }
    }
    if listing := methods.get("/regraft.v1.Models/ListModels"):
        told = {"application/json": {"schema": schemas.of(listing.descriptor.output_type)}}
        pages = [
            {"name": "page_size", "in": "query", "schema": {"type": "integer"}},
            {"name": "page_token", "in": "query", "schema": {"type": "string"}},
        ]
        paths["/v1/models"] = {
            "get": {
                "operationId": "listModels",
                "parameters": pages,
                "responses": {"200": _response("The models.", told), **_errors("Problem")},
            }
        }
    for probe in ("healthz", "readyz"):
        responses = {"200": _response("All is well.", _TEXT), "503": _response("What is wrong.", _TEXT)}
        paths[f"/{probe}"] = {"get": {"operationId": probe, "security": [], "responses": responses}}
    return paths


def _response(text: str, contents: _Schema) -> _Schema:
    return {"description": text, "content": contents}


def _errors(schema: str, as_problems: Iterable[str] = ()) -> _Schema:
    """Return the responses of errors.

    Those of ``as_problems`` are problems, whatever the others are.
    """
    return {
        status: _response(
            text,
            {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
            | ({} if schema == "Problem" or status in as_problems else _connect_error()),
        )
        for status, text in _STATUSES.items()
    }


def _connect_error() -> _Schema:
    return {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}


_PROBLEM: Final[_Schema] = {
    "type": "object",
    "required": ["title", "status", "detail", "code"],
    "properties": {
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "For people."},
        "code": {"type": "string", "description": "gRPC's code, such as NOT_FOUND."},
        "reason": {"type": "string", "description": "For programs, such as INVALID_IMAGE."},
    },
}
_ERROR: Final[_Schema] = {
    "type": "object",
    "required": ["code", "message"],
    "properties": {
        "code": {"type": "string", "description": "Connect's code, such as not_found."},
        "message": {"type": "string"},
        "details": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"type": {"type": "string"}, "value": {"type": "string", "contentEncoding": "base64"}},
            },
        },
    },
}
