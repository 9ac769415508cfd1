"""``POST /v1/models/{name}/classify`` of a picture, a form, or JSON."""

from email.message import Message as Headers
from typing import Final
from urllib.parse import parse_qsl

from regraft.errors import InvalidRequestError
from regraft.v1.classifier_pb2 import ClassifyRequest
from serving.http.exchange import Exchange
from serving.http.messages import JSON, from_json

PATH: Final = "/regraft.v1.Classifier/Classify"
TOP_K: Final = "top_k"
_IMAGE: Final = "image"
_MAX_FORM_PARTS: Final = 8
_MAX_TOP_K_DIGITS: Final = 9


async def read_request(exchange: Exchange, name: str, most_bytes: int) -> ClassifyRequest:
    """Read a request to classify a picture by the model ``name``.

    Raises:
        InvalidRequestError: the query or the body makes no sense; the text names the field.
    """
    fields = dict(parse_qsl(exchange.query, keep_blank_values=True))
    if unknown := fields.keys() - {TOP_K}:
        raise InvalidRequestError(f"{min(unknown)[:50]}: there is no such parameter; there is {TOP_K}")
    top_k = _top_k(fields[TOP_K]) if TOP_K in fields else 0
    if exchange.content_type == "application/json":
        request = from_json(await exchange.body(round(JSON.growth * most_bytes)), ClassifyRequest())
        if request.name not in ("", name):
            raise InvalidRequestError(
                f"name: {request.name!r} in the body, and {name!r} in the path: leave the former out"
            )
        return ClassifyRequest(image=request.image, name=name, top_k=top_k or request.top_k)
    body = await exchange.body(most_bytes)
    if exchange.content_type == "multipart/form-data":
        parts = _parts(exchange.headers["content-type"], body)
        body = parts[_IMAGE]
        top_k = top_k or _top_k(parts.get(TOP_K, b"0").decode(errors="replace"))
    return ClassifyRequest(image=body, name=name, top_k=top_k)


def _top_k(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_TOP_K_DIGITS):
        raise InvalidRequestError(f"{TOP_K}: {text[:20]!r} is no number of labels")
    return int(text)


def _parts(content_type: str, body: bytes) -> dict[str, bytes]:
    """Return the parts of a form by their names.

    Raises:
        InvalidRequestError: it is no form, or one without an image.
    """
    boundary = _header(content_type).get_boundary()
    if not boundary:
        raise InvalidRequestError("content-type: multipart/form-data has a boundary")
    # A part ends with the line break before the next boundary; the first has none before it.
    pieces = b"\r\n%b" % body
    found: dict[str, bytes] = {}
    for piece in pieces.split(b"\r\n--%b" % boundary.encode("latin-1", "replace"), _MAX_FORM_PARTS)[1:]:
        head, _, content = piece.partition(b"\r\n\r\n")
        for line in head.decode("latin-1").split("\r\n"):
            key, _, value = line.partition(":")
            if key.strip().lower() == "content-disposition" and (name := _header(value).get_param("name")):
                found[str(name)] = content
    if _IMAGE not in found:
        raise InvalidRequestError(f"the form has no part {_IMAGE!r}, which is the picture")
    return found


def _header(value: str) -> Headers:
    """Return a header of the mail's kind, which knows its parameters."""
    headers = Headers()
    headers["content-type"] = value.strip()
    return headers
