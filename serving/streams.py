"""Two-way streams whose answers keep the order of their requests."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final, TypeVar

RequestT = TypeVar("RequestT")
AnswerT = TypeVar("AnswerT")

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
