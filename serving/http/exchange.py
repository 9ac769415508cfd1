"""One HTTP request and its response, by ASGI."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from email.utils import formatdate
from time import time
from typing import Any, Final, Protocol, TypeAlias

from regraft.errors import InvalidRequestError

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers: TypeAlias = Iterable[tuple[str, str]]

MAX_HEAD_BYTES: Final = 32 * 1024
"""Of a request's line and headers."""
_MAY_CACHE_NOTHING: Final = ("cache-control", "no-store")


class Peer(Protocol):
    """The other end of a connection, for applications.

    Attributes:
        address: as gRPC writes it: ipv4:127.0.0.1:40022.
        identities: names of its certificate, which TLS has verified.
        on_lost: called once when the connection is lost; each request sets it anew.
    """

    address: str
    identities: tuple[str, ...]
    on_lost: Callable[[], None] | None


class HugeHeadError(InvalidRequestError):
    """Headers beyond the limit."""


class TooLargeError(InvalidRequestError):
    """A body beyond the limit of messages."""


class Exchange:
    """A request, read on demand, and the response to it.

    Attributes:
        method: GET, POST and so on.
        path: as it came, percent-encoded.
        query: what follows the path.
        headers: by name in lower case; of several the values with commas between.
        peer: whom it is from.
        has_begun: whether the response has.
        extra: headers of whatever the response will be.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take what the server hands to an application.

        `check_head` comes before anything else.
        """
        self.method: str = scope["method"]
        self.path: str = scope["raw_path"].decode("ascii", "replace")
        self.query: str = scope["query_string"].decode("ascii", "replace")
        self.scheme: str = scope["scheme"]
        self.headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            key, text = name.decode("latin-1"), value.decode("latin-1")
            self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text
        self.peer: Peer = scope["state"]["peer"]
        self.has_begun = False
        self.extra: list[tuple[str, str]] = []
        self._receive = receive
        self._send = send

    def check_head(self) -> None:
        """Check the size of the head.

        It comes at once where it is not too large for a connection.

        Raises:
            HugeHeadError: it is too large.
        """
        if sum(map(len, (self.path, self.query, *self.headers, *self.headers.values()))) > MAX_HEAD_BYTES:
            raise HugeHeadError(f"the head of the request has more than {MAX_HEAD_BYTES} bytes")

    @property
    def content_type(self) -> str:
        """The type of the body, in lower case and without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def chunks(self, most_bytes: int) -> AsyncIterator[bytes]:
        """Yield the body as it comes.

        Args:
            most_bytes: of all of it.

        Raises:
            TooLargeError: there is more, as the head says or as it turns out.
        """
        declared = self.headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > most_bytes:
            raise _too_large(most_bytes)
        left = most_bytes
        while True:
            event = await self._receive()
            if event["type"] != "http.request":
                return  # the client is gone, and `Peer.on_lost` has ended the call
            if chunk := event.get("body", b""):
                left -= len(chunk)
                if left < 0:
                    raise _too_large(most_bytes)
                yield chunk
            if not event.get("more_body"):
                return

    async def body(self, most_bytes: int) -> bytes:
        """Return the whole body; see `chunks`."""
        chunks = [chunk async for chunk in self.chunks(most_bytes)]
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def respond(self, status: int, content_type: str, body: bytes, headers: Headers = ()) -> None:
        """Send the whole response."""
        await self.begin(status, content_type, (*headers, ("content-length", str(len(body)))))
        await self.write(body, is_last=True)

    async def begin(self, status: int, content_type: str, headers: Headers = ()) -> None:
        """Send the head of the response."""
        self.has_begun = True
        named = [("date", formatdate(time(), usegmt=True)), _MAY_CACHE_NOTHING, *self.extra, *headers]
        if content_type:
            named.append(("content-type", content_type))
        encoded = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in named]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})

    async def write(self, data: bytes, *, is_last: bool = False) -> None:
        """Send a part of the response's body.

        It waits while the client takes nothing.
        """
        await self._send({"type": "http.response.body", "body": data, "more_body": not is_last})


def _too_large(most_bytes: int) -> TooLargeError:
    return TooLargeError(
        f"the body has more than {most_bytes} bytes, which is what a message may take (REGRAFT_MAX_IMAGE_BYTES)"
    )
