"""Two-way streams: requests are answered several at once, in their order or as they are ready."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from enum import Enum, auto
from typing import Any, Final, TypeVar

RequestT = TypeVar("RequestT")
AnswerT = TypeVar("AnswerT")


class _End(Enum):
    END = auto()


_WINDOW: Final = 32
"""How many requests of one stream are worked on at once; beyond it the server stops reading the stream."""


async def in_order(
    requests: AsyncIterator[RequestT], answer: Callable[[RequestT], Coroutine[Any, Any, AnswerT]]
) -> AsyncIterator[AnswerT]:
    """Yield the answer to each request, in their order, while later ones are worked on already.

    Args:
        requests: read no further than the window, so that a client that reads slowly is held back.
        answer: its errors end the stream.
    """
    answers: asyncio.Queue[asyncio.Task[AnswerT] | None] = asyncio.Queue(_WINDOW)
    async with asyncio.TaskGroup() as tasks:

        async def read() -> None:
            async for request in requests:
                await answers.put(tasks.create_task(answer(request)))
            await answers.put(None)

        tasks.create_task(read())
        while (task := await answers.get()) is not None:
            yield await task


async def as_ready(
    requests: AsyncIterator[RequestT], answer: Callable[[RequestT], Coroutine[Any, Any, AnswerT]]
) -> AsyncIterator[AnswerT]:
    """Yield each answer as soon as it is there; arguments as those of `in_order`."""
    answers: asyncio.Queue[AnswerT | _End] = asyncio.Queue()
    room = asyncio.Semaphore(_WINDOW)
    async with asyncio.TaskGroup() as tasks:

        async def work(request: RequestT) -> None:
            answers.put_nowait(await answer(request))

        async def read() -> None:
            async with asyncio.TaskGroup() as works:
                async for request in requests:
                    await room.acquire()
                    works.create_task(work(request))
            answers.put_nowait(_End.END)

        tasks.create_task(read())
        while (result := await answers.get()) is not _End.END:
            yield result
            room.release()


async def with_first(requests: AsyncIterator[RequestT]) -> tuple[RequestT | None, AsyncIterator[RequestT]]:
    """Return the first request, None where there is none, and all of them."""
    iterator = aiter(requests)
    first = await anext(iterator, None)

    async def everything() -> AsyncIterator[RequestT]:
        if first is not None:
            yield first
            async for request in iterator:
                yield request

    return first, everything()
