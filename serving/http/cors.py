"""Origins of web pages that may ask (CORS): only those named."""

from typing import Final

from regraft.errors import ForbiddenError
from serving.http.exchange import Exchange

_ASKED: Final = (
    "authorization, connect-protocol-version, connect-timeout-ms, content-type, grpc-timeout, "
    "inference-header-content-length, traceparent, tracestate, x-grpc-web, x-user-agent"
)
_TOLD: Final = "grpc-message, grpc-status, grpc-status-details-bin, inference-header-content-length, retry-after"
_KEPT_S: Final = "7200"


async def is_preflight(exchange: Exchange, origins: tuple[str, ...]) -> bool:
    """Check the origin of a page, and answer a browser's preflight.

    A page of an origin that is not named could send some requests all the same, without being told the answer.

    Returns:
        True where it was a preflight, and is answered.

    Raises:
        ForbiddenError: the page is from another origin.
    """
    origin = exchange.headers.get("origin")
    if origin is None:
        return False
    exchange.extra.append(("vary", "origin"))
    if origin in origins:
        exchange.extra += [("access-control-allow-origin", origin), ("access-control-expose-headers", _TOLD)]
    elif origin != f"{exchange.scheme}://{exchange.headers.get('host', '')}":
        raise ForbiddenError(f"pages of {origin[:200]} may not ask here: its operator names origins by --http-origin")
    if exchange.method != "OPTIONS" or "access-control-request-method" not in exchange.headers:
        return False
    allowed = [
        ("access-control-allow-methods", "GET, POST"),
        ("access-control-allow-headers", _ASKED),
        ("access-control-max-age", _KEPT_S),
    ]
    await exchange.respond(200, "", b"", allowed)
    return True
