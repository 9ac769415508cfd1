"""Errors as ``application/problem+json`` (RFC 9457)."""

import json
from http.client import responses

from serving.http.context import CallError
from serving.http.exchange import Exchange, Headers
from serving.http.status import headers_of, http_status, reason_in


async def respond_problem(exchange: Exchange, error: CallError, status: int = 0, headers: Headers = ()) -> None:
    """End an exchange by an error.

    Args:
        exchange: that has not begun its response.
        error: what went wrong.
        status: of HTTP; that of the error's code if 0.
        headers: beside those of the error.
    """
    status = status or http_status(error.code)
    problem = {"title": responses.get(status, ""), "status": status, "detail": error.text, "code": error.code.name}
    if reason := reason_in(error):
        problem["reason"] = reason
    body = json.dumps(problem).encode()
    await exchange.respond(status, "application/problem+json", body, (*headers_of(error), *headers))
