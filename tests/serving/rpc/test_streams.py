import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any
from weakref import ref

import pytest

from serving.rpc import streams
from serving.rpc.reading import DrainableStream, Draining
from serving.rpc.streams import with_first
from tests.waiting import asynchronous, until

Answers = Callable[..., AsyncIterator[int]]
Answer = Callable[[int], Coroutine[Any, Any, int]]


def in_order(requests: AsyncIterator[int], answer: Answer, *, any_order: bool = False) -> AsyncIterator[int]:
    """Answer requests that there is always room for."""

    async def admitted(number: int, on_admitted: Callable[[], None]) -> int:
        on_admitted()
        return await answer(number)

    return streams.answers(requests, admitted, any_order=any_order)


as_ready = partial(in_order, any_order=True)


async def numbers(count: int, taken: list[int] | None = None) -> AsyncIterator[int]:
    for number in range(count):
        if taken is not None:
            taken.append(number)
        yield number


@asynchronous
async def test_in_order_the_first_answer_comes_first_though_the_second_is_ready() -> None:
    gate, answered = asyncio.Event(), list[int]()

    async def answer(number: int) -> int:
        if number == 0:
            await gate.wait()
        answered.append(number)
        return number

    answers = in_order(numbers(3), answer)
    first = asyncio.ensure_future(anext(answers))
    await until(lambda: answered == [1, 2])
    assert not first.done()
    gate.set()

    assert [await first, *[number async for number in answers]] == [0, 1, 2]


@asynchronous
async def test_as_ready_an_answer_does_not_wait_for_those_before_it() -> None:
    gate = asyncio.Event()

    async def answer(number: int) -> int:
        if number == 0:
            await gate.wait()
        return number

    answers = as_ready(numbers(3), answer)
    assert {await anext(answers), await anext(answers)} == {1, 2}
    gate.set()

    assert [number async for number in answers] == [0]


@pytest.mark.parametrize("answers", [in_order, as_ready])
@asynchronous
async def test_a_stream_is_read_no_further_than_the_answers_are_taken(answers: Answers) -> None:
    """Invariant 5."""
    taken = list[int]()

    async def answer(number: int) -> int:
        return number

    stream = answers(numbers(1000, taken), answer)
    await anext(stream)
    before = -1
    while before != len(taken):
        before = len(taken)
        for _ in range(100):
            await asyncio.sleep(0)
    assert len(taken) < 40

    assert sorted([number async for number in stream]) == sorted(set(range(1000)) - {0})


@asynchronous
async def test_the_next_request_is_read_when_there_is_room_for_the_one_before() -> None:
    rooms, taken = [asyncio.Event(), asyncio.Event()], list[int]()

    async def answer(number: int, on_admitted: Callable[[], None]) -> int:
        await rooms[number].wait()
        on_admitted()
        return number

    stream = streams.answers(numbers(2, taken), answer)
    first = asyncio.ensure_future(anext(stream))
    await until(lambda: taken == [0])
    for _ in range(10):
        await asyncio.sleep(0)
    assert taken == [0]
    rooms[0].set()
    await until(lambda: taken == [0, 1])
    rooms[1].set()

    assert [await first, *[number async for number in stream]] == [0, 1]


@pytest.mark.parametrize("answers", [in_order, as_ready])
@asynchronous
async def test_an_error_of_an_answer_ends_the_stream(answers: Answers) -> None:
    async def answer(number: int) -> int:
        return 1 // number

    with pytest.raises(ZeroDivisionError):
        await anext(answers(numbers(1), answer))


@pytest.mark.parametrize("answers", [in_order, as_ready])
@asynchronous
async def test_an_error_of_the_requests_is_raised_after_what_was_answered(answers: Answers) -> None:
    """And not into whoever is just sending an answer: gRPC would leave the client without an end."""

    async def requests() -> AsyncIterator[int]:
        yield 1
        raise ZeroDivisionError

    async def answer(number: int) -> int:
        return number

    taken = list[int]()

    async def take() -> None:
        async for number in answers(requests(), answer):
            await asyncio.sleep(0.01)  # as a client that takes its time
            taken.append(number)

    with pytest.raises(ZeroDivisionError):
        await take()
    assert taken == [1]


@pytest.mark.parametrize("answers", [in_order, as_ready])
@asynchronous
async def test_a_stream_that_is_given_up_stops_reading_and_working(answers: Answers) -> None:
    async def answer(number: int) -> int:
        if number:
            await asyncio.Event().wait()
        return number

    taken = list[int]()
    stream = answers(numbers(1000, taken), answer)
    assert await anext(stream) == 0
    await until(lambda: len(taken) >= 32)
    await stream.aclose()  # type: ignore[attr-defined]  # it is a generator

    assert len(taken) < 40
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("count", [0, 1, 5])
@asynchronous
async def test_who_looks_at_the_first_request_loses_none(count: int) -> None:
    first, everything = await with_first(numbers(count))

    assert first == (0 if count else None)
    assert [number async for number in everything] == list(range(count))


class Message:
    """A request as large as a picture."""


async def messages(sent: list[ref[Message]]) -> AsyncIterator[Message]:
    for _ in range(3):
        message = Message()
        sent.append(ref(message))
        yield message
        del message


def alive(sent: list[ref[Message]]) -> list[int]:
    return [number for number, message in enumerate(sent) if isinstance(message(), Message)]


@asynchronous
async def test_a_request_that_was_passed_on_is_not_kept_until_the_next_one_comes() -> None:
    sent: list[ref[Message]] = []
    passed: AsyncIterator[Message] = aiter(DrainableStream(messages(sent), Draining()))
    first, everything = await with_first(passed)
    del first

    for number in range(3):
        request = await anext(everything)
        assert alive(sent) == [number]
        del request
    assert [request async for request in everything] == []
    assert alive(sent) == []
