import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.inference.shares import Grant, Shares
from tests.waiting import PATIENCE_S, asynchronous


async def take(shares: Shares, caller: str, amount: int = 1, *, patient: bool = False) -> "asyncio.Task[Grant | None]":
    """Begin to take, and go as far as that goes."""
    task = asyncio.create_task(shares.take(amount, caller, patient=patient))
    for _ in range(5):
        await asyncio.sleep(0)
    return task


def got(task: "asyncio.Task[Grant | None]") -> bool:
    return task.done() and task.result() is not None


async def settled(task: "asyncio.Task[Grant | None]") -> "asyncio.Task[Grant | None]":
    await asyncio.wait([task], timeout=PATIENCE_S)
    return task


def is_refused(task: "asyncio.Task[Grant | None]") -> bool:
    return task.done() and task.result() is None


def give_back(task: "asyncio.Task[Grant | None]") -> None:
    taken = task.result()
    assert taken
    taken.give_back()


@asynchronous
async def test_a_single_request_is_refused_at_once_where_its_caller_has_all() -> None:
    shares = Shares(2)
    have = [await take(shares, "ada") for _ in range(2)]

    assert all(map(got, have))
    assert shares.is_refused("ada")
    assert is_refused(await take(shares, "ada"))
    give_back(have[0])
    assert not shares.is_refused("ada")
    assert got(await take(shares, "ada"))


@asynchronous
async def test_whoever_has_less_than_the_share_waits_for_what_others_have_beyond_theirs() -> None:
    shares = Shares(4)
    have = [await take(shares, "greedy") for _ in range(4)]
    late = [await take(shares, "modest") for _ in range(3)]

    assert [is_refused(task) for task in late] == [False, False, True]
    assert is_refused(await take(shares, "greedy"))
    give_back(have[0])
    give_back(have[1])
    assert got(await settled(late[0]))
    assert got(await settled(late[1]))


@asynchronous
async def test_those_who_wait_have_their_part_and_single_requests_find_room_beside_them() -> None:
    shares = Shares(8, patient_part=4)
    streams = [await take(shares, "ada", patient=True) for _ in range(9)]

    assert sum(map(got, streams)) == 2
    single = [await take(shares, "ada") for _ in range(9)]
    assert [got(task) for task in single] == 6 * [True] + 3 * [False]
    assert [is_refused(task) for task in single[6:]] == [False, False, True]
    give_back(next(task for task in streams if got(task)))
    assert got(await settled(single[6]))
    for task in (*streams, *single):
        task.cancel()


@asynchronous
async def test_what_is_given_back_goes_to_the_caller_who_has_least() -> None:
    shares = Shares(3)
    have = [await take(shares, "ada", patient=True) for _ in range(3)]
    ada, bob = await take(shares, "ada", patient=True), await take(shares, "bob", patient=True)
    give_back(have[0])
    await asyncio.sleep(0)

    assert (got(bob), ada.done()) == (True, False)
    give_back(have[1])
    await asyncio.sleep(0)
    assert got(ada)


@asynchronous
async def test_a_large_one_is_not_passed_by_small_ones_for_ever() -> None:
    shares = Shares(4)
    have = [await take(shares, "ada", patient=True) for _ in range(4)]
    large = await take(shares, "bob", 4, patient=True)
    small = await take(shares, "ada", patient=True)
    for task in have:
        assert not small.done()
        give_back(task)
    await asyncio.sleep(0)

    assert (got(large), small.done()) == (True, False)
    give_back(large)
    await small


@asynchronous
async def test_what_is_given_back_twice_counts_once() -> None:
    shares = Shares(2)
    first, _second = await take(shares, "ada"), await take(shares, "ada")
    give_back(first)
    give_back(first)

    assert shares.taken == 1


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 6), st.booleans(), st.booleans()), max_size=40),
    st.integers(0, 1000),
    st.integers(1, 4),
)
def test_no_more_is_taken_than_there_is_and_in_the_end_nothing_whatever_happens(
    wanted: list[tuple[str, int, bool, bool]], seed: int, part: int
) -> None:
    asyncio.run(_play(wanted, random.Random(seed), part))


async def _play(wanted: list[tuple[str, int, bool, bool]], chance: random.Random, part: int) -> None:
    shares = Shares(6, part)

    async def use(caller: str, amount: int, patient: bool) -> None:
        taken = await shares.take(amount, caller, patient=patient)
        if taken is None:
            assert not patient
            return
        with taken:
            assert shares.taken <= shares.most
            for _ in range(chance.randrange(5)):
                await asyncio.sleep(0)

    tasks = []
    for caller, amount, patient, is_given_up in wanted:
        tasks.append(asyncio.create_task(use(caller, amount, patient)))
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
        if is_given_up:
            chance.choice(tasks).cancel()
    async with asyncio.timeout(10):
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert outcome is None or isinstance(outcome, asyncio.CancelledError)
    assert shares.taken == 0
    assert not shares.is_refused("anybody", 6)
    again = await shares.take(6, "anybody", patient=False)
    assert again


@pytest.mark.parametrize("patient", [False, True])
@asynchronous
async def test_who_gives_up_while_waiting_leaves_the_place_to_the_next(patient: bool) -> None:
    shares = Shares(1)
    have = await take(shares, "ada", patient=True)
    first, second = await take(shares, "bob", patient=patient), await take(shares, "eve", patient=True)
    first.cancel()
    give_back(have)

    assert got(await settled(second))
