"""Two-way streams: several requests are answered at once.

No task group is used: it would cancel the consumer in the middle of sending an answer, and gRPC would leave the
client without an end of the stream (PEP 789).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable
from contextlib import aclosing, suppress
from typing import Any, Final, TypeVar

RequestT = TypeVar("RequestT")
AnswerT = TypeVar("AnswerT")

_WINDOW: Final = 32
"""How many requests of one stream are worked on at once; beyond it the server stops reading the stream."""


async def answers(
    requests: AsyncIterator[RequestT],
    answer: Callable[[RequestT, Callable[[], None]], Coroutine[Any, Any, AnswerT]],
    *,
    any_order: bool = False,
) -> AsyncGenerator[AnswerT, None]:
    """Yield the answer to each request, several worked on at once.

    Args:
        requests: read no further than the window, so that a client that reads slowly is held back.
        answer: calls what it is given when it has room for the request, and only then the next is read; its errors
            end the stream.
        any_order: yield each as soon as it is there, rather than in the order of the requests.
    """
    works: set[asyncio.Task[AnswerT]] = set()
    queue: asyncio.Queue[asyncio.Task[AnswerT] | None] = asyncio.Queue()
    room = asyncio.Semaphore(_WINDOW)

    async def read() -> None:
        try:
            async for request in requests:
                await room.acquire()
                admitted = asyncio.Event()
                work = asyncio.create_task(answer(request, admitted.set))
                works.add(work)
                work.add_done_callback(lambda _work, over=admitted: over.set())  # type: ignore[misc]  # mypy cannot infer defaults
                if any_order:
                    work.add_done_callback(queue.put_nowait)
                else:
                    queue.put_nowait(work)
                del request  # or it would be kept until the next one comes
                await admitted.wait()
        finally:
            if works:
                await asyncio.wait(works)
            queue.put_nowait(None)

    reading = asyncio.create_task(read())
    try:
        while (work := await queue.get()) is not None:
            yield await work
            works.discard(work)
            room.release()
        await reading  # raises what ended the requests, if anything did
    finally:
        for task in (reading, *works):
            task.cancel()
        await asyncio.gather(reading, *works, return_exceptions=True)


async def answer_all(
    requests: Iterable[RequestT], answer: Callable[[RequestT, Callable[[], None]], Coroutine[Any, Any, AnswerT]]
) -> list[AnswerT]:
    """Return the answers to the requests of one message.

    They are found as `answers` finds those of a stream.
    """

    async def everything() -> AsyncIterator[RequestT]:
        for request in requests:
            yield request

    async with aclosing(answers(everything(), answer)) as found:
        return [each async for each in found]


async def with_first(requests: AsyncIterator[RequestT]) -> tuple[RequestT | None, AsyncIterator[RequestT]]:
    """Return the first request, or None, and all of them."""
    iterator = aiter(requests)
    first = await anext(iterator, None)
    ahead = [] if first is None else [first]

    async def everything() -> AsyncIterator[RequestT]:
        with suppress(StopAsyncIteration):
            while True:
                yield ahead.pop() if ahead else await anext(iterator)  # none is kept here until the next one comes

    return first, everything()
