"""Load over HTTP: raw pictures by POST, over connections that stay open."""

import asyncio
import time
from typing import Final

_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length: "


def rate_over_http(port: int, path: str, body: bytes, concurrency: int, duration_s: float, warm_up_s: float) -> float:
    """Return how many requests a second were answered by 200.

    Raises:
        RuntimeError: one was answered otherwise.
    """
    head = f"POST {path} HTTP/1.1\r\nhost: here\r\ncontent-type: image/jpeg\r\ncontent-length: {len(body)}\r\n\r\n"
    return asyncio.run(_rate(port, head.encode() + body, concurrency, duration_s, warm_up_s))


async def _rate(port: int, request: bytes, concurrency: int, duration_s: float, warm_up_s: float) -> float:
    begin_s = time.perf_counter() + warm_up_s
    end_s = begin_s + duration_s
    counts = await asyncio.gather(*(_client(port, request, begin_s, end_s) for _ in range(concurrency)))
    return sum(counts) / duration_s


async def _client(port: int, request: bytes, begin_s: float, end_s: float) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count = 0
    while time.perf_counter() < end_s:
        writer.write(request)
        head = await reader.readuntil(_HEAD_END)
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            raise RuntimeError(head.decode())
        await reader.readexactly(int(head.partition(_LENGTH)[2].split(b"\r\n", 1)[0]))
        count += begin_s <= time.perf_counter() <= end_s
    writer.close()
    return count
